// Functions that make tensors from nothing, from values, or from random numbers.

import { describe, requireFinite, requireOptions, requireThat, use } from "./arguments.js";
import { activeBackend, type BackendName, backendByName } from "./backend/registry.js";
import type { Backend } from "./backend/types.js";
import { type DType, type DTypeArray, dtypes, isFloat, requireDType } from "./dtype.js";
import { ArgumentError, DTypeError, OutOfMemoryError, ShapeError } from "./errors.js";
import { contiguousLayout } from "./layout.js";
import { tidy } from "./memory.js";
import { allocate, empty, filled, operand, requireBackendDType } from "./ops/dispatch.js";
import { cast } from "./ops/elementwise.js";
import { defaultGenerator, type Generator } from "./random.js";
import { runtime } from "./runtime.js";
import { checkShape, formatShape, type Shape, sizeOf } from "./shape.js";
import { Tensor } from "./tensor.js";

export interface CreationOptions {
  /** Default float32 (for `tensor`: that of a typed array, float32 for numbers, bool for booleans). */
  dtype?: DType;
  /** Default: the active backend. */
  device?: BackendName;
  /** Whether `backward` gathers a gradient for it. */
  requiresGrad?: boolean;
}

export interface RandomOptions extends CreationOptions {
  /** Default: the generator that `manualSeed` seeds. */
  generator?: Generator;
}

/** What creation functions take among them. */
const known = ["dtype", "device", "requiresGrad", "shape", "endpoint", "generator"];

/** @internal The backend and dtype that `options` ask for. */
export function target(operation: string, options: CreationOptions): { backend: Backend; dtype: DType } {
  requireOptions(operation, options, known);
  const { dtype = "float32", device } = options;
  requireDType(operation, dtype);
  const backend = device ? backendByName(device) : activeBackend();
  requireBackendDType(operation, backend, dtype);
  return { backend, dtype };
}

/** @internal An array outside the backend. @throws {OutOfMemoryError} */
export function hostArray<A extends DTypeArray>(
  operation: string,
  length: number,
  kind: { new (length: number): A; readonly BYTES_PER_ELEMENT: number },
): A {
  try {
    return new kind(length);
  } catch {
    const bytes = length * kind.BYTES_PER_ELEMENT;
    const used = runtime.liveBytes;
    throw new OutOfMemoryError(
      `${operation}: cannot allocate ${bytes} bytes; ${used} bytes are in use`,
      bytes,
      used,
    );
  }
}

/** @internal */
export function withOptions(tensor: Tensor, options: CreationOptions): Tensor {
  if (options.requiresGrad) tensor.requiresGrad = true;
  return tensor;
}

/** @internal A tensor of what `fill` writes, in row-major order, into an array of `kind`; 0 where it writes nothing. */
export function generated<A extends DTypeArray>(
  operation: string,
  shape: Shape,
  options: CreationOptions,
  kind: { new (length: number): A; readonly BYTES_PER_ELEMENT: number },
  fill: (values: A) => void,
): Tensor {
  const { backend, dtype } = target(operation, options);
  checkShape(operation, shape);
  if (backend.window && dtypes[dtype].array === (kind as unknown) && dtype !== "bool") {
    // Where they are to stand: an array beside them would be as large as the tensor, and garbage.
    return tidy(() => {
      const out = filled(backend, dtype, [...shape], 0);
      fill(backend.window!(operand(out)) as A);
      return withOptions(out, options);
    });
  }
  const values = hostArray(operation, sizeOf(shape), kind);
  fill(values);
  return withOptions(fromValues(backend, dtype, [...shape], values), options);
}

/** Every element `value`; bool for true and false, unless `dtype` says otherwise. */
export function full(shape: Shape, value: number | boolean, options: CreationOptions = {}): Tensor {
  requireOptions("full", options);
  const dtype = options.dtype ?? (typeof value === "boolean" ? "bool" : "float32");
  return constant("full", shape, typeof value === "boolean" ? Number(value) : value, { ...options, dtype });
}

/** Throws unless `value` can fill a tensor of `dtype`. */
export function requireFilling(operation: string, value: unknown, dtype: DType): void {
  requireThat(typeof value === "number", operation, "value", "a number", value);
  if (!isFloat(dtype)) requireFinite(operation, "value", value);
}

