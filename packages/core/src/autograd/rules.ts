// The gradients of primitives. The table is exhaustive by type: an operation without a rule does not compile. What fused operations and
// others that only some programs use have instead, a rule of their own, stands beside them in ops/.
//
// A rule says which values the gradient of each input needs (so that nothing else is kept), and computes the gradients that
// are wanted from dy, the gradient of the output. Rules are made of differentiable operations, so they give gradients of
// gradients too; fused kernels are used only while those are not recorded.

import { recordsBackward } from "../ops/fused.js";
import * as ops from "../ops/index.js";
import { matmulBackward } from "../ops/matmul.js";
import { prodReference, sumTo } from "../ops/reduce.js";
import { cumprodReference } from "../ops/scan.js";
import { narrow, sliceBackward } from "../ops/view.js";
import type { Tensor } from "../tensor.js";
import { gradientsThrough } from "./backward.js";
import type { RuleContext } from "./record.js";
import type { Need, ReduceAttributes, Rule, RuleTable } from "./rule.js";

/** A function of one input whose gradient is `gradient`. */
function unary(needs: readonly Need[], gradient: (dy: Tensor, c: RuleContext<null>) => Tensor): Rule<null> {
  return { needs: () => needs, backward: (c, dy) => [gradient(dy, c)] };
}

/** A broadcasting function of two inputs; each gradient is summed back to its input's shape. */
function binary(
  needs: readonly [readonly Need[], readonly Need[]],
  first: (dy: Tensor, c: RuleContext<null>) => Tensor,
  second: (dy: Tensor, c: RuleContext<null>) => Tensor,
): Rule<null> {
  return {
    needs: (i) => needs[i],
    backward: (c, dy) => [
      c.wants[0] ? sumTo(first(dy, c), c.shape(0)) : undefined,
      c.wants[1] ? sumTo(second(dy, c), c.shape(1)) : undefined,
    ],
  };
}

/** A step function: its gradient is zero wherever it has one. */
const flat: Rule<null> = { needs: () => [], backward: () => [undefined] };

/** max and min: equal elements share the gradient. */
const extremum: Rule<ReduceAttributes> = {
  needs: () => [0, "output"],
  backward: (c, dy) => {
    const x = c.input(0);
    const hit = ops.cast(ops.equal(x, c.output()), dy.dtype);
    return [ops.mul(hit, ops.div(dy, ops.sum(hit, c.attributes.axes, true)))];
  },
};

/** minimum and maximum: a tie halves the gradient. */
function chosen(compare: (a: Tensor, b: Tensor) => Tensor): Rule<null> {
  const share = (dy: Tensor, mine: Tensor, other: Tensor) =>
    ops.mul(
      dy,
      ops.add(
        ops.cast(compare(mine, other), dy.dtype),
        ops.mul(ops.cast(ops.equal(mine, other), dy.dtype), 0.5),
      ),
    );
  return binary(
    [
      [0, 1],
      [0, 1],
    ],
    (dy, c) => share(dy, c.input(0), c.input(1)),
    (dy, c) => share(dy, c.input(1), c.input(0)),
  );
}

const sqrt2OverPi = Math.sqrt(2 / Math.PI);

