// The configuration of an adapter, with PEFT's fields and defaults in camelCase. What its values may be stands in config-checks.ts, how it
// stands in a file in peft-config.ts.

import { ArgumentError } from "@nomoat/core";
import { requireMap, requireOptions } from "@nomoat/core/extend";
import type { JsonValue } from "@nomoat/core/io";
import { configFaults, isField } from "./config-checks.js";

/** How the low-rank matrices begin; see {@link LoraConfig.initLoraWeights}. */
export type LoraInit = boolean | "gaussian" | "orthogonal" | "pissa" | `pissa_niter_${number}` | "olora";

/** Kinds of adapters, by PEFT's names. */
export type PeftType = "LORA" | "IA3" | "LOHA" | "LOKR" | "VERA" | "ADALORA";

/** A complete configuration. {@link applyLora} takes any part of it. */
export interface LoraConfig {
  /** Low-rank adaptation, (IA)³ (arXiv:2205.05638), LoHa (arXiv:2108.06098), LoKr (arXiv:2212.10650), VeRA
   * (arXiv:2310.11454) or AdaLoRA (arXiv:2303.10512); default "LORA". */
  peftType: PeftType;
  /** Rank of the update (default 8). */
  r: number;
  /** The update is scaled by loraAlpha / r, or loraAlpha / √r with {@link useRslora} (default 8). */
  loraAlpha: number;
  /** Probability of dropping an element of the low-rank branch's input in training (default 0). */
  loraDropout: number;
  /**
   * Which of the model's biases are trained along, in copies that belong to the adapter and take part while it is enabled: "none"
   * (default), "all" parameters with "bias" in their names, or those of the adapted layers ("lora_only"). At most one enabled adapter
   * can have them.
   */
  bias: "none" | "all" | "lora_only";
  /** Whether B has a bias of its own, which starts with zeros (default false). */
  loraBias: boolean;
  /**
   * Which layers to adapt (default q_proj and v_proj, PEFT's choice for LLaMA). A list: layers whose name is an entry or ends in
   * `.entry`. A string: a regular expression (Python's syntax) for the whole name, or "all-linear" for every linear layer but the
   * output layer.
   */
  targetModules: string | readonly string[];
  /** Layers to leave out, given as {@link targetModules} (default none). */
  excludeModules: string | readonly string[] | null;
  /** Indices of the layers to adapt, for a list of target modules (default all). */
  layersToTransform: number | readonly number[] | null;
  /** Name(s) of the list of layers that {@link layersToTransform} counts (default: whatever stands before the first number). */
  layersPattern: string | readonly string[] | null;
  /** Other ranks, by a regular expression for the end of a layer's name. */
  rankPattern: Readonly<Record<string, number>>;
  /** Other alphas, likewise. */
  alphaPattern: Readonly<Record<string, number>>;
  /** Rank-stabilized scaling, loraAlpha / √r (arXiv:2312.03732; default false). */
  useRslora: boolean;
  /** Weight-decomposed adaptation, DoRA (arXiv:2402.09353), of linear layers (default false). */
  useDora: boolean;
  /**
   * true: A uniform as `nn.Linear`'s default (He et al. with a = √5), B zero. "gaussian": A normal with deviation 1 / r, B zero.
   * false: A and B both as `nn.Linear`'s default, so that the adapter changes the output at once; for tests. "orthogonal": random with B · A = 0, for
   * even ranks. "pissa", "pissa_niter_N" (N steps of a randomized SVD, for large layers) and "olora": the principal part of the base's
   * weight; the base is not changed, its part is subtracted beside it, and saving doubles the rank.
   */
  initLoraWeights: LoraInit;
  /** (IA)³: the targets whose input is scaled, not their output; ends of names, or a regular expression (default down_proj). */
  feedforwardModules: string | readonly string[] | null;
  /** LoKr: whether the first factor is a product of low rank too (default false). */
  decomposeBoth: boolean;
  /** LoHa, LoKr: factors of convolutions of low rank as CP decompositions, but for kernels of one point (default false). */
  useEffectiveConv2d: boolean;
  /** LoKr: the size of the smaller Kronecker factor, −1 for the one closest to the square root (default −1). */
  decomposeFactor: number;
  /** VeRA: what the vector d starts with (default 0.1). */
  dInitial: number;
  /** VeRA: seed of the random projections (default 0). */
  projectionKey: number;
  /** VeRA: whether the projections are saved; only true is supported, for other programs draw other numbers. */
  saveProjection: true;
  /** AdaLoRA: the average rank to prune to (default 8). */
  targetR: number;
  /** AdaLoRA: the rank of every layer at first; `r` does not count (default 12). */
  initR: number;
  /** AdaLoRA: steps before pruning begins (default 0). */
  tinit: number;
  /** AdaLoRA: steps at the end, after all pruning (default 0). */
  tfinal: number;
  /** AdaLoRA: steps from one pruning to the next (default 1). */
  deltaT: number;
  /** AdaLoRA: decay of the mean of sensitivities (default 0.85). */
  beta1: number;
  /** AdaLoRA: decay of the mean of their uncertainties (default 0.85). */
  beta2: number;
  /** AdaLoRA: factor of the penalty on sides that are not orthogonal (default 0.5). */
  orthRegWeight: number;
  /** AdaLoRA: number of training steps; needed for pruning (default null). */
  totalStep: number | null;
  /** AdaLoRA: which singular values are left, by `layer.lora_E` (PEFT's rank_pattern); set by pruning. */
  rankMasks: Readonly<Record<string, readonly boolean[]>> | null;
  /** Modules, by their names or ends, that are trained as a whole, in copies that belong to the adapter (default none). */
  modulesToSave: readonly string[] | null;
  /**
   * Tokens whose rows of an embedding are trained, and nothing else of it: for the model's embedding (the only one, or embed_tokens), or
   * by names of embeddings and dense output layers, or their ends. Output layers that share the embedding's weight follow (default none).
   */
  trainableTokenIndices: readonly number[] | Readonly<Record<string, readonly number[]>> | null;
  /** Layout of the base's weights in other libraries' files; kept, without effect here (default false). */
  fanInFanOut: boolean;
  /** Kind of task, kept for other programs (default "CAUSAL_LM"). */
  taskType: string | null;
  /** Name or path of the base model, kept for other programs. */
  baseModelNameOrPath: string | null;
  /** Revision of the base model, kept for other programs. */
  revision: string | null;
  /** Fields of a file that this version does not know, kept for saving. */
  unknownFields: Readonly<Record<string, JsonValue>>;
}

