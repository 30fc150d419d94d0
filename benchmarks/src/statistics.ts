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

/** Samples by round, and how many of the rounds, in their order, each process measured. */
export interface Samples {
  readonly rounds: readonly (readonly number[])[];
  readonly launches: readonly number[];
}

/** The undisturbed rounds of each process. */
export function undisturbedByLaunch({ rounds, launches }: Samples): (readonly number[])[][] {
  let at = 0;
  return launches.map((count) => {
    at += count;
    return undisturbed(rounds.slice(at - count, at));
  });
}

const mean = (values: readonly number[]): number => values.reduce((sum, one) => sum + one, 0) / values.length;

/** The geometric mean of processes, and in each of what its undisturbed rounds say. */
export function timeOfSamples(samples: Samples): number {
  return Math.exp(
    mean(
      undisturbedByLaunch(samples).map((rounds) => mean(rounds.map((round) => Math.log(timeOfRound(round))))),
    ),
  );
}

export interface Summary {
  /** Seconds of one call, by `timeOfSamples`, which is also what `compare` compares. */
  readonly typical: number;
  /** The fastest sample. */
  readonly best: number;
  readonly samples: number;
}

/** Summary of samples; null where there are none. */
export function summarize(samples: Samples): Summary | null {
  const all = samples.rounds.flat();
  if (all.length === 0) return null;
  return { typical: timeOfSamples(samples), best: Math.min(...all), samples: all.length };
}
