// The Tensor: a dtype, a layout, a reference to storage, a place in the graph. Methods are thin: each calls its operation.

import { runBackward } from "./autograd/backward.js";
import type { GraphNode } from "./autograd/graph.js";
import { type BackendName, backendByName } from "./backend/registry.js";
import { bytesPerElement, type DType, type DTypeArray, isFloat, viewAs } from "./dtype.js";
import { AutogradError, BackendError, DisposedError, DTypeError, ShapeError } from "./errors.js";
import { isContiguous, type Layout } from "./layout.js";
import { leakNet, TensorHold } from "./memory.js";
import { empty, operand } from "./ops/dispatch.js";
import * as ops from "./ops/index.js";
import { copyInto } from "./ops/view.js";
import { formatTensor } from "./print.js";
import { runtime } from "./runtime.js";
import { formatShape, type Shape, sizeOf } from "./shape.js";
import type { Storage } from "./storage.js";

const brand = Symbol.for("@nomoat/core/Tensor");
const inspect = Symbol.for("nodejs.util.inspect.custom");

/** Values read from a tensor; float16 and bfloat16 come as float32. */
export type TensorData = Float64Array | Float32Array | Int32Array | Int8Array | Uint8Array;

/** Nested arrays of numbers, as deep as the tensor has axes. */
export type NestedArray = number | NestedArray[];

export class Tensor {
  readonly dtype: DType;
  /** @internal */
  readonly layout: Layout;
  /** The gradient that `backward` gathered, for leaves; owned by this tensor. */
  grad: Tensor | null = null;
  /** @internal Not to be disposed by an enclosing scope. */
  kept = false;
  readonly #hold: TensorHold;
  #requiresGrad = false;

  /** True for tensors of any copy of this library. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && (value as { [brand]?: boolean })[brand] === true;
  }

  readonly [brand] = true;

  /** @internal Takes over one reference to `storage`. Use the creation functions instead. */
  constructor(storage: Storage, dtype: DType, layout: Layout) {
    this.dtype = dtype;
    this.layout = layout;
    this.#hold = new TensorHold(storage);
    leakNet.register(this, this.#hold, this.#hold);
    runtime.scopes.at(-1)?.push(this);
  }

  get shape(): Shape {
    return this.layout.shape;
  }

  /** Elements (not bytes) to step along each axis. */
  get strides(): readonly number[] {
    return this.layout.strides;
  }

  /** Number of axes. */
  get rank(): number {
    return this.layout.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.layout.shape);
  }

  get isContiguous(): boolean {
    return isContiguous(this.layout);
  }

  get disposed(): boolean {
    return this.#hold.storage === null;
  }

  /** Name of the backend that holds the values. */
  get device(): BackendName {
    return this.storage.backend.name as BackendName;
  }

  /** @internal @throws {DisposedError} */
  get storage(): Storage {
    return this.use("tensor");
  }

  /** @internal The storage, for `operation`. @throws {DisposedError} */
  use(operation: string): Storage {
    const storage = this.#hold.storage;
    if (!storage)
      throw new DisposedError(
        `${operation}: a tensor of shape ${formatShape(this.shape)} was used after it was disposed`,
      );
    return storage;
  }

  /** @internal The node that made this tensor; null for leaves. */
  get node(): GraphNode | null {
    return this.#hold.node;
  }

  /** @internal */
  attach(node: GraphNode): void {
    this.#hold.node = node.retain();
  }

  /** True when gradients are computed for this tensor: it is a leaf that asks for one, or made from such. */
  get requiresGrad(): boolean {
    return this.#requiresGrad || this.#hold.node !== null;
  }

