// Faults of an adapter's files: all of them together, always an error of ours, and nothing touched.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, init, memoryStats, NomoatError, type Tensor, tensor, zeros } from "@nomoat/core";
import { loadSafetensors, serializeSafetensors } from "@nomoat/core/safetensors";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import {
  type Adapter,
  applyLora,
  hotSwapAdapter,
  type LoadAdapterOptions,
  type LoraConfig,
  loadAdapter,
  loadKohyaAdapter,
  loadMlxAdapter,
  serializeAdapter,
  serializeMlxAdapter,
} from "../src/index.js";
import { randomize, snapshot, TinyModel } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

type Files = Map<string, Uint8Array>;
const float32 = { dtype: "float32", device: "reference" } as const;
const weights = "adapter_model.safetensors";
const configFile = "adapter_config.json";
const at = "base_model.model.model.layers.0.self_attn";
const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const decode = (bytes: Uint8Array | undefined) => JSON.parse(new TextDecoder().decode(bytes));
const fresh = () => new TinyModel({ ...float32, depth: 1 });

async function made(config: Partial<LoraConfig>, serialize = serializeAdapter): Promise<Files> {
  const model = fresh();
  const adapter = applyLora(model, config);
  randomize(adapter.parameters());
  const files = await serialize(adapter);
  model.dispose();
  return files;
}

/** Files with other fields and other tensors (null: none). */
async function changed(
  files: Files,
  fields: Record<string, unknown>,
  tensors: Record<string, Tensor | null> = {},
  file = weights,
): Promise<Files> {
  const { tensors: all } = await loadSafetensors(files.get(file) as Uint8Array, { device: "reference" });
  for (const [key, value] of Object.entries(tensors)) {
    if (value) all.set(key, value);
    else all.delete(key);
  }
  const config = { ...decode(files.get(configFile)), ...fields };
  const bytes = await serializeSafetensors(all);
  for (const tensor of all.values()) tensor.dispose();
  return new Map([
    [configFile, encode(config)],
    [file, bytes],
  ]);
}

/** The message with which `load` refuses; the model and the memory are as they were then. */
async function refusal(load: (model: TinyModel) => Promise<unknown>, given?: TinyModel): Promise<string> {
  const model = given ?? fresh();
  const before = snapshot(model);
  const trainable = model.trainableParameters().length;
  const { tensors } = memoryStats();
  const error = await load(model).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(FormatError);
  expect(snapshot(model)).toEqual(before);
  expect(model.trainableParameters()).toHaveLength(trainable);
  // Less is possible: other tensors of these tests are collected at any time.
  expect(memoryStats().tensors).toBeLessThanOrEqual(tensors);
  if (!given) model.dispose();
  return (error as Error).message;
}

/** The tensors that a file's header names. */
function parseHeader(bytes: Uint8Array): Record<string, unknown> {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const { __metadata__: _, ...entries } = decode(bytes.subarray(8, 8 + length));
  return entries;
}

const expectAll = (message: string, parts: readonly RegExp[]) => {
  for (const part of parts) expect(message).toMatch(part);
};

const nan = (shape: number[]) =>
  tensor(Array(shape.reduce((a, b) => a * b, 1)).fill(Number.NaN), { shape, ...float32 });

