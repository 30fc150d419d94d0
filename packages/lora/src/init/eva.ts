// EVA (Paischer et al., arXiv:2410.07170): A begins with the directions in which a layer's inputs vary most, and ranks go to the layers
// where they explain most. B begins with zeros, so the adapter is the identity at first.

import { ArgumentError, Generator, noGrad, tensor } from "@nomoat/core";
import { requireFunction, requireOptions } from "@nomoat/core/extend";
import { type LinearBase, type Module, requireModule } from "@nomoat/core/nn";
import type { Adapter } from "../adapter.js";
import { type ApplyOptions, applyLora } from "../apply.js";
import { exactly, type LoraConfig, resolveLoraConfig } from "../config.js";
import { InputMoments, whileObserving } from "../inputs.js";
import { lowRankSvd, type Matrix, svd, transposed } from "../linalg.js";
import { isLinear, resolveTargets, type Target } from "../targets.js";
import type { LoraBranch } from "../variants/lora.js";

export interface EvaOptions extends ApplyOptions {
  /** The most that a layer's rank may grow, as a multiple of its own (default 2, PEFT's); 1 leaves ranks as they are. */
  rho?: number;
  /** Whether alpha grows with the rank, which keeps the scaling (default true, PEFT's). */
  adjustScalingFactors?: boolean;
  /** Steps of a subspace iteration, for layers of more than some hundred inputs (default: an exact SVD). */
  svdIterations?: number;
  /** Seed of the subspace iteration (default 0). */
  seed?: number;
  /** Name of the adapter (default "default"). */
  name?: string;
}

/** Directions as rows, by falling variance, and the share of the variance that each explains. */
interface Components {
  readonly directions: Matrix;
  readonly shares: Float64Array;
}

/** The principal components of a layer's inputs: all of them, or the first `most` by subspace iteration. */
function components(
  moments: InputMoments,
  most: number,
  iterations: number | undefined,
  seed: number,
): Components {
  const scatter = moments.scatter();
  let variance = 0;
  for (let i = 0; i < scatter.rows; i++) variance += scatter.data[i * scatter.rows + i];
  // Symmetric and not negative: its singular vectors are its eigenvectors.
  const { s, v } =
    iterations === undefined
      ? svd(scatter)
      : lowRankSvd(scatter, most, { iterations, generator: new Generator(seed), oversampling: 8 });
  return { directions: transposed(v), shares: s.map((value) => value / (variance || 1)) };
}

/**
 * A new adapter that begins as EVA has it, from the inputs that the layers get while `run` runs the model over some data. As in PEFT,
 * the inputs are centred; a layer to which no rank goes is not adapted. All the data counts, exactly, where PEFT follows it batch by batch
 * (incremental PCA) until directions settle. Costs a square matrix of each layer's inputs in memory.
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
  requireModule("applyEva", model);
  requireFunction("applyEva", run);
  requireOptions("applyEva", options);
  const {
    rho = 2,
    adjustScalingFactors = true,
    name = "default",
    svdIterations,
    seed = 0,
    ...apply
  } = options;
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
  const moments = new Map(
    targets.map(({ name, layer }) => [name, new InputMoments((layer as LinearBase).inFeatures)] as const),
  );
  noGrad(() =>
    whileObserving(
      targets.map(({ name, layer }) => [name, layer as LinearBase] as const),
      (at, x) => moments.get(at)?.add(x),
      run,
    ),
  );
  const parts = new Map(
    targets.map(({ name: at, r }) => {
      const most = Math.min(Math.round(r * rho), (moments.get(at) as InputMoments).inFeatures);
      return [at, components(moments.get(at) as InputMoments, most, svdIterations, seed)] as const;
    }),
  );
  for (const [at, { shares }] of parts)
    if (!(shares[0] > 0)) throw new ArgumentError(`applyEva: run gave ${at} no inputs that vary`);
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
    return Array.from(shares.subarray(0, Math.round(r * rho)), (share) => ({ name, share }));
  });
  all.sort((a, b) => b.share - a.share);
  const ranks = new Map(targets.map(({ name }) => [name, 0]));
  for (const { name } of all.slice(0, budget)) ranks.set(name, (ranks.get(name) as number) + 1);
  return ranks;
}
