// The formats against golden bytes (tools/golden/quant_formats.py), their error bounds, and their law: quantizing what
// was dequantized gives the same bytes.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeAbsmax } from "../src/formats/codebook.js";
import { dynamicMap } from "../src/formats/dynamic-map.js";
import {
  type BlockFormat,
  blocksOf,
  dequantizeValues,
  type Parts,
  quantizeValues,
} from "../src/formats/format.js";
import { fp4Values } from "../src/formats/fp4.js";
import { fromHalf, toHalf } from "../src/formats/half.js";
import { formatByName, formats } from "../src/formats/index.js";
import { nf4Bounds, nf4Values } from "../src/formats/nf4.js";
import { allNames, rowMultiple } from "./helpers.js";

interface GoldenCase {
  name: string;
  shape: [number, number];
  values: string;
  [format: string]: unknown;
}

const golden = JSON.parse(readFileSync(new URL("./fixtures/formats.json", import.meta.url), "utf8")) as {
  nf4Codebook: string;
  nf4Pivots: string;
  fp4Codebook: string;
  dynamicMap: string;
  kQuants: { name: keyof typeof formats; data: string; values: string }[];
  cases: GoldenCase[];
};

/** Of tools/golden/quant_k.py. */
const goldenK = JSON.parse(
  readFileSync(new URL("./fixtures/k-quants.json", import.meta.url), "utf8"),
) as GoldenCase[];

function floats(base64: string): Float32Array {
  return new Float32Array(Uint8Array.from(Buffer.from(base64, "base64")).buffer);
}

function base64(array: ArrayBufferView): string {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
}

function encoded(parts: Parts): Record<string, string> {
  return Object.fromEntries(Object.entries(parts).map(([name, array]) => [name, base64(array)]));
}

/** Those of the registry, and integer formats that are made or named by their options. */
const all = [
  ...allNames.map((name): BlockFormat => formats[name]),
  ...["int8_asym_tensor", "int8_asym_g32", "int4", "int4_asym", "int4_asym_g96"].map(formatByName),
];

/** Weights of many magnitudes: normal rows, tiny and large scales, zeros, one outlier. */
function weights(multiple: number): fc.Arbitrary<{ values: Float32Array; shape: [number, number] }> {
  return fc
    .record({
      rows: fc.integer({ min: 1, max: 5 }),
      blocks: fc.integer({ min: 1, max: multiple === 1 ? 150 : multiple === 32 ? 5 : 2 }),
      exponent: fc.integer({ min: -14, max: 10 }),
      seed: fc.integer(),
      zeros: fc.double({ min: 0, max: 1, noNaN: true }),
      outlier: fc.boolean(),
    })
    .map(({ rows, blocks, exponent, seed, zeros, outlier }) => {
      const columns = blocks * multiple;
      let state = seed >>> 0;
      const random = () => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state / 2 ** 32;
      };
      const values = Float32Array.from({ length: rows * columns }, () =>
        random() < zeros * 0.5 ? 0 : (random() - 0.5) * (1 + random()) * 2 ** exponent,
      );
      if (outlier) values[Math.floor(random() * values.length)] *= 50;
      return { values, shape: [rows, columns] };
    });
}

const multipleOf = (format: BlockFormat) => rowMultiple(format.name);
/** K-quants, whose search is slow and not idempotent. */
const searched = (format: BlockFormat) => format.name.endsWith("_K");
/** Largest code times largest scale of a sub-block: what half a unit of the least float16 makes of an element. */
const steps: Readonly<Record<string, number>> = {
  ...{ q2_K: 15 * 3 + 15, q3_K: 32 * 4, q4_K: 63 * 15 + 63, q5_K: 63 * 31 + 63, q6_K: 128 * 32 },
};
/** Scales below the least normal float16 lose relative precision. */
const floorOf = ({ name }: BlockFormat) => (name.startsWith("q") ? (steps[name] ?? 127) * 2 ** -25 : 0);
/**
 * True when a block with a zero point spans a step less than there are codes: both ends lay between two codes and went to the even
 * one, inwards (−126.5 and 128.5 steps). What is dequantized has a shorter range then, so the next scale is another.
 */