function constant(operation: string, shape: Shape, value: number, options: CreationOptions): Tensor {
  checkShape(operation, shape);
  const { backend, dtype } = target(operation, options);
  requireFilling(operation, value, dtype);
  return withOptions(filled(backend, dtype, [...shape], value), options);
}

/** Every element 0. */
export function zeros(shape: Shape, options: CreationOptions = {}): Tensor {
  return constant("zeros", shape, 0, options);
}

/** Every element 1. */
export function ones(shape: Shape, options: CreationOptions = {}): Tensor {
  return constant("ones", shape, 1, options);
}

/** Zeros of the shape, dtype and backend of `like`. */
export function zerosLike(like: Tensor): Tensor {
  return fullLike(like, 0);
}

/** Ones of the shape, dtype and backend of `like`. */
export function onesLike(like: Tensor): Tensor {
  return fullLike(like, 1);
}

/** `value` in the shape, dtype and backend of `like`. */
export function fullLike(like: Tensor, value: number): Tensor {
  const { backend } = use("fullLike", like);
  requireFilling("fullLike", value, like.dtype);
  return filled(backend, like.dtype, like.shape, value);
}

/** A scalar on the backend of `like`, for arithmetic with numbers; a temporary one is for its caller to dispose. */
export function scalarLike(
  operation: string,
  like: Tensor,
  value: number,
  dtype: DType,
  temporary = false,
): Tensor {
  if (typeof value !== "number")
    throw new ArgumentError(`${operation}: expected a tensor or a number, not ${describe(value)}`);
  const backend = use(operation, like).backend;
  const out = new Tensor(allocate(backend, dtype, []), dtype, contiguousLayout([]), temporary);
  backend.fill(operand(out), value);
  return out;
}

/** The identity [n, n], or of other `columns` 1 where row and column are the same and else 0. */
export function eye(n: number, columns: number | CreationOptions = n, options: CreationOptions = {}): Tensor {
  const [width, given] = typeof columns === "object" ? [n, columns] : [columns, options];
  return generated("eye", [n, width], given, Float32Array, (values) => {
    for (let i = 0; i < Math.min(n, width); i++) values[i * (width + 1)] = 1;
  });
}

export function arange(end: number, options?: CreationOptions): Tensor;
export function arange(start: number, end: number, options?: CreationOptions): Tensor;
export function arange(start: number, end?: number, step?: number, options?: CreationOptions): Tensor;
/** start, start + step, … below end; with one number 0 … end−1. int32 where all are integers, unless `dtype` says otherwise. */
export function arange(...given: (number | undefined | CreationOptions)[]): Tensor {
  const options = (typeof given.at(-1) === "object" ? given.pop() : {}) as CreationOptions;
  const [start, end, step = 1] = given as number[];
  const [from, to] = end === undefined ? [0, start] : [start, end];
  for (const [name, value] of Object.entries({ start: from, end: to, step }))
    requireFinite("arange", name, value);
  requireThat(step !== 0, "arange", "step", "above or below 0", step);
  requireOptions("arange", options);
  const { dtype = [from, to, step].every(Number.isInteger) ? "int32" : "float32" } = options;
  const count = Math.max(0, Math.ceil((to - from) / step));
  return generated("arange", [count], { ...options, dtype }, Float64Array, (values) => {
    for (let i = 0; i < count; i++) values[i] = from + i * step;
  });
}

/** 0 … count − 1, int32, on the backend of `like`. */
export function positions(count: number, like: Tensor): Tensor {
  return fromValues(
    like.storage.backend,
    "int32",
    [count],
    hostArray("positions", count, Int32Array).map((_, i) => i),
  );
}

/**
 * `count` numbers from `start` to `end`, evenly spaced and both included (`endpoint: false` leaves `end` out), as numpy.linspace.
 * @throws {ArgumentError} when an end is not finite
 */
export function linspace(
  start: number,
  end: number,
  count = 50,
  options: CreationOptions & { endpoint?: boolean } = {},
): Tensor {
  requireFinite("linspace", "start", start);
  requireFinite("linspace", "end", end);
  return generated("linspace", [count], options, Float64Array, (values) => {
    const { endpoint = true } = options;
    const steps = endpoint ? count - 1 : count;
    for (let i = 0; i < count; i++) values[i] = i === 0 ? start : start + (end - start) * (i / steps);
    if (endpoint && count > 1) values[count - 1] = end;
  });
}

