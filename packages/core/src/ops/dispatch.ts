// The one way from an operation to a kernel: allocate the output, run, record.

import { use } from "../arguments.js";
import { needsGraph } from "../autograd/graph.js";
import { recordNode } from "../autograd/record.js";
import type { OperationAttributes, OperationName, OwnRule, Rule } from "../autograd/rule.js";
import { rules } from "../autograd/rules.js";
import type { Backend, Operand } from "../backend/types.js";
import type { DType } from "../dtype.js";
import { bytesPerElement, dtypes } from "../dtype.js";
import { AutogradError, BackendError, DTypeError } from "../errors.js";
import {
  contiguousLayout,
  expandLayout,
  isContiguous,
  type Layout,
  memoryOrder,
  orderedLayout,
  permuteLayout,
} from "../layout.js";
import { runtime } from "../runtime.js";
import type { Shape } from "../shape.js";
import { broadcastShapes, sameShape, sizeOf } from "../shape.js";
import { Storage } from "../storage.js";
import { Tensor, type TensorData } from "../tensor.js";

/** A new contiguous tensor with undefined contents. */
export function empty(backend: Backend, dtype: DType, shape: Shape): Tensor {
  return new Tensor(allocate(backend, dtype, shape), dtype, contiguousLayout(shape));
}

/**
 * The result of an elementwise operation on `inputs`, which broadcast. It lies in memory as they do (`memoryOrder`), so that kernels walk
 * transposed operands as they walk contiguous ones: `run` sees all of them with their axes in that order, and `out` contiguous.
 */
export function elementByElement(
  operation: string,
  dtype: DType,
  inputs: readonly Tensor[],
  run: (out: Operand, a: Operand, b: Operand, c: Operand) => void,
): Tensor {
  const { backend } = inputs[0].storage;
  let { shape } = inputs[0];
  let rowMajor = isContiguous(inputs[0].layout);
  for (let i = 1; i < inputs.length; i++) {
    shape = broadcastShapes(operation, shape, inputs[i].shape);
    rowMajor &&= isContiguous(inputs[i].layout);
  }
  const [x, y = x, z = x] = inputs;
  if (rowMajor) {
    // The usual case, without what the others need: this is much of what a small tensor costs.
    const out = empty(backend, dtype, shape);
    run(
      operand(out),
      expanded(operation, x, shape),
      expanded(operation, y, shape),
      expanded(operation, z, shape),
    );
    return out;
  }
  const layouts = inputs.map(({ layout }) => expandLayout(operation, layout, shape));
  const order = memoryOrder(layouts);
  const layout = order ? orderedLayout(shape, order) : contiguousLayout(shape);
  const out = new Tensor(allocate(backend, dtype, shape), dtype, layout);
  const place = (tensor: Tensor, own: Layout) => operand(tensor, order ? permuteLayout(own, order) : own);
  const [a, b = a, c = a] = inputs.map((input, i) => place(input, layouts[i]));
  run(place(out, layout), a, b, c);
  return out;
}

/** `tensor` as kernels take it, repeated to `shape`. */
function expanded(operation: string, tensor: Tensor, shape: Shape): Operand {
  return operand(
    tensor,
    sameShape(tensor.shape, shape) ? tensor.layout : expandLayout(operation, tensor.layout, shape),
  );
}

/**
 * `target` and `source`, expanded to its shape, for a kernel that writes over a contiguous `target`: with their axes in the order of
 * target's memory. null where that has gaps, or is not walked forwards.
 */
export function overwriting(
  operation: string,
  target: Tensor,
  source: Tensor,
): [target: Operand, source: Operand] | null {
  const { layout } = target;
  const order = memoryOrder([layout]);
  const arranged = (own: Layout) => (order ? permuteLayout(own, order) : own);
  if (!isContiguous(arranged(layout))) return null;
  const expanded = source.layout === layout ? layout : expandLayout(operation, source.layout, layout.shape);
  return [operand(target, arranged(layout)), operand(source, arranged(expanded))];
}

/** A new contiguous tensor, every element `value`. */
export function filled(backend: Backend, dtype: DType, shape: Shape, value: number): Tensor {
  const out = empty(backend, dtype, shape);
  backend.fill(operand(out), value);
  return out;
}

/** @throws {DTypeError} when `backend` has no tensors of `dtype` */
export function requireBackendDType(operation: string, backend: Backend, dtype: DType): void {
  if (backend.dtypes.has(dtype)) return;
  const advice =
    dtype === "float64"
      ? '; make it with { device: "reference" }, or move it there with to("reference")'
      : "";
  throw new DTypeError(`${operation}: the ${backend.name} backend has no ${dtype}${advice}`);
}

