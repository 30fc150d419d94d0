import { setFlagsFromString } from "node:v8";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compress } from "../../../../scripts/lzma.mjs";
import { bySimilarity } from "../../../../scripts/order-functions.mjs";
import { packKernels, takeApart } from "../../../../scripts/pack-kernels.mjs";
import { hasRelaxedSimd, unpack, unpackBuild } from "../../src/backend/wasm/builds.js";
import { builds } from "../../src/backend/wasm/generated/kernels.js";
import { BackendError } from "../../src/errors.js";

/** Bytes with repetitions, as code has: pieces that come again, near and far. */
const repetitive = fc
  .array(fc.tuple(fc.uint8Array({ maxLength: 40 }), fc.integer({ min: 1, max: 40 })), { maxLength: 12 })
  .map((pieces) => Buffer.concat(pieces.flatMap(([piece, times]) => Array(times).fill(piece))));

/** The same bytes a long way apart: distances of every size. */
const far = fc
  .tuple(fc.uint8Array({ minLength: 4, maxLength: 60 }), fc.integer({ min: 1, max: 13 }), fc.nat(255))
  .map(([piece, bits, value]) =>
    Buffer.concat([piece, Buffer.alloc(2 ** bits, value), piece, piece.subarray(1)]),
  );

describe("unpack", () => {
  it("undoes compression, whole or up to anywhere", () => {
    fc.assert(
      fc.property(
        fc.oneof(repetitive, fc.uint8Array({ maxLength: 3000 }), far),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (bytes, share) => {
          const packed = compress(bytes);
          expect(Buffer.compare(unpack(packed, bytes.length), bytes)).toBe(0);
          const part = Math.floor(share * bytes.length);
          expect(Buffer.compare(unpack(packed, part), bytes.subarray(0, part))).toBe(0);
        },
      ),
      { numRuns: 20 },
    );
  });

  it("reads what another program has compressed", () => {
    // xz --format=raw --lzma1=lc=3,lp=0,pb=0
    const stream = Buffer.from("ADoa2gUgtcyKHtNBxRsVuws+QA3LV9YDCpQv///lbQAA", "base64");
    expect(Buffer.from(unpack(stream, 360)).toString()).toBe("the quick brown fo".repeat(20));
  });

  it("refuses damaged data", () => {
    const bytes = Buffer.from(Array.from({ length: 900 }, (_, i) => (i * i * 7 + (i >> 3)) & 255));
    const packed = compress(bytes);
    for (let length = 5; length < packed.length - 5; length += 7) {
      expect(() => unpack(packed.subarray(0, length), 900)).toThrow(BackendError);
    }
    // A match that begins before the data.
    expect(() => unpack(Buffer.alloc(40, 255), 40)).toThrow(BackendError);
  });
});

/** A function of three vectors at the addresses 16, 32 and 48, stored at 0, as a module with `locals` more locals. */
function relaxedModule(instruction: number[], locals = 0): Buffer {
  const load = (address: number) => [65, address, 253, 0, 4, 0];
  const declared = locals > 0 ? [1, ...leb(locals), 127] : [0];
  const used = locals > 0 ? [32, ...leb(locals - 1), 26] : [];
  const operands = [...load(16), ...load(32), ...(instruction[1] === 0x80 ? [] : load(48))];
  const code = [...declared, ...used, 65, 0, ...operands, ...instruction, 253, 11, 4, 0, 11];
  const body = [1, ...leb(code.length), ...code];
  return Buffer.from([
    ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 3, 1, 0, 1],
    ...[7, 9, 2, 1, 109, 2, 0, 1, 102, 0, 0, 10, ...leb(body.length), ...body],
  ]);
}

function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...leb(value >> 7)];
}

