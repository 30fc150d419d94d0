// What strided and broadcast operands cost: operations on views, by turns with the same on contiguous operands of as many elements.

import {
  add,
  argmax,
  cast,
  clone,
  cumsum,
  exp,
  flip,
  layerNorm,
  less,
  max,
  neg,
  noGrad,
  rmsNorm,
  softmax,
  sum,
  type Tensor,
  where,
} from "@nomoat/core";
import { seeded } from "../suites/suite.js";

/** What an operation may take: the view, the same values contiguous, other contiguous ones, and a condition of the same shape. */
interface Operands {
  readonly view: Tensor;
  readonly other: Tensor;
  readonly chosen: Tensor;
  /** A tensor to write over. */
  readonly target: Tensor;
  /** A row for norms. */
  readonly ones: Tensor;
}

const operations: Readonly<Record<string, (o: Operands) => Tensor>> = {
  neg: ({ view }) => neg(view),
  exp: ({ view }) => exp(view),
  add: ({ view, other }) => add(view, other),
  "other + view": ({ view, other }) => add(other, view),
  "add, both so": ({ view }) => add(view, view),
  where: ({ view, other, chosen }) => where(chosen, view, other),
  less: ({ view, other }) => less(view, other),
  "to int32": ({ view }) => cast(view, "int32"),
  "to float16": ({ view }) => cast(view, "float16"),
  "in place": ({ view, target }) => target.add_(view).detach(),
  "sum last": ({ view }) => sum(view, -1),
  "sum first": ({ view }) => sum(view, 0),
  "sum all": ({ view }) => sum(view),
  "max last": ({ view }) => max(view, -1),
  argmax: ({ view }) => argmax(view, -1),
  cumsum: ({ view }) => cumsum(view, -1),
  softmax: ({ view }) => softmax(view, -1),
  layerNorm: ({ view, ones }) => layerNorm(view, ones, ones),
  rmsNorm: ({ view, ones }) => rmsNorm(view, ones),
  copy: ({ view }) => clone(view),
};

const cube = (name: string, ...shape: number[]): Tensor => seeded(name, shape, -4, 4);

/** Views of size · size elements. */
const views: Readonly<Record<string, (size: number) => Tensor>> = {
  transposed: (n) => cube("x", n, n).transpose(),
  "step 2, columns": (n) => cube("x", n, 2 * n).slice(null, [0, null, 2]),
  "step 2, rows": (n) => cube("x", 2 * n, n).slice([0, null, 2]),
  "reversed columns": (n) => flip(cube("x", n, n), 1),
  "reversed rows": (n) => flip(cube("x", n, n), 0),
  "row broadcast": (n) => cube("x", 1, n).expand([n, n]),
  "column broadcast": (n) => cube("x", n, 1).expand([n, n]),
  "scalar broadcast": (n) => cube("x", 1, 1).expand([n, n]),
  "permuted 3-D (2,0,1)": (n) => cube("x", n / 16, 16, n).permute([2, 0, 1]),
  "permuted 3-D (1,0,2)": (n) => cube("x", n / 16, 16, n).permute([1, 0, 2]),
  "permuted 4-D (0,2,1,3)": (n) => cube("x", n / 16, 16, n / 16, 16).permute([0, 2, 1, 3]),
  "permuted 4-D (3,1,2,0)": (n) => cube("x", n / 16, 16, n / 16, 16).permute([3, 1, 2, 0]),
};

export const layoutNames = Object.keys(views);
export const operationNames = Object.keys(operations);

/** Rounds of turns, and least milliseconds of a turn. */
const rounds = 12;
const turnMilliseconds = 1.5;

function time(call: () => void, calls: number): number {
  const began = performance.now();
  for (let i = 0; i < calls; i++) call();
  return (performance.now() - began) / calls;
}

/** The best of turns on the view by the best on contiguous operands, for each operation. */
export function layoutRatios(layout: string, size: number, chosen = operationNames): number[] {
  return noGrad(() => {
    const view = views[layout](size);
    const { shape } = view;
    const rest = {
      other: cube("other", ...shape),
      chosen: cube("chosen", ...shape).greater(0),
      target: cube("target", ...shape),
      ones: seeded("ones", [shape[shape.length - 1]], 1, 1),
    };
    const contiguous = clone(view);
    const ratios = chosen.map((name) => {
      const calls = [view, contiguous].map((x) => () => operations[name]({ view: x, ...rest }).dispose());
      const best = calls.map((call) => {
        for (let i = 0; i < 3; i++) call();
        return Number.POSITIVE_INFINITY;
      });
      const counts = calls.map((call) =>
        Math.max(1, Math.ceil(turnMilliseconds / Math.max(time(call, 1), 1e-4))),
      );
      for (let round = 0; round < rounds; round++) {
        calls.forEach((call, i) => {
          best[i] = Math.min(best[i], time(call, counts[i]));
        });
      }
      return best[0] / best[1];
    });
    for (const tensor of [view, contiguous, ...Object.values(rest)]) tensor.dispose();
    return ratios;
  });
}
