// EVA (Paischer et al., arXiv:2410.07170): A begins with the directions in which a layer's inputs vary most, and ranks go to the layers
// where they explain most. B begins with zeros, so the adapter is the identity at first.

import { ArgumentError, noGrad, type Tensor, tensor } from "@nomoat/core";
import type { LinearBase, Module } from "@nomoat/core/nn";
import type { Adapter } from "../adapter.js";
import { type ApplyOptions, applyLora } from "../apply.js";
import { exactly, type LoraConfig, resolveLoraConfig } from "../config.js";
import { type Matrix, matrix, svd, transposed } from "../linalg.js";
import { isLinear, resolveTargets, type Target } from "../targets.js";
import type { LoraBranch } from "../variants/lora.js";

export interface EvaOptions extends ApplyOptions {
  /** The most that a layer's rank may grow, as a multiple of its own (default 2, PEFT's); 1 leaves ranks as they are. */
  rho?: number;
  /** Whether alpha grows with the rank, which keeps the scaling (default true, PEFT's). */
  adjustScalingFactors?: boolean;
  /** Name of the adapter (default "default"). */
  name?: string;
}

/** Sums over the rows of a layer's inputs. */
class InputStatistics {
  readonly #size: number;
  readonly #mean: Float64Array;
  /** Σ (x − mean)(x − mean)ᵀ, [size, size]. */
  readonly #scatter: Matrix;
  #rows = 0;

  constructor(size: number) {
    this.#size = size;
    this.#mean = new Float64Array(size);
    this.#scatter = matrix(size, size);
  }

  /** Adds the rows of x [..., size], one by one (Welford's update). */
  add(x: Tensor): void {
    const n = this.#size;
    const values = x.dataSync();
    const before = new Float64Array(n);
    const { data } = this.#scatter;
    for (let start = 0; start < values.length; start += n) {
      this.#rows++;
      for (let i = 0; i < n; i++) {
        before[i] = Number(values[start + i]) - this.#mean[i];
        this.#mean[i] += before[i] / this.#rows;
      }
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < n; j++)
          data[i * n + j] += before[i] * (Number(values[start + j]) - this.#mean[j]);
      }
    }
  }

  /** Directions as rows, by falling variance, and the share of the variance that each explains. */
  components(): { directions: Matrix; shares: Float64Array } {
    // Symmetric and not negative: its singular vectors are its eigenvectors.
    const { s, v } = svd(this.#scatter);
    const total = s.reduce((sum, value) => sum + value, 0) || 1;
    return { directions: transposed(v), shares: s.map((value) => value / total) };
  }
}

/** Runs `fn` while the inputs of the layers of `targets` are counted. */
function observed(targets: readonly Target[], fn: () => void): Map<string, InputStatistics> {
  const found = new Map<string, InputStatistics>();
  const restore: (() => void)[] = [];
  for (const { name, layer } of targets) {
    const linear = layer as LinearBase;
    const statistics = new InputStatistics(linear.inFeatures);
    found.set(name, statistics);
    // An own property hides the class's method until it is deleted.
    Object.defineProperty(linear, "forward", {
      configurable: true,
      value: (x: Tensor) => {
        statistics.add(x);
        return Object.getPrototypeOf(linear).forward.call(linear, x);
      },
    });
    restore.push(() => Reflect.deleteProperty(linear, "forward"));
  }
  try {
    noGrad(fn);
  } finally {
    for (const undo of restore) undo();
  }
  return found;
}

/**
 * A new adapter that begins as EVA has it, from the inputs that the layers get while `run` runs the model over some data. As in PEFT,
 * the inputs are centred; a layer to which no rank goes is not adapted. Costs a square matrix of each layer's inputs in memory and its
 * SVD: for layers of up to some hundred inputs.
 *
 * @param run - runs the model over the data, synchronously, outside the graph
 * @throws {ArgumentError} for another variant than LoRA, targets that are not linear layers, a rank that exceeds a layer's inputs, or
 *   when `run` does not reach a target
 */
export function applyEva(
  model: Module,
  config: Partial<LoraConfig>,
  run: () => void,
  options: EvaOptions = {},
): Adapter {
  const { rho = 2, adjustScalingFactors = true, name = "default", ...apply } = options;
  if (!(Number.isFinite(rho) && rho >= 1))
    throw new ArgumentError(`applyEva: rho must be at least 1, not ${rho}`);
  const complete = resolveLoraConfig({ ...config, initLoraWeights: true });
  if (complete.peftType !== "LORA")
    throw new ArgumentError(`applyEva: does not apply to ${complete.peftType}`);
  const targets = resolveTargets(model, complete);
  const unfit = targets.find(({ layer, r }) => !isLinear(layer) || r > layer.inFeatures);
  if (unfit)
    throw new ArgumentError(
      `applyEva: ${unfit.name} is not linear, or has fewer inputs than its rank ${unfit.r}`,
    );
  const parts = new Map(
    Array.from(observed(targets, run), ([at, statistics]) => [at, statistics.components()]),
  );
  for (const [at, { shares }] of parts)
    if (shares[0] === 0) throw new ArgumentError(`applyEva: run gave ${at} no inputs that vary`);
  const ranks = redistributed(targets, parts, rho);
  const kept = targets.filter((target) => ranks.get(target.name) !== 0);
  const rankPattern: Record<string, number> = {};
  const alphaPattern: Record<string, number> = {};
  for (const target of kept) {
    const rank = ranks.get(target.name) as number;
    const key = exactly(target.name);
    // Listed wherever a shorter pattern might match instead.
    rankPattern[key] = rank;
    const alpha = adjustScalingFactors ? (target.alpha * rank) / target.r : target.alpha;
    alphaPattern[key] = alpha;
  }
  const names = kept.map((target) => target.name);
  const own = { ...complete, targetModules: names, layersToTransform: null, layersPattern: null };
  const adapter = applyLora(model, { ...own, rankPattern, alphaPattern }, name, apply);
  noGrad(() => {
    for (const [at, branch] of adapter.branches()) {
      const { loraA } = branch as LoraBranch;
      const { directions } = parts.get(at) as { directions: Matrix };
      const values = directions.data.slice(0, loraA.size);
      const source = tensor(values, { shape: loraA.shape, dtype: loraA.dtype, device: loraA.device });
      loraA.copyFrom(source);
      source.dispose();
    }
  });
  return adapter;
}

/** Ranks whose sum stays at most the same, to the components of all layers that explain most. */
function redistributed(
  targets: readonly Target[],
  parts: ReadonlyMap<string, { shares: Float64Array }>,
  rho: number,
): Map<string, number> {
  const budget = targets.reduce((sum, target) => sum + target.r, 0);
  const all = targets.flatMap(({ name, r }) => {
    const { shares } = parts.get(name) as { shares: Float64Array };
    return Array.from(shares.subarray(0, Math.floor(r * rho)), (share) => ({ name, share }));
  });
  all.sort((a, b) => b.share - a.share);
  const ranks = new Map(targets.map(({ name }) => [name, 0]));
  for (const { name } of all.slice(0, budget)) ranks.set(name, (ranks.get(name) as number) + 1);
  return ranks;
}
