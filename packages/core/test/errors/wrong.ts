// What wrong calls are made of.

import * as nm from "../../src/index.js";

/** A call, the class of its error, and what its message says. */
export type WrongCall = [() => unknown, new (...args: never[]) => Error, string];

/** Ones of a shape. */
export const f = (...shape: number[]) => nm.ones(shape);
/** A tensor of a shape that may not be used any more. */
export const disposed = (...shape: number[]) => {
  const tensor = nm.ones(shape);
  tensor.dispose();
  return tensor;
};
export const i32 = (...values: number[]) => nm.tensor(values, { dtype: "int32" });
export const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
