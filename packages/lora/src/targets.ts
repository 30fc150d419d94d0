// Which layers of a model an adapter goes to, by PEFT's rules (tuners_utils.py, check_target_module_exists; other.py,
// get_pattern_key). Nothing is changed here.

import { ArgumentError } from "@nomoat/core";
import { describe } from "@nomoat/core/extend";
import { Conv2d, Embedding, LinearBase, type Module, requireModule } from "@nomoat/core/nn";
import { isAdapted } from "./adapted.js";
import { type LoraConfig, scalingOf } from "./config.js";
import { LoraConv2d, LoraEmbedding } from "./layer.js";
import { Pattern } from "./pattern.js";

/** One layer to adapt. */
export interface Target {
  /** Dotted name in the model. */
  readonly name: string;
  /** A linear layer or an embedding, adapted already or not. */
  readonly layer: Module;
  readonly r: number;
  readonly alpha: number;
  /** Factor of the low-rank update. */
  readonly scaling: number;
}

/** Last parts of the names of output layers, which "all-linear" leaves out. */
const outputLayers: ReadonlySet<string> = new Set(["lm_head", "embed_out", "output_layer"]);

/** True for every linear layer, also one of another copy of core. */
export function isLinear(module: Module): module is LinearBase {
  return module instanceof LinearBase;
}

/** True for embeddings, adapted or not. */
export function isEmbedding(module: Module): module is Embedding | LoraEmbedding {
  return module instanceof Embedding || module instanceof LoraEmbedding;
}

/** True for convolutions over two axes, adapted or not. */
export function isConvolution(module: Module): module is Conv2d | LoraConv2d {
  return module instanceof Conv2d || module instanceof LoraConv2d;
}

/** What the class of a module is called; bundlers put an underscore before names. */
export const kindOf = (module: Module): string => module.constructor.name.replace(/^_/, "");

/** Throws unless `config` can adapt this convolution with rank `r`. */
function checkConvolution(name: string, module: Conv2d | LoraConv2d, config: LoraConfig, r: number): void {
  const { groups = 1 } = (module instanceof Conv2d ? module : module.slots.original).options;
  const refuse = (why: string) => {
    throw new ArgumentError(`${name} is a convolution${groups > 1 ? ` of ${groups} groups` : ""}, ${why}`);
  };
  const init = config.initLoraWeights;
  if (!["LORA", "LOHA", "LOKR", "IA3"].includes(config.peftType))
    refuse(`which ${config.peftType} does not support here`);
  if (init === "orthogonal") refuse("which cannot begin orthogonal");
  if (groups === 1) return;
  if (config.useDora) refuse("which DoRA does not support");
  if (config.peftType !== "LORA") refuse(`which ${config.peftType} does not support`);
  if (typeof init === "string" && init !== "gaussian") refuse(`which cannot begin with ${init}`);
  if (r % groups !== 0) refuse(`which needs a rank that they divide, not ${r}`);
}

/** The model's modules by name, parents first, without what is inside adapted layers. */
export function candidateModules(model: Module): Map<string, Module> {
  const found = new Map<string, Module>();
  let inside: string | null = null;
  for (const [name, module] of model.namedModules()) {
    if (name === "" || (inside !== null && name.startsWith(inside))) continue;
    inside = isAdapted(module) ? `${name}.` : null;
    found.set(name, module);
  }
  return found;
}

/** True when `entry` is `name` or its end after a dot. */
export const matchesName = (name: string, entry: string): boolean =>
  name === entry || name.endsWith(`.${entry}`);

/** The number of the layer that `name` belongs to: of the first `.pattern.N.` after something, as PEFT finds it. */
function layerIndex(name: string, pattern: Pattern | null): number | null {
  const parts = name.split(".");
  // Python: .*?\.pattern\.(\d+)\. with [^.]* for no pattern
  for (let i = 2; i < parts.length - 1; i++) {
    if (!/^\d+$/.test(parts[i])) continue;
    if (!pattern || pattern.test(parts.slice(0, i).join("."))) return Number(parts[i]);
  }
  return null;
}

function layerFilter(config: LoraConfig): (name: string) => boolean {
  const { layersToTransform, layersPattern } = config;
  const wanted = typeof layersToTransform === "number" ? [layersToTransform] : (layersToTransform ?? []);
  if (wanted.length === 0) return () => true;
  const given = typeof layersPattern === "string" ? [layersPattern] : (layersPattern ?? []);
  const patterns = given.length === 0 ? [null] : given.map((pattern) => new Pattern(`.*?\\.${pattern}`));
  return (name) => {
    for (const pattern of patterns) {
      const index = layerIndex(name, pattern);
      if (index !== null) return wanted.includes(index);
    }
    return false;
  };
}

/** A test of names for a string (pattern for the whole name) or a list (names or their ends). */
function nameTest(entries: string | readonly string[]): (name: string) => boolean {
  if (typeof entries === "string") {
    const pattern = new Pattern(entries);
    return (name) => pattern.test(name);
  }
  return (name) => entries.some((entry) => matchesName(name, entry));
}

/** The value of the first pattern that matches the end of a name, else `fallback`. */
function patternLookup(
  patterns: Readonly<Record<string, number>>,
  fallback: number,
): (name: string) => number {
  const compiled = Object.entries(patterns).map(
    ([key, value]) => [new Pattern(`(.*\\.)?(${key})`), value] as const,
  );
  return (name) => compiled.find(([pattern]) => pattern.test(name))?.[1] ?? fallback;
}

