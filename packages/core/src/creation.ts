// Functions that make tensors from nothing, from values, or from random numbers.

import { describe, requireOptions, use } from "./arguments.js";
import { activeBackend, type BackendName, backendByName } from "./backend/registry.js";
import type { Backend } from "./backend/types.js";
import { type DType, type DTypeArray, dtypes, isDType, isFloat } from "./dtype.js";
import { ArgumentError, DTypeError, OutOfMemoryError, ShapeError } from "./errors.js";
import { contiguousLayout } from "./layout.js";
import { allocate, empty, operand } from "./ops/dispatch.js";
import { cast } from "./ops/elementwise.js";
import { defaultGenerator, type Generator } from "./random.js";
import { runtime } from "./runtime.js";
import { checkShape, formatShape, requireFinite, type Shape, sizeOf } from "./shape.js";
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

/** @internal The backend and dtype that `options` ask for. */
export function target(operation: string, options: CreationOptions): { backend: Backend; dtype: DType } {
  requireOptions(operation, options);
  const dtype = options.dtype ?? "float32";
  if (!isDType(dtype)) {
    throw new DTypeError(
      `${operation}: unknown dtype "${String(dtype)}" (known: ${Object.keys(dtypes).join(", ")})`,
    );
  }
  return { backend: options.device ? backendByName(options.device) : activeBackend(), dtype };
}

