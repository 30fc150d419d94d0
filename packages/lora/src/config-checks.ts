// What the fields of an adapter's configuration may be, each and together.

import type { LoraConfig, PeftType } from "./config.js";

const peftTypes: readonly PeftType[] = ["LORA", "IA3", "LOHA", "LOKR", "VERA", "ADALORA"];

type Check = (value: unknown) => string | null;

const maxRank = 2 ** 20;
const isRank = (value: unknown) =>
  Number.isSafeInteger(value) && Number(value) >= 1 && Number(value) <= maxRank;
const isAlpha = (value: unknown) => typeof value === "number" && Number.isFinite(value) && value > 0;
const isString = (value: unknown): value is string => typeof value === "string";
const isStrings = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((item) => isString(item) && item.length > 0);
const isIndex = (value: unknown) => Number.isSafeInteger(value) && Number(value) >= 0;

const rule =
  (wanted: string, holds: (value: unknown) => boolean): Check =>
  (value) =>
    holds(value) ? null : `must be ${wanted}, not ${shown(value)}`;

const boolean = rule("true or false", (value) => typeof value === "boolean");
const text = rule("a string or null", (value) => value === null || isString(value));
const names = rule(
  "a string, a list of non-empty strings, or null",
  (value) => value === null || (isString(value) && value.length > 0) || isStrings(value),
);

const isTokens = (value: unknown) =>
  Array.isArray(value) &&
  value.length > 0 &&
  value.every((index) => isIndex(index) && index < 2 ** 31) &&
  new Set(value).size === value.length;

const tokens = "a list of distinct indices, not empty";

function perPattern(wanted: string, holds: (value: unknown) => boolean): Check {
  return (value) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return `must be an object by name or pattern, not ${shown(value)}`;
    }
    for (const [key, item] of Object.entries(value)) {
      if (key === "__proto__" || key === "") return `must not have the key ${JSON.stringify(key)}`;
      if (!holds(item)) return `must have ${wanted} at ${JSON.stringify(key)}, not ${shown(item)}`;
    }
    return null;
  };
}

const rank = rule(`an integer from 1 to ${maxRank}`, isRank);
const steps = rule("an integer, 0 or more", isIndex);
const decay = rule(
  "a number between 0 and 1",
  (value) => typeof value === "number" && value > 0 && value < 1,
);
const isMask = (value: unknown) =>
  Array.isArray(value) && value.length <= maxRank && value.every((item) => typeof item === "boolean");
const checks: Readonly<Record<keyof LoraConfig, Check>> = {
  peftType: rule('"LORA", "IA3", "LOHA", "LOKR", "VERA" or "ADALORA"', (value) =>
    peftTypes.includes(value as PeftType),
  ),
  r: rank,
  loraAlpha: rule("a positive finite number", isAlpha),
  loraDropout: rule(
    "a number at least 0 and below 1",
    (value) => typeof value === "number" && value >= 0 && value < 1,
  ),
  bias: rule('"none", "all" or "lora_only"', (value) =>
    ["none", "all", "lora_only"].includes(value as string),
  ),
  loraBias: boolean,
  targetModules: rule(
    "a string or a non-empty list of non-empty strings",
    (value) => (isString(value) && value.length > 0) || (isStrings(value) && value.length > 0),
  ),
  excludeModules: names,
  layersToTransform: rule(
    "an index, a list of indices, or null",
    (value) => value === null || isIndex(value) || (Array.isArray(value) && value.every(isIndex)),
  ),
  layersPattern: names,
  rankPattern: perPattern(`an integer from 1 to ${maxRank}`, isRank),
  alphaPattern: perPattern("a positive finite number", isAlpha),
  useRslora: boolean,
  useDora: boolean,
  initLoraWeights: (value) => {
    if (typeof value === "boolean") return null;
    const text = isString(value) ? value : "";
    if (/^(gaussian|orthogonal|olora|pissa|pissa_niter_\d{1,3})$/.test(text)) return null;
    const advice = text === "eva" ? " (see applyEva)" : text === "loftq" ? " (see initLoftq)" : "";
    return `must be true, false, "gaussian", "orthogonal", "pissa", "pissa_niter_N" or "olora", not ${shown(value)}${advice}`;
  },
  feedforwardModules: names,
  decomposeBoth: boolean,
  useEffectiveConv2d: boolean,
  decomposeFactor: rule("-1 or a positive integer", (value) => value === -1 || isRank(value)),
  dInitial: rule("a finite number", Number.isFinite),
  projectionKey: rule("an integer, 0 or more", isIndex),
  saveProjection: rule("true: projections cannot be drawn anew elsewhere", (value) => value === true),
  targetR: rank,
  initR: rank,
  tinit: steps,
  tfinal: steps,
  deltaT: rank,
  beta1: decay,
  beta2: decay,
  orthRegWeight: rule("a positive finite number", isAlpha),
  totalStep: rule(
    "a positive integer, or null",
    (value) => value === null || (isIndex(value) && value !== 0),
  ),
  rankMasks: (value) => (value === null ? null : perPattern("a list of true and false", isMask)(value)),
  modulesToSave: rule("a list of non-empty strings, or null", (value) => value === null || isStrings(value)),
  trainableTokenIndices: (value) => {
    if (value === null) return null;
    if (Array.isArray(value)) return rule(tokens, isTokens)(value);
    return perPattern(tokens, isTokens)(value);
  },
  fanInFanOut: boolean,
  taskType: text,
  baseModelNameOrPath: text,
  revision: text,
  unknownFields: rule("an object", (value) => typeof value === "object" && value !== null),
};

