// Summaries of samples.

/** The q-quantile of sorted values, linear between them. */
export function quantile(sorted: readonly number[], q: number): number {
  if (sorted.length === 0) return Number.NaN;
  const position = q * (sorted.length - 1);
  const low = Math.floor(position);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (position - low) * (sorted[high] - sorted[low]);
}

export function sortedCopy(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

export function median(values: readonly number[]): number {
  return quantile(sortedCopy(values), 0.5);
}

export interface Summary {
  /** Seconds of one call: the geometric mean of the rounds' medians, which is also what `compare` compares. */
  readonly typical: number;
  /** The fastest sample. */
  readonly best: number;
  /** Half the width between the 10 % and 90 % quantiles of all samples, as a share of their median. */
  readonly spread: number;
  readonly samples: number;
}

/** Summary of samples by round; null where there are none. */
export function summarize(rounds: readonly (readonly number[])[]): Summary | null {
  const all = sortedCopy(rounds.flat());
  if (all.length === 0) return null;
  const logs = rounds.map((round) => Math.log(median(round)));
  return {
    typical: Math.exp(logs.reduce((sum, value) => sum + value, 0) / logs.length),
    best: all[0],
    spread: (quantile(all, 0.9) - quantile(all, 0.1)) / 2 / quantile(all, 0.5),
    samples: all.length,
  };
}
