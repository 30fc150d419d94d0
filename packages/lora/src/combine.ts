// New adapters out of those on a model: weighted combinations as PEFT's add_weighted_adapter, and compression to a lower rank.

import { ArgumentError, defaultGenerator, type Generator, type Tensor, tensor } from "@nomoat/core";
import { requireList, requireOptions } from "@nomoat/core/extend";
import type { Module } from "@nomoat/core/nn";
import { type Adapter, adaptedLayers, checkAdapterName, requireAdapter } from "./adapter.js";
import { attach, placeOf, variantOf } from "./apply.js";
import type { AdapterBranch } from "./branch.js";
import { combineValues, type SignMethod, type ValueMethod } from "./combine-values.js";
import { loraDefaults, resolveLoraConfig } from "./config.js";
import {
  fromTensor,
  lowRankSvd,
  type Matrix,
  matrix,
  multiply,
  type Svd,
  scaleColumns,
  svd,
  svdOfProduct,
  transposed,
  truncated,
} from "./linalg.js";
import { resolveTargets } from "./targets.js";

/** Ways to combine adapters; see {@link addWeightedAdapter}. */
export type CombinationType =
  | "cat"
  | "svd"
  | ValueMethod
  | "ties_svd"
  | "dare_linear_svd"
  | "dare_ties_svd"
  | "magnitude_prune_svd";

export interface CombineOptions {
  /** Default "svd", PEFT's. */
  combinationType?: CombinationType;
  /** Rank of the result of "svd" and "…_svd" (default: the largest of the given). */
  svdRank?: number;
  /** Share of values that pruning keeps, above 0 and at most 1; needed by ties, dare and magnitude_prune. */
  density?: number;
  /** How TIES elects signs: by the sum of values, or by count (default "total"). */
  majoritySignMethod?: SignMethod;
  /** For DARE and for randomized SVDs (default: core's default generator). */
  generator?: Generator;
}

/** Low-rank factors of one layer on the host: scaling · b · a. */
interface Factors {
  readonly a: Matrix;
  readonly b: Matrix;
  readonly scaling: number;
}

const suffixes: readonly (readonly [a: string, b: string])[] = [
  ["lora_A.weight", "lora_B.weight"],
  ["lora_embedding_A", "lora_embedding_B"],
];

/** The factors of a branch that consists of nothing else, as it would be saved. */
function factorsOf(branch: AdapterBranch, operation: string): Factors {
  const saved = branch.savedTensors();
  const own = branch.tensors();
  try {
    const names = suffixes.find(([a, b]) => saved.has(a) && saved.has(b));
    if (!names || saved.size !== 2 || [...saved.values()].some((tensor) => tensor.rank !== 2)) {
      throw new ArgumentError(
        `adapter "${branch.adapter}": only plain low-rank updates can be combined, not ${[...saved.keys()].join(", ")}`,
      );
    }
    const [a, b] = names.map((name) => fromTensor(operation, saved.get(name) as Tensor));
    return { a, b, scaling: branch.scaling };
  } finally {
    for (const [name, value] of saved) if (own.get(name) !== value) value.dispose();
  }
}

/** An SVD's first `rank` parts as factors: a = Vᵀ, b = U·S, zeros where there are fewer. */
function fromSvd(parts: Svd, rank: number): { a: Matrix; b: Matrix } {
  const { u, s, v } = truncated(parts, rank);
  return padded({ a: transposed(v), b: scaleColumns(u, s) }, rank);
}

/** Factors of rank at most `rank`, filled up with zeros. */
function padded({ a, b }: { a: Matrix; b: Matrix }, rank: number): { a: Matrix; b: Matrix } {
  const wideA = matrix(rank, a.columns);
  wideA.data.set(a.data);
  const wideB = matrix(b.rows, rank);
  for (let i = 0; i < b.rows; i++)
    wideB.data.set(b.data.subarray(i * b.columns, (i + 1) * b.columns), i * rank);
  return { a: wideA, b: wideB };
}

/** [A₁·w₁; A₂·w₂; …] and [B₁, B₂, …], whose product is the weighted sum, exactly. */
function concatenated(parts: readonly Factors[], weights: readonly number[]): { a: Matrix; b: Matrix } {
  const rank = parts.reduce((sum, part) => sum + part.a.rows, 0);
  const a = matrix(rank, parts[0].a.columns);
  const b = matrix(parts[0].b.rows, rank);
  let start = 0;
  parts.forEach((part, k) => {
    a.data.set(
      part.a.data.map((value) => value * weights[k]),
      start * a.columns,
    );
    const r = part.b.columns;
    for (let i = 0; i < b.rows; i++) b.data.set(part.b.data.subarray(i * r, (i + 1) * r), i * rank + start);
    start += r;
  });
  return { a, b };
}

/** Sides above which a dense update is decomposed by iteration instead of exactly. */
const exactSide = 384;

function svdOfDense(dense: Matrix, rank: number, generator: Generator): Svd {
  if (Math.min(dense.rows, dense.columns) <= exactSide) return svd(dense);
  return lowRankSvd(dense, rank, { iterations: 12, generator, oversampling: 10 });
}