/**
 * A tensor of the bytes in `buffer`, little-endian and row-major as files hold them; copied. Gives float16 and bfloat16 their bits.
 * @param options - `dtype` (default float32) and `shape` (default: one axis)
 * @throws {ShapeError} when the bytes are not those of the shape
 */
export function fromBuffer(buffer: ArrayBufferLike | ArrayBufferView, options: TensorOptions = {}): Tensor {
  const { backend, dtype } = target("fromBuffer", options);
  if (typeof buffer?.byteLength !== "number")
    throw new ArgumentError(`fromBuffer: expected a buffer or a view of one, not ${describe(buffer)}`);
  const bytes = ArrayBuffer.isView(buffer)
    ? new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)
    : new Uint8Array(buffer);
  const shape = options.shape ? [...options.shape] : [bytes.length / dtypes[dtype].bytes];
  checkShape("fromBuffer", shape);
  const wanted = sizeOf(shape) * dtypes[dtype].bytes;
  if (bytes.length !== wanted) {
    throw new ShapeError(
      `fromBuffer: ${bytes.length} bytes are not ${dtype} ${formatShape(shape)} (${wanted} bytes)`,
    );
  }
  const out = empty(backend, dtype, shape);
  backend.write(out.storage.buffer, 0, dtype === "bool" ? bytes.map((byte) => (byte ? 1 : 0)) : bytes);
  return withOptions(out, options);
}

/** The bytes of `x` in row-major order, as {@link fromBuffer} takes them. */
export async function toBuffer(x: Tensor): Promise<ArrayBuffer> {
  const { backend } = use("toBuffer", x);
  const flat = empty(backend, x.dtype, x.shape);
  backend.copy(operand(x), operand(flat));
  try {
    const bytes = await backend.read(flat.storage.buffer, 0, x.size * dtypes[x.dtype].bytes);
    return new Uint8Array(bytes).buffer;
  } finally {
    flat.dispose();
  }
}

/** A number, a boolean, or arrays of such, as deep as the tensor is to have axes. Tensors are joined by `stack`. */
export type NestedValues = number | boolean | readonly NestedValues[];

export interface TensorOptions extends CreationOptions {
  /** Shape of a flat array of values; default: one axis, or the nesting. */
  shape?: Shape;
}

/**
 * A tensor of given values: a number, nested arrays, or a typed array (with `shape` for more than one axis). Values are copied.
 * A Uint16Array is taken as the bits of float16 or bfloat16 when `dtype` names one of them; a Uint8ClampedArray (an image's) as uint8.
 * @throws {ShapeError} for ragged arrays or a shape that does not fit
 */
export function tensor(
  values: NestedValues | DTypeArray | Uint8ClampedArray,
  options: TensorOptions = {},
): Tensor {
  requireOptions("tensor", options);
  const given = flatten(values);
  const { backend, dtype } = target("tensor", { ...options, dtype: options.dtype ?? given.dtype });
  const shape = options.shape ? [...options.shape] : given.shape;
  checkShape("tensor", shape);
  if (sizeOf(shape) !== given.values.length) {
    throw new ShapeError(
      `tensor: ${given.values.length} values do not fit shape ${formatShape(shape)} (${sizeOf(shape)})`,
    );
  }
  return withOptions(fromValues(backend, dtype, shape, given.values), options);
}

/** A tensor of flat values, converted to `dtype` where their array is of another kind. */
export function fromValues(
  backend: Backend,
  dtype: DType,
  shape: Shape,
  values: DTypeArray | readonly number[],
): Tensor {
  const { array: kind, bytes, range } = dtypes[dtype];
  const bool = dtype === "bool";
  if (values instanceof kind && !bool) return stored(backend, dtype, shape, values);
  if (bytes === 2) {
    const wide = fromValues(backend, "float32", shape, values);
    const out = cast(wide, dtype);
    wide.dispose();
    return out;
  }
  const array = new kind(values.length);
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (range && !(Number.isInteger(value) && value >= range[0] && value <= range[1]))
      throw new DTypeError(`tensor: ${value} at position ${i} is not within ${dtype}`);
    array[i] = bool ? (value ? 1 : 0) : value;
  }
  return stored(backend, dtype, shape, array);
}

