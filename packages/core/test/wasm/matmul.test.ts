import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import type { Operand } from "../../src/backend/types.js";
import { matmul } from "../../src/backend/wasm/matmul.js";
import { WasmRuntime } from "../../src/backend/wasm/runtime.js";
import { block, contiguous, noise, release, rowMajor, sizeOf, valuesOf } from "./operands.js";

const runtime = WasmRuntime.create({ threads: 2 });
afterAll(() => runtime.shutdown());

/** In float64, element by element. `bound` sums the magnitudes: rounding errors are at most some of its last bits. */
function expected(a: Operand, b: Operand, alpha: number, beta: number, out: Operand) {
  const [m, n] = out.shape.slice(-2);
  const k = a.shape[a.shape.length - 1];
  const left = valuesOf(runtime, a);
  const right = valuesOf(runtime, b);
  const before = valuesOf(runtime, out);
  const sums = new Float64Array(before.length);
  const bounds = new Float64Array(before.length);
  for (let index = 0; index < before.length; index++) {
    const j = index % n;
    const i = Math.floor(index / n) % m;
    const batch = Math.floor(index / (m * n));
    let sum = 0;
    let bound = 0;
    for (let p = 0; p < k; p++) {
      const product = left[(batch * m + i) * k + p] * right[(batch * k + p) * n + j];
      sum += product;
      bound += Math.abs(product);
    }
    sums[index] = alpha * sum + (beta === 0 ? 0 : beta * before[index]);
    bounds[index] = Math.abs(alpha) * bound + (beta === 0 ? 0 : Math.abs(beta * before[index]));
  }
  return { sums, bounds };
}

// A float32 sum of k terms in blocks of lanes loses far less than the worst case k·2⁻²⁴.
const tolerance = 2 ** -24 * 24;

function check(a: Operand, b: Operand, alpha: number, beta: number, out: Operand): void {
  const { sums, bounds } = expected(a, b, alpha, beta, out);
  matmul(runtime, a, b, { alpha, beta }, out);
  const got = valuesOf(runtime, out);
  for (let i = 0; i < got.length; i++) {
    const error = Math.abs(got[i] - sums[i]);
    if (!(error <= tolerance * bounds[i] + 1e-37)) {
      throw new Error(`element ${i}: ${got[i]} instead of ${sums[i]}, shapes [${a.shape}] · [${b.shape}]`);
    }
  }
}

/** Memory layouts of a matrix [rows, columns]: row-major, transposed, padded rows, spread, reversed, broadcast. */
type Layout = "rows" | "columns" | "padded" | "spread" | "reversed" | "broadcast";
const layouts: Layout[] = ["rows", "columns", "padded", "spread", "reversed", "broadcast"];

function laidOut(shape: number[], layout: Layout, broadcastBatch: boolean, seed: number): Operand {
  const rank = shape.length;
  const [rows, columns] = shape.slice(-2);
  const matrix = {
    rows: [columns, 1],
    columns: [1, rows],
    padded: [columns + 3, 1],
    spread: [2 * columns + 1, 2],
  };
  let [row, column] = layout === "reversed" || layout === "broadcast" ? [columns, 1] : matrix[layout];
  const extent = (rows + 1) * (2 * columns + 3);
  const batch = sizeOf(shape.slice(0, -2));
  const strides = rowMajor(shape.slice(0, -2)).map((s) => (broadcastBatch ? 0 : s * extent));
  let offset = 5;
  if (layout === "reversed") {
    offset += (rows - 1) * row + (columns - 1) * column;
    [row, column] = [-row, -column];
  }
  if (layout === "broadcast") row = 0;
  return block(
    runtime,
    shape,
    [...strides.slice(0, rank - 2), row, column],
    offset,
    batch * extent + 5,
    noise(seed),
  );
}

function outOf(shape: number[], padding: number): Operand {
  const [m, n] = shape.slice(-2);
  const strides = rowMajor(shape.slice(0, -2)).map((s) => s * m * (n + padding));
  const elements = sizeOf(shape.slice(0, -2)) * m * (n + padding);
  return block(runtime, shape, [...strides, n + padding, 1], 0, elements, noise(9));
}

const length = fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 1, max: 70 }));
const depth = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 1, max: 600 }));
const factor = fc.constantFrom(0, 1, -0.5, 2);

