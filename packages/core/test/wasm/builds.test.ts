import { setFlagsFromString } from "node:v8";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compress } from "../../../../scripts/lzma.mjs";
import { packKernels } from "../../../../scripts/pack-kernels.mjs";
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

describe("packKernels", () => {
  it("gives both builds back", () => {
    fc.assert(
      fc.property(repetitive, repetitive, (baseline, other) => {
        const relaxed = Buffer.concat([baseline.subarray(3), other, baseline.subarray(0, 50)]);
        const packed = packKernels({ baseline, relaxed });
        expect(Buffer.compare(unpackBuild(packed, false), baseline)).toBe(0);
        expect(Buffer.compare(unpackBuild(packed, true), relaxed)).toBe(0);
      }),
      { numRuns: 20 },
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