interface Combination extends Required<Omit<CombineOptions, "svdRank">> {
  readonly rank: number;
}

/** The combination in one layer. */
function combineLayer(
  parts: readonly Factors[],
  given: readonly number[],
  how: Combination,
): { a: Matrix; b: Matrix } {
  const { combinationType: type, rank, generator } = how;
  const weights = given.map((weight, k) => weight * parts[k].scaling);
  const options = { density: how.density, signMethod: how.majoritySignMethod, generator };
  if (type === "cat") return padded(concatenated(parts, weights), rank);
  if (type === "svd") {
    const { a, b } = concatenated(parts, weights);
    return fromSvd(svdOfProduct(b, a), rank);
  }
  if (type.endsWith("_svd")) {
    const method = type.slice(0, -"_svd".length) as ValueMethod;
    const [rows, columns] = [parts[0].b.rows, parts[0].a.columns];
    // Whole updates, with their scalings: TIES elects signs among those.
    const dense = parts.map((part) => multiply(part.b, part.a).data.map((value) => value * part.scaling));
    const sum = matrix(rows, columns, combineValues(method, dense, given, options));
    return fromSvd(svdOfDense(sum, rank, generator), rank);
  }
  // Each factor on its own, by the roots of the weights; the sign goes to A.
  const roots = weights.map((weight) => Math.sqrt(Math.abs(weight)));
  const signed = roots.map((root, k) => (weights[k] < 0 ? -root : root));
  const method = type as ValueMethod;
  const same = parts.map((part) => padded(part, rank));
  const a = combineValues(
    method,
    same.map((part) => part.a.data),
    signed,
    options,
  );
  const b = combineValues(
    method,
    same.map((part) => part.b.data),
    roots,
    options,
  );
  return { a: matrix(rank, parts[0].a.columns, a), b: matrix(parts[0].b.rows, rank, b) };
}

const types: readonly CombinationType[] = [
  "cat",
  "svd",
  "linear",
  "ties",
  "ties_svd",
  "dare_linear",
  "dare_linear_svd",
  "dare_ties",
  "dare_ties_svd",
  "magnitude_prune",
  "magnitude_prune_svd",
];

function checked(
  adapters: readonly Adapter[],
  weights: readonly number[],
  options: CombineOptions,
): Combination {
  const asked = options.combinationType ?? "svd";
  if (!types.includes(asked))
    throw new ArgumentError(
      `addWeightedAdapter: unknown combinationType ${JSON.stringify(asked)}; known: ${types.join(", ")}`,
    );
  if (adapters.length === 0) throw new ArgumentError("addWeightedAdapter: no adapters given");
  if (weights.length !== adapters.length || !weights.every(Number.isFinite)) {
    throw new ArgumentError(
      `addWeightedAdapter: expected ${adapters.length} finite weights, not [${weights.join(", ")}]`,
    );
  }
  if (new Set(adapters.map((adapter) => adapter.model)).size > 1)
    throw new ArgumentError("addWeightedAdapter: the adapters belong to different models");
  // As in PEFT, a single adapter is only scaled.
  const combinationType = adapters.length === 1 ? "linear" : asked;
  const prunes = /ties|dare|prune/.test(combinationType);
  const density = options.density ?? 1;
  if ((prunes && options.density === undefined) || !(density > 0 && density <= 1)) {
    throw new ArgumentError(
      `addWeightedAdapter: ${combinationType} needs a density above 0 and at most 1, not ${options.density}`,
    );
  }
  const ranks = adapters.map((adapter) =>
    Math.max(
      ...Array.from(adapter.branches().values(), (branch) => factorsOf(branch, "addWeightedAdapter").a.rows),
    ),
  );
  let rank = Math.max(...ranks);
  if (combinationType === "cat") rank = ranks.reduce((sum, r) => sum + r, 0);
  else if (combinationType.endsWith("svd")) rank = options.svdRank ?? rank;
  else if (new Set(ranks).size > 1) {
    throw new ArgumentError(
      `addWeightedAdapter: ${combinationType} needs adapters of one rank, not ${ranks.join(", ")}; use "cat" or "svd"`,
    );
  }
  if (!Number.isSafeInteger(rank) || rank < 1)
    throw new ArgumentError(`addWeightedAdapter: svdRank must be a positive integer, not ${rank}`);
  return {
    combinationType,
    rank,
    density,
    majoritySignMethod: options.majoritySignMethod ?? "total",
    generator: options.generator ?? defaultGenerator(),
  };
}

