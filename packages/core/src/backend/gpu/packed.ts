// Weights that stay packed on the device. Products of a few rows decode each element where they need it; those of more rows would
// decode it again for each, so the weight is unpacked for the time of the product.

import { sizeOf } from "../../size.js";
import type { ElementScope, Operand, PackedWeight } from "../types.js";
import { clear, GpuBuffer } from "./buffer.js";
import { commit, KernelBuilder, outputIndices, planOutput, thread } from "./builder.js";
import type { Device } from "./device.js";
import { compute } from "./elementwise.js";
import { matmul } from "./matmul.js";

/** Most rows that decode each element for themselves. */
const fewRows = 4;

/** Readers of a weight's parts, made before any loop. */
function scopeOf(kernel: KernelBuilder, weight: PackedWeight): (row: string, column: string) => ElementScope {
  const readers = weight.parts.map((part) => kernel.operand(part));
  const columns = weight.shape[1];
  const named = (prefix: string, expression: string): string => {
    const name = kernel.name(prefix);
    kernel.line(`const ${name} = ${expression};`);
    return name;
  };
  return (row, column) => ({
    row,
    column,
    columns,
    index: kernel.define("e", row === "0" ? column : `${row} * ${columns} + ${column}`),
    position: (expression) => kernel.define("p", expression),
    divide: (position, by) => kernel.define("q", by === 1 ? position : `quotient(${position}, ${by})`),
    part: (part, position) => named("w", readers[part]([[position, 1]])),
    look: (table, code) => named("t", kernel.table(table)([[kernel.position(code), 1]])),
    half: (byte, which) => `halfOf(${byte}, toFloat(${which}))`,
    bits: (byte, place, width) => `bitsOf(${byte}, toFloat(${place}), ${2 ** width}.0, ${2 ** -width})`,
    choose: (which, one, other) => `choose(toFloat(${which}), ${one}, ${other})`,
    signed: (byte) => `signedByte(${byte})`,
    float16: (low, high) => `float16(${low}, ${high})`,
  });
}

/** An array of its own for the whole operand. */
function dense(shape: readonly number[]): Operand {
  const strides = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
  return { buffer: new GpuBuffer(4 * sizeOf(shape)), dtype: "float32", shape, strides, offset: 0 };
}

/** out [outFeatures, inFeatures] = the weight's elements. */
export function unpack(device: Device, weight: PackedWeight, out: Operand): void {
  if (sizeOf(out.shape) === 0) return;
  const kernel = new KernelBuilder(device, [out, ...weight.parts]);
  const scope = scopeOf(kernel, weight);
  const [row, column] = kernel.decode(thread, weight.shape);
  kernel.line(`return ${weight.element(scope(row, column))};`);
  commit(device, out, kernel.run(sizeOf(out.shape)));
}

/** See {@link FusedKernels.packedMatmul}. */
export function packedMatmul(
  device: Device,
  x: Operand,
  weight: PackedWeight,
  transposed: boolean,
  beta: 0 | 1,
  out: Operand,
): void {
  const [rows, n] = out.shape;
  const k = x.shape[1];
  if (rows * n === 0) return;
  if (rows > fewRows || k === 0) {
    const unpacked = dense(weight.shape);
    unpack(device, weight, unpacked);
    const [shape, strides] = transposed
      ? [weight.shape, [n, 1]]
      : [
          [k, n],
          [1, k],
        ];
    matmul(device, x, { ...unpacked, shape, strides }, { alpha: 1, beta }, out);
    clear(device, unpacked.buffer as GpuBuffer);
    return;
  }
  const plan = planOutput(out);
  const kernel = new KernelBuilder(device, [x, out, ...weight.parts, dense(weight.shape)]);
  const left = kernel.operand(x);
  const scope = scopeOf(kernel, weight);
  const [row, column] = outputIndices(kernel, out, plan);
  kernel.line(`let total = ${kernel.number(0)};`, `for (let k = 0; k < ${k}; k++) {`);
  const element = weight.element(transposed ? scope("k", column) : scope(column, "k"));
  const factor = left([
    [row, x.strides[0]],
    ["k", x.strides[1]],
  ]);
  kernel.line(`total = total + ${factor} * (${element});`, "}");
  // Parts and tables of a format can be as much as a kernel of WebGPU may read: then the sum is a kernel of its own.
  if (beta === 1 && !kernel.fits(out)) {
    const product = dense(out.shape);
    packedMatmul(device, x, weight, transposed, 0, product);
    compute(device, out, [out, product], ([old, added]) => `${old} + ${added}`);
    clear(device, product.buffer as GpuBuffer);
    return;
  }
  const old =
    beta === 1 &&
    kernel.operand(out)([
      [row, out.strides[0]],
      [column, out.strides[1]],
    ]);
  kernel.line(old ? `return total + ${old};` : "return total;");
  commit(device, out, kernel.run(rows * n), plan);
}
