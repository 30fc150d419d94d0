// The batched matrix product: one thread an element, one sum over k. Transposes are strides.

import { sizeOf } from "../../size.js";
import type { MatmulOptions, Operand } from "../types.js";
import {
  commit,
  commitConstant,
  KernelBuilder,
  outputIndices,
  planOutput,
  sumOf,
  termsOf,
} from "./builder.js";
import type { Device } from "./device.js";

/** Terms of the sum that one turn of the loop adds. */
const unroll = 8;

export function matmul(
  device: Device,
  a: Operand,
  b: Operand,
  { alpha, beta }: MatmulOptions,
  out: Operand,
): void {
  if (sizeOf(out.shape) === 0) return;
  const rank = out.shape.length;
  const k = a.shape[rank - 1];
  if (k === 0 && beta === 0) {
    commitConstant(device, out, 0);
    return;
  }
  const plan = planOutput(out);
  const kernel = new KernelBuilder(device, [a, b, out]);
  const left = kernel.operand(a);
  const right = kernel.operand(b);
  const before = beta === 0 ? null : kernel.operand(out);
  const indices = outputIndices(kernel, out, plan);
  // Outside the loop, which no compiler of a mode does by itself.
  const baseA = kernel.define("b", sumOf(termsOf(indices, a.strides).filter((_, axis) => axis !== rank - 1)));
  const baseB = kernel.define("b", sumOf(termsOf(indices, b.strides).filter((_, axis) => axis !== rank - 2)));
  const product = (p: string) =>
    `${left([
      [baseA, 1],
      [p, a.strides[rank - 1]],
    ])} * ${right([
      [baseB, 1],
      [p, b.strides[rank - 2]],
    ])}`;
  kernel.line(`let total = ${kernel.number(0)};`);
  const turns = Math.floor(k / unroll);
  if (turns > 0) {
    const products = Array.from({ length: unroll }, (_, u) => product(`(t * ${unroll} + ${u})`));
    kernel.line(`for (let t = 0; t < ${turns}; t++) {`, `total = total + ${products.join(" + ")};`, "}");
  }
  if (k % unroll > 0) {
    kernel.line(`for (let q = ${turns * unroll}; q < ${k}; q++) {`, `total = total + ${product("q")};`, "}");
  }
  const scaled = alpha === 1 ? "total" : `${kernel.number(alpha)} * total`;
  const old = before?.(termsOf(indices, out.strides));
  kernel.line(old ? `return ${scaled} + ${kernel.number(beta)} * ${old};` : `return ${scaled};`);
  commit(device, out, kernel.run(sizeOf(out.shape)), plan);
}
