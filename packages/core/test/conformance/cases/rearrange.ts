// Cases of shifting, mirroring, repeating, padding and cutting.

import * as ops from "../../../src/index.js";
import { indices, normal, type OpCase, op } from "../../support/check-op.js";

const flat = { gradient: false };
const around = [
  [1, 2],
  [0, 3],
] as const;
const part = (parts: ops.Tensor[], i: number) => parts[i];

export const rearrangeCases: OpCase[] = [
  op("view", (x) => ops.tidy(() => ops.view(ops.clone(x), [2, -1])), [normal(3, 4)]),
  op("broadcastTo", (x) => ops.broadcastTo(x, [2, 3, 4]), [normal(3, 1)]),
  op("chunk", (x) => ops.tidy(() => part(ops.chunk(x, 3, 1), 2)), [normal(2, 7)]),
  op("chunk of nothing", (x) => ops.tidy(() => part(ops.chunk(x, 3), 2)), [normal(0, 2)]),
  op("flip", (x) => ops.flip(x), [normal(3, 4)]),
  op("flip of one axis", (x) => ops.flip(x, -1), [normal(3, 4)]),
  op("roll", (x) => ops.roll(x, 5), [normal(3, 4)]),
  op("roll along axes", (x) => ops.roll(x, [1, -6], [0, 1]), [normal(3, 4)]),
  op("roll by nothing", (x) => ops.roll(x, 3, 0), [normal(3, 2)]),
  op("roll of nothing", (x) => ops.roll(x, 3, 0), [normal(0, 2)]),
  op("moveaxis", (x) => ops.moveaxis(x, 0, -1), [normal(2, 3, 4)]),
  op("moveaxis of several", (x) => ops.moveaxis(x, [-1, 0], [0, 2]), [normal(2, 3, 4)]),
  op("unbind", (x) => ops.tidy(() => part(ops.unbind(x, 1), 2)), [normal(2, 3)]),
  op("meshgrid", (x, y) => ops.tidy(() => part(ops.meshgrid([x, y]), 0)), [normal(2), normal(3)]),
  op("meshgrid, xy", (x, y) => ops.tidy(() => part(ops.meshgrid([x, y], "xy"), 1)), [normal(2), normal(3)]),
  op("diagonal", (x) => ops.diagonal(x), [normal(3, 4)]),
  op("diagonal of a stack", (x) => ops.diagonal(x, -1, -1, 0), [normal(4, 2, 3)]),
  op("diagonal out of reach", (x) => ops.diagonal(x, 4), [normal(3, 4)]),
  op("diag of a vector", (x) => ops.diag(x), [normal(3)]),
  op("diag of a vector, above", (x) => ops.diag(x, 2), [normal(3)]),
  op("diag of a vector, below", (x) => ops.diag(x, -1), [normal(2)]),
  op("diag of nothing", (x) => ops.diag(x, 1), [normal(0)]),
  op("trace", (x) => ops.trace(x, 1), [normal(3, 4)]),
  op("trace of a stack", (x) => ops.trace(x), [normal(3, 2, 2)]),
  op("repeat", (x) => ops.repeat(x, 2, 1), [normal(2, 3)]),
  op("repeat of all", (x) => ops.repeat(x, 3), [normal(2, 2)]),
  op("repeat no time", (x) => ops.repeat(x, 0, 0), [normal(2, 2)]),
  op("tile", (x) => ops.tile(x, [2, 1, 3]), [normal(2, 2)]),
  op("tile by one number", (x) => ops.tile(x, 2), [normal(2, 3)]),
  op("tile of nothing", (x) => ops.tile(x, [2, 0]), [normal(2, 3)]),
  op("pad", (x) => ops.pad(x, [[1, 2]]), [normal(2, 3)]),
  op(
    "pad with a value",
    (x) =>
      ops.pad(
        x,
        [
          [1, 0],
          [0, 2],
        ],
        -1.5,
      ),
    [normal(2, 3)],
  ),
  op(
    "pad of nothing",
    (x) =>
      ops.pad(
        x,
        [
          [1, 1],
          [0, 1],
        ],
        2,
      ),
    [normal(0, 2)],
  ),
  op("pad, reflect", (x) => ops.pad(x, around, "reflect"), [normal(2, 3, 4)]),
  op("pad, replicate", (x) => ops.pad(x, around, "replicate"), [normal(1, 2, 3)]),
  op("pad, circular", (x) => ops.pad(x, around, "circular"), [normal(2, 3, 4)]),
  op("pad of no rows, replicate", (x) => ops.pad(x, [[2, 1]], "replicate"), [normal(0, 2)]),
  op("pad integers", (x) => ops.pad(x, [[1, 1]]), [indices(9, 3)], flat),
  op("tril", (x) => ops.tril(x), [normal(2, 3, 4)]),
  op("tril above the diagonal", (x) => ops.tril(x, 1), [normal(3, 3)]),
  op("triu", (x) => ops.triu(x), [normal(4, 3)]),
  op("triu below the diagonal", (x) => ops.triu(x, -1), [normal(4, 3)]),
];
