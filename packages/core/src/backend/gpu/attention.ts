// Attention in parts of the queries: scores, their softmax and the mix of values are kernels over [batch, heads, part, keys], so that
// what is stored for the time of a part is bounded. A thread writes one number, so scores cannot stay within a kernel as they do on
// a processor.

import { sizeOf } from "../../size.js";
import type { AttentionOptions, Operand } from "../types.js";
import { clear, GpuBuffer } from "./buffer.js";
import {
  commit,
  commitConstant,
  KernelBuilder,
  outputIndices,
  planOutput,
  type Reader,
  termsOf,
  thread,
} from "./builder.js";
import type { Device } from "./device.js";

/** Most scores that are stored at once, and in one piece, unless one query of each head has more. */
const mostScores = 2 ** 22;

/** Stands for the score of a key that is not seen: infinities are not safe on every device. */
const unseen = -3e38;

/** What all kernels of one part know. */
interface Part {
  readonly batch: number;
  readonly heads: number;
  /** Heads that share one of k and v. */
  readonly group: number;
  readonly headDim: number;
  readonly keys: number;
  /** Keys rounded up: extents of kernels, so that a growing cache does not need new ones at each step. */
  readonly room: number;
  /** First query of the part, and how many. */
  readonly first: number;
  readonly count: number;
  /** The part's first query sees keys up to this one; null where all are seen. */
  readonly last: number | null;
}

function roundUp(keys: number): number {
  if (keys > 64) return Math.ceil(keys / 64) * 64;
  return 2 ** Math.ceil(Math.log2(Math.max(1, keys)));
}

function partsOf({ largest }: Device, q: Operand, k: Operand, causal: boolean): Part[] {
  const [batch, heads, queries, headDim] = q.shape;
  const [, kvHeads, keys] = k.shape;
  const room = roundUp(keys);
  const most = Math.max(1, Math.floor(Math.min(mostScores, largest) / (batch * heads * room)));
  const parts: Part[] = [];
  for (let first = 0; first < queries; first += most) {
    const count = Math.min(most, queries - first);
    const last = causal ? first + keys - queries : null;
    parts.push({ batch, heads, group: heads / kvHeads, headDim, keys, room, first, count, last });
  }
  return parts;
}

/** The part's queries of an operand [batch, heads, queries, …]. */
function rowsOf(x: Operand, { first, count }: Part): Operand {
  const shape = [x.shape[0], x.shape[1], count, ...x.shape.slice(3)];
  return { ...x, shape, offset: x.offset + first * x.strides[2] };
}

function scratch(shape: readonly number[]): Operand {
  const strides = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
  return { buffer: new GpuBuffer(4 * sizeOf(shape)), dtype: "float32", shape, strides, offset: 0 };
}

function free(device: Device, ...operands: Operand[]): void {
  for (const { buffer } of operands) clear(device, buffer as GpuBuffer);
}

/** The sum over `count` of products, in a new variable. */
function sumOfProducts(kernel: KernelBuilder, count: number, product: (d: string) => string): string {
  const [total, d] = [kernel.name("total"), kernel.name("d")];
  kernel.line(`let ${total} = ${kernel.number(0)};`);
  kernel.line(`for (let ${d} = 0; ${d} < ${count}; ${d}++) {`, `${total} = ${total} + ${product(d)};`, "}");
  return total;
}

/** The head of k and v that serves head `h`. */
function sharedHead(kernel: KernelBuilder, h: string, group: number): string {
  return group === 1 || h === "0" ? h : kernel.define("g", `quotient(${h}, ${group})`);
}

/**
 * Runs a kernel over [batch, heads, part, room], where `value` is what a key that is seen gives, and `otherwise` what others give.
 */
function overScores(
  device: Device,
  part: Part,
  otherwise: number,
  out: Operand,
  operands: readonly Operand[],
  value: (readers: readonly Reader[], indices: readonly string[], kernel: KernelBuilder) => string,
): void {
  const { batch, heads, count, keys, room, last } = part;
  const kernel = new KernelBuilder(device, [...operands, out]);
  const readers = operands.map((each) => kernel.operand(each));
  const [b, h, i, j] = kernel.decode(thread, [batch, heads, count, room]);
  const nothing = kernel.number(otherwise);
  if (keys < room) kernel.line(`if (${j} >= ${kernel.integer(keys)}) { return ${nothing}; }`);
  if (last !== null) kernel.line(`if (${j} > ${i} + ${kernel.integer(last)}) { return ${nothing}; }`);
  kernel.line(`return ${value(readers, [b, h, i, j], kernel)};`);
  commit(device, out, kernel.run(sizeOf(out.shape)));
}

