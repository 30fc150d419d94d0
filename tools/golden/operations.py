"""Writes packages/core/test/fixtures/operations.json: what the PyTorch columns of docs/operations.md give; NumPy's must give the same.

{expression: value}, value a nested list; {"shape": [...]} for random numbers, null for what this PyTorch lacks.
"""

import json
import math
import re

import numpy as np
import torch
import torch.nn.functional as F

import golden_json

OUT = golden_json.ROOT / "packages/core/test/fixtures/operations.json"
PAGE = golden_json.ROOT / "docs/operations.md"
nan, inf = math.nan, math.inf

VARIABLES = {
    "x": np.array([[1.0, -2, 3], [4, 5, -6]]),
    "y": np.array([[0.5, 1, 2], [-1, 2, 3]]),
    "v": np.array([1.0, 2, 3]),
    "m": np.array([[2.0, 1, 0], [1, 3, 1], [0, 1, 4]]),
    "z": np.array([1, nan, inf, -2]),
    "b": np.arange(12.0).reshape(2, 2, 3),
    "c": np.arange(12.0).reshape(2, 3, 2),
    "image": np.arange(32.0).reshape(1, 2, 4, 4) - 16,
    "ids": np.array([2, 0]),
    "i": np.array([[0, 2, 1], [2, 0, 0]]),
}
VARIABLES["mask"] = VARIABLES["x"] > 0


def plain(value):
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return golden_json.number(float(value))


def rows():
    """The first two columns of the tables of three."""
    for line in PAGE.read_text().splitlines():
        cells = re.fullmatch(r"\| `(.+?)` \| (?:`(.+?)` )?\| `.+` \|", line)
        if cells:
            yield cells.groups()


if __name__ == "__main__":
    tensors = {name: torch.from_numpy(value.copy()) for name, value in VARIABLES.items()}
    torch.set_default_dtype(torch.float64)
    results = {}
    for expression, other in rows():
        if not hasattr(F, "scaled_dot_product_attention") and "scaled_dot" in expression:
            results[expression] = None
            continue
        result = eval(expression, {"torch": torch, "F": F, **tensors})
        if re.search(r"rand|bernoulli|dropout", expression):
            results[expression] = {"shape": list(result.shape)}
            continue
        results[expression] = plain(result)
        if other:
            same = eval(other, {"np": np, **VARIABLES})
            np.testing.assert_allclose(np.array(same, float), np.array(result, float), rtol=1e-12, err_msg=other)
    OUT.write_text("{\n" + ",\n".join(f"{json.dumps(key)}:{golden_json.compact(value)}" for key, value in results.items()) + "\n}\n")
    print(f"{len(results)} rows")
