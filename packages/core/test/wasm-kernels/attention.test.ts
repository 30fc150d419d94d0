// Attention, forward and backward, against plain float64 loops that store the whole matrix of probabilities.

import fc from "fast-check";
import { expect, it } from "vitest";
import type { Operand } from "../../src/backend/types.js";
import {
  contiguousView,
  firstDifference,
  operandOf,
  outputOf,
  randomizer,
  storageOf,
  type View,
  wasm,
} from "./support.js";

interface Case {
  batch: number;
  kvHeads: number;
  group: number;
  queries: number;
  keys: number;
  depth: number;
  causal: boolean;
  /** Positions before heads in memory, as a projection's output viewed as heads is. */
  interleaved: boolean;
  mask?: MaskCase;
}

interface MaskCase {
  dtype: "bool" | "float32";
  /** Which of [batch, heads, queries, keys] it has elements of its own for; it is broadcast over the others. */
  own: readonly [boolean, boolean, boolean, boolean];
  /** Keys before queries in memory. */
  transposed?: boolean;
}

/** A mask of a case's scores: about a third of the keys hidden, and the first query's all. */
function maskOf({ dtype, own, transposed }: MaskCase, shape: readonly number[], next: () => number): Operand {
  const extents = shape.map((extent, i) => (own[i] ? extent : 1));
  const [e1, e2, e3] = extents.slice(1);
  const full = transposed ? [e1 * e2 * e3, e2 * e3, 1, e2] : [e1 * e2 * e3, e2 * e3, e3, 1];
  const view = { ...contiguousView(extents), strides: full };
  const base = operandOf(wasm, dtype, view, (i) => {
    const first = transposed ? i % e2 === 0 : i % (e2 * e3) < e3;
    const hidden = next() < 0.3 || (own[2] && own[3] && first);
    if (dtype === "bool") return hidden ? 0 : 1;
    return hidden ? (next() < 0.5 ? Number.NEGATIVE_INFINITY : -3e38) : 2 * next() - 1;
  });
  return { ...base, shape, strides: base.strides.map((stride, i) => (own[i] ? stride : 0)) };
}

/** What a mask adds to the score of query i and key j. */
function reading(mask: Operand | null): (b: number, h: number, i: number, j: number) => number {
  if (!mask) return () => 0;
  const all = storageOf(wasm, mask);
  const [s0, s1, s2, s3] = mask.strides;
  return (b, h, i, j) => {
    const value = all[b * s0 + h * s1 + i * s2 + j * s3];
    if (mask.dtype === "bool") return value ? 0 : Number.NEGATIVE_INFINITY;
    return value < -1e30 ? Number.NEGATIVE_INFINITY : value;
  };
}

function viewOf(batch: number, heads: number, length: number, depth: number, interleaved: boolean): View {
  const view = contiguousView([batch, heads, length, depth]);
  return interleaved ? { ...view, strides: [length * heads * depth, depth, heads * depth, 1] } : view;
}

/** Element getter of a [batch, heads, length, depth] operand on wasm. */
function reader(x: Operand): (b: number, h: number, t: number, d: number) => number {
  const all = storageOf(wasm, x);
  const [s0, s1, s2] = x.strides;
  return (b, h, t, d) => all[b * s0 + h * s1 + t * s2 + d];
}

