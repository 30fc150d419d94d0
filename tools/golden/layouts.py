"""Strides of what PyTorch's elementwise operations give, by the strides of their operands.

Writes packages/core/test/fixtures/layouts.json.
"""

import json
import random
from pathlib import Path

import torch

random.seed(7)


def operand(shape):
    """A view of `shape` over memory of its own: permuted, with gaps, or broadcast here and there."""
    rank = len(shape)
    order = random.sample(range(rank), rank)
    kept = [1 if random.random() < 0.15 else extent for extent in shape]
    gaps = [2 if random.random() < 0.1 else 1 for _ in shape]
    x = torch.zeros([kept[axis] * gaps[axis] for axis in order])
    x = x.permute([order.index(axis) for axis in range(rank)])
    x = x[tuple(slice(None, None, gap) for gap in gaps)]
    return x.expand(shape) if random.random() < 0.5 else x


def described(x):
    return {"shape": list(x.shape), "strides": list(x.stride())}


cases = []
seen = set()
while len(cases) < 240:
    shape = [random.randint(2, 4) for _ in range(random.randint(1, 4))]
    count = random.randint(1, 3)
    inputs = [operand(shape) for _ in range(count)]
    if count == 1:
        out = torch.exp(inputs[0])
    elif count == 2:
        out = inputs[0] + inputs[1]
    else:
        out = torch.where(inputs[0] > 0, inputs[1], inputs[2])
        # The comparison has a layout of its own, so the operands are those that `where` saw.
        inputs[0] = inputs[0] > 0
    if list(out.shape) != shape:
        continue
    case = {"inputs": [described(x) for x in inputs], "strides": list(out.stride())}
    key = json.dumps(case)
    if key not in seen:
        seen.add(key)
        cases.append(case)

path = Path(__file__).resolve().parents[2] / "packages/core/test/fixtures/layouts.json"
path.write_text("{\"cases\":[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]}\n")
