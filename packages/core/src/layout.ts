// How a tensor's elements lie in its storage: shape, strides, offset. Every view is a new layout and no copy.

import { ShapeError } from "./errors.js";
import { formatShape, type Shape, sizeOf } from "./shape.js";

/** Strides and offset count elements. Broadcast axes have stride 0; flipped ones a negative stride. */
export interface Layout {
  readonly shape: Shape;
  readonly strides: readonly number[];
  readonly offset: number;
}

/** Row-major strides of `shape`. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

export function contiguousLayout(shape: Shape): Layout {
  return { shape, strides: contiguousStrides(shape), offset: 0 };
}

/** True when elements follow each other in row-major order; axes of length 1 may have any stride. */
export function isContiguous(layout: Layout): boolean {
  const { shape, strides } = layout;
  let expected = 1;
  let contiguous = true;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] === 0) return true;
    if (shape[i] !== 1 && strides[i] !== expected) contiguous = false;
    expected *= shape[i];
  }
  return contiguous;
}

/**
 * The axes of `layouts`, all of one shape, from the slowest in memory to the fastest; null where that is the order they have. The first
 * layout that tells two axes apart decides; broadcast axes tell nothing. PyTorch's rule (TensorIterator's reorder_dimensions), by which
 * the result of an elementwise operation lies in memory as its operands do.
 */
export function memoryOrder(layouts: readonly Layout[]): number[] | null {
  if (layouts.every(isContiguous)) return null;
  const { shape } = layouts[0];
  // 1 where axis `a` should come after `b`, which follows it now; −1 where it should not; 0 where nobody knows.
  const compare = (a: number, b: number): number => {
    for (const { strides } of layouts) {
      const [s, t] = [Math.abs(strides[a]), Math.abs(strides[b])];
      if (s === 0 || t === 0) continue;
      if (s !== t) return s < t ? 1 : -1;
      if (shape[a] < shape[b]) return 1;
    }
    return 0;
  };
  const order = shape.map((_, axis) => axis);
  let sorted = true;
  // Inserted from the back, past what is undecided.
  for (let i = order.length - 2; i >= 0; i--) {
    for (let at = i, next = i + 1; next < order.length; next++) {
      const found = compare(order[at], order[next]);
      if (found < 0) break;
      if (found === 0) continue;
      [order[at], order[next]] = [order[next], order[at]];
      at = next;
      sorted = false;
    }
  }
  return sorted ? null : order;
}

/** A layout of `shape` without gaps whose axes lie in memory in `order`, slowest first. */
export function orderedLayout(shape: Shape, order: readonly number[]): Layout {
  const sorted = contiguousStrides(order.map((axis) => shape[axis]));
  return { shape, strides: shape.map((_, axis) => sorted[order.indexOf(axis)]), offset: 0 };
}

/** First and last element that `layout` reaches; null where it has none. */
function span(layout: Layout): [first: number, last: number] | null {
  let [first, last] = [layout.offset, layout.offset];
  for (let i = 0; i < layout.shape.length; i++) {
    if (layout.shape[i] === 0) return null;
    const reach = (layout.shape[i] - 1) * layout.strides[i];
    if (reach < 0) first += reach;
    else last += reach;
  }
  return [first, last];
}

/** True when the stretches of memory from first to last element meet, in two layouts of one storage and dtype. */
export function layoutsMeet(a: Layout, b: Layout): boolean {
  const [x, y] = [span(a), span(b)];
  return x !== null && y !== null && x[0] <= y[1] && y[0] <= x[1];
}

/** Axis i of the result is axis `order[i]` of `layout`. */
export function permuteLayout(layout: Layout, order: readonly number[]): Layout {
  return {
    shape: order.map((axis) => layout.shape[axis]),
    strides: order.map((axis) => layout.strides[axis]),
    offset: layout.offset,
  };
}

/** `layout` broadcast to `shape`: new and repeated axes get stride 0. */
export function expandLayout(operation: string, layout: Layout, shape: Shape): Layout {
  const lead = shape.length - layout.shape.length;
  const strides = new Array<number>(shape.length).fill(0);
  let fits = lead >= 0;
  for (let i = 0; fits && i < layout.shape.length; i++) {
    const extent = layout.shape[i];
    if (extent === shape[lead + i]) strides[lead + i] = layout.strides[i];
    else fits = extent === 1;
  }
  if (!fits)
    throw new ShapeError(
      `${operation}: ${formatShape(layout.shape)} does not expand to ${formatShape(shape)}`,
    );
  return { shape, strides, offset: layout.offset };
}

/** The same elements as `shape` (of the same size) without a copy, or null when that takes one. */
export function reshapeLayout(layout: Layout, shape: Shape): Layout | null {
  if (isContiguous(layout)) return { shape, strides: contiguousStrides(shape), offset: layout.offset };
  if (sizeOf(shape) === 0) return { shape, strides: contiguousStrides(shape), offset: layout.offset };
  // Walk both shapes from the end. A run of old axes that is contiguous within itself (`strides[i] = strides[i+1]·shape[i+1]`)
  // can be cut anew at will, so each group of new axes has to end where a group of such runs ends.
  const old: { extent: number; stride: number }[] = [];
  for (let i = 0; i < layout.shape.length; i++) {
    if (layout.shape[i] !== 1) old.push({ extent: layout.shape[i], stride: layout.strides[i] });
  }
  const strides = new Array<number>(shape.length).fill(0);
  let next = shape.length - 1;
  for (let i = old.length - 1; i >= 0; ) {
    const inner = old[i].stride;
    let run = old[i].extent;
    i--;
    while (i >= 0 && old[i].stride === inner * run) {
      run *= old[i].extent;
      i--;
    }
    let taken = 1;
    while (next >= 0 && (taken < run || shape[next] === 1)) {
      strides[next] = inner * taken;
      taken *= shape[next];
      next--;
    }
    if (taken !== run) return null;
  }
  return { shape, strides, offset: layout.offset };
}

/** Elements `starts[i]`, `starts[i] + steps[i]`, … (`extents[i]` of them) of every axis. */
export function sliceLayout(
  layout: Layout,
  starts: readonly number[],
  extents: readonly number[],
  steps: readonly number[],
): Layout {
  let offset = layout.offset;
  for (let i = 0; i < starts.length; i++) if (extents[i] > 0) offset += starts[i] * layout.strides[i];
  return { shape: extents, strides: layout.strides.map((stride, i) => stride * steps[i]), offset };
}