/** Memory for a tensor of `shape`. */
export function allocate(backend: Backend, dtype: DType, shape: Shape): Storage {
  requireBackendDType("allocate", backend, dtype);
  return new Storage(backend, sizeOf(shape) * bytesPerElement(dtype));
}

/** `tensor` as kernels take it, or as seen through another layout. */
export function operand(tensor: Tensor, layout: Layout = tensor.layout): Operand {
  return {
    buffer: tensor.storage.buffer,
    dtype: tensor.dtype,
    shape: layout.shape,
    strides: layout.strides,
    offset: layout.offset,
  };
}

/**
 * The backend that all of `inputs` live on.
 * @throws {ArgumentError} for what is no tensor
 * @throws {DisposedError} for a disposed input
 * @throws {BackendError} when two backends meet
 */
export function commonBackend(operation: string, inputs: readonly Tensor[]): Backend {
  const { backend } = use(operation, inputs[0]);
  let other = backend;
  for (let i = 1; i < inputs.length; i++) {
    const own = use(operation, inputs[i]).backend;
    if (own !== backend) other = own;
  }
  if (other !== backend) {
    throw new BackendError(
      `${operation}: tensors live on different backends (${backend.name}, ${other.name}); move one with to("${backend.name}")`,
    );
  }
  return backend;
}

/** Records the operation when an input wants a gradient, and returns `output`. */
export function finish<K extends OperationName>(
  name: K,
  inputs: readonly Tensor[],
  attributes: OperationAttributes[K],
  output: Tensor,
): Tensor {
  return finished(name, rules[name] as Rule<OperationAttributes[K]>, inputs, attributes, output, []);
}

/** As {@link finish}, for an operation with a rule of its own; `extras` are what its kernel made for its backward. */
export function finishBy<A>(
  rule: OwnRule<A>,
  inputs: readonly Tensor[],
  attributes: A,
  output: Tensor,
  extras: readonly Tensor[] = [],
): Tensor {
  return finished(rule.name, rule, inputs, attributes, output, extras);
}

function finished<A>(
  name: string,
  rule: Rule<A>,
  inputs: readonly Tensor[],
  attributes: A,
  output: Tensor,
  extras: readonly Tensor[],
): Tensor {
  if (runtime.anomalyMode) checkAnomaly(name, inputs, output);
  if (needsGraph(inputs) && dtypes[output.dtype].kind === "float")
    recordNode(name, rule, inputs, attributes, output, extras);
  return output;
}

/** The storage of `x` seen through a layout, outside the graph. */
export function withLayout(x: Tensor, layout: Layout): Tensor {
  return new Tensor(x.storage.retain(), x.dtype, layout);
}

/** A view: same storage, other layout. */
export function viewOf<K extends OperationName>(
  name: K,
  input: Tensor,
  attributes: OperationAttributes[K],
  layout: Layout,
): Tensor {
  return finish(name, [input], attributes, withLayout(input, layout));
}

/** `tensor` itself when contiguous, else a contiguous copy: the caller must not dispose it by hand, a scope does. */
export function contiguous(tensor: Tensor): Tensor {
  if (isContiguous(tensor.layout)) return tensor;
  const out = empty(tensor.storage.backend, tensor.dtype, tensor.shape);
  tensor.storage.backend.copy(operand(tensor), operand(out));
  return finish("copy", [tensor], null, out);
}

/**
 * The values of `x`, for an operation whose checks or result depend on them.
 * @param instead - what to do on a backend that cannot be read at once, where the caller cannot wait for values itself
 * @throws {BackendError} naming the operation on such a backend
 */
export function hostValues(operation: string, x: Tensor, instead?: string): TensorData {
  const { name } = use(operation, x).backend;
  try {
    return x.dataSync();
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    const reason = instead ? `the ${name} backend gives those only later: ${instead}` : error.message;
    throw new BackendError(`${operation}: the result depends on values, and ${reason}`);
  }
}

function hasNonFinite(tensor: Tensor): boolean {
  if (dtypes[tensor.dtype].kind !== "float" || !tensor.storage.backend.synchronous) return false;
  for (const value of tensor.dataSync()) if (!Number.isFinite(value)) return true;
  return false;
}

function checkAnomaly(name: string, inputs: readonly Tensor[], output: Tensor): void {
  if (hasNonFinite(output) && !inputs.some(hasNonFinite)) {
    output.dispose();
    throw new AutogradError(
      `${name}: first operation that made a NaN or an infinity (inputs ${inputs.map((t) => `[${t.shape.join(", ")}]`).join(", ")})`,
    );
  }
}
