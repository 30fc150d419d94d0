// Summaries of samples.

/** The q-quantile of sorted values, linear between them. */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  if (sorted.length === 0) return Number.NaN;
  const position = q * (sorted.length - 1);
  const low = Math.floor(position);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (position - low) * (sorted[high] - sorted[low]);
}

export function sortedCopy(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

/** Which quantile of a round's samples stands for it. */
export const firstDecile = 0.1;

/**
 * What a round says of the time of one call: the first decile of its samples. Other programs and the collector only ever add
 * time, so a low quantile is steadier than the median, and it is no rare event as the minimum is.
 */
export function timeOfRound(samples: readonly number[]): number {
  return quantile(sortedCopy(samples), firstDecile);
}

/**
 * The faster half of the rounds. A disturbance that lasts longer than a round slows all of its samples, so that rounds are either
 * disturbed, by nobody knows how much, or not.
 */
export function undisturbed(rounds: readonly (readonly number[])[]): (readonly number[])[] {
  const byTime = rounds.map((round) => ({ round, time: timeOfRound(round) })).sort((a, b) => a.time - b.time);
  return byTime.slice(0, Math.ceil(rounds.length / 2)).map(({ round }) => round);
}

/** The geometric mean of what the undisturbed rounds say. */
export function timeOfRounds(rounds: readonly (readonly number[])[]): number {
  const kept = undisturbed(rounds);
  return Math.exp(kept.reduce((sum, round) => sum + Math.log(timeOfRound(round)), 0) / kept.length);
}

export interface Summary {
  /** Seconds of one call, by `timeOfRounds`, which is also what `compare` compares. */
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
  return {
    typical: timeOfRounds(rounds),
    best: all[0],
    spread: (quantile(all, 0.9) - quantile(all, 0.1)) / 2 / quantile(all, 0.5),
    samples: all.length,
  };
}