function isStepShort(format: BlockFormat, parts: Parts, shape: readonly [number, number]): boolean {
  const back = dequantizeValues(format, parts, shape);
  let block = 0;
  for (const [from, count] of blocksOf(format, shape)) {
    const values = back.subarray(from, from + count);
    const steps = (Math.max(0, ...values) - Math.min(0, ...values)) / parts.scales[block];
    if (Math.round(steps) === (format.name.startsWith("int8") ? 254 : 14)) return true;
    block++;
  }
  return false;
}
/** A row of one. */
const stepShort = {
  values: Float32Array.from({ length: 256 }, (_, i) => (i === 0 ? -126.5 : i === 1 ? 128.5 : (i % 100) - 50)),
  shape: [1, 256] as [number, number],
};

/** Two rows of a length that every format takes; the shortest that has an element 6. */
const columnsOf = (format: BlockFormat) => Math.max(64, rowMultiple(format.name));

describe("golden bytes", () => {
  it("has bitsandbytes' codebook, bounds and dynamic map", () => {
    expect(base64(nf4Values)).toBe(golden.nf4Codebook);
    expect(base64(nf4Bounds)).toBe(golden.nf4Pivots);
    expect(base64(dynamicMap)).toBe(golden.dynamicMap);
  });

  it("has bitsandbytes' FP4 codebook", () => {
    expect(base64(fp4Values)).toBe(golden.fp4Codebook);
  });

  it.each(golden.kQuants)("reads $name", ({ name, data, values }) => {
    const bytes = new Uint8Array(Buffer.from(data, "base64"));
    expect(dequantizeValues(formats[name], { data: bytes }, [1, 512])).toEqual(floats(values));
  });

  for (const example of [...golden.cases, ...goldenK]) {
    for (const name of Object.keys(formats) as (keyof typeof formats)[]) {
      if (!(name in example)) continue;
      it(`${name}: ${example.name}`, () => {
        const parts = quantizeValues(formats[name], floats(example.values), example.shape);
        expect(encoded(parts)).toEqual(example[name]);
      });
    }
  }
});

