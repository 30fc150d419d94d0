// Every field of PEFT's configurations: read with its default in silence, and either supported, kept, or refused by name. The lists are
// PEFT's of November 2026 (tuners/*/config.py).

import { FormatError } from "@nomoat/core";
import type { JsonValue } from "@nomoat/core/io";
import { describe, expect, it } from "vitest";
import { fromPeftJson, type LoraConfig, type PeftType, toPeftJson } from "../src/index.js";

type Fields = Readonly<Record<string, JsonValue>>;

const shared: Fields = {
  auto_mapping: null,
  base_model_name_or_path: "some/model",
  inference_mode: true,
  modules_to_save: null,
  peft_version: "0.19.1",
  revision: null,
  target_modules: ["q_proj"],
  task_type: "CAUSAL_LM",
};

const lora: Fields = {
  ...shared,
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  bias: "none",
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 16,
  lora_bias: false,
  lora_dropout: 0.05,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  monteclora_config: null,
  qalora_group_size: 16,
  r: 8,
  rank_pattern: {},
  target_parameters: null,
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
};

const lycoris: Fields = {
  ...shared,
  alpha: 8,
  alpha_pattern: {},
  exclude_modules: null,
  init_weights: true,
  layers_pattern: null,
  layers_to_transform: null,
  module_dropout: 0,
  r: 8,
  rank_dropout: 0,
  rank_pattern: {},
  use_effective_conv2d: false,
};

/** PEFT's fields with their defaults, by kind. */
const fields: Readonly<Record<PeftType, Fields>> = {
  LORA: lora,
  ADALORA: {
    ...lora,
    rank_pattern: null,
    target_r: 8,
    init_r: 12,
    tinit: 0,
    tfinal: 0,
    deltaT: 1,
    beta1: 0.85,
    beta2: 0.85,
    orth_reg_weight: 0.5,
    total_step: 100,
  },
  IA3: {
    ...shared,
    exclude_modules: null,
    fan_in_fan_out: false,
    feedforward_modules: [],
    init_ia3_weights: true,
  },
  LOHA: lycoris,
  LOKR: { ...lycoris, decompose_both: false, decompose_factor: -1, rank_dropout_scale: false },
  VERA: {
    ...shared,
    bias: "none",
    d_initial: 0.1,
    fan_in_fan_out: false,
    init_weights: true,
    layers_pattern: null,
    layers_to_transform: null,
    projection_prng_key: 0,
    r: 256,
    save_projection: true,
    vera_dropout: 0,
  },
};

/** What changes the mathematics and is not supported. */
const refused: Partial<Record<PeftType, Fields>> = {
  LORA: {
    alora_invocation_tokens: [1, 2],
    arrow_config: { top_k: 3 },
    kasa_config: { beta: 1 },
    layer_replication: [[0, 4]],
    monteclora_config: { num_samples: 2 },
    target_parameters: ["experts.gate_up_proj"],
    use_bdlora: { nblocks: 2 },
    use_qalora: true,
    velora_config: { num_groups: 2 },
  },
  LOHA: { rank_dropout: 0.1, module_dropout: 0.1 },
  LOKR: { rank_dropout: 0.1, module_dropout: 0.1 },
  VERA: { save_projection: false, bias: "vera_only" },
  IA3: {},
};

/** Values other than the defaults, and ours that they become. */
const supported: Partial<
  Record<PeftType, Readonly<Record<string, readonly [JsonValue, Partial<LoraConfig>]>>>
> = {
  LORA: {
    alpha_pattern: [{ q_proj: 4 }, { alphaPattern: { q_proj: 4 } }],
    bias: ["lora_only", { bias: "lora_only" }],
    exclude_modules: [["v"], { excludeModules: ["v"] }],
    fan_in_fan_out: [true, { fanInFanOut: true }],
    init_lora_weights: ["gaussian", { initLoraWeights: "gaussian" }],
    layers_to_transform: [[1], { layersToTransform: [1] }],
    lora_alpha: [3, { loraAlpha: 3 }],
    lora_bias: [true, { loraBias: true }],
    lora_dropout: [0.5, { loraDropout: 0.5 }],
    modules_to_save: [["lm_head"], { modulesToSave: ["lm_head"] }],
    r: [3, { r: 3 }],
    rank_pattern: [{ q_proj: 2 }, { rankPattern: { q_proj: 2 } }],
    revision: ["main", { revision: "main" }],
    target_modules: [".*q_proj", { targetModules: ".*q_proj" }],
    task_type: [null, { taskType: null }],
    trainable_token_indices: [{ embed_tokens: [3] }, { trainableTokenIndices: { embed_tokens: [3] } }],
    use_dora: [true, { useDora: true }],
    use_rslora: [true, { useRslora: true }],
  },
  ADALORA: {
    rank_pattern: [{ "q.lora_E": [true, false] }, { rankMasks: { "q.lora_E": [true, false] } }],
    target_r: [4, { targetR: 4 }],
    init_r: [6, { initR: 6 }],
    deltaT: [10, { deltaT: 10 }],
    total_step: [7, { totalStep: 7 }],
    trainable_token_indices: [[3], { trainableTokenIndices: [3] }],
  },
  IA3: {
    feedforward_modules: [["q_proj"], { feedforwardModules: ["q_proj"] }],
    init_ia3_weights: [false, { initLoraWeights: false }],
  },
  LOHA: {
    alpha: [3, { loraAlpha: 3 }],
    init_weights: [false, { initLoraWeights: false }],
    use_effective_conv2d: [true, { useEffectiveConv2d: true }],
  },
  LOKR: {
    decompose_both: [true, { decomposeBoth: true }],
    decompose_factor: [4, { decomposeFactor: 4 }],
    init_weights: ["lycoris", { initLoraWeights: true }],
  },
  VERA: {
    d_initial: [0.2, { dInitial: 0.2 }],
    projection_prng_key: [5, { projectionKey: 5 }],
    vera_dropout: [0.5, { loraDropout: 0.5 }],
  },
};

