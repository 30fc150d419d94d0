// A confidence interval for the ratio of two run times, by the bootstrap.
//
// Samples come in rounds. Those of one round share what the machine was doing then, so they are not independent; rounds are.
// Only the faster half of them is looked at, which other programs have mostly left alone. The bootstrap draws rounds first and
// samples within them second (Davison and Hinkley, 1997, section 3.8). With few rounds it understates the spread between them by
// √((R − 1)/R), and its quantiles are a normal's rather than a t's: both are corrected. Times are compared on a log scale, where
// slower by half and faster by half are alike.
//
// Where several processes shared the rounds, the bootstrap draws processes first: how memory came to lie and what the compiler chose
// is the same in all rounds of one. There are few of them, so that their quantiles are taken from Student's t and the deviation.
//
// What differs between two runs of the same beyond that (who else was on the machine, how warm it was) is in none of their samples.
// It is added as a deviation of its own.

import { randomWords } from "../inputs.js";
import {
  firstDecile,
  quantile,
  type Samples,
  sortedCopy,
  timeOfSamples,
  undisturbedByLaunch,
} from "../statistics.js";

export interface RatioInterval {
  /** Typical time of the second by that of the first. */
  readonly ratio: number;
  readonly low: number;
  readonly high: number;
}

export interface BootstrapOptions {
  /** Share of intervals that hold the true ratio (default 0.99: of a hundred cases one is expected to fool us). */
  readonly confidence?: number;
  readonly resamples?: number;
  /** Standard deviation of the log of a run's times from run to run, beyond what its rounds show (default 0.01). */
  readonly drift?: number;
  readonly seed?: number;
}

/** Times of resamples that are drawn for each round once, to be drawn from again. */
const timesOfRound = 200;

/** Quantile of the standard normal distribution, |error| < 1.2e-9 (P. J. Acklam's rational approximation). */
export function normalQuantile(p: number): number {
  const a = [
    -39.69683028665376, 220.9460984245205, -275.9285104469687, 138.357751867269, -30.66479806614716,
    2.506628277459239,
  ];
  const b = [
    -54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1,
  ];
  const c = [
    -0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968,
    2.938163982698783,
  ];
  const d = [0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1];
  const polynomial = (coefficients: readonly number[], x: number): number =>
    coefficients.reduce((sum, coefficient) => sum * x + coefficient, 0);
  const tail = 0.02425;
  if (p < tail) {
    const q = Math.sqrt(-2 * Math.log(p));
    return polynomial(c, q) / polynomial(d, q);
  }
  if (p > 1 - tail) return -normalQuantile(1 - p);
  const q = p - 0.5;
  return (polynomial(a, q * q) * q) / polynomial(b, q * q);
}

/**
 * Quantile of Student's t with `freedom` degrees: exact for one and two, else by Abramowitz and Stegun, 26.7.5 (within 2 % from 4
 * degrees on).
 */
export function studentQuantile(p: number, freedom: number): number {
  if (freedom === 1) return Math.tan(Math.PI * (p - 0.5));
  if (freedom === 2) return (2 * p - 1) / Math.sqrt(2 * p * (1 - p));
  const z = normalQuantile(p);
  const [z3, z5, z7] = [z ** 3, z ** 5, z ** 7];
  return (
    z +
    (z3 + z) / (4 * freedom) +
    (5 * z5 + 16 * z3 + 3 * z) / (96 * freedom ** 2) +
    (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * freedom ** 3)
  );
}

type Draw = () => number;

/** Draws logs of the time that a process says: of resampled rounds, whose samples are resampled too. */
function resampler(rounds: readonly (readonly number[])[], below: (n: number) => number): Draw {
  const times = rounds.map((round) => {
    const drawn = new Float64Array(round.length);
    return Array.from({ length: round.length > 1 ? timesOfRound : 1 }, () => {
      for (let i = 0; i < drawn.length; i++) drawn[i] = round[below(round.length)];
      return Math.log(quantile(drawn.sort(), firstDecile));
    });
  });
  return () => {
    let sum = 0;
    for (let i = 0; i < times.length; i++) {
      const drawn = times[below(times.length)];
      sum += drawn[below(drawn.length)];
    }
    return sum / times.length;
  };
}

/** One side of a comparison. */
interface Side {
  readonly draw: Draw;
  /** What is independent of each other and resampled first: processes where there are several, otherwise rounds. */
  readonly units: number;
  readonly launches: number;
}

function sideOf(samples: Samples, next: () => number): Side {
  const below = (n: number): number => Math.floor((next() / 2 ** 32) * n);
  const launches = undisturbedByLaunch(samples);
  const draws = launches.map((rounds) => resampler(rounds, below));
  const draw = (): number => {
    if (draws.length === 1) return draws[0]();
    let sum = 0;
    for (let i = 0; i < draws.length; i++) sum += draws[below(draws.length)]();
    return sum / draws.length;
  };
  return { draw, units: draws.length > 1 ? draws.length : launches[0].length, launches: draws.length };
}

/** How far the ends of an interval lie from the middle, on a log scale. */
function reach(sides: readonly Side[], draw: Draw, point: number, confidence: number, resamples: number) {
  const drawn = sortedCopy(Array.from({ length: resamples }, draw));
  const tail = (1 - confidence) / 2;
  const freedom = sides.reduce((sum, { units }) => sum + units - 1, 0);
  const fewest = Math.max(2, Math.min(...sides.map(({ units }) => units)));
  // With one round on each side nothing is known of what differs between rounds.
  const few = freedom === 0 ? 1 : Math.sqrt(fewest / (fewest - 1));
  const student = freedom === 0 ? normalQuantile(1 - tail) : studentQuantile(1 - tail, freedom);
  if (sides.some(({ launches }) => launches > 1)) {
    const deviation = Math.sqrt(drawn.reduce((sum, one) => sum + (one - point) ** 2, 0) / drawn.length);
    const end = few * student * deviation;
    return { below: end, above: end };
  }
  const wide = (few * student) / normalQuantile(1 - tail);
  return {
    below: wide * Math.max(0, point - quantile(drawn, tail)),
    above: wide * Math.max(0, quantile(drawn, 1 - tail) - point),
  };
}

/** The ratio second / first of typical times, with its interval. The same samples give the same interval. */
export function ratioInterval(
  first: Samples,
  second: Samples,
  options: BootstrapOptions = {},
): RatioInterval {
  const { confidence = 0.99, resamples = 2000, drift = 0.01, seed = 1 } = options;
  const next = randomWords(seed);
  const [before, after] = [sideOf(first, next), sideOf(second, next)];
  const point = Math.log(timeOfSamples(second) / timeOfSamples(first));
  const draw = (): number => after.draw() - before.draw();
  const { below, above } = reach([before, after], draw, point, confidence, resamples);
  const between = Math.SQRT2 * drift * normalQuantile(1 - (1 - confidence) / 2);
  return {
    ratio: Math.exp(point),
    low: Math.exp(point - Math.hypot(below, between)),
    high: Math.exp(point + Math.hypot(above, between)),
  };
}

/** Half the width of the interval of one time, as a share of it; null where a single sample says nothing of that. */
export function uncertainty(samples: Samples, confidence = 0.95): number | null {
  if (samples.rounds.flat().length < 2) return null;
  const side = sideOf(samples, randomWords(1));
  const point = Math.log(timeOfSamples(samples));
  const { below, above } = reach([side], side.draw, point, confidence, 300);
  return Math.expm1((below + above) / 2);
}
