// bitsandbytes' layout: a file of the independent writer, round trips, what is refused.

import { readFileSync } from "node:fs";
import { FormatError, init, memoryStats, type Tensor, tensor } from "@nomoat/core";
import { loadSafetensors, serializeSafetensors } from "@nomoat/core/safetensors";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fromBitsAndBytes, quantize, toBitsAndBytes } from "../src/index.js";
import { bellTensor } from "./helpers.js";

const golden = new Uint8Array(readFileSync(new URL("./fixtures/bitsandbytes.safetensors", import.meta.url)));
const quantizedByNumpy = new Uint8Array(
  readFileSync(new URL("./fixtures/bitsandbytes-quantized.safetensors", import.meta.url)),
);

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

function disposeAll(tensors: ReadonlyMap<string, Tensor>): void {
  for (const each of tensors.values()) each.dispose();
}

describe("bitsandbytes", () => {
  it.each([
    ["double", "nf4", [6, 48]],
    ["single", "fp4_single", [5, 30]],
  ])("reads %s as the independent writer decodes it", async (name, format, shape) => {
    const { tensors } = await loadSafetensors(golden);
    const weight = fromBitsAndBytes(tensors, `${name}.weight`);
    expect(weight.format.name).toBe(format);
    expect(weight.shape).toEqual(shape);
    const values = weight.dequantize();
    const expected = tensors.get(name)?.dataSync() as Float32Array;
    // The map of scales may differ in its last bit.
    for (const [i, value] of (values.dataSync() as Float32Array).entries()) {
      expect(Math.abs(value - expected[i])).toBeLessThanOrEqual(1e-6);
    }
    const written = toBitsAndBytes(`${name}.weight`, weight, { dtype: "bfloat16" });
    const names = [...tensors.keys()].filter((key) => key.startsWith(`${name}.`));
    expect([...written.keys()].sort()).toEqual(names.sort());
    for (const [key, given] of written) {
      const there = tensors.get(key) as Tensor;
      expect(given.dtype).toBe(there.dtype);
      if (!key.includes("quant_state")) {
        expect(given.shape).toEqual(there.shape);
        for (const [i, value] of (there.dataSync() as Float32Array).entries()) {
          expect(Math.abs(value - Number(given.dataSync()[i]))).toBeLessThanOrEqual(1e-7);
        }
      } else {
        const parse = (each: Tensor) => JSON.parse(new TextDecoder().decode(each.dataSync() as Uint8Array));
        expect(parse(given)).toEqual(parse(there));
      }
    }
    disposeAll(written);
    disposeAll(tensors);
    values.dispose();
    weight.dispose();
  });

  it.each(["nf4", "nf4_single", "fp4", "fp4_single"] as const)(
    "%s of given values is what bitsandbytes saves: names, dtypes, shapes, bytes and JSON",
    async (format) => {
      const { tensors } = await loadSafetensors(quantizedByNumpy);
      const values = Float32Array.from({ length: 130 * 127 }, (_, i) => {
        return ((((i * 48271) % 65521) - 32760) / 4096) * (1 + (Math.floor(i / 64) % 5));
      });
      const x = tensor(values, { shape: [130, 127] });
      const weight = quantize(x, { format });
      const written = toBitsAndBytes(`${format}.weight`, weight);
      const names = [...tensors.keys()].filter((key) => key.startsWith(`${format}.`));
      expect(names).toHaveLength(format.endsWith("single") ? 4 : 6);
      expect([...written.keys()].sort()).toEqual(names.sort());
      for (const [key, given] of written) {
        const there = tensors.get(key) as Tensor;
        if (key.includes("quant_state")) {
          const text = (each: Tensor) => new TextDecoder().decode(each.dataSync() as Uint8Array);
          expect(given.dtype).toBe("uint8");
          // Python puts spaces between; fields stand in the same order.
          expect(text(given)).toBe(JSON.stringify(JSON.parse(text(there))));
          continue;
        }
        expect([given.dtype, given.shape], key).toEqual([there.dtype, there.shape]);
        // Codebooks are written with their last bits as each side computes them.
        const close = key.endsWith("_map") ? 1e-7 : 0;
        const bytes = given.dataSync();
        for (const [i, value] of (there.dataSync() as Float32Array).entries()) {
          expect(Math.abs(value - Number(bytes[i])), `${key} ${i}`).toBeLessThanOrEqual(close);
        }
      }
      // What reads them back stands on the same bytes.
      const again = fromBitsAndBytes(tensors, `${format}.weight`);
      const [a, b] = [again.dequantize(), weight.dequantize()];
      expect(a.dataSync()).toEqual(b.dataSync());
      disposeAll(tensors);
      disposeAll(written);
      for (const each of [x, weight, again, a, b]) each.dispose();
    },
  );

  it.each(["nf4", "nf4_single", "fp4", "fp4_single"] as const)(
    "%s comes back from a file",
    async (format) => {
      const x = bellTensor([33, 65], 3);
      const weight = quantize(x, { format });
      const tensors = toBitsAndBytes("w", weight);
      const { tensors: loaded } = await loadSafetensors(await serializeSafetensors(tensors));
      const again = fromBitsAndBytes(loaded, "w");
      disposeAll(loaded);
      disposeAll(tensors);
      for (const [name, part] of weight.parts)
        expect(again.parts.get(name)?.dataSync()).toEqual(part.dataSync());
      for (const each of [x, weight, again]) each.dispose();
    },
  );

  it("refuses what is not the format, naming the tensor", async () => {
    const weight = quantize(bellTensor([8, 64], 4), { format: "nf4" });
    const bytes = memoryStats().bytes;
    const state = "w.quant_state.bitsandbytes__nf4";
    const json = (changes: object) => {
      const fields = { quant_type: "nf4", blocksize: 64, dtype: "float32", shape: [8, 64] };
      const nested = { nested_blocksize: 256, nested_dtype: "float32", nested_offset: 0.5 };
      return tensor(new TextEncoder().encode(JSON.stringify({ ...fields, ...nested, ...changes })));
    };
    const cases: [string, () => Tensor | null, RegExp][] = [
      [state, () => null, /w: has no quant_state/],
      ["w.absmax", () => null, /w.absmax: is missing/],
      ["w", () => tensor(new Uint8Array(255)), /expected 256 elements of uint8, not uint8 \[255\]/],
      ["w.absmax", () => tensor(new Float32Array(8)), /expected 8 elements of uint8, not float32/],
      ["w.quant_map", () => tensor(new Float32Array(16)), /is not the map of nf4/],
      ["w.nested_quant_map", () => tensor(new Float32Array(256)), /is not the map of bitsandbytes' scales/],
      [state, () => json({ blocksize: 128 }), /blocksize must be 64, not 128/],
      [state, () => json({ quant_type: "fp4" }), /quant_type must be nf4/],
      [state, () => json({ shape: [8] }), /two extents/],
      [state, () => json({ shape: [8, -64] }), /whole numbers/],
      [state, () => json({ shape: [2 ** 40, 2 ** 40] }), /too large/],
      [state, () => json({ shape: [2 ** 20, 2 ** 20] }), /w.*expected \d+ elements/],
      [state, () => json({ nested_offset: "x" }), /nested_offset must be a number/],
      [state, () => tensor(new TextEncoder().encode("[1]")), /expected an object/],
      [state, () => tensor(new TextEncoder().encode("{")), /quant_state/],
    ];
    for (const [name, make, message] of cases) {
      const tensors = toBitsAndBytes("w", weight);
      const changed = make();
      tensors.get(name)?.dispose();
      if (changed) tensors.set(name, changed);
      else tensors.delete(name);
      let error: unknown;
      try {
        fromBitsAndBytes(tensors, "w");
      } catch (thrown) {
        error = thrown;
      }
      expect(error, name).toBeInstanceOf(FormatError);
      expect((error as FormatError).message).toMatch(message);
      disposeAll(tensors);
    }
    expect(memoryStats().bytes).toBe(bytes);
    const x = bellTensor([32, 32], 1);
    const other = quantize(x, { format: "q4_0" });
    expect(() => toBitsAndBytes("w", other)).toThrow("bitsandbytes has no q4_0");
    for (const each of [weight, other, x]) each.dispose();
  });

  it("takes any change of the JSON for a FormatError or a weight", async () => {
    const { tensors } = await loadSafetensors(golden);
    const name = "double.weight.quant_state.bitsandbytes__nf4";
    const text = new TextDecoder().decode((tensors.get(name) as Tensor).dataSync() as Uint8Array);
    const piece = fc.oneof(
      fc.string({ maxLength: 3 }),
      fc.constantFrom("-1", "1e300", "null", "[", '"', "{}", "9007199254740993", "0.5"),
    );
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.nat(12), piece, (at, cut, insert) => {
        const changed = new TextEncoder().encode(text.slice(0, at) + insert + text.slice(at + cut));
        const state = tensor(changed, { dtype: "uint8" });
        try {
          fromBitsAndBytes(new Map(tensors).set(name, state), "double.weight").dispose();
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        } finally {
          state.dispose();
        }
      }),
      { numRuns: 300 },
    );
    disposeAll(tensors);
  });
});
