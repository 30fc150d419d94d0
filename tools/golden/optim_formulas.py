"""Writes packages/core/test/fixtures/optim-formulas.json: Adafactor, Lion and 8-bit AdamW in NumPy by their papers, and PyTorch's
one-cycle schedule. See README.md."""

import json
import math
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "packages/core/test/fixtures/optim-formulas.json"
rng = np.random.default_rng(11)


def floats(*shape):
    """Multiples of 1/256, which float32 holds exactly."""
    return np.round(rng.standard_normal(shape) * 256) / 256


def rms(x):
    return math.sqrt(np.mean(x * x))


def adafactor(p, gradients, lr=0.05, decay=-0.8, eps1=2.0**-23, eps2=1e-3, clip=1.0, weight_decay=0.1):
    """Shazeer and Stern, algorithms 4 and 5: factored second moments, relative steps, update clipping. The row and column means are
    running ones with weight 1 - t^decay; decoupled weight decay and the place of eps1 (a floor) are torch.optim.Adafactor's."""
    p = p.copy()
    row = column = variance = 0.0
    after = []
    for t, g in enumerate(gradients, 1):
        beta = 1 - t**decay
        squared = g * g
        if p.ndim >= 2:
            row = beta * row + (1 - beta) * squared.mean(-1, keepdims=True)
            column = beta * column + (1 - beta) * squared.mean(-2, keepdims=True)
            estimate = row * column / np.maximum(row.mean(-2, keepdims=True), eps1)
        else:
            variance = beta * variance + (1 - beta) * squared
            estimate = variance
        update = g / np.sqrt(np.maximum(estimate, eps1 * eps1))
        step = max(eps2, rms(p)) * min(lr, 1 / math.sqrt(t))
        p = p * (1 - lr * weight_decay) - step * update / max(1.0, rms(update) / clip)
        after.append(p.reshape(-1).tolist())
    return after


def lion(p, gradients, lr=0.01, beta1=0.9, beta2=0.99, weight_decay=0.2):
    """Chen et al., algorithm 2."""
    p, m = p.copy(), np.zeros_like(p)
    after = []
    for g in gradients:
        direction = np.sign(beta1 * m + (1 - beta1) * g)
        p = p - lr * (direction + weight_decay * p)
        m = beta2 * m + (1 - beta2) * g
        after.append(p.reshape(-1).tolist())
    return after


def dynamic_code(signed):
    """Dettmers et al., section 3: one bit for the sign, one indicator bit that ends the exponent's zeros, linear fractions behind it."""
    values = [0.0, 1.0]
    for i in range(7):
        fractions = 2**i if signed else 2 ** (i + 1)
        bounds = np.linspace(0.1, 1, fractions + 1)
        middles = 10.0 ** (i - 6) * (bounds[:-1] + bounds[1:]) / 2
        values += middles.tolist()
        if signed:
            values += (-middles).tolist()
    assert len(values) == 256
    return np.sort(np.array(values))


def quantized(x, code, block=256):
    """Values after a round trip through block-wise codes; scales are float32."""
    out = np.empty_like(x)
    for start in range(0, len(x), block):
        part = x[start : start + block]
        most = np.abs(part).max()
        scaled = part / most if most > 0 else part
        codes = np.abs(scaled[:, None] - code[None, :]).argmin(1)
        out[start : start + block] = code[codes] * np.float64(np.float32(most))
    return out


def adamw_8bit(p, gradients, lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    """AdamW whose moments pass through 8 bits between steps; a step uses them before they are coded."""
    p, m, v = p.copy(), np.zeros_like(p), np.zeros_like(p)
    after = []
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        p = p * (1 - lr * weight_decay) - lr / (1 - beta1**t) * m / (np.sqrt(v / (1 - beta2**t)) + eps)
        m, v = quantized(m, dynamic_code(True)), quantized(v, dynamic_code(False))
        after.append(p.tolist())
    return after


def one_cycle(**options):
    """torch.optim.lr_scheduler.OneCycleLR over a base rate of 1."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, cycle_momentum=False, **options)
    factors = []
    for _ in range(options["total_steps"]):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(factors) < options["total_steps"]:
            schedule.step()
    return factors


def run(name, fn, p, steps, **more):
    gradients = [floats(*p.shape) for _ in range(steps)]
    return {
        "name": name, "optimizer": fn.__name__, "shape": list(p.shape), "initial": p.reshape(-1).tolist(),
        "gradients": [g.reshape(-1).tolist() for g in gradients], "after": fn(p, gradients, **more),
    }


def main():
    runs = [
        run("a matrix", adafactor, floats(3, 4), 6),
        run("a stack", adafactor, floats(2, 2, 3), 4),
        run("a vector", adafactor, floats(5), 6),
        run("a matrix", lion, floats(2, 3), 6),
        # 300 entries: one whole block of 256 and a part of one, over several orders of magnitude.
        run("two blocks", adamw_8bit, floats(300), 6),
    ]
    runs[-1]["after"] = runs[-1]["after"][2::3]
    schedules = [
        {"totalSteps": 11, "warmupShare": 0.3, "initialDivisor": 25, "finalDivisor": 1e4},
        {"totalSteps": 20, "warmupShare": 0.25, "initialDivisor": 10, "finalDivisor": 100},
    ]
    for each in schedules:
        each["factors"] = one_cycle(
            total_steps=each["totalSteps"], pct_start=each["warmupShare"], div_factor=each["initialDivisor"],
            final_div_factor=each["finalDivisor"],
        )
    lines = ",\n".join(json.dumps(one, separators=(",", ":"), allow_nan=False) for one in runs)
    OUT.write_text('{"runs":[\n' + lines + '\n],\n"oneCycle":' + json.dumps(schedules) + "}\n")


main()