/** @internal What `make` allocates outside the backend, `bytes` large. @throws {OutOfMemoryError} */
export function hostArray<T>(operation: string, bytes: number, make: () => T): T {
  try {
    return make();
  } catch {
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

/** Every element `value`. */
export function full(shape: Shape, value: number, options: CreationOptions = {}): Tensor {
  const { backend, dtype } = target("full", options);
  checkShape("full", shape);
  if (!isFloat(dtype)) requireFinite("full", "value", value);
  const out = empty(backend, dtype, [...shape]);
  backend.fill(operand(out), value);
  return withOptions(out, options);
}

export function zeros(shape: Shape, options: CreationOptions = {}): Tensor {
  return full(shape, 0, options);
}

export function ones(shape: Shape, options: CreationOptions = {}): Tensor {
  return full(shape, 1, options);
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
  const backend = use("fullLike", like).backend;
  const out = empty(backend, like.dtype, like.shape);
  backend.fill(operand(out), value);
  return out;
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
    throw new ArgumentError(`${operation}: expected a tensor or a number, not ${typeof value}`);
  const backend = use(operation, like).backend;
  const out = new Tensor(allocate(backend, dtype, []), dtype, contiguousLayout([]), temporary);
  backend.fill(operand(out), value);
  return out;
}

/** The n×n identity. */
export function eye(n: number, options: CreationOptions = {}): Tensor {
  checkShape("eye", [n]);
  const values = hostArray("eye", 8 * n * n, () => new Float64Array(n * n));
  for (let i = 0; i < n; i++) values[i * (n + 1)] = 1;
  return tensor(values, { dtype: "float32", ...options, shape: [n, n] });
}

/** start, start + step, … below end; with one argument 0 … end−1. int32 where all are integers, unless `dtype` says otherwise. */
export function arange(start: number, end?: number, step = 1, options: CreationOptions = {}): Tensor {
  const [from, to] = end === undefined ? [0, start] : [start, end];
  if (![from, to, step].every(Number.isFinite) || step === 0) {
    throw new ArgumentError(
      `arange: start ${from}, end ${to} and step ${step} must be finite and step not 0`,
    );
  }
  const count = Math.max(0, Math.ceil((to - from) / step));
  requireOptions("arange", options);
  checkShape("arange", [count]);
  const dtype = options.dtype ?? ([from, to, step].every(Number.isInteger) ? "int32" : "float32");
  return tensor(
    hostArray("arange", 8 * count, () => new Float64Array(count)).map((_, i) => from + i * step),
    { ...options, dtype, shape: [count] },
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
  requireOptions("linspace", options);
  const { endpoint = true, ...creation } = options;
  const { dtype } = target("linspace", creation);
  checkShape("linspace", [count]);
  const steps = endpoint ? count - 1 : count;
  const values = hostArray("linspace", 8 * count, () => new Float64Array(count));
  for (let i = 0; i < count; i++) values[i] = i === 0 ? start : start + (end - start) * (i / steps);
  if (endpoint && count > 1) values[count - 1] = end;
  return tensor(values, { ...creation, dtype, shape: [count] });
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

/** A number, a boolean, or arrays of such, as deep as the tensor is to have axes. */
export type NestedValues = number | boolean | readonly NestedValues[];

export interface TensorOptions extends CreationOptions {
  /** Shape of a flat array of values; default: one axis, or the nesting. */
  shape?: Shape;
}

/**
 * A tensor of given values: a number, nested arrays, or a typed array (with `shape` for more than one axis). Values are copied.
 * A Uint16Array is taken as the bits of float16 or bfloat16 when `dtype` names one of them.
 * @throws {ShapeError} for ragged arrays or a shape that does not fit
 */
export function tensor(values: NestedValues | DTypeArray, options: TensorOptions = {}): Tensor {
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
  const bits = dtypes[dtype];
  const half = dtype === "float16" || dtype === "bfloat16";
  if (values instanceof bits.array && !(dtype === "bool")) {
    const out = empty(backend, dtype, shape);
    backend.write(out.storage.buffer, 0, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return out;
  }
  if (half) {
    const wide = fromValues(backend, "float32", shape, values);
    const out = cast(wide, dtype);
    wide.dispose();
    return out;
  }
  const array = new bits.array(values.length);
  const [low, high] = { int32: [-2147483648, 2147483647], int8: [-128, 127], uint8: [0, 255] }[
    dtype as string
  ] ?? [0, 0];
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (isFloat(dtype)) array[i] = value;
    else if (dtype === "bool") array[i] = value ? 1 : 0;
    else if (!Number.isInteger(value) || value < low || value > high) {
      throw new DTypeError(`tensor: ${value} at position ${i} is not within ${dtype}`);
    } else array[i] = value;
  }
  const out = empty(backend, dtype, shape);
  backend.write(out.storage.buffer, 0, new Uint8Array(array.buffer));
  return out;
}

interface Flat {
  values: DTypeArray | readonly number[];
  shape: number[];
  dtype: DType;
}

const arrayDTypes: [new (length: number) => DTypeArray, DType][] = [
  [Float64Array, "float32"],
  [Float32Array, "float32"],
  [Int32Array, "int32"],
  [Int8Array, "int8"],
  [Uint8Array, "uint8"],
];

function flatten(values: unknown): Flat {
  if (ArrayBuffer.isView(values)) {
    const array = values as DTypeArray;
    const dtype =
      arrayDTypes.find(([kind]) => array instanceof kind)?.[1] ??
      (array instanceof Uint16Array ? "float16" : undefined);
    if (!dtype) throw new DTypeError(`tensor: no dtype for a ${(values as object).constructor.name}`);
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
    } else throw new DTypeError(`tensor: ${typeof value} at position ${flat.length} is no number`);
  };
  walk(values, 0);
  return { values: flat, shape, dtype: booleans > 0 && booleans === flat.length ? "bool" : "float32" };
}

/** Uniform in [low, high). */
export function uniform(shape: Shape, low = 0, high = 1, options: RandomOptions = {}): Tensor {
  return random("uniform", shape, options, (generator, array) => generator.fillUniform(array, low, high));
}

/** Uniform in [0, 1). */
export function rand(shape: Shape, options: RandomOptions = {}): Tensor {
  return uniform(shape, 0, 1, options);
}

/** Normal with mean 0 and standard deviation 1. */
export function randn(shape: Shape, options: RandomOptions = {}): Tensor {
  return random("randn", shape, options, (generator, array) => generator.fillNormal(array));
}

function random(
  operation: string,
  shape: Shape,
  options: RandomOptions,
  fill: (generator: Generator, array: Float32Array | Float64Array) => void,
): Tensor {
  const { backend, dtype } = target(operation, options);
  if (!isFloat(dtype)) throw new DTypeError(`${operation}: random numbers are floats, not ${dtype}`);
  checkShape(operation, shape);
  const size = sizeOf(shape);
  const values =
    dtype === "float64"
      ? hostArray(operation, 8 * size, () => new Float64Array(size))
      : hostArray(operation, 4 * size, () => new Float32Array(size));
  fill(options.generator ?? defaultGenerator(), values);
  return withOptions(fromValues(backend, dtype, [...shape], values), options);
}