/** out, logSumExp and the gradients of every input in float64, in contiguous order. */
function expected(
  { batch, kvHeads, group, queries, keys, depth, causal }: Case,
  scale: number,
  q: Operand,
  k: Operand,
  v: Operand,
  dOut: Operand,
  mask: Operand | null,
) {
  const [readQ, readK, readV, readD] = [q, k, v, dOut].map(reader);
  const added = reading(mask);
  const heads = kvHeads * group;
  const zeros = (length: number) => new Float64Array(length);
  const result = {
    out: zeros(batch * heads * queries * depth),
    logSumExp: zeros(batch * heads * queries),
    dq: zeros(batch * heads * queries * depth),
    dk: zeros(batch * kvHeads * keys * depth),
    dv: zeros(batch * kvHeads * keys * depth),
  };
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kh = Math.floor(h / group);
      for (let i = 0; i < queries; i++) {
        const row = (b * heads + h) * queries + i;
        const seen = causal ? Math.max(0, Math.min(keys, i + keys - queries + 1)) : keys;
        const scores = Array.from({ length: seen }, (_, j) => {
          let dot = 0;
          for (let d = 0; d < depth; d++) dot += readQ(b, h, i, d) * readK(b, kh, j, d);
          return dot * scale + added(b, h, i, j);
        });
        const highest = Math.max(...scores);
        const sum = scores.reduce((total, s) => total + Math.exp(s - highest), 0);
        const blind = seen === 0 || highest === Number.NEGATIVE_INFINITY;
        result.logSumExp[row] = blind ? Number.NEGATIVE_INFINITY : highest + Math.log(sum);
        const p = scores.map((s) => (blind ? 0 : Math.exp(s - result.logSumExp[row])));
        const dP = p.map((_, j) => {
          let dot = 0;
          for (let d = 0; d < depth; d++) dot += readD(b, h, i, d) * readV(b, kh, j, d);
          return dot;
        });
        const delta = p.reduce((total, x, j) => total + x * dP[j], 0);
        for (let j = 0; j < seen; j++) {
          const dS = p[j] * (dP[j] - delta) * scale;
          for (let d = 0; d < depth; d++) {
            const at = ((b * kvHeads + kh) * keys + j) * depth + d;
            result.out[row * depth + d] += p[j] * readV(b, kh, j, d);
            result.dq[row * depth + d] += dS * readK(b, kh, j, d);
            result.dk[at] += dS * readQ(b, h, i, d);
            result.dv[at] += p[j] * readD(b, h, i, d);
          }
        }
      }
    }
  }
  return result;
}

function inOrder(x: Operand): number[] {
  const read = reader(x);
  const [batch, heads, length, depth] = x.shape;
  const list: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++)
      for (let t = 0; t < length; t++) for (let d = 0; d < depth; d++) list.push(read(b, h, t, d));
  }
  return list;
}

function check(one: Case, spread = 2): void {
  const { batch, kvHeads, group, queries, keys, depth, causal, interleaved } = one;
  const heads = kvHeads * group;
  const next = randomizer(queries * 1000 + keys * 10 + depth);
  const make = (h: number, length: number) =>
    operandOf(wasm, "float32", viewOf(batch, h, length, depth, interleaved), () => (next() - 0.5) * spread);
  const [q, k, v, dOut] = [
    make(heads, queries),
    make(kvHeads, keys),
    make(kvHeads, keys),
    make(heads, queries),
  ];
  const blank = (h: number, length: number) =>
    outputOf(wasm, "float32", viewOf(batch, h, length, depth, interleaved));
  const [out, dq, dk, dv] = [
    blank(heads, queries),
    blank(heads, queries),
    blank(kvHeads, keys),
    blank(kvHeads, keys),
  ];
  const logSumExp = outputOf(wasm, "float32", [batch, heads, queries]);
  const mask = one.mask ? maskOf(one.mask, [batch, heads, queries, keys], next) : null;
  const options = { scale: 1 / Math.sqrt(Math.max(1, depth)), causal, mask };
  wasm.fused.attention(q, k, v, options, out, logSumExp);
  const want = expected(one, options.scale, q, k, v, dOut, mask);
  expect(firstDifference(inOrder(out), want.out, 2e-6 * spread, 0), "out").toBeNull();
  expect(
    firstDifference(
      storageOf(wasm, logSumExp),
      queries * heads * batch === 0 ? [77] : want.logSumExp,
      1e-5,
      1e-6,
    ),
    "logSumExp",
  ).toBeNull();
  wasm.fused.attentionBackward(q, k, v, out, logSumExp, dOut, options, dq, dk, dv);
  expect(firstDifference(inOrder(dq), want.dq, 4e-6 * spread * spread, 0), "dq").toBeNull();
  // Sums over all queries of a group: their rounding errors add up as a root.
  const several = Math.sqrt(Math.max(1, queries * group));
  expect(firstDifference(inOrder(dk), want.dk, 2e-6 * several * spread * spread, 1e-5), "dk").toBeNull();
  expect(firstDifference(inOrder(dv), want.dv, 2e-6 * several * spread, 1e-5), "dv").toBeNull();
  for (const { buffer } of [q, k, v, dOut, out, dq, dk, dv, logSumExp]) wasm.free(buffer);
  if (mask) wasm.free(mask.buffer);
}

