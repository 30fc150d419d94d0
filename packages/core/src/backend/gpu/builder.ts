// Writing a kernel's source: its arguments, the index arithmetic of strided operands, and where its result goes.

import { BackendError } from "../../errors.js";
import { sizeOf } from "../../shape.js";
import type { Operand } from "../types.js";
import { arrayOf, bufferOf, constantOf, exactIntegers, extentOf, setArray, setConstant } from "./buffer.js";
import type { Device, DeviceArray, KernelArgument } from "./device.js";

/** A variable that counts along an axis, and the axis' stride in elements. */
export type Term = readonly [variable: string, stride: number];

/** The expression of an operand's element at the sum of `terms`. */
export type Reader = (terms: readonly Term[]) => string;

/** A sum of integers in source; literals keep their sign apart, because gpu.js knows no negative literal integer. */
export function sumOf(terms: readonly Term[], offset = ""): string {
  let text = offset;
  for (const [variable, stride] of terms) {
    if (stride === 0 || variable === "0") continue;
    const product = Math.abs(stride) === 1 ? variable : `${variable} * ${Math.abs(stride)}`;
    if (stride < 0) text = `${text || "0"} - ${product}`;
    else text = text ? `${text} + ${product}` : product;
  }
  return text || "0";
}

/** Each axis' variable with its stride. */
export function termsOf(variables: readonly string[], strides: readonly number[]): Term[] {
  return variables.map((variable, axis) => [variable, strides[axis]]);
}

export class KernelBuilder {
  readonly #device: Device;
  readonly #parameters: string[] = [];
  readonly #arguments: KernelArgument[] = [];
  readonly #body: string[] = [];
  #names = 0;

  constructor(device: Device) {
    this.#device = device;
  }

  name(prefix: string): string {
    return `${prefix}${this.#names++}`;
  }