export const rules: RuleTable = {
  neg: unary([], (dy) => ops.neg(dy)),
  abs: unary([0], (dy, c) => ops.mul(dy, ops.sign(c.input(0)))),
  sign: flat,
  floor: flat,
  ceil: flat,
  round: flat,
  sqrt: unary(["output"], (dy, c) => ops.div(dy, ops.mul(c.output(), 2))),
  rsqrt: unary(["output"], (dy, c) => ops.mul(dy, ops.mul(ops.pow(c.output(), 3), -0.5))),
  exp: unary(["output"], (dy, c) => ops.mul(dy, c.output())),
  expm1: unary(["output"], (dy, c) => ops.mul(dy, ops.add(c.output(), 1))),
  log: unary([0], (dy, c) => ops.div(dy, c.input(0))),
  log1p: unary([0], (dy, c) => ops.div(dy, ops.add(c.input(0), 1))),
  sin: unary([0], (dy, c) => ops.mul(dy, ops.cos(c.input(0)))),
  cos: unary([0], (dy, c) => ops.neg(ops.mul(dy, ops.sin(c.input(0))))),
  tanh: unary(["output"], (dy, c) => ops.mul(dy, ops.sub(1, ops.square(c.output())))),
  // d erf = 2/√π · e^(−x²)
  erf: unary([0], (dy, c) =>
    ops.mul(dy, ops.mul(ops.exp(ops.neg(ops.square(c.input(0)))), 2 / Math.sqrt(Math.PI))),
  ),
  sigmoid: unary(["output"], (dy, c) => ops.mul(dy, ops.mul(c.output(), ops.sub(1, c.output())))),
  // d silu = σ·(1 + x·(1 − σ))
  silu: unary([0], (dy, c) => {
    const x = c.input(0);
    const s = ops.sigmoid(x);
    return ops.mul(dy, ops.mul(s, ops.add(ops.mul(x, ops.sub(1, s)), 1)));
  }),
  // d gelu = Φ(x) + x·φ(x)
  gelu: unary([0], (dy, c) => {
    const x = c.input(0);
    const cdf = ops.mul(ops.add(ops.erf(ops.mul(x, Math.SQRT1_2)), 1), 0.5);
    const pdf = ops.mul(ops.exp(ops.mul(ops.square(x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
    return ops.mul(dy, ops.add(cdf, ops.mul(x, pdf)));
  }),
  // With u = √(2/π)·(x + 0.044715·x³): d = (1 + tanh u)/2 + x/2·(1 − tanh² u)·u′
  geluTanh: unary([0], (dy, c) => {
    const x = c.input(0);
    const square = ops.square(x);
    const t = ops.tanh(ops.mul(ops.mul(x, ops.add(ops.mul(square, 0.044715), 1)), sqrt2OverPi));
    const slope = ops.mul(ops.add(ops.mul(square, 3 * 0.044715), 1), sqrt2OverPi);
    const curve = ops.mul(ops.mul(x, ops.sub(1, ops.square(t))), slope);
    return ops.mul(dy, ops.mul(ops.add(ops.add(t, 1), curve), 0.5));
  }),
  softplus: unary([0], (dy, c) => ops.mul(dy, ops.sigmoid(c.input(0)))),
  relu: unary(["output"], (dy, c) => ops.where(ops.greater(c.output(), 0), dy, 0)),
  square: unary([0], (dy, c) => ops.mul(dy, ops.mul(c.input(0), 2))),
  reciprocal: unary(["output"], (dy, c) => ops.neg(ops.mul(dy, ops.square(c.output())))),

  add: binary(
    [[], []],
    (dy) => dy,
    (dy) => dy,
  ),
  sub: binary(
    [[], []],
    (dy) => dy,
    (dy) => ops.neg(dy),
  ),
  mul: binary(
    [[1], [0]],
    (dy, c) => ops.mul(dy, c.input(1)),
    (dy, c) => ops.mul(dy, c.input(0)),
  ),
  div: binary(
    [[1], [1, "output"]],
    (dy, c) => ops.div(dy, c.input(1)),
    (dy, c) => ops.neg(ops.mul(dy, ops.div(c.output(), c.input(1)))),
  ),
  // d a^b = b·a^(b−1) da + a^b·log a db, the latter 0 where a is 0 and b is not negative.
  pow: binary(
    [
      [0, 1],
      [0, 1, "output"],
    ],
    (dy, c) => {
      const b = c.input(1);
      // Where b is 0, a⁰ stands for a⁻¹, whose own gradient at 0 would make NaN of the 0.
      const constant = ops.equal(b, 0);
      const exponent = ops.where(constant, 0, ops.sub(b, 1));
      return ops.mul(dy, ops.where(constant, 0, ops.mul(b, ops.pow(c.input(0), exponent))));
    },
    (dy, c) => {
      const a = c.input(0);
      const none = ops.mul(
        ops.cast(ops.equal(a, 0), dy.dtype),
        ops.cast(ops.greaterEqual(c.input(1), 0), dy.dtype),
      );
      return ops.mul(dy, ops.where(ops.cast(none, "bool"), 0, ops.mul(c.output(), ops.log(a))));
    },
  ),
  // a − b·⌊a/b⌋ where ⌊ ⌋ is flat.
  remainder: binary(
    [[], [0, 1]],
    (dy) => dy,
    (dy, c) => ops.neg(ops.mul(dy, ops.floorDivide(c.input(0), c.input(1)))),
  ),
  floorDivide: flat,
  minimum: chosen((a, b) => ops.less(a, b)),
  maximum: chosen((a, b) => ops.greater(a, b)),
  where: {
    needs: () => [0],
    backward: (c, dy) => [
      undefined,
      c.wants[1] ? sumTo(ops.where(c.input(0), dy, 0), c.shape(1)) : undefined,
      c.wants[2] ? sumTo(ops.where(c.input(0), 0, dy), c.shape(2)) : undefined,
    ],
  },
  cast: { needs: () => [], backward: (c, dy) => [ops.cast(dy, c.attributes.from)] },
  move: { needs: () => [], backward: (c, dy) => [dy.to(c.attributes.from)] },
  alias: { ...unary([], (dy) => dy), remake: (input) => input(0) },
  copy: unary([], (dy) => dy),

  reshape: {
    ...unary([], (dy, c) => ops.reshape(dy, c.shape(0))),
    remake: (input, _, shape) => ops.reshape(input(0), shape),
  },
  permute: {
    needs: () => [],
    backward: (c, dy) => [
      ops.permute(
        dy,
        c.attributes.order.map((_, i) => c.attributes.order.indexOf(i)),
      ),
    ],
  },
  expand: unary([], (dy, c) => sumTo(dy, c.shape(0))),
  slice: {
    needs: () => [],
    backward: (c, dy) => [sliceBackward(dy, c.shape(0), c.attributes.starts, c.attributes.steps)],
  },
  sliceBackward: {
    needs: () => [],
    backward: (c, dy) => {
      const { starts, steps } = c.attributes;
      const ranges = c.shape(0).map((extent, i): ops.Range => {
        const end = starts[i] + steps[i] * extent;
        return [starts[i], end < 0 ? null : end, steps[i]];
      });
      return [ops.slice(dy, ...ranges)];
    },
  },
  concat: {
    needs: () => [],
    backward: (c, dy) => {
      let start = 0;
      return c.wants.map((wanted, i) => {
        const { axis } = c.attributes;
        const from = start;
        start += c.shape(i)[axis];
        return wanted ? narrow(dy, axis, from, start - from) : undefined;
      });
    },
  },

  sum: { needs: () => [], backward: (c, dy) => [ops.expand(dy, c.shape(0))] },
  // The product of the others: y/x without zeros; with one zero it is left to that zero, with more to none.
  prod: {
    needs: () => [0],
    backward: (c, dy) => {
      const x = c.input(0);
      // That formula is not smooth in x where x is 0, so gradients of it go through products of pairs.
      if (recordsBackward())
        return gradientsThrough(([factors]) => prodReference(factors, c.attributes.axes), [x], dy, [true]);
      const zero = ops.equal(x, 0);
      const zeros = ops.sum(ops.cast(zero, dy.dtype), c.attributes.axes, true);
      const rest = ops.prod(ops.where(zero, 1, x), c.attributes.axes, true);
      const alone = ops.mul(ops.mul(ops.cast(zero, dy.dtype), rest), ops.cast(ops.equal(zeros, 1), dy.dtype));
      const others = ops.mul(ops.div(rest, ops.where(zero, 1, x)), ops.cast(ops.equal(zeros, 0), dy.dtype));
      return [ops.mul(dy, ops.add(alone, others))];
    },
  },
  // Element i adds to all that follow it: the running sum from the end.
  cumsum: {
    needs: () => [],
    backward: (c, dy) => {
      const { axis } = c.attributes;
      return [ops.flip(ops.cumsum(ops.flip(dy, axis), axis), axis)];
    },
  },
  // Without division, so that zeros need no cases.
  cumprod: {
    needs: () => [0],
    backward: (c, dy) =>
      gradientsThrough(([x]) => cumprodReference(x, c.attributes.axis), [c.input(0)], dy, [true]),
  },
  max: extremum,
  min: extremum,

  matmul: {
    needs: (i) => [1 - i],
    backward: (c, dy) =>
      matmulBackward(
        () => c.input(0),
        () => c.input(1),
        dy,
        c.attributes,
        c,
      ).map((gradient, i) => (gradient ? sumTo(gradient, c.shape(i)) : undefined)),
  },
  gather: {
    needs: () => [1],
    backward: (c, dy) => [ops.scatterAdd(c.attributes.rows, c.input(1), dy), undefined],
  },
  scatterAdd: { needs: () => [1], backward: (c, dy) => [ops.gather(dy, c.input(1)), undefined] },
};