/** scale · q·kᵀ, as an expression. */
function score(
  [q, k]: readonly Reader[],
  operands: readonly Operand[],
  [b, h, i, j]: readonly string[],
  part: Part,
  scale: number,
  kernel: KernelBuilder,
): string {
  const shared = sharedHead(kernel, h, part.group);
  const [ofQ, ofK] = [termsOf([b, h, i], operands[0].strides), termsOf([b, shared, j], operands[1].strides)];
  const dot = sumOfProducts(kernel, part.headDim, (d) => `${q([...ofQ, [d, 1]])} * ${k([...ofK, [d, 1]])}`);
  return `${kernel.number(scale)} * ${dot}`;
}

/** out [batch, heads, count, headDim] = weights [batch, heads, count, room] · x, x laid out as k and v are. */
function mix(device: Device, part: Part, weights: Operand, x: Operand, out: Operand): void {
  const { group, room, keys } = part;
  const plan = planOutput(out);
  const kernel = new KernelBuilder(device, [weights, x, out]);
  const [ofWeights, ofX] = [kernel.operand(weights), kernel.operand(x)];
  const [b, h, i, d] = outputIndices(kernel, out, plan);
  const shared = sharedHead(kernel, h, group);
  const bound = keys < room ? kernel.integer(keys) : "";
  kernel.line(`let total = ${kernel.number(0)};`, `for (let j = 0; j < ${room}; j++) {`);
  if (bound) kernel.line(`if (j < ${bound}) {`);
  const weight = ofWeights([...termsOf([b, h, i], weights.strides), ["j", 1]]);
  kernel.line(`total = total + ${weight} * ${ofX([...termsOf([b, shared, "j"], x.strides), [d, 1]])};`);
  kernel.line(bound ? "} }" : "}", "return total;");
  commit(device, out, kernel.run(sizeOf(out.shape)), plan);
}

/** out [batch, kvHeads, keys, headDim] (+)= Σ over the group's heads and the part's queries of weightsᵀ · x, x laid out as q is. */
function gatherKeys(
  device: Device,
  part: Part,
  weights: Operand,
  x: Operand,
  out: Operand,
  add: boolean,
): void {
  const { group, count } = part;
  const plan = planOutput(out);
  const kernel = new KernelBuilder(device, [weights, x, out]);
  const [ofWeights, ofX] = [kernel.operand(weights), kernel.operand(x)];
  const before = add ? kernel.operand(out) : null;
  const indices = outputIndices(kernel, out, plan);
  const [b, shared, j, d] = indices;
  const head = shared === "0" ? "g" : `(${shared} * ${group} + g)`;
  kernel.line(`let total = ${before?.(termsOf(indices, out.strides)) ?? kernel.number(0)};`);
  kernel.line(`for (let g = 0; g < ${group}; g++) {`, `for (let i = 0; i < ${count}; i++) {`);
  const weight = ofWeights(termsOf([b, head, "i", j], weights.strides));
  kernel.line(`total = total + ${weight} * ${ofX(termsOf([b, head, "i", d], x.strides))};`);
  kernel.line("} }", "return total;");
  commit(device, out, kernel.run(sizeOf(out.shape)), plan);
}

