// Files made up at random, near to right ones: headers whose dtypes, shapes and offsets may fit or not, indices of shards that name
// anything. Each is loaded or refused as a FormatError, and a refusal leaves nothing allocated.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError, memoryStats, type NomoatError, tensor } from "../../src/index.js";
import { loadSafetensors, serializeSafetensors } from "../../src/io/safetensors.js";

const sizes: Record<string, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I32: 4,
  I8: 1,
  U8: 1,
  BOOL: 1,
  I64: 8,
};

const huge = fc.constantFrom(-1, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e300, 0.5);
const extent = fc.oneof({ weight: 8, arbitrary: fc.nat(4) }, { weight: 1, arbitrary: huge });
const odd = fc.constantFrom<unknown>(null, true, "F32", "f32", [], {}, [[1]], "9".repeat(400), "\u0000", -0);

/** An entry whose parts are right but for now and then one. */
const entry = fc.record({
  dtype: fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...Object.keys(sizes)) },
    { weight: 1, arbitrary: odd },
  ),
  shape: fc.oneof(
    { weight: 12, arbitrary: fc.array(extent, { maxLength: 4 }) },
    { weight: 1, arbitrary: odd },
  ),
  /** What is added to the right offsets. */
  shift: fc.oneof(
    { weight: 12, arbitrary: fc.constant([0, 0] as const) },
    {
      weight: 1,
      arbitrary: fc.tuple(fc.oneof(fc.integer({ min: -8, max: 8 }), huge), fc.integer({ min: -8, max: 8 })),
    },
  ),
  extra: fc.oneof(
    { weight: 12, arbitrary: fc.constant({}) },
    { weight: 1, arbitrary: fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 1 }) },
  ),
});

/** A file with these tensors, one behind the other; `missing` bytes of data are left out. */
function fileOf(
  entries: [string, typeof entry extends fc.Arbitrary<infer T> ? T : never][],
  missing: number,
): Uint8Array {
  const header: Record<string, unknown> = Object.create(null);
  let end = 0;
  for (const [name, { dtype, shape, shift, extra }] of entries) {
    const count = Array.isArray(shape) ? (shape as number[]).reduce((a, b) => a * b, 1) : 1;
    const bytes = Math.min(1000, Math.max(0, Math.trunc(count * (sizes[String(dtype)] ?? 1)) || 0));
    header[name] = { dtype, shape, data_offsets: [end + shift[0], end + bytes + shift[1]], ...extra };
    end += bytes;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + Math.max(0, end - missing));
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  return file;
}

/** Whether `load` gives tensors; a refusal is a FormatError, or names a file that is not there, and leaves
 * nothing behind. */
async function loads(load: () => ReturnType<typeof loadSafetensors>): Promise<boolean> {
  const before = memoryStats();
  const result = await load().catch((error: unknown) => error as Error);
  const loaded = !(result instanceof Error);
  if (loaded) for (const each of result.tensors.values()) each.dispose();
  else if ((result as NomoatError).code !== "IO") expect(result).toBeInstanceOf(FormatError);
  const after = memoryStats();
  expect([after.tensors, after.storages, after.bytes]).toEqual([
    before.tensors,
    before.storages,
    before.bytes,
  ]);
  // What a header claims is not allocated. The region grows by whole pages of a MiB more than it needs.
  expect(after.backend.reserved - before.backend.reserved).toBeLessThan(2 ** 21);
  return loaded;
}

describe("files made up at random", () => {
  test("are loaded, or refused as a FormatError", async () => {
    await loads(async () => loadSafetensors(await serializeSafetensors({})));
    const outcomes = { loaded: 0, refused: 0 };
    const names = fc.oneof(
      fc.constantFrom("a", "b", "__proto__", "__metadata__", "x".repeat(300)),
      fc.string(),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(names, entry), { maxLength: 4 }),
        fc.oneof(
          { weight: 8, arbitrary: fc.constant(0) },
          { weight: 1, arbitrary: fc.integer({ min: -3, max: 9 }) },
        ),
        async (entries, missing) => {
          outcomes[
            (await loads(() => loadSafetensors(fileOf(entries, missing), { dtype: "float32" })))
              ? "loaded"
              : "refused"
          ]++;
        },
      ),
      { numRuns: 1500 },
    );
    // Both happen often, or the generator has no teeth.
    expect(Math.min(outcomes.loaded, outcomes.refused)).toBeGreaterThan(150);
  });

  test("indices of shards name plain files and the tensors in them, or are refused", async () => {
    const shards = [0, 1].map((i) => tensor([i, i + 1]));
    const [first, second] = await Promise.all(shards.map((t, i) => serializeSafetensors({ [`w${i}`]: t })));
    for (const each of shards) each.dispose();
    const target = fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom("1.safetensors", "2.safetensors") },
      {
        weight: 1,
        arbitrary: fc.constantFrom<unknown>(
          "../1.safetensors",
          "/etc/passwd",
          "",
          ".",
          "a/b",
          "3.safetensors",
          1,
          null,
          {},
          "C:\\x",
        ),
      },
    );
    const map = fc.dictionary(fc.constantFrom("w0", "w1", "w2", "__proto__"), target, {
      maxKeys: 3,
      noNullPrototype: true,
    });
    const index = fc.oneof(
      {
        weight: 6,
        arbitrary: map.map((weightMap): unknown => ({ metadata: { total_size: 16 }, weight_map: weightMap })),
      },
      { weight: 1, arbitrary: fc.jsonValue() },
    );
    const outcomes = { loaded: 0, refused: 0 };
    const load = async (value: unknown) => {
      const source = new Map<string, Uint8Array>([
        ["model.safetensors.index.json", new TextEncoder().encode(JSON.stringify(value))],
        ["1.safetensors", first],
        ["2.safetensors", second],
      ]);
      outcomes[(await loads(() => loadSafetensors(source))) ? "loaded" : "refused"]++;
    };
    await load({ weight_map: { w0: "1.safetensors", w1: "2.safetensors" } });
    expect(outcomes.loaded).toBe(1);
    await fc.assert(fc.asyncProperty(index, load), { numRuns: 500 });
    expect(Math.min(outcomes.loaded, outcomes.refused)).toBeGreaterThan(5);
  });
});
