// Quantized weights: packing, unpacking, and products with a few and with many rows of activations.

import { bytesPerElement, noGrad, type Tensor, tidy } from "@nomoat/core";
import {
  type BlockFormat,
  type FormatName,
  formats,
  type QuantizedMatmulOptions,
  type QuantizedTensor,
  quantize,
  quantizedMatmul,
} from "@nomoat/quant";
import { compareArrays, productCheck } from "../accuracy.js";
import { BenchError, type Prepared } from "../model.js";
import {
  arithmetic,
  type Case,
  movement,
  type Suite,
  type Sweep,
  seeded,
  sizesOf,
  valuesOf,
} from "./suite.js";

const known: Readonly<Record<string, BlockFormat>> = formats;
/** Those of everyday use; --long measures all. */
const usual: readonly string[] = ["int4_g32", "nf4", "q4_0", "q8_0", "int8"];

/** One row is generation, a few are its batches and checks of drafts, many are prompts. */
const rowCounts = [1, 4, 16, 128] as const;

/** How activations enter: as they are, rounded in blocks, or with one calibrated step ("static"). */
type Activations = "float32" | "int8" | "static";

/** The step for activations that are uniform in ±1, as the suite's are. */
const staticRange = { activationScale: 1 / 127 };

/** Against the product with the dequantized weight in float64. */
const floatTolerance = 1e-5;
/** What scales that are quantized in their turn lose: half a step of their 8 bits, 64 of which stand for 0.1 to 1. */
const scaleTolerance = 0.9 / 128;
/** Activations rounded to int8 in blocks: about 0.5 % of the result's spread, some four spreads at most. */
const integerTolerance = 2e-2;

function formatsOf(sweep: Sweep): FormatName[] {
  const { effort } = sweep;
  const wanted =
    sweep.formats ?? (effort === "quick" ? ["nf4", "q4_0"] : effort === "long" ? Object.keys(known) : usual);
  return wanted.map((name) => {
    if (Object.hasOwn(known, name)) return name as FormatName;
    throw new BenchError(`unknown format "${name}" (known: ${Object.keys(known).join(", ")})`);
  });
}

/** Bytes of a packed weight, from its format's parts. */
function packedBytes(format: FormatName, size: number): number {
  return known[format].parts([size, size]).reduce((sum, part) => {
    const count = part.shape.reduce((product, extent) => product * extent, 1);
    return sum + count * bytesPerElement(part.dtype);
  }, 0);
}

function packed(format: FormatName, size: number): { weight: Tensor; quantized: QuantizedTensor } {
  const weight = seeded("weight", [size, size]);
  return { weight, quantized: quantize(weight, { format, measure: false }) };
}

function prepareProduct(format: FormatName, size: number, rows: number, activations: Activations): Prepared {
  const { weight, quantized } = packed(format, size);
  weight.dispose();
  const x = seeded("x", [rows, size]);
  const options: QuantizedMatmulOptions =
    activations === "static" ? { activations: "int8", ...staticRange } : { activations };
  const call = (): Tensor => noGrad(() => quantizedMatmul(x, quantized, options));
  return {
    run: () => call().dispose(),
    verify: () =>
      tidy(() => {
        const tolerance = activations === "float32" ? floatTolerance : integerTolerance;
        const key = `quant ${format} ${rows} ${size}`;
        const check = productCheck(key, { m: rows, n: size, k: size }, tolerance, () => [
          { values: x.dataSync() as ArrayLike<number>, batch: 0, row: size, column: 1 },
          { values: valuesOf(quantized.dequantize()), batch: 0, row: 1, column: size },
        ]);
        return check.compareWhole(valuesOf(call()));
      }),
    dispose() {
      x.dispose();
      quantized.dispose();
    },
  };
}