/** A new, disabled adapter with these factors, scaling 1. */
function adapterFrom(
  model: Module,
  name: string,
  rank: number,
  like: Adapter,
  factors: ReadonlyMap<string, { a: Matrix; b: Matrix }>,
): Adapter {
  const config = resolveLoraConfig({
    ...loraDefaults,
    r: rank,
    loraAlpha: rank,
    targetModules: [...factors.keys()],
    taskType: like.config.taskType,
    baseModelNameOrPath: like.config.baseModelNameOrPath,
  });
  const { dtype, device } = placeOf(model);
  const place = ({ rows, columns, data }: Matrix) => tensor(data, { shape: [rows, columns], dtype, device });
  const parts = resolveTargets(model, config)
    .filter((target) => factors.has(target.name))
    .map((target) => {
      const { a, b } = factors.get(target.name) as { a: Matrix; b: Matrix };
      const variant = variantOf(config, target.layer);
      const names = suffixes[variant.shapes(target, target.layer, config).has("lora_A.weight") ? 0 : 1];
      const tensors = new Map([
        [names[0], place(a)],
        [names[1], place(b)],
      ]);
      const options = {
        adapter: name,
        config,
        target,
        dtype,
        device,
        generator: undefined,
        shared: new Map(),
      };
      return { target, branch: variant.create(target.layer, options, tensors) };
    });
  return attach(model, name, config, parts).disable();
}

/**
 * A new adapter, disabled at first, that combines the updates of others on the same model, as PEFT's `add_weighted_adapter`. A layer that
 * only some of them adapt gets the combination of those.
 *
 * - "cat": the exact weighted sum; the rank is the sum of ranks.
 * - "svd": its best approximation of rank `svdRank`.
 * - "linear": A and B each summed with the roots of the weights; for adapters of one rank. Not the sum of the updates.
 * - "ties", "dare_linear", "dare_ties", "magnitude_prune": likewise, after pruning to `density`; with "_svd" on whole updates.
 *
 * The result has scaling 1. In two places PEFT counts a scaling once more: "svd" and "…_svd" multiply updates that are scaled already, and
 * a first adapter with `use_rslora` leaves that to the result, for a factor of √r; here the sum is the sum.
 *
 * @param weights - one for each adapter, negative ones subtract; the adapters' own `weight` does not count
 * @throws {ArgumentError} for options out of range, adapters of other variants (DoRA), or ranks that differ where they may not
 */
export function addWeightedAdapter(
  adapters: readonly Adapter[],
  weights: readonly number[],
  name: string,
  options: CombineOptions = {},
): Adapter {
  requireList("addWeightedAdapter", "adapters", adapters);
  requireList("addWeightedAdapter", "weights", weights);
  requireOptions("addWeightedAdapter", options);
  for (const adapter of adapters) requireAdapter("addWeightedAdapter", adapter);
  const how = checked(adapters, weights, options);
  const { model } = adapters[0];
  checkAdapterName(model, name);
  const combined = new Map<string, { a: Matrix; b: Matrix }>();
  for (const at of adaptedLayers(model).keys()) {
    const here = adapters.flatMap((adapter, k) => {
      const branch = adapter.branches().get(at);
      return branch ? [{ factors: factorsOf(branch, "addWeightedAdapter"), weight: weights[k] }] : [];
    });
    if (here.length === 0) continue;
    const parts = here.map(({ factors }) => factors);
    const own = here.map(({ weight }) => weight);
    combined.set(at, combineLayer(parts, own, how));
  }
  return adapterFrom(model, name, how.rank, adapters[0], combined);
}

/** What compression lost in one layer. */
export interface CompressionError {
  readonly name: string;
  /** ‖ΔW − ΔW′‖ / ‖ΔW‖ in the Frobenius norm; 0 for an update of zero. */
  readonly relativeError: number;
  /** Singular values of ΔW, descending. */
  readonly singularValues: Float64Array;
}

/**
 * A new adapter, disabled at first, with the best approximation of rank `rank` of another's update, layer by layer.
 * @returns the adapter, and what was lost in each layer
 * @throws {ArgumentError} for an adapter of another variant (DoRA), a name that is taken, or a rank that is no positive integer
 */
export function compressAdapter(
  adapter: Adapter,
  rank: number,
  name: string,
): { adapter: Adapter; errors: CompressionError[] } {
  requireAdapter("compressAdapter", adapter);
  if (!Number.isSafeInteger(rank) || rank < 1)
    throw new ArgumentError(`compressAdapter: rank must be a positive integer, not ${rank}`);
  checkAdapterName(adapter.model, name);
  const factors = new Map<string, { a: Matrix; b: Matrix }>();
  const errors: CompressionError[] = [];
  for (const [at, branch] of adapter.branches()) {
    const { a, b, scaling } = factorsOf(branch, "compressAdapter");
    const parts = svdOfProduct({ ...b, data: b.data.map((value) => value * scaling) }, a);
    factors.set(at, fromSvd(parts, rank));
    const squares = (values: Float64Array) => values.reduce((sum, value) => sum + value * value, 0);
    const whole = squares(parts.s);
    const relativeError = whole === 0 ? 0 : Math.sqrt(squares(parts.s.slice(rank)) / whole);
    errors.push({ name: at, relativeError, singularValues: parts.s });
  }
  return { adapter: adapterFrom(adapter.model, name, rank, adapter, factors), errors };
}