describe.each(all)("$name", (format) => {
  it("stays within its error bound", () => {
    fc.assert(
      fc.property(weights(multipleOf(format)), ({ values, shape }) => {
        const parts = quantizeValues(format, values, shape);
        const back = dequantizeValues(format, parts, shape);
        let block = 0;
        for (const [from, count] of blocksOf(format, shape)) {
          const end = from + count;
          let absmax = 0;
          for (let i = from; i < end; i++) absmax = Math.max(absmax, Math.abs(values[i]));
          // The second quantization of scales moves a whole block.
          const scaleError = "nestedAbsmax" in parts ? Math.abs(decodeAbsmax(parts, block++) - absmax) : 0;
          const bound = format.errorBound(absmax) + scaleError * 1.001 + floorOf(format);
          let worst = 0;
          for (let i = from; i < end; i++) worst = Math.max(worst, Math.abs(values[i] - back[i]));
          expect(worst).toBeLessThanOrEqual(bound);
        }
      }),
      { numRuns: searched(format) ? 30 : 100 },
    );
  });

  it("gives the same bytes for what it dequantized", () => {
    let [all, short] = [0, 0];
    fc.assert(
      fc.property(weights(multipleOf(format)), ({ values, shape }) => {
        all++;
        const parts = quantizeValues(format, values, shape);
        if (format.name.startsWith("q") && losesScale(format, parts)) return;
        const again = quantizeValues(format, dequantizeValues(format, parts, shape), shape);
        if (searched(format)) {
          // The search may find another line: what is lost anew is within the bound again.
          const back = dequantizeValues(format, parts, shape);
          const twice = dequantizeValues(format, again, shape);
          const absmax = back.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
          const worst = twice.reduce((most, value, i) => Math.max(most, Math.abs(value - back[i])), 0);
          expect(worst).toBeLessThanOrEqual(format.errorBound(absmax) + floorOf(format));
        } else if ("nestedAbsmax" in parts) {
          const positive = Array.from(parts.absmax, (_, block) => decodeAbsmax(parts, block) > 0);
          const kept = ({ data }: Parts) =>
            withoutNegativeZeros(format, data).map((byte, i) => (positive[i >> 5] ? byte : 0));
          expect(kept(again)).toEqual(kept(parts));
        } else if ("zeroPoints" in parts) {
          if (isStepShort(format, parts, shape)) {
            short++;
            return;
          }
          expect(again.data).toEqual(parts.data);
          expect(again.zeroPoints).toEqual(parts.zeroPoints);
          parts.scales.forEach((scale, i) => {
            expect(Math.abs(again.scales[i] - scale)).toBeLessThanOrEqual(scale * 2 ** -21);
          });
        } else {
          const clean = { ...parts, data: withoutNegativeZeros(format, parts.data) };
          expect(encoded(again)).toEqual(encoded(clean));
        }
      }),
      { numRuns: searched(format) ? 30 : 300, examples: [[stepShort]] },
    );
    // Rare, or the law has no teeth.
    expect(short).toBeLessThan(0.04 * all);
  });

  it("keeps zeros", () => {
    const shape = [4, columnsOf(format)] as const;
    const parts = quantizeValues(format, new Float32Array(shape[0] * shape[1]), shape);
    expect(dequantizeValues(format, parts, shape).every((value) => value === 0)).toBe(true);
  });

  it("keeps a block of zeros beside others, and the others beside it", () => {
    const columns = 4 * columnsOf(format);
    const block = Math.min(format.blockSize, columnsOf(format));
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }), (empty) => {
        const values = Float32Array.from({ length: 2 * columns }, (_, i) =>
          empty[Math.floor(i / block) % 4] ? 0 : ((i * 37) % 101) / 50 - 1,
        );
        const back = dequantizeValues(format, quantizeValues(format, values, [2, columns]), [2, columns]);
        for (let i = 0; i < values.length; i++) {
          if (values[i] === 0 && empty[Math.floor(i / block) % 4]) expect(Math.abs(back[i])).toBe(0);
          else expect(Math.abs(back[i] - values[i])).toBeLessThanOrEqual(format.errorBound(1) + 0.05);
        }
      }),
      { numRuns: 20 },
    );
  });

  it("names tensor and index of a NaN and of an infinity", () => {
    const columns = columnsOf(format);
    const values = new Float32Array(2 * columns).fill(1);
    values[columns + 5] = Number.NaN;
    expect(() => quantizeValues(format, values, [2, columns], "layer.weight")).toThrow(
      /layer\.weight: NaN at index \[1, 5\]/,
    );
    values[3] = -Infinity;
    expect(() => quantizeValues(format, values, [2, columns], "w")).toThrow(/w: -Infinity at index \[0, 3\]/);
  });

  it("survives denormals", () => {
    const shape = [2, columnsOf(format)] as const;
    const values = Float32Array.from({ length: 2 * shape[1] }, (_, i) => ((i % 128) - 60) * 2 ** -149);
    const back = dequantizeValues(format, quantizeValues(format, values, shape), shape);
    for (let i = 0; i < values.length; i++) expect(Math.abs(back[i] - values[i])).toBeLessThan(2 ** -141);
  });

  it("takes the largest float or says where it does not fit", () => {
    const most = 3.4028234663852886e38;
    const shape = [2, columnsOf(format)] as const;
    const at = shape[1] + 6;
    const values = new Float32Array(2 * shape[1]).fill(1);
    values[at] = -most;
    values[at + 1] = most;
    const work = () => dequantizeValues(format, quantizeValues(format, values, shape, "w"), shape);
    if (format.limit < most) expect(work).toThrow(/w: -3.40\S+ at index \[1, 6\] is too large for /);
    else {
      const back = work();
      expect(back.every(Number.isFinite)).toBe(true);
      expect(back[at] / -most).toBeCloseTo(1, 5);
      expect(back[at + 1] / most).toBeCloseTo(1, 5);
    }
  });

  it("takes what is just within its limit", () => {
    if (format.limit === Infinity) return;
    const shape = [2, columnsOf(format)] as const;
    const most = Math.fround(format.limit * (1 - 2 ** -23));
    const values = Float32Array.from({ length: 2 * shape[1] }, (_, i) => [most, -most, 0, most / 3][i % 4]);
    const back = dequantizeValues(format, quantizeValues(format, values, shape), shape);
    const bound = format.errorBound(most);
    const worst = back.reduce((w, value, i) => Math.max(w, Math.abs(value - values[i])), 0);
    expect(worst).toBeLessThanOrEqual(bound);
  });

  it("takes empty tensors", () => {
    for (const shape of [
      [0, columnsOf(format)],
      [3, 0],
      [0, 0],
    ] as const) {
      const parts = quantizeValues(format, new Float32Array(0), shape);
      expect(dequantizeValues(format, parts, shape)).toHaveLength(0);
    }
  });
});

