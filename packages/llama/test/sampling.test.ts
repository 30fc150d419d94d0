// The sampler: its filters by hand, its frequencies by the numbers.

import { manualSeed } from "@nomoat/core";
import { describe, expect, it } from "vitest";
import { Sampler, type SamplingOptions } from "../src/index.js";

/** Shares with which ids come in 4,000 draws. */
function shares(probabilities: readonly number[], options: SamplingOptions, seen: number[] = []): number[] {
  const sampler = new Sampler({ temperature: 1, seed: 7, ...options });
  const counts = probabilities.map(() => 0);
  const logits = probabilities.map(Math.log);
  for (let i = 0; i < 4000; i++) counts[sampler.sample(logits, seen)]++;
  return counts.map((count) => count / 4000);
}

function expectShares(actual: readonly number[], expected: readonly number[]): void {
  actual.forEach((share, id) => {
    // Five standard deviations of 4,000 draws.
    expect(Math.abs(share - expected[id]), `${id}: ${share}`).toBeLessThan(5 * Math.sqrt(0.25 / 4000));
    if (expected[id] === 0) expect(share).toBe(0);
  });
}

describe("Sampler", () => {
  it("draws from the distribution", () => {
    expectShares(shares([0.1, 0.2, 0.7], {}), [0.1, 0.2, 0.7]);
    expectShares(shares([0, 0.25, 0.75], {}), [0, 0.25, 0.75]);
  });

  it("sharpens and flattens by temperature", () => {
    expectShares(shares([0.2, 0.8], { temperature: 0.5 }), [0.04 / 0.68, 0.64 / 0.68]);
    expectShares(shares([0.2, 0.8], { temperature: 1e6 }), [0.5, 0.5]);
  });

  it("keeps the topK most likely, smaller ids first among equals", () => {
    expectShares(shares([0.1, 0.3, 0.4, 0.2], { topK: 2 }), [0, 3 / 7, 4 / 7, 0]);
    expectShares(shares([0.25, 0.25, 0.25, 0.25], { topK: 2 }), [0.5, 0.5, 0, 0]);
    expectShares(shares([0.5, 0.5], { topK: 100 }), [0.5, 0.5]);
  });

  it("keeps the smallest set that reaches topP, the one that crosses it included", () => {
    const p = [0.1, 0.3, 0.4, 0.2];
    expectShares(shares(p, { topP: 0.39 }), [0, 0, 1, 0]);
    expectShares(shares(p, { topP: 0.6 }), [0, 3 / 7, 4 / 7, 0]);
    expectShares(shares(p, { topP: 0.8 }), [0, 3 / 9, 4 / 9, 2 / 9]);
    // After topK the shares are those of what is left: 0.4 / 0.7 is more than 0.55.
    expectShares(shares(p, { topK: 2, topP: 0.55 }), [0, 0, 1, 0]);
  });

  it("keeps what is at least minP times as likely as the most likely", () => {
    expectShares(shares([0.1, 0.3, 0.4, 0.2], { minP: 0.6 }), [0, 3 / 7, 4 / 7, 0]);
  });

  it("divides positive and multiplies negative logits of seen tokens", () => {
    const greedy = new Sampler({ repetitionPenalty: 2 });
    expect(greedy.sample([3, 2, 1], [0])).toBe(1);
    expect(greedy.sample([3, 1, 1], [0])).toBe(0);
    expect(greedy.sample([-1, -1.5, -3], [0])).toBe(1);
    expect(greedy.sample([3, 2, 1], [0, 0, 0])).toBe(1);
  });

  it("takes the first of the most likely at temperature 0", () => {
    expect(new Sampler().sample([1, 5, 5, 2])).toBe(1);
    expect(new Sampler().sample([Number.NEGATIVE_INFINITY, -3])).toBe(1);
  });

  it("follows core's default generator without a seed", () => {
    const draw = (): number[] => {
      const sampler = new Sampler({ temperature: 1 });
      return Array.from({ length: 10 }, () => sampler.sample([0, 0, 0, 0, 0, 0]));
    };
    manualSeed(3);
    const first = draw();
    expect(draw()).not.toEqual(first);
    manualSeed(3);
    expect(draw()).toEqual(first);
  });

  it("refuses logits that are NaN, +∞ or all −∞", () => {
    const minus = Number.NEGATIVE_INFINITY;
    for (const logits of [[1, Number.NaN], [Number.POSITIVE_INFINITY, 1], [minus, minus], [Number.NaN]]) {
      expect(() => new Sampler().sample(logits)).toThrow(expect.objectContaining({ code: "NOT_FINITE" }));
    }
  });
});
