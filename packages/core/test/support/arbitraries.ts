// fast-check's arbitraries: shapes, views of tensors beside the same views of plain arrays.

import fc from "fast-check";
import {
  type CreationOptions,
  expand,
  permute,
  reshape,
  slice,
  type Tensor,
  tensor,
} from "../../src/index.js";
import { build, getBroadcast, type NdArray, permuted, positionsOf, taken } from "./ndarray.js";

/** Rank 0 to 4, axes of 0 to 3, mostly not 0. */
export const shapes: fc.Arbitrary<number[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: 1, max: 3 }) },
    { weight: 1, arbitrary: fc.constant(0) },
  ),
  { maxLength: 4 },
);

/** Numbers that are exact in float32 and well apart from overflow. */
export const numbers: fc.Arbitrary<number> = fc.integer({ min: -64, max: 64 }).map((i) => i / 16);

export function arrays(shape: fc.Arbitrary<number[]> = shapes): fc.Arbitrary<NdArray> {
  return shape.chain((extents) => {
    const size = extents.reduce((product, extent) => product * extent, 1);
    return fc
      .array(numbers, { minLength: size, maxLength: size })
      .map((data): NdArray => ({ shape: extents, data }));
  });
}

/** Two shapes that broadcast: parts of a common one, with some axes 1. */
export const broadcastable: fc.Arbitrary<[number[], number[]]> = shapes.chain((common) => {
  const part = fc
    .tuple(
      fc.integer({ min: 0, max: common.length }),
      fc.array(fc.boolean(), { minLength: common.length, maxLength: common.length }),
    )
    .map(([drop, ones]) => common.map((extent, i) => (ones[i] ? 1 : extent)).slice(drop));
  return fc.tuple(part, part);
});

/** One step from a view to the next, on tensors and on plain arrays. */
export interface ViewStep {
  readonly name: string;
  readonly tensor: (x: Tensor) => Tensor;
  readonly array: (x: NdArray) => NdArray;
}

const bound = fc.option(fc.integer({ min: -5, max: 5 }), { nil: null });
const steps = fc.constantFrom(1, 2, 3, -1, -2);

function permutes(rank: number): fc.Arbitrary<ViewStep> {
  return fc.shuffledSubarray([...Array(rank).keys()], { minLength: rank }).map((order) => ({
    name: `permute(${order})`,
    tensor: (x) => permute(x, order),
    array: (x) => permuted(x, order),
  }));
}

function slices(rank: number): fc.Arbitrary<ViewStep> {
  return fc.array(fc.tuple(bound, bound, steps), { minLength: rank, maxLength: rank }).map((ranges) => ({
    name: `slice(${JSON.stringify(ranges)})`,
    tensor: (x) => slice(x, ...ranges),
    array: (x) =>
      taken(
        x,
        ranges.map(([start, stop, step], axis) => positionsOf(x.shape[axis], start, stop, step)),
      ),
  }));
}

function expands(shape: readonly number[]): fc.Arbitrary<ViewStep> {
  return fc
    .tuple(
      fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 4 - shape.length }),
      fc.integer({ min: 0, max: 3 }),
    )
    .map(([lead, repeat]) => {
      const target = [...lead, ...shape.map((extent) => (extent === 1 ? repeat : extent))];
      return {
        name: `expand(${target})`,
        tensor: (x) => expand(x, target),
        array: (x) => build(target, (index) => getBroadcast(x, index)),
      };
    });
}

/** The same elements with neighbouring axes joined, axes of length 1 put in, or the first axis cut in two. */
function reshapes(shape: readonly number[]): fc.Arbitrary<ViewStep> {
  const targets: number[][] = [
    [shape.reduce((product, extent) => product * extent, 1)],
    [...shape, 1],
    [1, ...shape],
  ];
  for (let i = 0; i + 1 < shape.length; i++) {
    targets.push([...shape.slice(0, i), shape[i] * shape[i + 1], ...shape.slice(i + 2)]);
    if (shape[i] % 2 === 0 && shape[i] > 0)
      targets.push([...shape.slice(0, i), 2, shape[i] / 2, ...shape.slice(i + 1)]);
  }
  return fc.constantFrom(...targets.filter((target) => target.length <= 4)).map((target) => ({
    name: `reshape(${target})`,
    tensor: (x) => reshape(x, target),
    array: (x) => ({ shape: target, data: x.data }),
  }));
}

/** An array, up to three view steps, and what they lead to. */
export interface Viewed {
  readonly base: NdArray;
  readonly path: readonly ViewStep[];
  readonly result: NdArray;
}

function extend(viewed: Viewed, count: number): fc.Arbitrary<Viewed> {
  if (count === 0) return fc.constant(viewed);
  const { shape } = viewed.result;
  return fc
    .oneof(permutes(shape.length), slices(shape.length), expands(shape), reshapes(shape))
    .chain((step) => {
      const result = step.array(viewed.result);
      return extend({ base: viewed.base, path: [...viewed.path, step], result }, count - 1);
    });
}

/** Views of `shape`s, printed by fast-check as the steps that lead to them. */
export function views(shape: fc.Arbitrary<number[]> = shapes): fc.Arbitrary<Viewed> {
  return fc
    .tuple(arrays(shape), fc.integer({ min: 0, max: 3 }))
    .chain(([base, count]) => extend({ base, path: [], result: base }, count));
}

/** The tensor that `viewed` describes, and its base. */
export function toTensor({ base, path }: Viewed, options: CreationOptions): { base: Tensor; view: Tensor } {
  const start = tensor(Float64Array.from(base.data), { ...options, shape: base.shape });
  return { base: start, view: path.reduce((x, step) => step.tensor(x), start) };
}