/** True when a block's float16 scale is 0, or drowned by its minimum. */
function losesScale(format: BlockFormat, parts: Parts): boolean {
  const half = (at: number) => fromHalf(parts.data[at] | (parts.data[at + 1] << 8));
  for (let at = 0; at < parts.data.length; at += format.bytesPerBlock) {
    const scale = Math.abs(half(at));
    if (scale === 0) return true;
    if (format.name.endsWith("_1") && Math.abs(half(at + 2)) > 2048 * scale) return true;
  }
  return false;
}

/** FP4 has a code for −0, which comes back as 0. */
function withoutNegativeZeros(format: BlockFormat, data: Parts["data"]): Parts["data"] {
  if (!format.name.startsWith("fp4")) return data;
  const clean = (code: number) => (code === 8 ? 0 : code);
  return data.map((byte) => (clean(byte >> 4) << 4) | clean(byte & 15));
}

describe("odd sizes", () => {
  it("refuses rows that ggml's blocks do not divide", () => {
    expect(() => quantizeValues(formats.q4_0, new Float32Array(2 * 172), [2, 172], "down_proj")).toThrow(
      /down_proj: q4_0 needs rows that are a multiple of 32 long, not 172/,
    );
  });

  it("pads the last block of nf4 as bitsandbytes does", () => {
    const parts = quantizeValues(formats.nf4_single, new Float32Array(5 * 13).fill(-2), [5, 13]);
    expect(parts.data).toHaveLength(33);
    expect(parts.absmax).toHaveLength(2);
    expect(parts.data[32]).toBe(0x07);
  });
});

describe("float16", () => {
  it("converts every half there and back", () => {
    for (let half = 0; half < 65536; half++) {
      const value = fromHalf(half);
      if (Number.isNaN(value)) expect(Number.isNaN(fromHalf(toHalf(value)))).toBe(true);
      else expect(toHalf(value)).toBe(half);
    }
  });

  it("rounds to nearest, ties to even", () => {
    expect(toHalf(1 + 2 ** -11)).toBe(0x3c00);
    expect(toHalf(1 + 3 * 2 ** -11)).toBe(0x3c02);
    expect(toHalf(2 ** -25)).toBe(0);
    expect(toHalf(1.5 * 2 ** -24)).toBe(2);
    expect(toHalf(65519)).toBe(0x7bff);
    expect(toHalf(65520)).toBe(0x7c00);
    expect(toHalf(-1e-30)).toBe(0x8000);
  });
});