describe("all faults together", () => {
  it("of a configuration and of its tensors", async () => {
    const files = await changed(
      await made({ r: 3 }),
      { lora_alpha: "x", lora_dropout: 2, use_qalora: true },
      {
        [`${at}.q_proj.lora_A.weight`]: null,
        [`${at}.q_proj.lora_B.weight`]: zeros([6, 4], float32),
        [`${at}.v_proj.lora_A.weight`]: nan([3, 6]),
        [`${at}.v_proj.lora_B.weight`]: zeros([6, 3], { dtype: "int32", device: "reference" }),
        [`${at}.k_proj.lora_B.weight`]: zeros([6, 3], float32),
      },
    );
    expectAll(await refusal((model) => loadAdapter(model, files)), [
      /adapter_config\.json: .*lora_alpha must be/,
      /lora_dropout must be/,
      /use_qalora is not supported/,
      /adapter_model\.safetensors: .*missing .*q_proj\.lora_A\.weight \[3, 6\]/,
      /q_proj\.lora_B\.weight has rank 4, but r and rank_pattern give 3/,
      /v_proj\.lora_A\.weight has values that are not finite/,
      /v_proj\.lora_B\.weight is I32, expected a float/,
      /unexpected .*k_proj\.lora_B/,
    ]);
  });

  it("of tensors whose rank is not told", async () => {
    const files = await changed(
      await made({ r: 3 }),
      { r: 0 },
      {
        [`${at}.q_proj.lora_A.weight`]: zeros([3, 7], float32),
        [`${at}.v_proj.lora_A.weight`]: zeros([2, 6], float32),
      },
    );
    const message = await refusal((model) => loadAdapter(model, files));
    expectAll(message, [
      /r must be an integer from 1/,
      /q_proj\.lora_A\.weight is \[3, 7\], expected \[r, 6\]/,
      /the tensors of model\.layers\.0\.self_attn\.v_proj have ranks 2 and 3/,
    ]);
    expect(message).not.toMatch(/r and rank_pattern|unexpected|missing/);
  });

  it("of tensors whose names depend on a rank that is not told", async () => {
    const files = await changed(await made({ peftType: "LOKR", r: 2 }), { r: "2" }, { zz: nan([1]) });
    const message = await refusal((model) => loadAdapter(model, files));
    expectAll(message, [/r must be/, /unexpected "zz"/]);
    expect(message).not.toMatch(/missing|lokr_w/);
  });

  it("of tensors whose layers are not told, or of no known kind", async () => {
    for (const [fields, fault] of [
      [{ target_modules: [1] }, /target_modules must be/],
      [{ target_modules: ["nothing"] }, /match no layer/],
      [{ peft_type: "BOFT" }, /peft_type is "BOFT"/],
    ] as const) {
      const files = await changed(await made({}), fields, {
        [`${at}.q_proj.lora_A.weight`]: nan([8, 6]),
        [`${at}.v_proj.lora_B.weight`]: zeros([6, 8], { dtype: "int32", device: "reference" }),
        other: zeros([1], float32),
      });
      const message = await refusal((model) => loadAdapter(model, files));
      expectAll(message, [fault, /not finite/, /is I32/, /unexpected "other"/]);
      expect(message).not.toMatch(/missing/);
    }
  });

  it("of a configuration and files that are none", async () => {
    const files = await made({});
    files.set(configFile, encode({ peft_type: "LORA", r: -1 }));
    files.set(weights, Uint8Array.of(1, 2, 3));
    expectAll(await refusal((model) => loadAdapter(model, files)), [
      /r must be/,
      /adapter_model\.safetensors/,
    ]);
    files.delete(weights);
    expectAll(await refusal((model) => loadAdapter(model, files)), [
      /r must be/,
      /no readable adapter_model/,
    ]);
    files.set("adapter_model.bin", Uint8Array.of(1));
    expectAll(await refusal((model) => loadAdapter(model, files)), [/r must be/, /is a pickle/]);
  });

  it("of shards, whose index must stay in the folder", async () => {
    const parent = mkdtempSync(join(tmpdir(), "nomoat-shards-"));
    const folder = join(parent, "adapter");
    mkdirSync(join(folder, "inside"), { recursive: true });
    const files = await made({});
    // What the index points at is there, and would do.
    for (const path of [parent, join(folder, "inside")])
      writeFileSync(join(path, "w.safetensors"), files.get(weights) as Uint8Array);
    writeFileSync(join(folder, configFile), encode({ ...decode(files.get(configFile)), lora_alpha: -1 }));
    const keys = Object.keys(parseHeader(files.get(weights) as Uint8Array));
    try {
      for (const shard of ["../w.safetensors", "inside/w.safetensors", join(parent, "w.safetensors"), ".."]) {
        const index = { metadata: {}, weight_map: Object.fromEntries(keys.map((key) => [key, shard])) };
        writeFileSync(join(folder, `${weights}.index.json`), encode(index));
        const message = await refusal((model) => loadAdapter(model, folder));
        expectAll(message, [/lora_alpha must be/, /index\.json.*plain|index\.json.*name/]);
      }
    } finally {
      rmSync(parent, { recursive: true });
    }
  });

  it("of replaced parts", async () => {
    const files = await changed(
      await made({ modulesToSave: ["lm_head"] }),
      { modules_to_save: ["lm_head", "nothing"] },
      { [`${at}.q_proj.lora_A.weight`]: null },
    );
    const message = await refusal((model) => loadAdapter(model, files));
    expectAll(message, [/no module is called "nothing"/, /missing .*q_proj\.lora_A/]);
    expect(message).not.toMatch(/unexpected/);
  });

  it("of what an adapter is to be swapped for", async () => {
    const files = await changed(
      await made({ r: 3, targetModules: ["q_proj"] }),
      {},
      { [`${at}.q_proj.lora_B.weight`]: nan([6, 3]) },
    );
    const model = fresh();
    const adapter = applyLora(model, { r: 3 });
    expectAll(await refusal(() => hotSwapAdapter(adapter, files), model), [
      /v_proj is not adapted/,
      /missing .*v_proj\.lora_A/,
      /not finite/,
    ]);
  });

  it("of mlx-lm's", async () => {
    const name = "model.layers.0.self_attn";
    const files = await changed(
      await made({ r: 2 }, serializeMlxAdapter),
      { fine_tune_type: "full", lora_parameters: { scale: -1, dropout: "0" } },
      {
        [`${name}.q_proj.lora_b`]: zeros([3, 6], float32),
        [`${name}.v_proj.lora_a`]: nan([6, 2]),
        [`${name}.v_proj.lora_b`]: null,
        zz: zeros([2], float32),
      },
      "adapters.safetensors",
    );
    expectAll(await refusal((model) => loadMlxAdapter(model, files)), [
      /fine_tune_type is "full"/,
      /scale must be a positive finite number, not -1/,
      /dropout must be/,
      /q_proj\.lora_B\.weight has rank 3, but r and rank_pattern give 2/,
      /v_proj\.lora_A\.weight has values that are not finite/,
      /missing .*v_proj\.lora_B/,
      /unexpected "zz"/,
    ]);
  });

  it("of sd-scripts'", async () => {
    const name = (layer: string, part: string) => `lora_te_model_layers_0_self_attn_${layer}.${part}`;
    const bytes = await serializeSafetensors(
      new Map([
        ["lora_te_nothing.lora_up.weight", zeros([2, 2], float32)],
        [name("q_proj", "hada_w1_a"), zeros([2, 2], float32)],
        [name("q_proj", "lora_down.weight"), zeros([2, 6], float32)],
        [name("q_proj", "alpha"), tensor([-1], { shape: [], ...float32 })],
        [name("v_proj", "lora_down.weight"), nan([2, 6])],
        [name("v_proj", "lora_up.weight"), zeros([6, 3], float32)],
      ]),
    );
    expectAll(await refusal((model) => loadKohyaAdapter(model, bytes, "lora_te")), [
      /nothing.* fits no linear/,
      /hada_w1_a" belongs to another kind/,
      /alpha" is -1/,
      /missing .*q_proj\.lora_B/,
      /v_proj\.lora_A\.weight has values that are not finite/,
      /v_proj\.lora_B\.weight has rank 3, but r and rank_pattern give 2/,
    ]);
  });
});

