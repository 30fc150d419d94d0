// QR, SVD and solving, by what defines them.

import { Generator } from "@nomoat/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  inverseSpd,
  lowRankSvd,
  type Matrix,
  matrix,
  multiply,
  qr,
  scaleColumns,
  svd,
  svdOfProduct,
  transposed,
} from "../src/linalg.js";

function random(rows: number, columns: number, seed: number, rank = Math.min(rows, columns)): Matrix {
  const generator = new Generator(seed);
  const [left, right] = [matrix(rows, rank), matrix(rank, columns)];
  generator.fillNormal(left.data);
  generator.fillNormal(right.data);
  return multiply(left, right);
}

function difference(a: Matrix, b: Matrix): number {
  expect([a.rows, a.columns]).toEqual([b.rows, b.columns]);
  return a.data.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b.data[i])), 0);
}

function identity(n: number): Matrix {
  const out = matrix(n, n);
  for (let i = 0; i < n; i++) out.data[i * (n + 1)] = 1;
  return out;
}

const rebuilt = ({ u, s, v }: { u: Matrix; s: Float64Array; v: Matrix }) =>
  multiply(scaleColumns(u, s), transposed(v));
const sizes = fc.tuple(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 12 }), fc.nat());

describe("linalg", () => {
  it("qr", () => {
    fc.assert(
      fc.property(sizes, ([m, n, seed]) => {
        const a = random(m, n, seed);
        const { q, r } = qr(a);
        expect(difference(multiply(q, r), a)).toBeLessThan(1e-12);
        expect(difference(multiply(transposed(q), q), identity(q.columns))).toBeLessThan(1e-13);
        for (let i = 0; i < r.rows; i++) for (let j = 0; j < i; j++) expect(r.data[i * n + j]).toBe(0);
      }),
    );
    // numpy.linalg.qr([[3, 1], [4, 2]]): R = [[-5, -2.2], [0, -0.4]] up to the sign of the last row
    expect(qr(matrix(2, 2, Float64Array.of(3, 1, 4, 2))).r.data[0]).toBeCloseTo(-5, 14);
  });

  it("svd, of matrices of any rank", () => {
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 12 }), ([m, n, seed], rank) => {
        const a = random(m, n, seed, Math.min(rank, m, n));
        const parts = svd(a);
        expect(difference(rebuilt(parts), a)).toBeLessThan(1e-11);
        expect([...parts.s]).toEqual([...parts.s].sort((x, y) => y - x));
        // The side that is not reached through a division is orthonormal at any rank.
        const sure = m < n ? parts.u : parts.v;
        expect(difference(multiply(transposed(sure), sure), identity(Math.min(m, n)))).toBeLessThan(1e-12);
      }),
    );
    // Exact singular values of [[1, 1], [0, 1]]: golden ratio and its inverse.
    const { s } = svd(matrix(2, 2, Float64Array.of(1, 1, 0, 1)));
    expect(s[0]).toBeCloseTo((1 + Math.sqrt(5)) / 2, 14);
    expect(s[1]).toBeCloseTo((Math.sqrt(5) - 1) / 2, 14);
    expect([...svd(matrix(3, 2)).s]).toEqual([0, 0]);
  });

  it("svd of a product, without the product", () => {
    const [b, a] = [random(9, 3, 1), random(3, 7, 2)];
    const parts = svdOfProduct(b, a);
    expect(difference(rebuilt(parts), multiply(b, a))).toBeLessThan(1e-12);
    const whole = svd(multiply(b, a)).s;
    for (let i = 0; i < 3; i++) expect(parts.s[i]).toBeCloseTo(whole[i], 11);
    const wide = svdOfProduct(random(2, 5, 3), random(5, 4, 4));
    expect(difference(rebuilt(wide), multiply(random(2, 5, 3), random(5, 4, 4)))).toBeLessThan(1e-12);
  });

  it("svd of low rank by iteration finds the leading part", () => {
    const a = random(30, 20, 5);
    const best = svd(a).s;
    const found = lowRankSvd(a, 4, { iterations: 40, generator: new Generator(1), oversampling: 4 });
    for (let i = 0; i < 4; i++) expect(found.s[i]).toBeCloseTo(best[i], 6);
  });

  it("inverts", () => {
    const a = random(5, 8, 6);
    const square = multiply(a, transposed(a));
    expect(difference(multiply(inverseSpd(square), square), identity(5))).toBeLessThan(1e-10);
    expect(() => inverseSpd(matrix(2, 2))).toThrow(/not positive definite/);
  });
});
