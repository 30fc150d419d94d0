"""Writes packages/core/test/fixtures/numpy.json: indexing, rearranging, ordering, running sums and einsum by NumPy alone.

Every case is {op, arguments, inputs, output}: arguments as the TypeScript function takes them, tensors as {shape, dtype, data}. See
README.md.
"""

import json
import math
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "packages/core/test/fixtures/numpy.json"
rng = np.random.default_rng(20)
cases = []


def number(value):
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def tensor(array):
    array = np.asarray(array)
    kind = {"f": "float64", "i": "int32", "b": "bool"}[array.dtype.kind]
    return {"shape": list(array.shape), "dtype": kind, "data": [number(v) for v in array.reshape(-1).tolist()]}


def case(op, inputs, arguments, output):
    inputs = [tensor(np.asarray(array)) for array in inputs]
    cases.append({"op": op, "arguments": arguments, "inputs": inputs, "output": tensor(output)})


def floats(*shape):
    """Multiples of 1/16, which float32 holds exactly."""
    return np.round(rng.standard_normal(shape) * 16) / 16


def integers(low, high, *shape):
    return rng.integers(low, high, shape).astype(np.int32)


a, b, c = floats(2, 3), floats(3, 4), floats(2, 4)
for equation, operands in [
    ("ij,jk->ik", [a, b]), ("ij,jk", [a, b]), ("ij,jk,ik->", [a, b, c]), ("ji", [a]), ("ij->j", [a]), ("ii->i", [floats(3, 3)]),
    ("ii", [floats(3, 3)]), ("iij->j", [floats(2, 2, 3)]), ("i,j->ij", [floats(2), floats(3)]), ("ij,ij->ij", [a, a + 1]),
    ("bij,bkj->bik", [floats(2, 3, 4), floats(2, 2, 4)]), ("bhqd,bhkd->bhqk", [floats(2, 2, 3, 2), floats(2, 2, 4, 2)]),
    ("...ij,...jk->...ik", [floats(2, 1, 2, 3), floats(4, 3, 2)]), ("...i->...", [floats(2, 3)]), ("i...,i...", [floats(2, 3), floats(2, 3)]),
    ("ab,bc,cd->ad", [floats(2, 3), floats(3, 4), floats(4, 2)]), ("iji,jk->ki", [floats(2, 3, 2), floats(3, 2)]),
    ("i,i", [floats(4), floats(4)]), (",i->i", [floats(), floats(3)]), ("ij,kl->jk", [floats(2, 3), floats(2, 3)]), ("ba", [a]),
    ("ij,j->i", [floats(2, 0), floats(0)]), ("i...j->j...", [floats(2, 3, 4)]),
]:
    case("einsum", operands, [equation], np.einsum(equation, *operands))

x = floats(3, 4, 5)
i, j = integers(-3, 3, 2, 1), integers(-4, 4, 3)
k = integers(-5, 5, 3)
mask = rng.random((3, 4)) < 0.5
row = np.array([True, False, True, True])
for arguments, inputs, picked in [
    (["t0"], [i], x[i]), ([None, "t0"], [j], x[:, j]), (["t0", "t1"], [i, j], x[i, j]), (["t0", None, "t1"], [i, k], x[i, :, k]),
    ([None, "t0", "t1"], [j, k], x[:, j, k]), (["t0"], [mask], x[mask]), ([None, "t0"], [row], x[:, row]),
    ([1, "t0"], [j], x[1, j]), ([0, None, "t0"], [k], x[0, :, k]), ([[0, 2], "t0"], [j], x[0:2, j]),
    (["t0", [3, None, -1]], [i], x[i, 3::-1]), ([None, "t0", -1], [row], x[:, row, -1]), ([-1, [None, None, 2]], [], x[-1, ::2]),
]:
    case("index", [x, *inputs], arguments, picked)

m = floats(3, 4)
for axis in (0, 1):
    at = integers(-3, 3, 2, 4) if axis == 0 else integers(-4, 4, 3, 2)
    case("takeAlongAxis", [m, at], [axis], np.take_along_axis(m, at, axis))
    few = integers(-3, 3, 2, 2)
    case("take", [m, few], [axis], np.take(m, few, axis))
few = integers(-12, 12, 5)
case("take", [m, few], [], np.take(m, few))
for shift, axis in [(2, None), (-1, 0), ([1, -5], [0, 1]), (7, 1)]:
    name = [shift] if axis is None else [shift, axis]
    case("roll", [m], name, np.roll(m, shift, tuple(axis) if isinstance(axis, list) else axis))
case("repeat", [m], [2, 1], np.repeat(m, 2, 1))
case("repeat", [m], [3], np.repeat(m, 3))
for times in (2, [2, 1], [2, 1, 3]):
    case("tile", [m], [times], np.tile(m, times))
case("pad", [m], [[[1, 2], [0, 3]], -1.5], np.pad(m, [(1, 2), (0, 3)], constant_values=-1.5))
for axis in (0, 1):
    case("flip", [m], [axis], np.flip(m, axis))
for offset in (-1, 0, 2):
    case("tril", [x], [offset], np.tril(x, offset))
    case("triu", [x], [offset], np.triu(x, offset))
ties = np.array([[2, np.nan, 1, 2], [np.inf, -1, -np.inf, -1]])
for axis in (0, 1):
    case("sort", [ties], [axis], np.sort(ties, axis))
    case("argsort", [ties], [axis], np.argsort(ties, axis, kind="stable").astype(np.int32))
    case("cumsum", [m], [axis], np.cumsum(m, axis))
    case("cumprod", [m], [axis], np.cumprod(m, axis))
values, inverse, counts = np.unique(ties, return_inverse=True, return_counts=True)
case("unique.values", [ties], [], values)
case("unique.inverse", [ties], [], inverse.reshape(ties.shape).astype(np.int32))
case("unique.counts", [ties], [], counts.astype(np.int32))
case("nonzero", [mask], [], np.argwhere(mask).astype(np.int32))
p = np.array([7, -7, 7.5, -7.5, 1, -1, 6, 0, 5, np.inf])
q = np.array([3, 3, -2.5, -2, np.inf, np.inf, 0.75, 2, np.nan, 3])
with np.errstate(all="ignore"):
    case("floorDivide", [p, q], [], np.floor_divide(p, q))
    case("remainder", [p, q], [], np.remainder(p, q))
r, s = integers(-20, 20, 12), np.array([3, -3, 4, -4, 1, -1, 7, -7, 2, -2, 5, -5], np.int32)
case("floorDivide", [r, s], [], np.floor_divide(r, s))
case("remainder", [r, s], [], np.remainder(r, s))
for op, fn in [("bitwiseAnd", np.bitwise_and), ("bitwiseOr", np.bitwise_or), ("bitwiseXor", np.bitwise_xor)]:
    case(op, [r, s], [], fn(r, s))
case("shiftRight", [r, np.abs(s)], [], np.right_shift(r, np.abs(s)))
case("shiftLeft", [r, np.abs(s)], [], np.left_shift(r, np.abs(s)))
for order in (0, 1, 2, 3, -2, math.inf, -math.inf):
    case("norm", [m], [number(float(order)), 1, True], np.linalg.norm(m, order, 1, True))

lines = ",\n".join(json.dumps(one, separators=(",", ":"), allow_nan=False) for one in cases)
OUT.write_text('{"cases":[\n' + lines + "\n]}\n")
