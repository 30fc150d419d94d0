// How values of several adapters become one: task arithmetic (arXiv:2212.04089), TIES (arXiv:2306.01708), DARE (arXiv:2311.03099) and
// pruning by magnitude, by PEFT's formulas (utils/merge_utils.py), on float64 arrays.

import { ArgumentError, type Generator } from "@nomoat/core";

export type SignMethod = "total" | "frequency";

/** The elementwise ways; with the suffix `_svd` they work on whole updates. */
export type ValueMethod = "linear" | "ties" | "dare_linear" | "dare_ties" | "magnitude_prune";

export interface ValueOptions {
  /** Share of values to keep, 0 … 1. */
  readonly density: number;
  readonly signMethod: SignMethod;
  /** For DARE. */
  readonly generator: Generator;
}

/** The ⌊density · n⌋ largest values by magnitude, others zero; of equals the first. */
export function pruneByMagnitude(values: Float64Array, density: number): Float64Array {
  const count = Math.trunc(density * values.length);
  const order = Array.from(values.keys()).sort((i, j) => Math.abs(values[j]) - Math.abs(values[i]));
  const out = new Float64Array(values.length);
  for (const i of order.slice(0, count)) out[i] = values[i];
  return out;
}

/** Each value kept with probability `density` and divided by it. */
function pruneAtRandom(values: Float64Array, density: number, generator: Generator): Float64Array {
  const mask = new Float64Array(values.length);
  generator.fillBernoulli(mask, density);
  return mask.map((kept, i) => (kept ? values[i] / density : 0));
}

/** Whether each value of each task has the sign that most have (by sum, or by count), ties counting as positive. */
function majority(tasks: readonly Float64Array[], method: SignMethod): boolean[][] {
  const total = new Float64Array(tasks[0].length);
  for (const task of tasks)
    for (let i = 0; i < task.length; i++) total[i] += method === "total" ? task[i] : Math.sign(task[i]);
  return tasks.map((task) => Array.from(task, (value, i) => Math.sign(value) === (total[i] >= 0 ? 1 : -1)));
}

/** The mean, over those tasks that agree with the majority, of weighted values. */
function disjointMean(
  tasks: readonly Float64Array[],
  weights: readonly number[],
  method: SignMethod,
): Float64Array {
  const agree = majority(tasks, method);
  const out = new Float64Array(tasks[0].length);
  for (let i = 0; i < out.length; i++) {
    let count = 0;
    tasks.forEach((task, k) => {
      if (!agree[k][i]) return;
      count++;
      out[i] += weights[k] * task[i];
    });
    out[i] /= Math.max(count, 1);
  }
  return out;
}

function weightedSum(tasks: readonly Float64Array[], weights: readonly number[]): Float64Array {
  const out = new Float64Array(tasks[0].length);
  tasks.forEach((task, k) => {
    for (let i = 0; i < out.length; i++) out[i] += weights[k] * task[i];
  });
  return out;
}

/** One array out of several of one length. */
export function combineValues(
  method: ValueMethod,
  tasks: readonly Float64Array[],
  weights: readonly number[],
  options: ValueOptions,
): Float64Array {
  const { density, signMethod, generator } = options;
  const magnitude = () => tasks.map((task) => pruneByMagnitude(task, density));
  const random = () => tasks.map((task) => pruneAtRandom(task, density, generator));
  switch (method) {
    case "linear":
      return weightedSum(tasks, weights);
    case "magnitude_prune":
      return weightedSum(magnitude(), weights);
    case "dare_linear":
      return weightedSum(random(), weights);
    case "ties":
      return disjointMean(magnitude(), weights, signMethod);
    case "dare_ties":
      return disjointMean(random(), weights, signMethod);
    default:
      throw new ArgumentError(`unknown way to combine: ${String(method)}`);
  }
}
