// adapter_config.json, as PEFT (https://github.com/huggingface/peft, LoraConfig) writes and reads it, to and from LoraConfig.

import { ArgumentError, FormatError } from "@nomoat/core";
import { describe, requireOptions } from "@nomoat/core/extend";
import type { JsonObject, JsonValue } from "@nomoat/core/io";
import { defaultsOf, type LoraConfig, type PeftType } from "./config.js";
import { configFaults, fieldFaults } from "./config-checks.js";

type Names = Readonly<Partial<Record<keyof LoraConfig, string>>>;

const shared: Names = {
  targetModules: "target_modules",
  excludeModules: "exclude_modules",
  modulesToSave: "modules_to_save",
  taskType: "task_type",
  baseModelNameOrPath: "base_model_name_or_path",
  revision: "revision",
};
const layered: Names = {
  r: "r",
  layersToTransform: "layers_to_transform",
  layersPattern: "layers_pattern",
  rankPattern: "rank_pattern",
  alphaPattern: "alpha_pattern",
};
const lora: Names = {
  ...shared,
  ...layered,
  loraAlpha: "lora_alpha",
  loraDropout: "lora_dropout",
  bias: "bias",
  loraBias: "lora_bias",
  useRslora: "use_rslora",
  useDora: "use_dora",
  initLoraWeights: "init_lora_weights",
  fanInFanOut: "fan_in_fan_out",
  trainableTokenIndices: "trainable_token_indices",
};
const { rankPattern: _, ...withoutRanks } = lora;
const lycoris: Names = {
  ...{ ...shared, ...layered, loraAlpha: "alpha", initLoraWeights: "init_weights" },
  useEffectiveConv2d: "use_effective_conv2d",
};

/** PEFT's names of our fields, for each kind of adapter. */
const namesOf: Readonly<Record<PeftType, Names>> = {
  LORA: lora,
  ADALORA: {
    ...withoutRanks,
    targetR: "target_r",
    initR: "init_r",
    tinit: "tinit",
    tfinal: "tfinal",
    deltaT: "deltaT",
    beta1: "beta1",
    beta2: "beta2",
    orthRegWeight: "orth_reg_weight",
    totalStep: "total_step",
    rankMasks: "rank_pattern",
  },
  IA3: {
    ...shared,
    feedforwardModules: "feedforward_modules",
    initLoraWeights: "init_ia3_weights",
    fanInFanOut: "fan_in_fan_out",
  },
  VERA: {
    ...shared,
    r: "r",
    layersToTransform: "layers_to_transform",
    layersPattern: "layers_pattern",
    loraDropout: "vera_dropout",
    bias: "bias",
    initLoraWeights: "init_weights",
    fanInFanOut: "fan_in_fan_out",
    dInitial: "d_initial",
    projectionKey: "projection_prng_key",
    saveProjection: "save_projection",
  },
  LOHA: lycoris,
  LOKR: { ...lycoris, decomposeBoth: "decompose_both", decomposeFactor: "decompose_factor" },
};

/** Fields that PEFT leaves out or sets to null where we have a default of our own. */
const nullMeansDefault: ReadonlySet<string> = new Set(["target_modules", "rank_pattern", "alpha_pattern"]);

/** Fields of PEFT that change the mathematics and are not supported: what they must be, null always allowed. */
const unsupported: Readonly<Record<string, JsonValue>> = {
  alora_invocation_tokens: null,
  arrow_config: null,
  kasa_config: null,
  layer_replication: null,
  monteclora_config: null,
  target_parameters: null,
  use_bdlora: null,
  module_dropout: 0,
  rank_dropout: 0,
  use_qalora: false,
  velora_config: null,
};

/** Fields without effect on a given adapter's values: kept as they are, in silence. */
const carried: ReadonlySet<string> = new Set([
  "auto_mapping",
  "corda_config",
  "ensure_weight_tying",
  "eva_config",
  "loftq_config",
  "lora_ga_config",
  "megatron_config",
  "megatron_core",
  "peft_version",
  "rank_dropout_scale",
  "qalora_group_size",
]);

/** Written for "LORA" by PEFT in every version that knows these fields, so we do too; what came with a file takes precedence. */
const written: Readonly<Record<string, JsonValue>> = {
  auto_mapping: null,
  loftq_config: {},
  megatron_config: null,
  megatron_core: "megatron.core",
};

/** Ours that older versions of PEFT refuse: written only when set. */
const recent: ReadonlySet<string> = new Set(["exclude_modules", "lora_bias", "trainable_token_indices"]);

/**
 * The contents of adapter_config.json: PEFT's fields, in alphabetical order. `inference_mode` is true, as PEFT saves it.
 */