/** dx = dy · W, as a frozen layer's backward pass has it. */
function prepareBackward(format: FormatName, size: number, rows: number): Prepared {
  const { weight, quantized } = packed(format, size);
  weight.dispose();
  const x = seeded("x", [rows, size]);
  const dy = seeded("dy", [rows, size]);
  x.requiresGrad = true;
  const call = (): void => {
    x.zeroGrad();
    tidy(() => quantizedMatmul(x, quantized).backward(dy));
  };
  return {
    run: call,
    verify: () =>
      tidy(() => {
        call();
        const key = `quant backward ${format} ${rows} ${size}`;
        const check = productCheck(key, { m: rows, n: size, k: size }, floatTolerance, () => [
          { values: dy.dataSync() as ArrayLike<number>, batch: 0, row: size, column: 1 },
          { values: valuesOf(quantized.dequantize()), batch: 0, row: size, column: 1 },
        ]);
        return check.compareWhole(valuesOf(x.grad!));
      }),
    dispose() {
      x.dispose();
      dy.dispose();
      quantized.dispose();
    },
  };
}

/** Packing is checked by unpacking: no value may be further off than the format's own bound allows. */
function preparePacking(format: FormatName, size: number, unpack: boolean): Prepared {
  const { weight, quantized } = packed(format, size);
  return {
    run: () =>
      unpack ? quantized.dequantize().dispose() : quantize(weight, { format, measure: false }).dispose(),
    verify: () =>
      tidy(() => {
        const values = quantized.dequantize().dataSync() as ArrayLike<number>;
        // Of the largest value of all; searched scales may cut a group's extremes off.
        const { errorBound, scratch } = known[format];
        const tolerance = errorBound(1) + (scratch ? scaleTolerance : 0);
        return compareArrays(values, weight.dataSync() as ArrayLike<number>, tolerance);
      }),
    dispose() {
      weight.dispose();
      quantized.dispose();
    },
  };
}

export const quant: Suite = {
  name: "quant",
  about: "quantized weights: packing, unpacking, products with 1, 4, 16 and 128 rows, backward",
  cases(sweep) {
    const sizes = sizesOf(sweep, { quick: [1024], standard: [4096], long: [2048, 4096] });
    return sizes.flatMap((size) => formatsOf(sweep).flatMap((format) => casesOf(format, size)));
  },
};

const titles: Readonly<Record<Activations, string>> = {
  float32: "",
  int8: " int8",
  static: " int8 static",
};

function casesOf(format: FormatName, size: number): Case[] {
  const bytes = packedBytes(format, size);
  const one = (
    kind: string,
    work: Case["work"],
    prepare: () => Prepared,
    more: Case["parameters"] = {},
  ): Case => ({
    suite: "quant",
    name: `${kind} ${format} ${size}x${size}`,
    parameters: { kind, format, size, ...more },
    work,
    prepare,
  });
  const product = (rows: number, activations: Activations): Case =>
    one(
      `${rows} ${rows === 1 ? "row" : "rows"}${titles[activations]}`,
      arithmetic(
        2 * rows * size * size,
        bytes + 8 * rows * size,
        activations === "float32" ? "float32" : "int8",
      ),
      () => prepareProduct(format, size, rows, activations),
      { rows, activations },
    );
  const { integerDot } = known[format];
  return [
    ...rowCounts.map((rows) => product(rows, "float32")),
    ...(integerDot ? rowCounts.map((rows) => product(rows, "int8")) : []),
    // int8 × int8 with calibrated ranges; other formats multiply at the same rate.
    ...(format === "int8" ? rowCounts.map((rows) => product(rows, "static")) : []),
    one("forward+backward 128 rows", arithmetic(4 * 128 * size * size, 2 * bytes + 16 * 128 * size), () =>
      prepareBackward(format, size, 128),
    ),
    one("quantize", movement(4 * size * size + bytes), () => preparePacking(format, size, false)),
    one("dequantize", movement(4 * size * size + bytes), () => preparePacking(format, size, true)),
  ];
}