describe("matmul", () => {
  it("equals the sum in float64 for any shape, layout, batch, alpha and beta", () => {
    fc.assert(
      fc.property(
        fc.record({
          batch: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
          m: length,
          n: length,
          k: depth,
          layoutA: fc.constantFrom(...layouts),
          layoutB: fc.constantFrom(...layouts),
          broadcastA: fc.boolean(),
          broadcastB: fc.boolean(),
          alpha: factor,
          beta: factor,
          padding: fc.constantFrom(0, 3),
        }),
        ({ batch, m, n, k, layoutA, layoutB, broadcastA, broadcastB, alpha, beta, padding }) => {
          const a = laidOut([...batch, m, k], layoutA, broadcastA, 1);
          const b = laidOut([...batch, k, n], layoutB, broadcastB, 2);
          const out = outOf([...batch, m, n], padding);
          check(a, b, alpha, beta, out);
          release(runtime, a, b, out);
        },
      ),
      { numRuns: 400 },
    );
  });

  it.each([
    [300, 70, 300],
    [129, 515, 33],
    [131, 203, 801],
    [37, 301, 801],
    [1025, 1030, 40],
    [16, 700, 257],
    [700, 16, 513],
    [512, 512, 16],
    [1, 1000, 300],
    [2, 301, 1000],
    [999, 1, 301],
    [1031, 3, 70],
    [64, 64, 64],
    [5, 1031, 259],
    [7, 130, 2051],
    [13, 901, 301],
    [200, 6, 35],
    [9, 3, 130],
  ])("equals the sum in float64 in all transposes: %i × %i, depth %i", (m, n, k) => {
    for (const layoutA of ["rows", "columns"] as const) {
      for (const layoutB of ["rows", "columns"] as const) {
        const a = laidOut([m, k], layoutA, false, 3);
        const b = laidOut([k, n], layoutB, false, 4);
        const out = outOf([m, n], 1);
        check(a, b, 0.5, layoutA === "rows" ? 0 : 1.5, out);
        release(runtime, a, b, out);
      }
    }
  });

  it("does not read out when beta is 0, and leaves the gaps between rows alone", () => {
    for (const [m, n, k] of [
      [5, 7, 3],
      [1, 9, 4],
      [9, 1, 4],
      [130, 130, 130],
      [3, 3, 0],
    ]) {
      const a = contiguous(runtime, [m, k], noise(1));
      const b = contiguous(runtime, [k, n], noise(2));
      const out = block(runtime, [m, n], [n + 2, 1], 0, m * (n + 2), () => Number.NaN);
      matmul(runtime, a, b, { alpha: 1, beta: 0 }, out);
      expect(valuesOf(runtime, out).every(Number.isFinite)).toBe(true);
      const gap = { ...out, shape: [m, 2], offset: n };
      expect(valuesOf(runtime, gap).every(Number.isNaN)).toBe(true);
      release(runtime, a, b, out);
    }
  });

  it("gives the same bits for any number of threads", () => {
    const cases: [m: number, n: number, k: number, transposeB: boolean, batch: number][] = [
      [300, 301, 302, false, 1],
      [50, 700, 400, false, 1],
      [512, 16, 2048, false, 1],
      [16, 2048, 512, true, 1],
      [40, 700, 300, true, 1],
      [1, 3000, 500, true, 1],
      [1, 3000, 500, false, 1],
      [5, 3000, 500, true, 1],
      [5, 3000, 500, false, 1],
      [33, 65, 64, true, 24],
    ];
    const results = [1, 2, 3, 8].map((threads) => {
      const own = WasmRuntime.create({ threads });
      try {
        expect(own.waitForWorkers()).toBe(threads - 1);
        return cases.map(([m, n, k, transposeB, batch]) => {
          const a = contiguous(own, [batch, m, k], noise(5));
          const b = contiguous(own, [batch, k, n], noise(6));
          const right = transposeB ? { ...b, strides: [k * n, 1, k] } : b;
          const out = contiguous(own, [batch, m, n], noise(7));
          matmul(own, a, right, { alpha: 0.7, beta: 0.3 }, out);
          const start = own.address(out) / 4;
          return own.views.i32().slice(start, start + batch * m * n);
        });
      } finally {
        own.shutdown();
      }
    });
    for (const other of results.slice(1)) {
      for (const [i, bits] of other.entries()) {
        expect(bits.findIndex((word, at) => word !== results[0][i][at])).toBe(-1);
      }
    }
  });

  it("frees what it packs", () => {
    const used = runtime.allocator.statistics().used;
    const b = contiguous(runtime, [400, 400], noise(1));
    for (const rows of [200, 400]) {
      const a = contiguous(runtime, [rows, 400], noise(1));
      const out = contiguous(runtime, [rows, 400], noise(1));
      matmul(runtime, a, b, { alpha: 1, beta: 0 }, out);
      release(runtime, a, out);
    }
    release(runtime, b);
    expect(runtime.allocator.statistics().used).toBe(used);
  });
});