/** See {@link FusedKernels.attention}. */
export function attention(
  device: Device,
  q: Operand,
  k: Operand,
  v: Operand,
  { scale, causal }: AttentionOptions,
  out: Operand,
  logSumExp: Operand | null,
): void {
  if (sizeOf(q.shape) === 0 || k.shape[2] === 0) {
    commitConstant(device, out, 0);
    if (logSumExp) commitConstant(device, logSumExp, Number.NEGATIVE_INFINITY);
    return;
  }
  for (const part of partsOf(device, q, k, causal)) {
    const { batch, heads, count, room } = part;
    const queries = rowsOf(q, part);
    const [scores, sums, weights] = [
      scratch([batch, heads, count, room]),
      scratch([batch, heads, count]),
      scratch([batch, heads, count, room]),
    ];
    overScores(device, part, unseen, scores, [queries, k], (readers, indices, kernel) =>
      score(readers, [queries, k], indices, part, scale, kernel),
    );
    const kernel = new KernelBuilder(device, [scores]);
    const read = kernel.operand(scores);
    const at = (j: string) =>
      read([
        [thread, room],
        [j, 1],
      ]);
    kernel.line(`let largest = ${at("0")};`, `for (let j = 1; j < ${room}; j++) {`);
    kernel.line(`largest = maximum(largest, ${at("j")});`, "}", `let sum = ${kernel.number(0)};`);
    kernel.line(`for (let j = 0; j < ${room}; j++) {`, `sum = sum + Math.exp(${at("j")} - largest);`, "}");
    kernel.line("return largest + Math.log(sum);");
    commit(device, sums, kernel.run(sizeOf(sums.shape)));
    overScores(device, part, 0, weights, [scores, sums], ([ofScores, ofSums], indices) => {
      const row = ofSums(termsOf(indices.slice(0, 3), sums.strides));
      return `Math.exp(${ofScores(termsOf(indices, scores.strides))} - ${row})`;
    });
    mix(device, part, weights, v, rowsOf(out, part));
    if (logSumExp) {
      const target = rowsOf(logSumExp, part);
      const plan = planOutput(target);
      const copying = new KernelBuilder(device, [sums, target]);
      const source = copying.operand(sums);
      copying.line(`return ${source(termsOf(outputIndices(copying, target, plan), sums.strides))};`);
      commit(device, target, copying.run(sizeOf(target.shape)), plan);
    }
    free(device, scores, sums, weights);
  }
}

/** See {@link FusedKernels.attentionBackward}. */
export function attentionBackward(
  device: Device,
  [q, k, v, out, logSumExp, dOut]: readonly Operand[],
  { scale, causal }: AttentionOptions,
  [dq, dk, dv]: readonly Operand[],
): void {
  if (sizeOf(q.shape) === 0 || k.shape[2] === 0) {
    for (const each of [dq, dk, dv]) commitConstant(device, each, 0);
    return;
  }
  for (const part of partsOf(device, q, k, causal)) {
    const { batch, heads, count, room, headDim, first } = part;
    const [queries, outRows, dOutRows, sumRows] = [q, out, dOut, logSumExp].map((x) => rowsOf(x, part));
    const [weights, shares, dScores] = [
      scratch([batch, heads, count, room]),
      scratch([batch, heads, count]),
      scratch([batch, heads, count, room]),
    ];
    overScores(device, part, 0, weights, [queries, k, sumRows], (readers, indices, kernel) => {
      const row = readers[2](termsOf(indices.slice(0, 3), sumRows.strides));
      return `Math.exp(${score(readers, [queries, k], indices, part, scale, kernel)} - ${row})`;
    });
    // Σ dOut · out of each query.
    const kernel = new KernelBuilder(device, [outRows, dOutRows]);
    const [ofOut, ofD] = [kernel.operand(outRows), kernel.operand(dOutRows)];
    const row = kernel.decode(thread, [batch, heads, count]);
    const total = sumOfProducts(kernel, headDim, (d) => {
      return `${ofOut([...termsOf(row, outRows.strides), [d, 1]])} * ${ofD([...termsOf(row, dOutRows.strides), [d, 1]])}`;
    });
    kernel.line(`return ${total};`);
    commit(device, shares, kernel.run(sizeOf(shares.shape)));
    const operands = [dOutRows, v, weights, shares];
    overScores(device, part, 0, dScores, operands, (readers, indices, each) => {
      const dWeight = score(readers, [dOutRows, v], indices, part, 1, each);
      const weight = readers[2](termsOf(indices, weights.strides));
      const share = readers[3](termsOf(indices.slice(0, 3), shares.strides));
      return `${each.number(scale)} * ${weight} * (${dWeight} - ${share})`;
    });
    mix(device, part, dScores, k, rowsOf(dq, part));
    gatherKeys(device, part, dScores, queries, dk, first > 0);
    gatherKeys(device, part, weights, dOutRows, dv, first > 0);
    free(device, weights, shares, dScores);
  }
}
