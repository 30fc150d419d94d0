// What the tests of the wasm kernels share: operands of any layout on two backends, and distances in ulp.

import fc from "fast-check";
import { createReferenceBackend } from "../../src/backend/reference/index.js";
import type { Backend, Operand } from "../../src/backend/types.js";
import { createWasmBackend } from "../../src/backend/wasm/backend.js";
import { bytesPerElement, type DType, viewAs } from "../../src/dtype.js";
import { contiguousStrides } from "../../src/layout.js";
import { sizeOf } from "../../src/shape.js";

export const wasm = createWasmBackend({ threads: 2 });
export const reference = createReferenceBackend();

/** A layout, and how many elements of storage it reaches into (at least 1). */
export interface View {
  shape: number[];
  strides: number[];
  offset: number;
  span: number;
}

export function contiguousView(shape: number[]): View {
  return { shape, strides: contiguousStrides(shape), offset: 0, span: Math.max(1, sizeOf(shape)) };
}

/** How one axis of a view departs from a contiguous one. */
const axisChange = fc.record({
  step: fc.constantFrom(1, 1, 1, 2, 3),
  flip: fc.boolean(),
  expand: fc.constantFrom(false, false, false, true),
});

/** Views of `shape`: permuted in memory, stepped, flipped, expanded, offset. */
export function viewsOf(shape: number[], plain = 0.4): fc.Arbitrary<View> {
  const rank = shape.length;
  const order = fc.shuffledSubarray([...shape.keys()], { minLength: rank, maxLength: rank });
  return fc
    .tuple(
      fc.double({ min: 0, max: 1, noNaN: true }),
      order,
      fc.array(axisChange, { minLength: rank, maxLength: rank }),
      fc.nat(3),
    )
    .map(([chance, axes, changes, offset]) => {
      if (chance < plain) return contiguousView(shape);
      const strides = new Array<number>(rank).fill(0);
      let span = 1;
      let start = offset;
      for (const axis of axes.toReversed()) {
        const { step, flip, expand } = changes[axis];
        if (expand) continue;
        const stride = span * step;
        strides[axis] = flip ? -stride : stride;
        if (flip && shape[axis] > 0) start += stride * (shape[axis] - 1);
        span *= Math.max(1, shape[axis]) * step;
      }
      return { shape, strides, offset: start, span: span + offset };
    });
}

export function shapes(maxRank = 4, maxExtent = 7): fc.Arbitrary<number[]> {
  const extent = fc.oneof(
    { weight: 12, arbitrary: fc.integer({ min: 1, max: maxExtent }) },
    { weight: 1, arbitrary: fc.constant(0) },
    {
      weight: 1,
      arbitrary: fc.integer({ min: 15, max: 40 }),
    },
  );
  return fc.array(extent, { maxLength: maxRank });
}

/** Shapes of rank 0 to `maxRank` with `count` views of each. */
export function shapeAndViews(count: number, maxRank = 4): fc.Arbitrary<View[]> {
  return shapes(maxRank).chain((shape) => fc.tuple(...Array.from({ length: count }, () => viewsOf(shape))));
}

