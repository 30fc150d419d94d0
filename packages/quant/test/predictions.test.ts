// Perplexity and KL divergence against their definitions, and in reports.

import { ArgumentError, init, memoryStats, ShapeError, tensor } from "@nomoat/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PredictionComparison, quantizationReport, quantize } from "../src/index.js";
import { bell, bellTensor } from "./helpers.js";

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

function logarithms(row: ArrayLike<number>): number[] {
  const values = Array.from(row);
  const sum = values.reduce((total, x) => total + Math.exp(x), 0);
  return values.map((x) => x - Math.log(sum));
}

describe("PredictionComparison", () => {
  it("has the means of the definitions, over batches and over more rows than go at once", async () => {
    const [rows, classes] = [600, 7];
    const q = bell(rows * classes, 1, 2);
    const p = bell(rows * classes, 2, 2);
    const targets = Int32Array.from({ length: rows }, (_, i) => (i % 5 === 0 ? -100 : (i * 3) % classes));
    const comparison = new PredictionComparison();
    const before = memoryStats().tensors;
    for (const [from, end] of [
      [0, 40],
      [40, rows],
    ]) {
      const part = (values: Float32Array) =>
        tensor(values.slice(from * classes, end * classes), { shape: [2, (end - from) / 2, classes] });
      const [a, b] = [part(q), part(p)];
      await comparison.add(a, b, targets.subarray(from, end));
      a.dispose();
      b.dispose();
    }
    expect(memoryStats().tensors).toBe(before);
    let [loss, referenceLoss, divergence, same, count] = [0, 0, 0, 0, 0];
    const differences: number[] = [];
    const losses: number[] = [];
    for (let row = 0; row < rows; row++) {
      if (targets[row] === -100) continue;
      const lq = logarithms(q.subarray(row * classes, (row + 1) * classes));
      const lp = logarithms(p.subarray(row * classes, (row + 1) * classes));
      loss -= lq[targets[row]];
      referenceLoss -= lp[targets[row]];
      losses.push(-lq[targets[row]]);
      differences.push(lp[targets[row]] - lq[targets[row]]);
      divergence += lp.reduce((sum, x, i) => sum + Math.exp(x) * (x - lq[i]), 0);
      if (lq.indexOf(Math.max(...lq)) === lp.indexOf(Math.max(...lp))) same++;
      count++;
    }
    const { result } = comparison;
    expect(result.tokens).toBe(count);
    expect(result.perplexity).toBeCloseTo(Math.exp(loss / count), 4);
    expect(result.referencePerplexity).toBeCloseTo(Math.exp(referenceLoss / count), 4);
    expect(result.divergence).toBeCloseTo(divergence / count, 5);
    expect(result.agreement).toBeCloseTo(same / count, 9);
    const mean = (loss - referenceLoss) / count;
    const variance = differences.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (count - 1);
    expect(result.standardError).toBeCloseTo(Math.sqrt(variance / count), 5);
    expect(comparison.losses).toHaveLength(count);
    for (const [i, each] of comparison.losses.entries()) expect(each).toBeCloseTo(losses[i], 4);
  });

  it("is 0 between equals, where a class is impossible too", async () => {
    const logits = tensor(Float32Array.of(1, -Infinity, 2, 0, 0.5, -Infinity), { shape: [2, 3] });
    const comparison = new PredictionComparison();
    await comparison.add(logits, logits, [2, 1]);
    expect(comparison.result.divergence).toBe(0);
    expect(comparison.result.agreement).toBe(1);
    expect(comparison.result.standardError).toBe(0);
    logits.dispose();
  });

  it("refuses what does not belong together", async () => {
    const [a, b] = [bellTensor([2, 3], 1), bellTensor([2, 4], 1)];
    const comparison = new PredictionComparison();
    await expect(comparison.add(a, b, [0, 1])).rejects.toThrow(ShapeError);
    await expect(comparison.add(a, a, [0])).rejects.toThrow("1 targets do not belong together");
    await expect(comparison.add(a, a, [0, 3])).rejects.toThrow("target 3 at 1 is none of 3 classes");
    expect(() => comparison.result).toThrow(ArgumentError);
    a.dispose();
    b.dispose();
  });

  it("stands in reports: table, JSON and chart", () => {
    const x = bellTensor([4, 64], 1);
    const w = quantize(x, { format: "q8_0" });
    const predictions = {
      ...{ tokens: 1000, perplexity: 10.1, referencePerplexity: 10, standardError: 0.002 },
      ...{ divergence: 0.0123, agreement: 0.95 },
    };
    const report = quantizationReport(w, { predictions });
    expect(String(report)).toContain(
      "perplexity 10.100 (reference 10.000, +1.00 ± 0.20 %); KL divergence 0.0123 nats a token; same likeliest token at 95.0 % of 1000",
    );
    expect(report.toJSON().predictions).toEqual(predictions);
    expect(report.toSVG()).toContain("KL divergence 0.0123");
    expect(quantizationReport(w).toSVG()).not.toContain("KL divergence");
    expect(quantizationReport(w).toJSON().predictions).toBeNull();
    w.dispose();
    x.dispose();
  });
});