  set requiresGrad(value: boolean) {
    if (this.#hold.node)
      throw new AutogradError("requiresGrad can be set on leaves only; use detach() first");
    if (value && !isFloat(this.dtype))
      throw new DTypeError(`requiresGrad: only float tensors have gradients, not ${this.dtype}`);
    this.#requiresGrad = value;
  }

  /** True for tensors that no recorded operation made. */
  get isLeaf(): boolean {
    return this.#hold.node === null;
  }

  /** Lets go of the memory, of the gradient, and of the graph as far as nobody else needs them. Idempotent. */
  dispose(): void {
    if (!this.#hold.storage) return;
    leakNet.unregister(this.#hold);
    this.#hold.release();
    this.grad?.dispose();
    this.grad = null;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  // Values

  /** The values in row-major order, as a copy. */
  async data(): Promise<TensorData> {
    this.use("data");
    const [values, temporary] = this.#readable();
    const { backend, buffer } = values.storage;
    const bytes = await backend.read(
      buffer,
      values.layout.offset * bytesPerElement(values.dtype),
      byteSize(values),
    );
    if (temporary) values.dispose();
    return toValues(values.dtype, bytes, this.size);
  }

  /**
   * The values in row-major order, as a copy.
   * @throws {BackendError} on a backend that cannot be read at once; use `await data()`
   */
  dataSync(): TensorData {
    const { backend } = this.use("dataSync");
    if (!backend.readSync) {
      throw new BackendError(`dataSync: the ${backend.name} backend reads asynchronously; use await data()`);
    }
    const [values, temporary] = this.#readable();
    const { buffer } = values.storage;
    const bytes = backend.readSync(
      buffer,
      values.layout.offset * bytesPerElement(values.dtype),
      byteSize(values),
    );
    if (temporary) values.dispose();
    return toValues(values.dtype, bytes, this.size);
  }

  /** This tensor, or a temporary one with its values that is contiguous and of a dtype that JavaScript has. */
  #readable(): [tensor: Tensor, temporary: boolean] {
    const { backend } = this.storage;
    const half = this.dtype === "float16" || this.dtype === "bfloat16";
    if (this.isContiguous && !half) return [this, false];
    const values = empty(backend, half ? "float32" : this.dtype, this.shape);
    if (half) backend.cast(operand(this), operand(values));
    else backend.copy(operand(this), operand(values));
    return [values, true];
  }

  /** The value of a tensor with one element. */
  item(): number {
    if (this.size !== 1)
      throw new ShapeError(
        `item: expected one element, not ${this.size} of shape ${formatShape(this.shape)}`,
      );
    return Number(this.dataSync()[0]);
  }

  /** The values as nested arrays. */
  toArray(): NestedArray {
    const values = this.dataSync();
    let position = 0;
    const build = (axis: number): NestedArray =>
      axis === this.rank
        ? Number(values[position++])
        : Array.from({ length: this.shape[axis] }, () => build(axis + 1));
    return build(0);
  }

  toString(): string {
    return this.disposed ? `Tensor(disposed, shape=${formatShape(this.shape)})` : formatTensor(this);
  }

  [inspect](): string {
    return this.toString();
  }

  /** The same values on another backend: this tensor itself (another handle of it) when it is there already. */
  to(device: BackendName): Tensor {
    const source = this.use("to").backend;
    const target = backendByName(device);
    if (target === source) return this.alias();
    if (!source.readSync)
      throw new BackendError(
        `to: the ${source.name} backend reads asynchronously; use tensor(await t.data())`,
      );
    const flat = this.isContiguous ? this.detach() : ops.clone(this);
    const bytes = source.readSync(
      flat.storage.buffer,
      flat.layout.offset * bytesPerElement(this.dtype),
      byteSize(flat),
    );
    flat.dispose();
    const moved = empty(target, this.dtype, this.shape);
    target.write(moved.storage.buffer, 0, bytes);
    return moved;
  }

  /** Another handle of the same values, outside the graph. Writes in place show in both. */
  detach(): Tensor {
    return new Tensor(this.use("detach").retain(), this.dtype, this.layout);
  }

  /** @internal Another handle of the same values at the same place in the graph. */
  alias(): Tensor {
    return ops.alias(this);
  }

  /**
   * Writes the values of `source` (same size and dtype; a typed array or a tensor of this backend) over this tensor's.
   * @throws {AutogradError} on a tensor that an operation made while gradients are recorded
   */
  copyFrom(source: Tensor | DTypeArray): this {
    copyInto(this, source);
    return this;
  }

  // Differentiation

  /**
   * Adds d(this)/d(leaf) to `grad` of every leaf that requires one, and frees the graph.
   * @param gradient - d(result)/d(this); may be left out for a tensor with one element
   */
  backward(gradient?: Tensor, options: { retainGraph?: boolean } = {}): void {
    this.use("backward");
    runBackward([{ tensor: this, gradient: gradient ?? null }], {
      retainGraph: options.retainGraph ?? false,
    });
  }

  /** Disposes the gathered gradient. */
  zeroGrad(): void {
    this.grad?.dispose();
    this.grad = null;
  }

  // Operations, as methods. Their documentation stands at the functions of the same names in ops/.

  neg(): Tensor {
    return ops.neg(this);
  }

  abs(): Tensor {
    return ops.abs(this);
  }

  sign(): Tensor {
    return ops.sign(this);
  }

  sqrt(): Tensor {
    return ops.sqrt(this);
  }

  rsqrt(): Tensor {
    return ops.rsqrt(this);
  }

  exp(): Tensor {
    return ops.exp(this);
  }

  expm1(): Tensor {
    return ops.expm1(this);
  }

  log(): Tensor {
    return ops.log(this);
  }

  log1p(): Tensor {
    return ops.log1p(this);
  }

  sin(): Tensor {
    return ops.sin(this);
  }

  cos(): Tensor {
    return ops.cos(this);
  }

  tanh(): Tensor {
    return ops.tanh(this);
  }

  erf(): Tensor {
    return ops.erf(this);
  }

  sigmoid(): Tensor {
    return ops.sigmoid(this);
  }

  silu(): Tensor {
    return ops.silu(this);
  }

  softplus(): Tensor {
    return ops.softplus(this);
  }

  relu(): Tensor {
    return ops.relu(this);
  }

  square(): Tensor {
    return ops.square(this);
  }

  reciprocal(): Tensor {
    return ops.reciprocal(this);
  }

  floor(): Tensor {
    return ops.floor(this);
  }

  ceil(): Tensor {
    return ops.ceil(this);
  }

  round(): Tensor {
    return ops.round(this);
  }

  logicalNot(): Tensor {
    return ops.logicalNot(this);
  }

  gelu(approximate: "none" | "tanh" = "none"): Tensor {
    return ops.gelu(this, approximate);
  }

  add(other: Tensor | number): Tensor {
    return ops.add(this, other);
  }

  sub(other: Tensor | number): Tensor {
    return ops.sub(this, other);
  }

  mul(other: Tensor | number): Tensor {
    return ops.mul(this, other);
  }

  div(other: Tensor | number): Tensor {
    return ops.div(this, other);
  }

  pow(other: Tensor | number): Tensor {
    return ops.pow(this, other);
  }

  minimum(other: Tensor | number): Tensor {
    return ops.minimum(this, other);
  }

  maximum(other: Tensor | number): Tensor {
    return ops.maximum(this, other);
  }

  equal(other: Tensor | number): Tensor {
    return ops.equal(this, other);
  }

  notEqual(other: Tensor | number): Tensor {
    return ops.notEqual(this, other);
  }

  less(other: Tensor | number): Tensor {
    return ops.less(this, other);
  }

  lessEqual(other: Tensor | number): Tensor {
    return ops.lessEqual(this, other);
  }

  greater(other: Tensor | number): Tensor {
    return ops.greater(this, other);
  }

  greaterEqual(other: Tensor | number): Tensor {
    return ops.greaterEqual(this, other);
  }

  sum(axes?: number | readonly number[], keepDims = false): Tensor {
    return ops.sum(this, axes, keepDims);
  }

  mean(axes?: number | readonly number[], keepDims = false): Tensor {
    return ops.mean(this, axes, keepDims);
  }

  prod(axes?: number | readonly number[], keepDims = false): Tensor {
    return ops.prod(this, axes, keepDims);
  }

  max(axes?: number | readonly number[], keepDims = false): Tensor {
    return ops.max(this, axes, keepDims);
  }

  min(axes?: number | readonly number[], keepDims = false): Tensor {
    return ops.min(this, axes, keepDims);
  }

  variance(axes?: number | readonly number[], keepDims = false): Tensor {
    return ops.variance(this, axes, keepDims);
  }

  logsumexp(axes?: number | readonly number[], keepDims = false): Tensor {
    return ops.logsumexp(this, axes, keepDims);
  }

  argmax(axis?: number, keepDims = false): Tensor {
    return ops.argmax(this, axis, keepDims);
  }

  argmin(axis?: number, keepDims = false): Tensor {
    return ops.argmin(this, axis, keepDims);
  }

  cast(dtype: DType): Tensor {
    return ops.cast(this, dtype);
  }

  clone(): Tensor {
    return ops.clone(this);
  }

  reshape(...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.reshape(this, spread(shape));
  }

  permute(...order: readonly number[] | [readonly number[]]): Tensor {
    return ops.permute(this, spread(order));
  }

  transpose(axis1 = -2, axis2 = -1): Tensor {
    return ops.transpose(this, axis1, axis2);
  }

  expand(...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.expand(this, spread(shape));
  }

  squeeze(axes?: number | readonly number[]): Tensor {
    return ops.squeeze(this, axes);
  }

  unsqueeze(axis: number): Tensor {
    return ops.unsqueeze(this, axis);
  }

  flatten(startAxis = 0, endAxis = -1): Tensor {
    return ops.flatten(this, startAxis, endAxis);
  }

  slice(...ranges: readonly ops.Range[]): Tensor {
    return ops.slice(this, ...ranges);
  }

  matmul(other: Tensor, options?: ops.MatmulArguments): Tensor {
    return ops.matmul(this, other, options);
  }

  softmax(axis = -1): Tensor {
    return ops.softmax(this, axis);
  }

  logSoftmax(axis = -1): Tensor {
    return ops.logSoftmax(this, axis);
  }
}

/** `f(1, 2)` and `f([1, 2])` alike. */
function spread(list: readonly number[] | readonly [readonly number[]]): readonly number[] {
  return (Array.isArray(list[0]) ? list[0] : list) as readonly number[];
}

function byteSize(tensor: Tensor): number {
  return tensor.size * bytesPerElement(tensor.dtype);
}

function toValues(dtype: DType, bytes: Uint8Array, size: number): TensorData {
  return viewAs(dtype, bytes.buffer, bytes.byteOffset, size) as TensorData;
}