it("equals the plain loops at any small size", () => {
  const small = fc.record({
    batch: fc.integer({ min: 0, max: 2 }),
    kvHeads: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 3 }),
    queries: fc.integer({ min: 0, max: 20 }),
    keys: fc.integer({ min: 0, max: 20 }),
    depth: fc.integer({ min: 1, max: 20 }),
    causal: fc.boolean(),
    interleaved: fc.boolean(),
    mask: fc.option(
      fc.record({
        dtype: fc.constantFrom("bool" as const, "float32" as const),
        own: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean(), fc.boolean()),
        transposed: fc.boolean(),
      }),
      { nil: undefined },
    ),
  });
  fc.assert(
    fc.property(small, (one) => check(one)),
    { numRuns: 200 },
  );
});

const base: Case = {
  batch: 1,
  kvHeads: 1,
  group: 1,
  queries: 1,
  keys: 1,
  depth: 16,
  causal: true,
  interleaved: true,
};

it.each<Partial<Case>>([
  { queries: 64, keys: 64 },
  { queries: 65, keys: 65, depth: 48 },
  { queries: 130, keys: 130, depth: 24, group: 2 },
  { queries: 130, keys: 130, depth: 33, causal: false },
  { queries: 70, keys: 200, depth: 64, kvHeads: 2, group: 2 },
  { queries: 3, keys: 300, depth: 64 },
  { queries: 1, keys: 300, depth: 128, group: 4 },
  { queries: 2, keys: 131, depth: 7 },
  // More queries than keys: the first rows see nothing.
  { queries: 100, keys: 30, depth: 20 },
  { queries: 2, keys: 1, depth: 5 },
  // Few key heads: their keys are shared among several units.
  { queries: 140, keys: 260, depth: 12, causal: false, group: 3 },
  { queries: 130, keys: 130, depth: 64, mask: { dtype: "bool", own: [false, false, true, true] } },
  { queries: 150, keys: 190, depth: 32, mask: { dtype: "float32", own: [true, true, true, true] } },
  { queries: 2, keys: 131, depth: 7, mask: { dtype: "float32", own: [false, true, true, true] } },
  {
    queries: 70,
    keys: 70,
    batch: 2,
    causal: false,
    mask: { dtype: "float32", own: [false, false, true, true], transposed: true },
  },
  {
    queries: 70,
    keys: 130,
    batch: 3,
    causal: false,
    mask: { dtype: "bool", own: [true, false, false, true] },
  },
])("equals the plain loops over several blocks: %o", (change) => {
  check({ ...base, ...change });
});

it("stays exact where scores are large", () => {
  check({ ...base, queries: 70, keys: 70, depth: 16 }, 12);
});

it("gives the same bits for every number of threads", () => {
  const results = [1, 2, 3].map((threads) => {
    wasm.setThreads(threads);
    const next = randomizer(3);
    const operands = [0, 1, 2, 3].map(() =>
      operandOf(wasm, "float32", contiguousView([2, 4, 200, 32]), () => next() - 0.5),
    );
    const outputs = [0, 1, 2, 3].map(() => outputOf(wasm, "float32", [2, 4, 200, 32]));
    const logSumExp = outputOf(wasm, "float32", [2, 4, 200]);
    const [q, k, v, dOut] = operands;
    const [out, dq, dk, dv] = outputs;
    wasm.fused.attention(q, k, v, { scale: 0.2, causal: true, mask: null }, out, logSumExp);
    wasm.fused.attentionBackward(
      q,
      k,
      v,
      out,
      logSumExp,
      dOut,
      { scale: 0.2, causal: true, mask: null },
      dq,
      dk,
      dv,
    );
    const bits = outputs
      .map((x) => Buffer.from(wasm.readSync(x.buffer, 0, x.buffer.bytes)).toString("base64"))
      .join();
    for (const { buffer } of [...operands, ...outputs, logSumExp]) wasm.free(buffer);
    return bits;
  });
  expect(results[1]).toBe(results[0]);
  expect(results[2]).toBe(results[0]);
});

it("leaves no memory behind", () => {
  expect(wasm.memory().used).toBe(0);
});