export function toPeftJson(config: LoraConfig): Record<string, JsonValue> {
  if (!Object.hasOwn(namesOf, config?.peftType))
    throw new ArgumentError(`toPeftJson: expected a LoraConfig, not ${describe(config)}`);
  const names = namesOf[config.peftType];
  const fields = new Map<string, JsonValue>([
    ...Object.entries(config.peftType === "LORA" ? written : {}),
    ...Object.entries(config.unknownFields),
    ["peft_type", config.peftType],
    ["inference_mode", true],
  ]);
  for (const [field, name] of Object.entries(names)) {
    const value = config[field as keyof LoraConfig] as JsonValue;
    if (recent.has(name) && (value === null || value === false)) continue;
    fields.set(name, typeof value === "object" && value !== null ? structuredClone(value) : value);
  }
  return Object.fromEntries([...fields].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Warnings about a file that is accepted nevertheless. */
export type WarningHandler = (message: string) => void;

/** What a parsed adapter_config.json says, as far as it can be understood. */
export interface PeftJson {
  /** With defaults in the places of faulty fields; null where not even the kind of adapter is told. */
  readonly config: LoraConfig | null;
  /** Fields whose own values are faulty. */
  readonly broken: ReadonlySet<keyof LoraConfig>;
  /** Values out of range, another kind of adapter, fields that are not supported: one line each. */
  readonly faults: readonly string[];
  /** Names of fields that have no effect. */
  readonly unknown: readonly string[];
}

/** Reads a parsed adapter_config.json and finds all its faults. */
export function readPeftJson(json: JsonValue): PeftJson {
  const hopeless = (fault: string): PeftJson => ({
    ...{ config: null, broken: new Set(), faults: [fault], unknown: [] },
  });
  if (typeof json !== "object" || json === null || Array.isArray(json))
    return hopeless("expected an object of PEFT's fields");
  const faults: string[] = [];
  const unknown: string[] = [];
  const unknownFields: JsonObject = Object.create(null);
  const kind = get(json, "peft_type");
  if (typeof kind !== "string" || !Object.hasOwn(namesOf, kind)) {
    const known = Object.keys(namesOf).join(", ");
    return hopeless(
      `peft_type is ${JSON.stringify(kind)?.slice(0, 60) ?? "missing"}, expected one of ${known}`,
    );
  }
  const peftType = kind as PeftType;
  const names = namesOf[peftType];
  const byName = new Map(Object.entries(names).map(([field, name]) => [name, field as keyof LoraConfig]));
  const values: Partial<Record<keyof LoraConfig, unknown>> = { peftType };
  for (const [name, value] of Object.entries(json)) {
    const field = byName.get(name);
    if (name === "__proto__" || name === "constructor" || name === "prototype") {
      faults.push(`the field ${JSON.stringify(name)} is refused`);
    } else if (field) {
      if (value !== null || !nullMeansDefault.has(name)) values[field] = value;
    } else if (Object.hasOwn(unsupported, name)) {
      if (value !== null && value !== unsupported[name] && !isEmpty(value))
        faults.push(`${name} is not supported`);
    } else if (name !== "peft_type" && name !== "inference_mode") {
      unknownFields[name] = value;
      if (!carried.has(name) && value !== null && value !== false) unknown.push(name);
    }
  }
  const init = values.initLoraWeights;
  if (typeof init === "string" && /^(pissa|olora|corda|lora_ga|loftq)/.test(init)) {
    const advice = init.startsWith("loftq")
      ? "load it on the base that LoftQ made, with init_lora_weights true"
      : "convert it with PEFT (save_pretrained with path_initial_model_for_weight_conversion)";
    faults.push(
      `${names.initLoraWeights} ${JSON.stringify(init.slice(0, 40))}: the adapter belongs to a base that was changed; ${advice}`,
    );
    delete values.initLoraWeights;
  }
  // A saved adapter does not depend on how it began, where the base stayed as it was.
  if (init === "eva" || init === "mica" || (peftType === "LOKR" && init === "lycoris"))
    values.initLoraWeights = true;
  const tied = get(json, "ensure_weight_tying") === true ? tiedParts(values) : [];
  if (tied.length > 0) faults.push(`ensure_weight_tying with ${tied.join(" and ")} is not supported`);
  faults.push(...configFaults(values, (field) => names[field] ?? field));
  const broken = new Set(fieldFaults(values).keys());
  for (const field of broken) delete values[field];
  const config = { ...defaultsOf(peftType), ...(values as Partial<LoraConfig>), unknownFields };
  return { config, broken, faults, unknown };
}

/** Tells about fields of newer versions. */
export function warnOfUnknown({ unknown }: PeftJson, file: string, onWarning: WarningHandler): void {
  if (unknown.length === 0) return;
  const list = unknown.slice(0, 10).map((name) => JSON.stringify(name.slice(0, 60)));
  onWarning(`${file}: unknown fields are kept but have no effect: ${list.join(", ")}`);
}

/**
 * The configuration in a parsed adapter_config.json. Fields that neither PEFT 0.20 nor we know are kept for saving, with a warning.
 *
 * @param json - as `parseJson` of core gives it
 * @param options - `file`: name for messages; `onWarning`: default `console.warn`
 * @throws {FormatError} naming every fault: values out of range, another kind of adapter, fields that are not supported
 */
export function fromPeftJson(
  json: JsonValue,
  options: { file?: string; onWarning?: WarningHandler } = {},
): LoraConfig {
  requireOptions("fromPeftJson", options);
  const { file, onWarning = console.warn } = options;
  const read = readPeftJson(json);
  if (read.faults.length > 0 || !read.config)
    throw new FormatError(read.faults.join("; "), file === undefined ? {} : { file });
  warnOfUnknown(read, file ?? "adapter_config.json", onWarning);
  return read.config;
}

/** What PEFT would put on, or copy for, layers that share a weight: with ensure_weight_tying once for all of them. */
function tiedParts(values: Partial<Record<keyof LoraConfig, unknown>>): string[] {
  const shares = (entries: unknown) => /embed|wte|lm_head/.test(JSON.stringify(entries ?? null));
  return (["targetModules", "modulesToSave"] as const)
    .filter((field) => shares(values[field]))
    .map((field) => lora[field] as string);
}

function get(object: JsonObject, key: string): JsonValue | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

function isEmpty(value: JsonValue): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}