function shown(value: unknown): string {
  if (typeof value === "number") return String(value);
  const json = JSON.stringify(value) ?? String(value);
  return json.length > 60 ? `${json.slice(0, 60)}…` : json;
}

/** True for the name of a field of LoraConfig. */
export const isField = (name: string): name is keyof LoraConfig => Object.hasOwn(checks, name);

/** What is wrong with the value of single fields, one line each, by field. */
export function fieldFaults(
  config: Partial<Record<keyof LoraConfig, unknown>>,
  name = (field: keyof LoraConfig): string => field,
): Map<keyof LoraConfig, string> {
  const faults = new Map<keyof LoraConfig, string>();
  for (const field of Object.keys(checks) as (keyof LoraConfig)[]) {
    const fault = config[field] === undefined ? null : checks[field](config[field]);
    if (fault) faults.set(field, `${name(field)} ${fault}`);
  }
  return faults;
}

/**
 * Faults of a configuration, one line each; none for a good one.
 * @param name - how a field is called to the reader: PEFT's way in files
 */
export function configFaults(
  config: Partial<Record<keyof LoraConfig, unknown>>,
  name = (field: keyof LoraConfig): string => field,
): string[] {
  const faults = [...fieldFaults(config, name).values()];
  if (config.useDora === true && /^(pissa|olora)/.test(String(config.initLoraWeights)))
    faults.push(
      `${name("useDora")} cannot be used with ${name("initLoraWeights")} ${config.initLoraWeights}`,
    );
  if (config.loraBias === true) {
    if (config.useDora === true) faults.push(`${name("loraBias")} cannot be used with ${name("useDora")}`);
    if (typeof config.initLoraWeights === "string")
      faults.push(`${name("loraBias")} needs ${name("initLoraWeights")} true or false`);
  }
  if (config.peftType !== undefined && config.peftType !== "LORA") {
    for (const field of ["useDora", "useRslora", "loraDropout"] as const)
      if (
        config[field] &&
        !(field === "loraDropout" && ["VERA", "ADALORA"].includes(String(config.peftType)))
      )
        faults.push(`${name(field)} does not apply to ${config.peftType}`);
    if ((config.trainableTokenIndices ?? null) !== null && config.peftType !== "ADALORA")
      faults.push(`${name("trainableTokenIndices")} does not apply to ${config.peftType}`);
    if (config.loraBias) faults.push(`${name("loraBias")} does not apply to ${config.peftType}`);
    if ((config.bias ?? "none") !== "none" && config.peftType !== "ADALORA")
      faults.push(`${name("bias")} must be "none" for ${config.peftType}`);
    if (["IA3", "VERA", "ADALORA"].includes(String(config.peftType))) {
      for (const field of ["rankPattern", "alphaPattern"] as const)
        if (Object.keys(config[field] ?? {}).length > 0)
          faults.push(`${name(field)} does not apply to ${config.peftType}`);
    }
    if (typeof config.initLoraWeights === "string")
      faults.push(`${name("initLoraWeights")} must be true or false for ${config.peftType}`);
  }
  const layers = config.layersToTransform ?? null;
  const pattern = config.layersPattern ?? null;
  if (isString(config.targetModules)) {
    for (const field of ["layersToTransform", "layersPattern"] as const) {
      if ((config[field] ?? null) !== null)
        faults.push(`${name(field)} cannot be used when ${name("targetModules")} is a string`);
    }
  } else if (pattern !== null && (pattern as string).length > 0 && layers === null) {
    faults.push(`${name("layersPattern")} needs ${name("layersToTransform")}`);
  }
  return faults;
}