/** One change of a file: bytes over others, an end cut off, or a field of its JSON. */
const change = fc.oneof(
  fc.record({
    kind: fc.constant("bytes" as const),
    at: fc.nat(),
    values: fc.uint8Array({ minLength: 1, maxLength: 9 }),
  }),
  fc.record({ kind: fc.constant("cut" as const), at: fc.nat() }),
  fc.record({ kind: fc.constant("field" as const), at: fc.nat(), value: fc.jsonValue({ maxDepth: 2 }) }),
);
type Load = (model: TinyModel, files: Files, name?: string, options?: LoadAdapterOptions) => Promise<Adapter>;
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

/** The JSON in a file (after a length, where it is safetensors) and what surrounds it. */
function apply(bytes: Uint8Array, change: Change): Uint8Array {
  const out = bytes.slice();
  if (change.kind === "cut") return out.subarray(0, change.at % (out.length + 1));
  if (change.kind === "bytes") {
    // Mostly the header, where it hurts.
    const start = change.at % Math.min(out.length, 1200);
    out.set(change.values.subarray(0, out.length - start), start);
    return out;
  }
  const header = out[0] !== 0x7b;
  if (out.length < 8) return out;
  const length = header ? Number(new DataView(out.buffer).getBigUint64(0, true)) : out.length;
  const json = (() => {
    try {
      return JSON.parse(new TextDecoder().decode(out.subarray(header ? 8 : 0, header ? 8 + length : length)));
    } catch {
      return null;
    }
  })();
  if (typeof json !== "object" || json === null) return out;
  const keys = Object.keys(json);
  const entry = json[keys[change.at % keys.length]];
  const inside = header && typeof entry === "object" && entry !== null && change.at % 3 > 0;
  if (inside) entry[["dtype", "shape", "data_offsets"][change.at % 3]] = change.value;
  else json[keys[change.at % keys.length]] = change.value;
  const text = new TextEncoder().encode(JSON.stringify(json));
  if (!header) return text;
  const whole = new Uint8Array(8 + text.length + Math.max(0, out.length - 8 - length));
  new DataView(whole.buffer).setBigUint64(0, BigInt(text.length), true);
  whole.set(text, 8);
  whole.set(out.subarray(Math.min(out.length, 8 + length)), 8 + text.length);
  return whole;
}