describe("bySimilarity", () => {
  it("names each function once, those beside each other that are most alike", () => {
    const [a, b] = [Buffer.from("a function of some length"), Buffer.from("quite another one, longer too")];
    const order = bySimilarity([a, b, Buffer.concat([a, a.subarray(3, 9)]), b, Buffer.alloc(0)]);
    expect(order.slice(0, 2)).toEqual([0, 2]);
    expect(Math.abs(order.indexOf(1) - order.indexOf(3))).toBe(1);
    expect([...order].sort()).toEqual([0, 1, 2, 3, 4]);
    expect(bySimilarity([])).toEqual([]);
  });
});

describe("packKernels", () => {
  it("comes to the same parts when it packs what was unpacked", () => {
    const { code, locals } = takeApart(unpackBuild(builds, true));
    const parts = unpack(Buffer.from(builds.data, "base64"), builds.locals + builds.code);
    expect(Buffer.compare(Buffer.concat([locals, code]), parts)).toBe(0);
    expect(locals.length).toBe(builds.locals);
  });

  it("refuses what the unpacker would not understand", () => {
    // f64x2.relaxed_madd, and select with a type.
    expect(() => packKernels(relaxedModule([253, 0x87, 2]))).toThrow(/relaxed instruction at byte/);
    expect(() => packKernels(relaxedModule([26, 65, 0, 28, 1, 123]))).toThrow(/instruction 28 at byte/);
    expect(() => packKernels(relaxedModule([253, 0x85, 2]).subarray(0, -9))).toThrow(/ends too early/);
  });

  it.each([0, 1, 200])("leaves out relaxed SIMD where the host has none, next to %i locals", (locals) => {
    const values = fc.array(fc.float({ noNaN: true, min: -1e6, max: 1e6 }), { minLength: 12, maxLength: 12 });
    const run = (instruction: number[], numbers: number[]) => {
      const bytes = unpackBuild(packKernels(relaxedModule(instruction, locals)), false);
      const { m, f } = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
      const { buffer } = m as WebAssembly.Memory;
      new Float32Array(buffer, 16).set(numbers);
      (f as () => void)();
      return buffer;
    };
    fc.assert(
      fc.property(values, (v) => {
        const madd = Float32Array.from({ length: 4 }, (_, i) => {
          return v[i + 8] + Math.fround(v[i] * v[i + 4]);
        });
        expect(new Float32Array(run([253, 0x85, 2], v), 0, 4)).toEqual(madd);
      }),
      { numRuns: 20 },
    );
    const places = Uint8Array.from({ length: 48 }, (_, i) => (i * 7) & 15);
    const swizzled = new Uint8Array(run([253, 0x80, 2], [...new Float32Array(places.buffer)]), 0, 16);
    expect([...swizzled]).toEqual([...places.subarray(16, 32)].map((place) => places[place]));
  });

  it("makes modules that the host accepts, with the same kernels", () => {
    const baseline = new WebAssembly.Module(unpackBuild(builds, false));
    expect(WebAssembly.Module.exports(baseline).length).toBeGreaterThan(50);
    const relaxed = unpackBuild(builds, true);
    // Node 20 has no relaxed SIMD: there only the header can be looked at.
    expect([...relaxed.subarray(0, 8)]).toEqual([0, 97, 115, 109, 1, 0, 0, 0]);
    if (!WebAssembly.validate(relaxed)) return;
    expect(WebAssembly.Module.exports(new WebAssembly.Module(relaxed))).toEqual(
      WebAssembly.Module.exports(baseline),
    );
  });
});

describe("hasRelaxedSimd", () => {
  it("says what the relaxed build needs, and yes where the host has relaxed SIMD", () => {
    expect(hasRelaxedSimd()).toBe(WebAssembly.validate(unpackBuild(builds, true)));
    // Node 20 hides relaxed SIMD behind a flag, later versions have it.
    if (Number(process.versions.node.split(".")[0]) < 22) {
      setFlagsFromString("--experimental-wasm-relaxed-simd");
    }
    expect(hasRelaxedSimd()).toBe(true);
    expect(WebAssembly.validate(unpackBuild(builds, true))).toBe(true);
  });
});
