// How long entries will take: guessed before anything is measured, corrected by what is measured; and which would take too long.

import type { Entry, Work } from "../model.js";
import { type Effort, warmupOf } from "./timing.js";

/** Operations a second of this library on one thread, roughly, for guesses. */
const usualRate = 2e10;
/** Seconds of a first round beside its calls and warming up: inputs, and the check. */
const firstSeconds = 0.2;
/** Part of the time for warming up that is used, in the middle. */
const warmupUsed = 0.3;
/** Calls of a slow case, its check among them. */
const slowCalls = 3.5;
/** Seconds of looking for the peaks of one thread count. */
const peakSeconds = 2;
/** What a round of a case takes, by the time of its samples. */
const turns = 1.6;
/** Calls shorter than this, in seconds, say little of how long larger ones will take. */
const telling = 5e-3;

/** Operations a byte of a case that tells of another are at least this share of the other's: memory says nothing of arithmetic. */
const likeIntensity = 1 / 9;

const intensity = ({ operations, bytes }: Work): number => operations / Math.max(1, bytes);

/** Seconds of an entry in its first round, and in each later one. */
export interface Guess {
  readonly now: number;
  readonly later: number;
}

function guess({ work, threads, rate }: Entry, effort: Effort, share: number): Guess {
  const call = work.operations / (rate ?? usualRate * threads);
  if (call > effort.mostCall && rate !== undefined) return { now: 0, later: 0 };
  if (call > effort.slowCall) return { now: firstSeconds + slowCalls * call, later: 0 };
  // Samples of one round, their inputs, and warming up; few cases have no use for all of the run.
  const turn = Math.min(share, (turns * effort.milliseconds) / 1000);
  const warmup = (warmupUsed * warmupOf(effort, share)) / 1000;
  return { now: firstSeconds + warmup + slowCalls * call + turn, later: Math.max(turn, 2 * call) };
}

/** Guesses of entries, corrected by those that were measured. */
export class Outlook {
  readonly #guesses: ReadonlyMap<Entry, Guess>;
  #guessed = 0;
  #took = 0;

  constructor(entries: readonly Entry[], effort: Effort) {
    const share = effort.seconds / (entries.length * effort.rounds);
    this.#guesses = new Map(entries.map((entry) => [entry, guess(entry, effort, share)]));
  }

  /** What an entry will take, on a machine that is as fast as it has been. */
  of(entry: Entry): Guess {
    const { now, later } = this.#guesses.get(entry)!;
    // A few entries say little: the guess counts as some seconds of its own.
    const factor = (this.#took + 5) / (this.#guessed + 5);
    return { now: now * factor, later };
  }

  learn(entry: Entry, seconds: number): void {
    this.#guessed += this.#guesses.get(entry)!.now;
    this.#took += seconds;
  }
}

/** Seconds that a run will take, before anything is known. */
export function guessRun(entries: readonly Entry[], effort: Effort): number {
  const outlook = new Outlook(entries, effort);
  let [first, later] = [0, 0];
  for (const entry of entries) {
    const one = outlook.of(entry);
    first += one.now;
    later += one.later;
  }
  const peaks = peakSeconds * new Set(entries.map(({ threads }) => threads)).size;
  const rest = later * (effort.rounds - 1);
  return peaks + first + Math.min(rest, Math.max(later, effort.seconds - first));
}

/**
 * Why an entry need not be tried: what its implementation took for others says that one call would take longer than any may.
 *
 * @param known - entries and seconds of a call
 * @returns the reason, or null
 */
export function foresee(
  entry: Entry,
  known: Iterable<readonly [Entry, number]>,
  { mostCall }: Effort,
): string | null {
  const alike = (other: Entry): number =>
    Object.entries(entry.parameters).filter(
      ([name, value]) => typeof value === "string" && other.parameters[name] === value,
    ).length;
  const { implementation, backend, threads, suite, work } = entry;
  let best: { other: Entry; seconds: number; likeness: number } | null = null;
  for (const [other, seconds] of known) {
    const same =
      other.implementation.name === implementation.name &&
      other.backend === backend &&
      other.threads === threads &&
      other.suite === suite;
    if (!same || seconds < telling || other.work.operations === 0) continue;
    if (intensity(other.work) < likeIntensity * intensity(work)) continue;
    const likeness = alike(other);
    if (!best || likeness > best.likeness || (likeness === best.likeness && seconds > best.seconds))
      best = { other, seconds, likeness };
  }
  if (!best) return null;
  const { other, seconds } = best;
  const foreseen = (seconds * work.operations) / other.work.operations;
  if (foreseen <= mostCall) return null;
  return `left out: after ${seconds.toPrecision(2)} s for ${other.name}, one call would take ${foreseen.toPrecision(2)} s, and may take ${mostCall} s`;
}
