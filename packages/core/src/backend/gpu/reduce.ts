// Reductions, running sums and the places of extremes. Long lines are reduced in two stages, so that many threads share the work.

import { sizeOf } from "../../size.js";
import type { ArgReduceKind, Operand, ReduceKind, ScanKind } from "../types.js";
import {
  commit,
  commitConstant,
  KernelBuilder,
  outputIndices,
  planOutput,
  type Reader,
  type Term,
  termsOf,
  thread,
} from "./builder.js";
import type { Device, DeviceArray } from "./device.js";

/** Longest line that one thread reduces when few lines are to be reduced. */
const longLine = 512;
/** From this many lines on, every line gets one thread whatever its length. */
const manyLines = 4096;

const starts: Readonly<Record<ReduceKind, number>> = {
  sum: 0,
  prod: 1,
  max: Number.NEGATIVE_INFINITY,
  min: Number.POSITIVE_INFINITY,
};

/** Lines that put `value` into `total`. */
export function accumulate(kind: ReduceKind, total: string, value: string): string {
  if (kind === "sum") return `${total} = ${total} + ${value};`;
  if (kind === "prod") return `${total} = ${total} * ${value};`;
  return `${total} = ${kind === "max" ? "maximum" : "minimum"}(${total}, ${value});`;
}

export function reduce(
  device: Device,
  kind: ReduceKind,
  x: Operand,
  axes: readonly number[],
  out: Operand,
): void {
  if (sizeOf(out.shape) === 0) return;
  const count = axes.reduce((product, axis) => product * x.shape[axis], 1);
  if (count === 0) {
    const integer = kind === "max" ? -2147483648 : 2147483647;
    const empty = out.dtype === "int32" && !Number.isFinite(starts[kind]) ? integer : starts[kind];
    commitConstant(device, out, empty);
    return;
  }
  const plan = planOutput(out);
  const lines = sizeOf(out.shape);
  const reducedAxes = axes.filter((axis) => x.shape[axis] > 1);
  const extents = reducedAxes.map((axis) => x.shape[axis]);
  const strides = reducedAxes.map((axis) => x.strides[axis]);
  const kernel = new KernelBuilder(device, [x, out]);
  const reader = kernel.operand(x);
  if (count <= longLine || lines >= manyLines) {
    const base = termsOf(outputIndices(kernel, out, plan), x.strides);
    const loops = extents.map(() => kernel.name("k"));
    kernel.line(`let total = ${firstElement(reader, base, kernel, kind)};`);
    extents.forEach((extent, i) => {
      kernel.line(`for (let ${loops[i]} = 0; ${loops[i]} < ${extent}; ${loops[i]}++) {`);
    });
    kernel.line(accumulate(kind, "total", reader([...base, ...termsOf(loops, strides)])));
    kernel.line("}".repeat(extents.length), "return total;");
    commit(device, out, kernel.run(lines), plan);
    return;
  }
  // Stage one: each line in parts of equal length; stage two: the parts.
  const part = Math.ceil(Math.sqrt(count));
  const parts = Math.ceil(count / part);
  const [line, which] = kernel.decode(thread, [lines, parts]);
  const inMemory = kernel.decode(
    line,
    plan.axes.map((axis) => out.shape[axis]),
  );
  const base = plan.axes.map((axis, i): Term => {
    return [inMemory[i], x.strides[axis]];
  });
  kernel.line(`let total = ${firstElement(reader, base, kernel, kind)};`);
  const at = `(${which} * ${part} + k)`;
  kernel.line(
    `for (let k = 0; k < ${part}; k++) {`,

    `if (${at} < ${count}) {`,
  );
  const places = kernel.decode(at, extents);
  kernel.line(
    accumulate(kind, "total", reader([...base, ...termsOf(places, strides)])),
    "}",
    "}",
    "return total;",
  );
  const partial = kernel.run(lines * parts);
  commit(device, out, foldLines(device, kind, partial, lines, parts), plan);
}

/** Where the running total starts: at an element for extremes, because infinity is no literal everywhere. */
function firstElement(
  reader: Reader,
  base: readonly Term[],
  kernel: KernelBuilder,
  kind: ReduceKind,
): string {
  return Number.isFinite(starts[kind]) ? kernel.number(starts[kind]) : reader(base);
}

/** Each of `lines` rows of `count` values reduced to one; takes over `rows`. */
function foldLines(
  device: Device,
  kind: ReduceKind,
  rows: DeviceArray,
  lines: number,
  count: number,
): DeviceArray {
  const kernel = new KernelBuilder(device);
  const reader = kernel.array(rows);
  const base: Term[] = [[thread, count]];
  kernel.line(`let total = ${firstElement(reader, base, kernel, kind)};`);
  kernel.line(`for (let k = 0; k < ${count}; k++) {`);
  kernel.line(accumulate(kind, "total", reader([...base, ["k", 1]])), "}", "return total;");
  const result = kernel.run(lines);
  device.release(rows);
  return result;
}

export function scan(device: Device, kind: ScanKind, x: Operand, axis: number, out: Operand): void {
  if (sizeOf(out.shape) === 0) return;
  const plan = planOutput(out);
  const kernel = new KernelBuilder(device, [x, out]);
  const reader = kernel.operand(x);
  const indices = outputIndices(kernel, out, plan);
  const line = termsOf(indices, x.strides).filter((_, i) => i !== axis);
  kernel.line(`let total = ${kernel.number(kind === "cumsum" ? 0 : 1)};`);
  kernel.line(`for (let k = 0; k < ${x.shape[axis]}; k++) {`, `if (k <= ${indices[axis]}) {`);
  kernel.line(
    accumulate(kind === "cumsum" ? "sum" : "prod", "total", reader([...line, ["k", x.strides[axis]]])),
    "}",
    "}",
    "return total;",
  );
  commit(device, out, kernel.run(sizeOf(out.shape)), plan);
}

export function argReduce(device: Device, kind: ArgReduceKind, x: Operand, axis: number, out: Operand): void {
  if (sizeOf(out.shape) === 0) return;
  const plan = planOutput(out);
  const kernel = new KernelBuilder(device, [x, out]);
  const reader = kernel.operand(x);
  const base = termsOf(outputIndices(kernel, out, plan), x.strides).filter((_, i) => i !== axis);
  kernel.line(`let best = ${reader(base)};`, `let place = ${kernel.number(0)};`);
  kernel.line(`for (let k = 0; k < ${x.shape[axis]}; k++) {`);
  kernel.line(`const value = ${reader([...base, ["k", x.strides[axis]]])};`);
  // Once the best is NaN nothing replaces it: no comparison with it holds.
  const better = kind === "argmax" ? ">" : "<";
  kernel.line(`if (value ${better} best) { best = value; place = toFloat(k); }`);
  kernel.line(
    "if (notNumber(value) > 0.0) { if (notNumber(best) == 0.0) { best = value; place = toFloat(k); } }",
  );
  kernel.line("}", "return place;");
  commit(device, out, kernel.run(sizeOf(out.shape)), plan);
}
