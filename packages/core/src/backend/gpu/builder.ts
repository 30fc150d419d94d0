// Writing a kernel's source: its arguments, the index arithmetic of strided operands, and where its result goes.

import { BackendError } from "../../errors.js";
import { sizeOf } from "../../size.js";
import type { Operand } from "../types.js";
import {
  arrayOf,
  bufferOf,
  bytesOfFloat,
  constantOf,
  exactIntegers,
  extentOf,
  packedBytesOf,
  setArray,
  setConstant,
} from "./buffer.js";
import type { Device, DeviceArray, KernelArgument, Tile } from "./device.js";

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

/** The thread's number, which is its element of the output. */
export const thread = "this.thread.x";

export class KernelBuilder {
  readonly #device: Device;
  /** Positions are too large for variables, which gpu.js makes floats of: expressions stand in their place. */
  readonly #large: boolean;
  readonly #parameters: string[] = [];
  readonly #arguments: KernelArgument[] = [];
  readonly #body: string[] = [];
  readonly #tables = new Map<Float32Array, Reader>();
  #names = 0;

  /** @param operands - all that positions are computed for */
  constructor(device: Device, operands: readonly Operand[] = []) {
    this.#device = device;
    this.#large = operands.some(
      (each) => extentOf(each) >= exactIntegers || sizeOf(each.shape) >= exactIntegers,
    );
    if (this.#large && (device.mode === "webgl" || device.mode === "headlessgl")) {
      throw new BackendError(
        `gpu: mode ${device.mode} addresses up to 2²⁴ elements of a tensor; webgl2 and webgpu address more`,
      );
    }
  }

  /** An integer expression under a name of its own where that keeps it exact. */
  define(prefix: string, expression: string): string {
    if (this.#large) return `(${expression})`;
    const name = this.name(prefix);
    this.line(`const ${name} = ${expression};`);
    return name;
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
    const names = array.tiles.map((tile) => this.#argument("a", { tile }));
    const start = offset === 0 ? "" : this.integer(offset);
    if (names.length === 1) return (terms) => `${names[0]}[${sumOf(terms, start)}]`;
    return (terms) => this.#tiled(names, array.length, sumOf(terms, start));
  }

  /** The element at `index` of an array in tiles. Within its tile also where it is not chosen: some modes read both sides of a condition. */
  #tiled(names: readonly string[], length: number, index: string): string {
    const { largest } = this.#device;
    if (/^\d+$/.test(index))
      return `${names[Math.floor(Number(index) / largest)]}[${Number(index) % largest}]`;
    const element = (tile: number): string => {
      const last = Math.min(largest, length - tile * largest) - 1;
      return `${names[tile]}[within(${tile === 0 ? index : `${index} - ${tile * largest}`}, ${last})]`;
    };
    let text = element(names.length - 1);
    for (let tile = names.length - 2; tile >= 0; tile--) {
      text = `(${index} < ${(tile + 1) * largest} ? ${element(tile)} : ${text})`;
    }
    return text;
  }

  /** An operand; one that is constant becomes a number. */
  operand(operand: Operand): Reader {
    const buffer = bufferOf(operand.buffer);
    const packed = buffer.array ? null : packedBytesOf(this.#device, operand);
    if (packed) return this.#bytes(packed, operand);
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

  /** Whether an operand fits among what the kernel can read, beside what it reads so far. */
  fits(operand: Operand): boolean {
    const { largest, mostInputs } = this.#device;
    const soFar = this.#arguments.filter((argument) => "tile" in argument).length;
    return soFar + Math.max(1, Math.ceil(extentOf(operand) / largest)) <= mostInputs;
  }

  /** Bytes that lie three in a float. */
  #bytes(array: DeviceArray, { dtype, offset }: Operand): Reader {
    const words = this.array(array);
    const start = offset === 0 ? "" : this.integer(offset);
    return (terms) => {
      const index = sumOf(terms, start);
      const word = `quotient(${index}, ${bytesOfFloat})`;
      const byte = `byteOf(${words([[word, 1]])}, toFloat(${index} - ${word} * ${bytesOfFloat}))`;
      return dtype === "int8" ? `signedByte(${byte})` : byte;
    };
  }

  /** Constants that kernels look up; uploaded once. */
  table(values: Float32Array): Reader {
    const known = this.#tables.get(values);
    if (known) return known;
    const reader = this.array(this.#device.table(values));
    this.#tables.set(values, reader);
    return reader;
  }

  line(...lines: string[]): void {
    this.#body.push(...lines);
  }

  /**
   * The integer that `element` reads. Read on a line of its own: what an index reads itself, gpu.js makes a float of for WebGL, and
   * the whole index with it.
   */
  position(element: string): string {
    const name = this.name("v");
    this.line(`const ${name} = ${element};`);
    return `toInteger(${name})`;
  }

  /** Cuts `index` (row-major over `extents`) into a variable for each axis; axes of length 1 give "0". */
  decode(index: string, extents: readonly number[]): string[] {
    const variables = new Array<string>(extents.length).fill("0");
    const axes = extents.map((_, axis) => axis).filter((axis) => extents[axis] > 1);
    let rest = index;
    for (let k = axes.length - 1; k > 0; k--) {
      const extent = extents[axes[k]];
      const next = this.define("r", `quotient(${rest}, ${extent})`);
      variables[axes[k]] = this.define("i", `${rest} - ${next} * ${extent}`);
      rest = next;
    }
    if (axes.length > 0) variables[axes[0]] = rest;
    return variables;
  }

  /** Runs the kernel whose last line returns; once for each tile of the result. */
  run(length: number): DeviceArray {
    const { largest } = this.#device;
    const exactDivision = this.#device.onHost && !this.#large && length < exactIntegers;
    const written = this.#body.join("\n");
    const lines = exactDivision ? written.replaceAll("quotient(", "hostQuotient(") : written;
    if (length <= largest) {
      const source = `function (${this.#parameters.join(", ")}) {\n${lines}\n}`;
      return { length, tiles: [this.#device.run(source, this.#arguments, length)] };
    }
    const body = lines.replaceAll(thread, `(${thread} + tile)`);
    const source = `function (${[...this.#parameters, "tile"].join(", ")}) {\n${body}\n}`;
    const tiles: Tile[] = [];
    for (let start = 0; start < length; start += largest) {
      const args = [...this.#arguments, { type: "Integer", value: start } as const];
      tiles.push(this.#device.run(source, args, Math.min(largest, length - start)));
    }
    return { length, tiles };
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
  const inMemory = kernel.decode(
    thread,
    plan.axes.map((axis) => out.shape[axis]),
  );
  const variables = new Array<string>(out.shape.length).fill("0");
  plan.axes.forEach((axis, i) => {
    variables[axis] =
      out.strides[axis] >= 0 ? inMemory[i] : kernel.define("f", `${out.shape[axis] - 1} - ${inMemory[i]}`);
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
  const result = insert(device, out, plan, (kernel) => kernel.array(values));
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
  const result = insert(device, out, plan, (kernel) => {
    const constant = kernel.number(value);
    return () => constant;
  });
  setArray(device, bufferOf(out.buffer), result, out.dtype);
}

/** The whole block with out's elements replaced. */
function insert(
  device: Device,
  out: Operand,
  plan: OutputPlan,
  inserted: (kernel: KernelBuilder) => Reader,
): DeviceArray {
  const kernel = new KernelBuilder(device, [out]);
  const before = kernel.operand({ ...out, offset: 0 });
  const value = inserted(kernel);
  const from = kernel.define("d", `${thread} - ${kernel.integer(plan.start)}`);
  kernel.line("let hit = 1.0;", `if (${from} < 0) { hit = 0.0; }`);
  let position = "";
  if (plan.dense) {
    kernel.line(`if (${from} >= ${sizeOf(out.shape)}) { hit = 0.0; }`);
    position = from;
  } else {
    // Strides of views nest: an inner axis never reaches past the next element of an outer one. What is left over after all axes
    // lies between the view's elements.
    let rest = from;
    for (const axis of plan.axes) {
      const stride = Math.abs(out.strides[axis]);
      const index = kernel.define("i", `quotient(${rest}, ${stride})`);
      rest = kernel.define("r", `${rest} - ${index} * ${stride}`);
      kernel.line(`if (${index} >= ${out.shape[axis]}) { hit = 0.0; }`);
      position = position ? kernel.define("p", `${position} * ${out.shape[axis]} + ${index}`) : index;
    }
    kernel.line(`if (${rest} > 0) { hit = 0.0; }`);
  }
  // Within the array also where it is not used: some modes read both sides of a condition.
  const last = sizeOf(out.shape) - 1;
  const at = position ? `within(${position}, ${last})` : "0";
  kernel.line(
    `const other = ${before([[thread, 1]])};`,
    `if (hit == 1.0) { return ${value([[at, 1]])}; }`,
    "return other;",
  );
  return kernel.run(extentOf(out));
}