/** Without effect on a given adapter: kept for saving, in silence. */
const carried: Fields = {
  auto_mapping: { base_model_class: "X" },
  corda_config: { corda_method: "ipm" },
  eva_config: { rho: 3 },
  loftq_config: { loftq_bits: 4 },
  lora_ga_config: { direction: "ArBr" },
  megatron_config: { x: 1 },
  megatron_core: "other.core",
  peft_version: "1.2.3",
  qalora_group_size: 32,
};

function read(peftType: string, changed: Fields = {}): { config: LoraConfig; warnings: string[] } {
  const warnings: string[] = [];
  const json = { ...fields[peftType as PeftType], peft_type: peftType, ...changed };
  const config = fromPeftJson(json, { onWarning: (message) => warnings.push(message) });
  return { config, warnings };
}

describe.each(Object.keys(fields) as PeftType[])("PEFT's fields of %s", (peftType) => {
  it("are all read in silence, and written back as they were", () => {
    const { config, warnings } = read(peftType);
    expect(warnings).toEqual([]);
    const written = toPeftJson(config);
    for (const [name, value] of Object.entries(fields[peftType])) {
      const left = value === null || value === false || value === 0 || JSON.stringify(value) === "{}";
      // Fields that say nothing may be left out, for older versions of PEFT.
      if (!left || name in written) expect(written[name], name).toEqual(value);
    }
    const again = fromPeftJson(written, { onWarning: (message) => expect.fail(message) });
    expect(toPeftJson(again)).toEqual(written);
  });

  it("are refused by name where they are not supported", () => {
    for (const [name, value] of Object.entries(refused[peftType] ?? {})) {
      const thrown = (() => {
        try {
          return read(peftType, { [name]: value });
        } catch (error) {
          return error;
        }
      })();
      expect(thrown, name).toBeInstanceOf(FormatError);
      expect((thrown as Error).message).toContain(name);
    }
  });

  it("have their effect, and come back", () => {
    for (const [name, [value, ours]] of Object.entries(supported[peftType] ?? {})) {
      const { config, warnings } = read(peftType, { [name]: value });
      expect(config).toMatchObject(ours);
      expect(warnings).toEqual([]);
      if (value !== "lycoris") expect(toPeftJson(config)[name], name).toEqual(value);
    }
  });

  it("are kept where they say nothing about a given adapter", () => {
    for (const [name, value] of Object.entries(carried)) {
      if (!(name in fields[peftType])) continue;
      const { config, warnings } = read(peftType, { [name]: value });
      expect(warnings).toEqual([]);
      expect(toPeftJson(config)[name]).toEqual(value);
    }
    const { config, warnings } = read(peftType, { field_of_a_newer_version: { a: 1 } });
    expect(warnings.join()).toMatch(/"field_of_a_newer_version"/);
    expect(toPeftJson(config).field_of_a_newer_version).toEqual({ a: 1 });
  });
});

describe("beginnings in a file", () => {
  it.each(["pissa", "pissa_niter_4", "olora", "corda", "lora_ga", "loftq"])(
    "%s: refused, with advice",
    (init) => {
      expect(() => read("LORA", { init_lora_weights: init })).toThrow(
        new RegExp(
          `init_lora_weights "${init}": the adapter belongs to a base that was changed; (convert|load)`,
        ),
      );
    },
  );

  it.each(["eva", "mica"])("%s: nothing that a given adapter depends on", (init) => {
    expect(read("LORA", { init_lora_weights: init }).config.initLoraWeights).toBe(true);
  });

  it("another: refused with what there is", () => {
    expect(() => read("LORA", { init_lora_weights: "zen" })).toThrow(
      /init_lora_weights must be true.*"olora"/,
    );
  });

  it("tied layers are one to PEFT only where it says so", () => {
    const tied = { ensure_weight_tying: true };
    expect(read("LORA", { ...tied, trainable_token_indices: [1] }).warnings).toEqual([]);
    expect(toPeftJson(read("LORA", tied).config).ensure_weight_tying).toBe(true);
    expect(() =>
      read("LORA", { ...tied, target_modules: ["embed_tokens"], modules_to_save: ["lm_head"] }),
    ).toThrow(/ensure_weight_tying with target_modules and modules_to_save is not supported/);
  });
});
