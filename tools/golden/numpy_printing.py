"""Writes packages/core/test/fixtures/printing.json: np.array2string(array, separator=", ") of arrays of every kind, by NumPy 2.3 or
later, whose first change in years was from where on it writes powers of ten. See README.md.

Line width and indent are those of nomoat's Tensor(...): the text follows a prefix of seven characters, as in repr with another name.
"""

import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "packages/core/test/fixtures/printing.json"
rng = np.random.default_rng(7)
cases = []
nan, inf = np.nan, np.inf


def case(values, dtype="float32", shape=None):
    array = np.asarray(values).astype(dtype)
    if shape is not None:
        array = array.reshape(shape)
    text = np.array2string(array, separator=", ", prefix="Tensor(")
    text = text.replace("True", "true").replace("False", "false") if dtype == "bool" else text
    data = [str(v) if not np.isfinite(v) else v for v in array.reshape(-1).astype("float64").tolist()]
    data = [{"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(v, v) for v in data]
    cases.append({"dtype": dtype, "shape": list(array.shape), "data": data, "text": text})


def ramp(count, dtype="float32", scale=1.0, shape=None):
    """0 … count − 1 times scale: the values are not written out."""
    array = (np.arange(count) * scale).astype(dtype).reshape(count if shape is None else shape)
    text = np.array2string(array, separator=", ", prefix="Tensor(")
    cases.append({"dtype": dtype, "shape": list(array.shape), "scale": scale, "text": text})


for dtype in ("float32", "float64", "float16"):
    for values in (
        [1, 2, 3], [0.1, 1 / 3], [-0.0, 1], [nan, inf, -1], [nan], [-inf, nan], [], [0, 0], [0.5], [1.5e-5, nan, -inf], [0.0001, 0.001],
        [0.00009999, 0.5], [999.5, 1], [1000, 1], [1001, 1], [1, 0.001], [1, 0.000999], [0, 1000], [0, 0.0001], [0, 0.00009], [-1234.5, 0.25],
        [1e-4, 1e-7], [0.1, 0.12, 0.123, 0.1234], [-0.5, 10, 100.25], [65504, 1], [6e-8, 0], [2**-9, 3 * 2**-9, -(2**-9)], [0.1, 1.23456789e-5], [2**-14, 0.1], [2048, 4096], [3.140625, -2.71875, 1 / 7],
    ):
        case(values, dtype)
    for _ in range(12):
        case(rng.standard_normal(int(rng.integers(1, 9))) * 10 ** float(rng.integers(-2, 3)), dtype)
    for _ in range(6):
        case(10 ** rng.uniform(-4, 4, int(rng.integers(1, 7))) * rng.choice([-1, 1]), dtype)
for dtype in ("float32", "float64"):
    for values in (
        [1e10, 1], [1e-10, 0], [123456.789, 0.5], [99999999, 1], [1e8, 1e8], [99999992, 99999992], [1e16, 2e16], [1e30, -1e-30], [16777216, 1],
        [1e8, nan], [0.1 + 0.2, 0.3], [1.1754944e-38, 1], [1.0e-45, 0], [12345678, 87654321], [0.123456789, 0.987654321], [100000.1, 200000.2], [1e6, 1e6], [999999, 500000.5], [1e8 + 8, 1 + 2**-33], [2**-9 * 1e-6, 1 + 2**-9],
        [1 / 3, 1e-5], [2 / 3 * 1e-7] * 3, [123.456789012, 1], [1 + 2**-20, 1], [0.00012345678, 0.01],
    ):
        case(values, dtype)
for values in ([1e100, 1.5], [1e-300, 1], [1.5e300, -1e-310], [0.1 * 3, 1e16], [1 / 3, 123456.123456789]):
    case(values, "float64")
for value in (3.25, 1 / 3, 1e10, 1e-5, nan, -inf, 0, -0.0, 123456.789, 1e16, 12345678.9, 0.0001):
    for dtype in ("float32", "float64"):
        case(value, dtype)
for dtype in ("int32", "int8", "uint8"):
    for values in ([1, 20, 100], [0], [], [7]):
        case(values, dtype)
    case(5, dtype)
case([-1, 20, -128], "int8")
case([2147483647, -2147483648], "int32")
case([True, False])
for values in ([True, False], [True, True], [], True):
    case(values, "bool")
for shape in ([2, 3], [2, 1, 3], [1, 1, 1, 1], [2, 2, 2, 2], [3, 0], [0, 3], [2, 0, 2], [6, 1]):
    count = int(np.prod(shape))
    case(np.round(rng.standard_normal(count) * 8) / 8, "float32", shape)
    case(rng.integers(-50, 50, count), "int32", shape)
    case(rng.random(count) < 0.5, "bool", shape)
case([1, nan, -inf, 0.25, 10, 3], "float32", [2, 3])
for count in (20, 100, 1000):
    ramp(count)
    ramp(count, "int32")
ramp(60, "float32", 0.37)
ramp(1001)
ramp(1001, "int32")
ramp(5000, "float32", 0.001)
ramp(1200, "float32", 0.5, [30, 40])
ramp(2000, "int32", 1.0, [2, 1000])
ramp(2000, "float32", 1.0, [1000, 2])
ramp(3000, "float32", 1.0, [3, 10, 100])
ramp(1024, "float32", 1.0, [4, 4, 8, 8])
ramp(2400, "float32", 0.1, [6, 400])
ramp(90, "float32", 1 / 3, [3, 30])

lines = ",\n".join(json.dumps(one, separators=(",", ":"), allow_nan=False) for one in cases)
OUT.write_text('{"cases":[\n' + lines + "\n]}\n")
print(len(cases), OUT.stat().st_size)