describe("files of strangers", () => {
  it.each<[string, () => Promise<Files>, Load]>([
    ["PEFT's", () => made({ r: 2, modulesToSave: ["lm_head"], rankPattern: { q_proj: 3 } }), loadAdapter],
    ["LoKr", () => made({ peftType: "LOKR", r: 1 }), loadAdapter],
    ["AdaLoRA", () => made({ peftType: "ADALORA", initR: 2, totalStep: 3 }), loadAdapter],
    ["mlx-lm's", () => made({ useDora: true, r: 2 }, serializeMlxAdapter), loadMlxAdapter],
    [
      "sd-scripts'",
      async () =>
        new Map([
          [
            "x",
            await serializeSafetensors(
              new Map([
                ["lora_te_model_layers_0_mlp_up_proj.lora_down.weight", zeros([2, 6], float32)],
                ["lora_te_model_layers_0_mlp_up_proj.lora_up.weight", zeros([12, 2], float32)],
                ["lora_te_model_layers_0_mlp_up_proj.alpha", tensor([3], { shape: [1], ...float32 })],
              ]),
            ),
          ],
        ]),
      (model, files) => loadKohyaAdapter(model, files.get("x") as Uint8Array, "lora_te"),
    ],
  ])("%s: loaded, or refused by an error of ours with nothing touched", async (_, make, load) => {
    const good = await make();
    const model = fresh();
    const before = snapshot(model);
    const { tensors } = memoryStats();
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(), change), { minLength: 1, maxLength: 3 }),
        async (changes) => {
          const files = new Map(good);
          for (const [which, each] of changes) {
            const name = [...files.keys()][which % files.size];
            files.set(name, apply(files.get(name) as Uint8Array, each));
          }
          const result = await load(model, files, "default", { onWarning: () => {} }).catch(
            (error: unknown) => error,
          );
          if (result instanceof Error) {
            refused++;
            expect(result).toBeInstanceOf(NomoatError);
          } else (result as Adapter).remove();
          expect(snapshot(model)).toEqual(before);
          expect(memoryStats().tensors).toBeLessThanOrEqual(tensors);
        },
      ),
      { numRuns: 150 },
    );
    expect(refused).toBeGreaterThan(50);
    model.dispose();
  });
});