function stored(backend: Backend, dtype: DType, shape: Shape, values: DTypeArray): Tensor {
  const out = empty(backend, dtype, shape);
  backend.write(out.storage.buffer, 0, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return out;
}

interface Flat {
  values: DTypeArray | readonly number[];
  shape: number[];
  dtype: DType;
}

/** The dtype that an array of each kind gives. */
const arrayDTypes: [new (length: number) => DTypeArray, DType][] = [
  [Float64Array, "float32"],
  [Float32Array, "float32"],
  [Int32Array, "int32"],
  [Int8Array, "int8"],
  [Uint8Array, "uint8"],
  [Uint16Array, "float16"],
];

function flatten(values: unknown): Flat {
  if (ArrayBuffer.isView(values)) {
    const array =
      values instanceof Uint8ClampedArray
        ? new Uint8Array(values.buffer, values.byteOffset, values.length)
        : (values as DTypeArray);
    const dtype = arrayDTypes.find(([kind]) => array instanceof kind)?.[1];
    if (!dtype)
      throw new DTypeError(
        `tensor: no dtype for a ${values.constructor.name} (known: ${arrayDTypes.map(([{ name }]) => name).join(", ")})`,
      );
    return { values: array, shape: [array.length], dtype };
  }
  const shape: number[] = [];
  for (let level = values; Array.isArray(level); level = level[0]) shape.push(level.length);
  const flat: number[] = [];
  let booleans = 0;
  const walk = (value: unknown, depth: number): void => {
    if (Array.isArray(value)) {
      if (depth >= shape.length || value.length !== shape[depth]) {
        throw new ShapeError(
          `tensor: nested arrays are ragged at depth ${depth} (${value.length} ≠ ${shape[depth] ?? "a value"})`,
        );
      }
      for (const item of value) walk(item, depth + 1);
    } else if (depth !== shape.length) {
      throw new ShapeError(`tensor: nested arrays are ragged: a value at depth ${depth} of ${shape.length}`);
    } else if (typeof value === "number" || typeof value === "boolean") {
      if (typeof value === "boolean") booleans++;
      flat.push(Number(value));
    } else {
      const advice =
        typeof (value as Tensor | null)?.use === "function" ? "; stack joins tensors, clone copies one" : "";
      throw new DTypeError(`tensor: ${describe(value)} at position ${flat.length} is no number${advice}`);
    }
  };
  walk(values, 0);
  return { values: flat, shape, dtype: booleans > 0 && booleans === flat.length ? "bool" : "float32" };
}

/** Uniform in [low, high). @throws {ArgumentError} unless low ≤ high are finite */
export function uniform(shape: Shape, low = 0, high = 1, options: RandomOptions = {}): Tensor {
  requireFinite("uniform", "low", low);
  requireFinite("uniform", "high", high);
  requireThat(low <= high, "uniform", "low", `at most high, ${high}`, low);
  return random("uniform", shape, options, (generator, values) => generator.fillUniform(values, low, high));
}

/** Uniform in [0, 1). */
export function rand(shape: Shape, options: RandomOptions = {}): Tensor {
  return random("rand", shape, options, (generator, values) => generator.fillUniform(values));
}

/** Normal with mean 0 and standard deviation 1. */
export function randn(shape: Shape, options: RandomOptions = {}): Tensor {
  return random("randn", shape, options, (generator, values) => generator.fillNormal(values));
}

function random(
  operation: string,
  shape: Shape,
  options: RandomOptions,
  fill: (generator: Generator, values: Float32Array | Float64Array) => void,
): Tensor {
  const { dtype } = target(operation, options);
  if (!isFloat(dtype)) throw new DTypeError(`${operation}: random numbers are floats, not ${dtype}`);
  const kind = dtype === "float64" ? Float64Array : Float32Array;
  return generated<Float32Array | Float64Array>(operation, shape, options, kind, (values) =>
    fill(options.generator ?? defaultGenerator(), values),
  );
}