function isAllLinear(config: LoraConfig): boolean {
  return typeof config.targetModules === "string" && config.targetModules.toLowerCase() === "all-linear";
}

/** Whether the module of that name is a target; null when it is one that is excluded. */
function targetTest(config: LoraConfig): (name: string, module: Module) => boolean | null {
  const excluded = config.excludeModules?.length ? nameTest(config.excludeModules) : () => false;
  const { targetModules } = config;
  let wanted: (name: string, module: Module) => boolean;
  if (isAllLinear(config)) {
    wanted = (name, module) => isLinear(module) && !outputLayers.has(name.slice(name.lastIndexOf(".") + 1));
  } else if (typeof targetModules === "string") wanted = nameTest(targetModules);
  else {
    const named = nameTest(targetModules);
    const inLayer = layerFilter(config);
    // As in PEFT: a full name counts whatever the layers to transform.
    wanted = (name) => targetModules.includes(name) || (named(name) && inLayer(name));
  }
  // What is trained as a whole is not adapted, nor what is inside.
  const saved = (name: string) =>
    (config.modulesToSave ?? []).some((entry) => `.${name}.`.includes(`.${entry}.`));
  return (name, module) => wanted(name, module) && (excluded(name) || saved(name) ? null : true);
}

function listed(names: readonly string[], most = 20): string {
  const shown = names.slice(0, most).join(", ");
  return names.length > most ? `${shown} and ${names.length - most} more` : shown;
}

/** Names of layers with numbers as `*`, each once. */
function available(modules: ReadonlyMap<string, Module>): string {
  const names = new Set<string>();
  for (const [name, module] of modules)
    if (isLinear(module)) names.add(name.replace(/(^|\.)\d+(?=\.|$)/g, "$1*"));
  return names.size === 0 ? "the model has no linear layers" : `linear layers: ${listed([...names])}`;
}

/**
 * `config` with "all-linear" spelled out, as PEFT saves it: what it means depends on the model, and other programs that read adapters
 * know names only. Last parts of names where these name the same layers, else whole names.
 */
export function namedTargets(model: Module, config: LoraConfig): LoraConfig {
  if (!isAllLinear(config)) return config;
  const namesOf = (targetModules: LoraConfig["targetModules"]): string[] =>
    resolveTargets(model, { ...config, targetModules }).map(({ name }) => name);
  const names = namesOf("all-linear");
  const ends = [...new Set(names.map((name) => name.slice(name.lastIndexOf(".") + 1)))].sort();
  return { ...config, targetModules: namesOf(ends).join() === names.join() ? ends : names };
}

/**
 * The layers of `model` that `config` names, in the model's order.
 *
 * @throws {ArgumentError} when nothing matches (with the names there are), when a match is no linear layer, embedding or convolution that can be adapted, or for a pattern that
 *   is none or takes too long
 */
export function resolveTargets(model: Module, config: LoraConfig): Target[] {
  requireModule("resolveTargets", model);
  if (typeof config?.rankPattern !== "object")
    throw new ArgumentError(
      `resolveTargets: expected a whole LoraConfig (resolveLoraConfig), not ${describe(config)}`,
    );
  const modules = candidateModules(model);
  const test = targetTest(config);
  const rankOf = patternLookup(config.rankPattern, config.r);
  const alphaOf = patternLookup(config.alphaPattern, config.loraAlpha);
  const targets: Target[] = [];
  const unfit: string[] = [];
  let excluded = 0;
  for (const [name, module] of modules) {
    const wanted = test(name, module);
    if (wanted === null) excluded++;
    if (!wanted) continue;
    const convolution = isConvolution(module);
    if (!isLinear(module) && !isEmbedding(module) && !convolution) {
      unfit.push(`${name} (${kindOf(module)})`);
      continue;
    }
    if (config.peftType !== "LORA" && isEmbedding(module))
      throw new ArgumentError(`${name} is an embedding, which ${config.peftType} does not support here`);
    if (config.loraBias && isEmbedding(module))
      throw new ArgumentError(`${name} is an embedding, which loraBias does not support`);
    const ada = config.peftType === "ADALORA";
    const left = config.rankMasks?.[`${name}.lora_E`]?.filter(Boolean).length;
    const r = ada ? (left ?? config.initR) : rankOf(name);
    if (convolution) checkConvolution(name, module, config, r);
    const alpha = alphaOf(name);
    // PEFT's AdaLoRA divides by the rank that it began with.
    const scaling = ada ? alpha / (config.initR + 1e-5) : scalingOf(alpha, r, config.useRslora);
    targets.push({ name, layer: module, r, alpha, scaling });
  }
  if (unfit.length > 0) {
    throw new ArgumentError(
      `targetModules ${JSON.stringify(config.targetModules)} match modules that are neither linear layers, embeddings nor convolutions: ${listed(unfit)}`,
    );
  }
  if (targets.length === 0) {
    const { layersToTransform, layersPattern } = config;
    const chosen = (layersToTransform ?? null) !== null;
    const pattern = layersPattern?.length ? ` and layersPattern ${JSON.stringify(layersPattern)}` : "";
    const among = chosen ? ` with layersToTransform ${JSON.stringify(layersToTransform)}${pattern}` : "";
    const why = excluded > 0 ? `match ${excluded} layers, all of them excluded` : "match no layer";
    throw new ArgumentError(
      `targetModules ${JSON.stringify(config.targetModules)}${among} ${why}; ${available(modules)}`,
    );
  }
  return targets;
}