/** What every field is when nobody says otherwise. */
export const loraDefaults: Readonly<LoraConfig> = Object.freeze({
  peftType: "LORA",
  r: 8,
  loraAlpha: 8,
  loraDropout: 0,
  bias: "none",
  loraBias: false,
  targetModules: Object.freeze(["q_proj", "v_proj"]),
  excludeModules: null,
  layersToTransform: null,
  layersPattern: null,
  rankPattern: Object.freeze({}),
  alphaPattern: Object.freeze({}),
  useRslora: false,
  useDora: false,
  initLoraWeights: true,
  feedforwardModules: Object.freeze(["down_proj"]),
  decomposeBoth: false,
  useEffectiveConv2d: false,
  decomposeFactor: -1,
  dInitial: 0.1,
  projectionKey: 0,
  saveProjection: true,
  targetR: 8,
  initR: 12,
  tinit: 0,
  tfinal: 0,
  deltaT: 1,
  beta1: 0.85,
  beta2: 0.85,
  orthRegWeight: 0.5,
  totalStep: null,
  rankMasks: null,
  modulesToSave: null,
  trainableTokenIndices: null,
  fanInFanOut: false,
  taskType: "CAUSAL_LM",
  baseModelNameOrPath: null,
  revision: null,
  unknownFields: Object.freeze({}),
});

/**
 * A complete configuration from a part of one.
 * @throws {ArgumentError} naming every fault: values out of range, unknown fields, fields that exclude one another
 */
export function resolveLoraConfig(given: Partial<LoraConfig> = {}): LoraConfig {
  requireOptions("LoraConfig", given);
  const faults: string[] = [];
  for (const field of Object.keys(given)) {
    if (isField(field)) continue;
    const camel = field.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    faults.push(isField(camel) ? `unknown field ${field}: write ${camel}` : `unknown field ${field}`);
  }
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  const config: LoraConfig = { ...defaultsOf(given.peftType), ...Object.fromEntries(set) };
  faults.push(...configFaults(config));
  if (faults.length > 0) throw new ArgumentError(`LoraConfig: ${faults.join("; ")}`);
  return config;
}

/** Defaults of one kind of adapter: {@link loraDefaults} but for the targets of (IA)³ and the rank of VeRA. */
export function defaultsOf(peftType: PeftType | undefined): LoraConfig {
  if (peftType === "VERA") return { ...loraDefaults, r: 256 };
  return peftType === "IA3"
    ? { ...loraDefaults, targetModules: ["k_proj", "v_proj", "down_proj"] }
    : loraDefaults;
}

/** The factor of the low-rank update: alpha / r, or alpha / √r (arXiv:2312.03732). */
export function scalingOf(alpha: number, r: number, useRslora: boolean): number {
  return useRslora ? alpha / Math.sqrt(r) : alpha / r;
}

/** A key of rankPattern or alphaPattern that means one layer. */
export const exactly = (name: string): string => `^${name.replaceAll(".", "\\.")}$`;

/**
 * A configuration for exactly these layers, each with a rank and an alpha of its own: the most frequent ones as `r` and `loraAlpha`, the
 * others as patterns.
 * @param more - the other fields
 * @throws {ArgumentError} naming every fault
 */
export function layerwiseConfig(
  layers: ReadonlyMap<string, { readonly r: number; readonly alpha: number }>,
  more: Partial<LoraConfig> = {},
): LoraConfig {
  requireMap("layerwiseConfig", "layers", layers);
  const split = (values: readonly (readonly [string, number])[]) => {
    const counts = new Map<number, number>();
    for (const [, value] of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    const [[usual] = [1]] = [...counts].sort(([, a], [, b]) => b - a);
    const others = values.filter(([, value]) => value !== usual);
    return { usual, others: Object.fromEntries(others.map(([name, value]) => [exactly(name), value])) };
  };
  const ranks = split(Array.from(layers, ([name, { r }]) => [name, r] as const));
  const alphas = split(Array.from(layers, ([name, { alpha }]) => [name, alpha] as const));
  return resolveLoraConfig({
    ...more,
    targetModules: [...layers.keys()],
    r: ranks.usual,
    loraAlpha: alphas.usual,
    rankPattern: ranks.others,
    alphaPattern: alphas.others,
  });
}
