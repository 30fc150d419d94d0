// A confidence interval for the ratio of two times that were taken in turns, moments apart: what disturbs one of a pair mostly
// disturbs the other, so that their ratio is far steadier than either.
//
// The estimate is the Hodges–Lehmann one (the median of all pairwise means), the interval that of Wilcoxon's signed-rank test, which
// needs no more than that the log ratios are as likely above the truth as below (Hollander, Wolfe and Chicken, 2014, section 3.3).

import { quantile } from "../statistics.js";
import type { RatioInterval } from "./bootstrap.js";

/** How many subsets of the ranks 1 … n have each sum. */
function rankSums(n: number): Float64Array {
  const counts = new Float64Array((n * (n + 1)) / 2 + 1);
  counts[0] = 1;
  for (let rank = 1; rank <= n; rank++) {
    for (let sum = counts.length - 1; sum >= rank; sum--) counts[sum] += counts[sum - rank];
  }
  return counts;
}

/** How many of the smallest pairwise means lie outside of the interval on its side; -1 where n pairs are too few for one. */
function outside(n: number, confidence: number): number {
  const counts = rankSums(n);
  const most = ((1 - confidence) / 2) * 2 ** n;
  let below = 0;
  for (let sum = 0; sum < counts.length; sum++) {
    below += counts[sum];
    if (below > most) return sum - 1;
  }
  return counts.length - 1;
}

/** Fewest pairs that give an interval of that confidence. */
export function fewestPairs(confidence: number): number {
  return Math.ceil(1 - Math.log2(1 - confidence));
}

/**
 * The ratio second / first from times of both, round by round.
 *
 * With fewer rounds than `fewestPairs`, nothing is known: the interval is everything.
 */
export function pairedInterval(
  first: readonly number[],
  second: readonly number[],
  confidence = 0.99,
): RatioInterval {
  const logs = first.map((time, i) => Math.log(second[i] / time));
  const means: number[] = [];
  for (let i = 0; i < logs.length; i++)
    for (let j = i; j < logs.length; j++) means.push((logs[i] + logs[j]) / 2);
  means.sort((a, b) => a - b);
  const ratio = Math.exp(quantile(means, 0.5));
  const cut = outside(logs.length, confidence);
  if (cut < 0) return { ratio, low: 0, high: Number.POSITIVE_INFINITY };
  return { ratio, low: Math.exp(means[cut]), high: Math.exp(means[means.length - 1 - cut]) };
}
