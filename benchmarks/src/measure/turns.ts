// An entry beside itself and beside a slower twin, in turns of a few milliseconds: whether equal times are found equal, and a tenth
// found, where runs one after the other would meet different disturbances.

import { fewestPairs, pairedInterval } from "../compare/paired.js";
import type { Entry, Prepared } from "../model.js";
import { timeOfRound } from "../statistics.js";
import { slow } from "./slowed.js";
import { type Effort, timeEntry } from "./timing.js";

/** Times of one call, round by round. */
export interface Turns {
  readonly plain: number[];
  readonly again: number[];
  readonly slowed: number[];
}

/** Rounds go on until both intervals are this narrow, half their width as a share. */
const narrow = 0.025;
const mostRounds = 48;

const halfWidth = (first: readonly number[], second: readonly number[]): number => {
  const { low, high } = pairedInterval(first, second);
  return (high - low) / 2;
};

/**
 * Measures an entry, the same again, and one slowed by `share`, each first, second and last equally often.
 *
 * @param deadline - of performance.now(): after it there are no more rounds than it takes to say anything
 */
export async function takeTurns(
  entry: Entry,
  effort: Effort,
  share: number,
  deadline: number,
): Promise<Turns> {
  const prepared = await entry.prepare();
  try {
    const variants: readonly (readonly [keyof Turns, Prepared])[] = [
      ["plain", prepared],
      ["again", { ...prepared }],
      ["slowed", slow(prepared, share)],
    ];
    const turns: Turns = { plain: [], again: [], slowed: [] };
    // Warmed up in every form before anything counts.
    for (const [, one] of variants) await timeEntry(one, effort, true);
    const fewest = fewestPairs(0.99) + 1;
    for (let round = 0; round < mostRounds; round++) {
      if (round >= fewest) {
        const { plain, again, slowed } = turns;
        if (Math.max(halfWidth(plain, again), halfWidth(plain, slowed)) < narrow) break;
        if (performance.now() > deadline) break;
      }
      for (let i = 0; i < variants.length; i++) {
        const [name, one] = variants[(round + i) % variants.length];
        const { seconds } = await timeEntry(one, effort, false);
        turns[name].push(timeOfRound(seconds));
      }
    }
    return turns;
  } finally {
    await prepared.dispose();
  }
}
