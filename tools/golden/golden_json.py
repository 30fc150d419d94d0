"""How tensors and fixtures are written as JSON. No reference numbers come from here."""

import json
import math
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {torch.float64: "float64", torch.float32: "float32", torch.int64: "int32", torch.bool: "bool"}


def number(value):
    """JSON has no NaN and no infinities: they become the strings that JavaScript's `Number()` understands."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def flat(tensor):
    """All items in row-major order."""
    return [number(value) for value in tensor.detach().reshape(-1).tolist()]


def tensor_json(tensor):
    """`{shape, dtype, data}`; integers are flagged int32 (all of them fit), booleans are 0 and 1."""
    return {"shape": list(tensor.shape), "dtype": DTYPES[tensor.dtype], "data": flat(tensor)}


def compact(value):
    """One line of strict JSON; floats are written so that they read back to the same bits."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def write(path, document):
    """Writes a dictionary, one line a key, and one line an item where the value is a list of objects or lists."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
            items = ",\n".join(compact(item) for item in value)
            lines.append(f"{compact(key)}:[\n{items}\n]")
        else:
            lines.append(f"{compact(key)}:{compact(value)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
