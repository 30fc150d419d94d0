// The Tensor: a dtype, a layout, a reference to storage, a place in the graph. The operations as methods
// stand in tensor-operations.ts.

import { requireOptions } from "./arguments.js";
import { runBackward } from "./autograd/backward.js";
import { type GraphNode, noGrad } from "./autograd/graph.js";
import { type BackendName, backendByName } from "./backend/registry.js";
import type { BufferHandle } from "./backend/types.js";
import { bytesPerElement, type DType, type DTypeArray, isDType, isFloat, viewAs } from "./dtype.js";
import {
  ArgumentError,
  AutogradError,
  BackendError,
  DisposedError,
  DTypeError,
  ShapeError,
} from "./errors.js";
import { isContiguous, type Layout } from "./layout.js";
import { TensorHold, watchLater } from "./memory.js";
import { empty, finish, operand } from "./ops/dispatch.js";
import * as ops from "./ops/index.js";
import { copyInto } from "./ops/view.js";
import { formatTensor } from "./print.js";
import { runtime } from "./runtime.js";
import { formatShape, type Shape, sizeOf } from "./shape.js";
import type { Storage } from "./storage.js";
import { TensorOperations } from "./tensor-operations.js";

const brand = Symbol.for("@nomoat/core/Tensor");
const inspect = Symbol.for("nodejs.util.inspect.custom");

/** Values read from a tensor; float16 and bfloat16 come as float32. */
export type TensorData = Float64Array | Float32Array | Int32Array | Int8Array | Uint8Array;

/** Nested arrays of numbers, as deep as the tensor has axes. */
export type NestedArray = number | NestedArray[];

/**
 * Numbers of one dtype in a shape, on one backend, and where they came from, if gradients are recorded. `tensor`, `zeros`, `randn`
 * and others make them; whoever makes one disposes it (`tidy`, `dispose`, `using`).
 */
export class Tensor extends TensorOperations {
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
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && (value as { [brand]?: boolean })[brand] === true;
  }

  get [brand](): true {
    return true;
  }

  /**
   * @internal Takes over one reference to `storage`. Use the creation functions instead.
   * @param temporary - disposed by its maker at once, in every case: no scope and no collector needs to know it
   */
  constructor(storage: Storage, dtype: DType, layout: Layout, temporary = false) {
    super();
    this.dtype = dtype;
    this.layout = layout;
    this.#hold = new TensorHold(storage);
    if (temporary) return;
    watchLater(this, this.#hold);
    const { scopes } = runtime;
    if (scopes.length > 0) scopes[scopes.length - 1].push(this);
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
    const [values, temporary] = readable(this);
    const bytes = await values.storage.backend.read(...stretchOf(values));
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
    const [values, temporary] = readable(this);
    const bytes = backend.readSync(...stretchOf(values));
    if (temporary) values.dispose();
    return toValues(values.dtype, bytes, this.size);
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

  /**
   * What `JSON.stringify` writes: the nested values, as `toArray` gives them (NaN and infinities become null there, as everywhere in
   * JSON). Shape and dtype are not kept where they do not show; files of tensors are safetensors.
   * @throws {BackendError} on a backend that cannot be read at once
   */
  toJSON(): NestedArray {
    return this.toArray();
  }

  /**
   * Text as {@link toString} gives it, where text is asked for; else the value, with which JavaScript computes and compares
   * (`loss < best`, `total + loss`).
   * @throws {ShapeError} for operators on a tensor with more than one element: they are methods here, `a.mul(b)`
   */
  [Symbol.toPrimitive](hint: string): string | number {
    if (hint === "string") return this.toString();
    if (this.size !== 1)
      throw new ShapeError(
        `operators work on one element, not on ${formatShape(this.shape)}: write a.add(b), a.mul(b) …, and String(a) for text`,
      );
    return this.item();
  }

  override toString(): string {
    return this.disposed ? `Tensor(disposed, shape=${formatShape(this.shape)})` : formatTensor(this);
  }

  [inspect](): string {
    return this.toString();
  }

  /** The same values on another backend, differentiable: this tensor itself (another handle of it) when it is there already. */
  to(device: BackendName): Tensor {
    const source = this.use("to").backend;
    if (isDType(device))
      throw new ArgumentError(`to: ${device} is a dtype, not a backend; use cast("${device}")`);
    const target = backendByName(device);
    if (target === source) return this.alias();
    if (!source.readSync)
      throw new BackendError(
        `to: the ${source.name} backend reads asynchronously; use tensor(await t.data())`,
      );
    const flat = noGrad(() => (this.isContiguous ? this.detach() : ops.clone(this)));
    const bytes = source.readSync(...stretchOf(flat));
    flat.dispose();
    const moved = empty(target, this.dtype, this.shape);
    target.write(moved.storage.buffer, 0, bytes);
    return finish("move", [this], { from: source.name as BackendName }, moved);
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
    requireOptions("backward", options, ["retainGraph"]);
    runBackward([{ tensor: this, gradient: gradient ?? null }], {
      retainGraph: options.retainGraph ?? false,
    });
  }

  /** Disposes the gathered gradient. */
  zeroGrad(): void {
    this.grad?.dispose();
    this.grad = null;
  }
}

/** `x`, or a temporary tensor with its values that is contiguous and of a dtype that JavaScript has. */
function readable(x: Tensor): [tensor: Tensor, temporary: boolean] {
  const { backend } = x.storage;
  const half = x.dtype === "float16" || x.dtype === "bfloat16";
  if (x.isContiguous && !half) return [x, false];
  const values = empty(backend, half ? "float32" : x.dtype, x.shape);
  if (half) backend.cast(operand(x), operand(values));
  else backend.copy(operand(x), operand(values));
  return [values, true];
}

/** Where a contiguous tensor's bytes are. */
function stretchOf({ storage, layout, dtype, size }: Tensor): [BufferHandle, offset: number, bytes: number] {
  const each = bytesPerElement(dtype);
  return [storage.buffer, layout.offset * each, size * each];
}

function toValues(dtype: DType, bytes: Uint8Array, size: number): TensorData {
  return viewAs(dtype, bytes.buffer, bytes.byteOffset, size) as TensorData;
}