/** Repeatable numbers in [0, 1). */
export function randomizer(seed: number): () => number {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** An operand whose storage is filled from `value(i)`. */
export function operandOf(backend: Backend, dtype: DType, view: View, value: (i: number) => number): Operand {
  const buffer = backend.alloc(view.span * bytesPerElement(dtype));
  const operand = { buffer, dtype, shape: view.shape, strides: view.strides, offset: view.offset };
  const all = backend.window!({ ...operand, shape: [view.span], offset: 0 });
  for (let i = 0; i < view.span; i++) all[i] = value(i);
  return operand;
}

/** An output, filled with a pattern that shows what was not written. */
export function outputOf(backend: Backend, dtype: DType, view: View | number[]): Operand {
  return operandOf(backend, dtype, Array.isArray(view) ? contiguousView(view) : view, (i) => 77 + (i % 5));
}

/** Everything in an operand's storage. */
export function storageOf(backend: Backend, operand: Operand): ArrayLike<number> {
  const bytes = backend.readSync!(operand.buffer, 0, operand.buffer.bytes);
  return viewAs(operand.dtype, bytes.buffer, 0, bytes.length / bytesPerElement(operand.dtype));
}

const toBits = new DataView(new ArrayBuffer(4));

/** Number of float32 between a and b; 0 for two NaN, Infinity when just one is. */
export function ulpDistance(a: number, b: number): number {
  if (Number.isNaN(a) || Number.isNaN(b))
    return Number.isNaN(a) && Number.isNaN(b) ? 0 : Number.POSITIVE_INFINITY;
  const rank = (x: number) => {
    toBits.setFloat32(0, x);
    const bits = toBits.getInt32(0);
    return bits < 0 ? -(bits & 0x7fffffff) : bits;
  };
  return Math.abs(rank(a) - rank(b));
}

/** Distance of float32 `y` from the real number `exact`, in units of the last place of `exact` as a float32. */
export function ulpError(y: number, exact: number): number {
  if (!Number.isFinite(exact) || Number.isNaN(y)) return ulpDistance(y, exact);
  const rounded = Math.fround(exact);
  if (!Number.isFinite(rounded) || !Number.isFinite(y)) return ulpDistance(y, rounded);
  const exponent = Math.max(-126, Math.floor(Math.log2(Math.max(Math.abs(exact), 2 ** -149))));
  return Math.abs(y - exact) / 2 ** (exponent - 23);
}

/** The first place where the two differ by more than allowed; null when there is none. */
export function firstDifference(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  absolute: number,
  relative: number,
): string | null {
  if (actual.length !== expected.length) return `lengths ${actual.length} and ${expected.length}`;
  for (let i = 0; i < actual.length; i++) {
    const [a, e] = [actual[i], expected[i]];
    if (a === e || (Number.isNaN(a) && Number.isNaN(e))) continue;
    if (!(Math.abs(a - e) <= absolute + relative * Math.abs(e))) return `[${i}] is ${a}, expected ${e}`;
  }
  return null;
}

const special = [
  0,
  -0,
  1,
  -1,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  1e-42,
  3e38,
  -3e38,
];

/** Numbers to fill storage with, the same on both backends. */
export function fillerOf(dtype: DType, seed: number, specials = false): (i: number) => number {
  const next = randomizer(seed);
  return () => {
    const u = next();
    if (dtype === "float32")
      return specials && u < 0.2 ? special[Math.floor(next() * special.length)] : (next() - 0.5) * 8;
    if (dtype === "bool") return u < 0.5 ? 1 : 0;
    if (dtype === "int32")
      return specials && u < 0.2 ? (next() - 0.5) * 2 ** 32 : Math.floor(next() * 41) - 20;
    return Math.floor(next() * (dtype.endsWith("16") ? 65536 : 256));
  };
}

/** Runs `fn` on both backends with the same operands; the outputs' whole storages come back. */
export function onBoth(
  inputs: { dtype: DType; view: View; fill: () => (i: number) => number }[],
  out: { dtype: DType; view: View | number[] },
  fn: (backend: Backend, inputs: Operand[], out: Operand) => void,
): [ArrayLike<number>, ArrayLike<number>] {
  const results = [wasm as Backend, reference].map((backend) => {
    const operands = inputs.map(({ dtype, view, fill }) => operandOf(backend, dtype, view, fill()));
    const output = outputOf(backend, out.dtype, out.view);
    fn(backend, operands, output);
    const storage = storageOf(backend, output);
    for (const { buffer } of [...operands, output]) backend.free(buffer);
    return storage;
  });
  return [results[0], results[1]];
}

export const dtypes: DType[] = ["float32", "float16", "bfloat16", "int32", "int8", "uint8", "bool"];