  #argument(prefix: string, argument: KernelArgument): string {
    const name = this.name(prefix);
    this.#parameters.push(name);
    this.#arguments.push(argument);
    return name;
  }

  /** A number that calls may change without a new kernel. */
  number(value: number): string {
    return this.#argument("c", { type: "Float", value: Math.fround(value) });
  }

  integer(value: number): string {
    return this.#argument("o", { type: "Integer", value });
  }

  /** An array as it is, read from `offset` on. */
  array(array: DeviceArray, offset = 0): Reader {
    const name = this.#argument("a", { array });
    const start = offset === 0 ? "" : this.integer(offset);
    return (terms) => `${name}[${sumOf(terms, start)}]`;
  }

  /** An operand; one that is constant becomes a number. */
  operand(operand: Operand): Reader {
    const constant = constantOf(operand);
    if (constant === null) return this.array(arrayOf(this.#device, operand), operand.offset);
    if (operand.dtype === "int32" && Math.abs(constant) > exactIntegers) {
      throw new BackendError(
        `gpu: int32 ${constant} does not fit the device, whose integers are exact up to ±2²⁴`,
      );
    }
    const name = this.number(constant);
    return () => name;
  }

  line(...lines: string[]): void {
    this.#body.push(...lines);
  }

  /** Cuts `index` (row-major over `extents`) into a variable for each axis; axes of length 1 give "0". */
  decode(index: string, extents: readonly number[]): string[] {
    const variables = new Array<string>(extents.length).fill("0");
    const axes = extents.map((_, axis) => axis).filter((axis) => extents[axis] > 1);
    let rest = index;
    for (let k = axes.length - 1; k > 0; k--) {
      const extent = extents[axes[k]];
      const next = this.name("r");
      variables[axes[k]] = this.name("i");
      this.line(
        `const ${next} = quotient(${rest}, ${extent});`,
        `const ${variables[axes[k]]} = ${rest} - ${next} * ${extent};`,
      );
      rest = next;
    }
    if (axes.length > 0) variables[axes[0]] = rest;
    return variables;
  }

  /** Runs the kernel whose last line returns. */
  run(length: number): DeviceArray {
    const source = `function (${this.#parameters.join(", ")}) {\n${this.#body.join("\n")}\n}`;
    return this.#device.run(source, this.#arguments, length);
  }
}

/** The order in memory of an output's axes. */
export interface OutputPlan {
  /** Axes longer than 1, outermost in memory first. */
  readonly axes: readonly number[];
  /** First element in memory. */
  readonly start: number;
  /** True when the elements fill one stretch of memory. */
  readonly dense: boolean;
  /** True when they fill the whole block. */
  readonly whole: boolean;
}

export function planOutput(out: Operand): OutputPlan {
  const axes = out.shape
    .map((_, axis) => axis)
    .filter((axis) => out.shape[axis] > 1)
    .sort((i, j) => Math.abs(out.strides[j]) - Math.abs(out.strides[i]));
  let start = out.offset;
  let dense = true;
  let expected = 1;
  for (const axis of [...axes].reverse()) {
    const stride = out.strides[axis];
    if (stride < 0) start += stride * (out.shape[axis] - 1);
    if (Math.abs(stride) !== expected) dense = false;
    expected *= out.shape[axis];
  }
  return { axes, start, dense, whole: dense && start === 0 && expected === extentOf(out) };
}

/** A variable for each of out's axes, where threads run in the order of out's memory. */
export function outputIndices(kernel: KernelBuilder, out: Operand, plan: OutputPlan): string[] {
  kernel.line("const thread = this.thread.x;");
  const inMemory = kernel.decode(
    "thread",
    plan.axes.map((axis) => out.shape[axis]),
  );
  const variables = new Array<string>(out.shape.length).fill("0");
  plan.axes.forEach((axis, i) => {
    if (out.strides[axis] >= 0) variables[axis] = inMemory[i];
    else {
      variables[axis] = kernel.name("f");
      kernel.line(`const ${variables[axis]} = ${out.shape[axis] - 1} - ${inMemory[i]};`);
    }
  });
  return variables;
}

/** Where the elements in the order of out's memory go; takes over `values`. Other elements of the block keep their value. */
export function commit(device: Device, out: Operand, values: DeviceArray, plan = planOutput(out)): void {
  const buffer = bufferOf(out.buffer);
  if (plan.whole) {
    setArray(device, buffer, values, out.dtype);
    return;
  }
  const kernel = new KernelBuilder(device);
  const before = kernel.operand({ ...out, offset: 0 });
  const inserted = kernel.array(values);
  insertion(kernel, out, plan, (position) => inserted([[position, 1]]));
  kernel.line(`return ${before([["thread", 1]])};`);
  const result = kernel.run(extentOf(out));
  device.release(values);
  setArray(device, buffer, result, out.dtype);
}

/** Writes `value` to all of out's elements. */
export function commitConstant(device: Device, out: Operand, value: number): void {
  if (sizeOf(out.shape) === 0) return;
  const plan = planOutput(out);
  if (plan.whole) {
    setConstant(device, bufferOf(out.buffer), value, out.dtype);
    return;
  }
  const kernel = new KernelBuilder(device);
  const before = kernel.operand({ ...out, offset: 0 });
  const constant = kernel.number(value);
  insertion(kernel, out, plan, () => constant);
  kernel.line(`return ${before([["thread", 1]])};`);
  setArray(device, bufferOf(out.buffer), kernel.run(extentOf(out)), out.dtype);
}

/** Returns early, with the value at its place in the inserted order, for threads whose element lies within out. */
function insertion(
  kernel: KernelBuilder,
  out: Operand,
  plan: OutputPlan,
  value: (position: string) => string,
): void {
  const start = kernel.integer(plan.start);
  kernel.line("const thread = this.thread.x;", `const from = thread - ${start};`, "let hit = 1;");
  kernel.line("if (from < 0) { hit = 0; }");
  if (plan.dense) {
    kernel.line(`if (from >= ${sizeOf(out.shape)}) { hit = 0; }`);
    // A position within the array even where it is not used: some modes read both sides of a condition.
    kernel.line("let at = from;", "if (hit == 0) { at = 0; }", `if (hit == 1) { return ${value("at")}; }`);
    return;
  }
  // Strides of views nest: an inner axis never reaches past the next element of an outer one. What is left over after all axes
  // lies between the view's elements.
  let rest = "from";
  let position = "";
  for (const axis of plan.axes) {
    const [index, next] = [kernel.name("i"), kernel.name("r")];
    const stride = Math.abs(out.strides[axis]);
    kernel.line(
      `const ${index} = quotient(${rest}, ${stride});`,
      `const ${next} = ${rest} - ${index} * ${stride};`,
      `if (${index} >= ${out.shape[axis]}) { hit = 0; }`,
    );
    position = position ? `(${position}) * ${out.shape[axis]} + ${index}` : index;
    rest = next;
  }
  kernel.line(`if (${rest} > 0) { hit = 0; }`);
  kernel.line(
    `let at = ${position || "0"};`,
    "if (hit == 0) { at = 0; }",
    `if (hit == 1) { return ${value("at")}; }`,
  );
}
