import { setFlagsFromString } from "node:v8";
import { deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { edits, packKernels } from "../../../../scripts/pack-kernels.mjs";
import { applyEdits, hasRelaxedSimd, unpackBuild } from "../../src/backend/wasm/builds.js";
import { builds } from "../../src/backend/wasm/generated/kernels.js";
import { inflateRaw } from "../../src/backend/wasm/inflate.js";
import { BackendError } from "../../src/errors.js";

/** Bytes with repetitions, as code has: pieces that come again, near and far. */
const repetitive = fc
  .array(fc.tuple(fc.uint8Array({ maxLength: 40 }), fc.integer({ min: 1, max: 40 })), { maxLength: 12 })
  .map((pieces) => Buffer.concat(pieces.flatMap(([piece, times]) => Array(times).fill(piece))));

describe("inflateRaw", () => {
  it("undoes every way of compressing", () => {
    fc.assert(
      fc.property(
        fc.oneof(repetitive, fc.uint8Array({ maxLength: 3000 })),
        fc.integer({ min: 0, max: 9 }),
        fc.constantFrom(0, 1, 2, 3, 4),
        (bytes, level, strategy) => {
          const packed = deflateRawSync(bytes, { level, strategy });
          expect(Buffer.compare(inflateRaw(packed, bytes.length), bytes)).toBe(0);
        },
      ),
    );
  });

  it("gives the kernels that Node's own decompression gives", () => {
    const { size, data } = builds.baseline;
    const inflated = inflateRaw(Buffer.from(data, "base64"), size);
    expect(Buffer.compare(inflated, unpackBuild(builds, false))).toBe(0);
  });

  it("refuses damaged data", () => {
    const packed = deflateRawSync(Buffer.from("abcabcabcabcabcabc".repeat(20)));
    for (let length = 0; length < packed.length - 1; length++) {
      expect(() => inflateRaw(packed.subarray(0, length), 360)).toThrow(BackendError);
    }
    expect(() => inflateRaw(packed, 359)).toThrow(BackendError);
    expect(() => inflateRaw(packed, 361)).toThrow(BackendError);
    expect(() => inflateRaw(Uint8Array.of(7), 1)).toThrow(BackendError);
  });
});

describe("packKernels", () => {
  it("gives both builds back", () => {
    fc.assert(
      fc.property(repetitive, repetitive, (baseline, other) => {
        const relaxed = Buffer.concat([baseline.subarray(3), other, baseline.subarray(0, 50)]);
        const packed = packKernels({ baseline, relaxed });
        expect(Buffer.compare(unpackBuild(packed, false), baseline)).toBe(0);
        expect(Buffer.compare(unpackBuild(packed, true), relaxed)).toBe(0);
      }),
    );
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

  it("refuses edits that end in the middle", () => {
    const whole = edits(Buffer.from("0123456789abcdef"), Buffer.from("xyz0123456789abcdef"));
    expect(() => applyEdits(Buffer.from("0123456789abcdef"), whole.subarray(0, whole.length - 1))).toThrow(
      BackendError,
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
