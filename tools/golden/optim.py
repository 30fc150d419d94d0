"""Writes packages/core/test/fixtures/optim.json: optimizers, gradient clipping and learning-rate schedules.

See README.md for the layout.
"""

import math
import sys

import torch

import golden_json

OUT = golden_json.ROOT / "packages/core/test/fixtures/optim.json"
SHAPES, STEPS = [(2, 3), (4,)], 20
ADAM = {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weightDecay": 0.0}
SGD = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weightDecay": 0.0}
RUNS = [
    ("adamw", "AdamW", {**ADAM, "weightDecay": 0.01}),
    ("adamw-no-decay", "AdamW", ADAM),
    ("adamw-other", "AdamW", {"lr": 0.05, "betas": [0.8, 0.95], "eps": 1e-3, "weightDecay": 0.3}),
    ("adamw-amsgrad", "AdamW", {**ADAM, "weightDecay": 0.01, "amsgrad": True}),
    ("adamw-scheduled", "AdamW", {**ADAM, "weightDecay": 0.01}),
    ("adam", "Adam", ADAM),
    ("adam-l2", "Adam", {**ADAM, "weightDecay": 0.1}),
    ("sgd", "SGD", SGD),
    ("sgd-decay", "SGD", {**SGD, "weightDecay": 0.1}),
    ("sgd-momentum", "SGD", {**SGD, "momentum": 0.9}),
    ("sgd-momentum-dampening", "SGD", {**SGD, "momentum": 0.9, "dampening": 0.5, "weightDecay": 0.01}),
    ("sgd-nesterov", "SGD", {**SGD, "momentum": 0.9, "nesterov": True, "weightDecay": 0.01}),
]
generator = torch.Generator().manual_seed(7)


def rand(shape):
    """Normal numbers, rounded to multiples of 1/256, so float32 holds them exactly."""
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 256).round() / 256


def cosine(step, warmup, total, cycles=0.5):
    """Hugging Face's get_cosine_schedule_with_warmup: the factor of the base rate at `step`, from 0."""
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * progress)))


def linear(step, warmup, total):
    """Hugging Face's get_linear_schedule_with_warmup."""
    return step / max(1, warmup) if step < warmup else max(0.0, (total - step) / max(1, total - warmup))


def constant(step, warmup, total):
    """Hugging Face's get_constant_schedule_with_warmup."""
    return step / max(1, warmup) if step < warmup else 1.0


def optimizer_run(name, kind, options, initial, gradients):
    """The parameters after each step of one optimizer over the given gradients."""
    parameters = [value.clone().requires_grad_() for value in initial]
    named = {"weightDecay": "weight_decay"}
    optimizer = getattr(torch.optim, kind)(
        parameters, foreach=False, **{named.get(key, key): value for key, value in options.items()}
    )
    entry = {"name": name, "optimizer": kind, "options": options}
    schedule = None
    if name.endswith("scheduled"):
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, 4, STEPS))
        entry["schedule"] = {"kind": "cosine", "warmupSteps": 4, "totalSteps": STEPS}
        entry["learningRates"] = []
    after = []
    for step_gradients in gradients:
        for parameter, gradient in zip(parameters, step_gradients):
            parameter.grad = gradient.clone()
        if schedule:
            entry["learningRates"].append(schedule.get_last_lr()[0])
        optimizer.step()
        if schedule:
            schedule.step()
        after.append([golden_json.flat(parameter) for parameter in parameters])
    return {**entry, "after": after}


def clip_case(name, gradients, max_norm, norm_type=2.0):
    """torch.nn.utils.clip_grad_norm_ over given gradients."""
    parameters = [torch.zeros_like(value, requires_grad=True) for value in gradients]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient.clone()
    total = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
    return {
        "name": name,
        "maxNorm": max_norm,
        "normType": golden_json.number(norm_type),
        "gradients": [golden_json.tensor_json(value) for value in gradients],
        "totalNorm": float(total),
        "clipped": [golden_json.tensor_json(parameter.grad) for parameter in parameters],
    }


def schedule_case(kind, fn, warmup, total, **options):
    """The factor for the steps 0 .. total (past its end Hugging Face's cosine rises again, which nobody wants)."""
    factors = [fn(step, warmup, total, **options) for step in range(total + 1)]
    return {"kind": kind, "warmupSteps": warmup, "totalSteps": total, **options, "factors": factors}


def main():
    torch.set_num_threads(1)
    initial = [rand(shape) for shape in SHAPES]
    gradients = [[rand(shape) for shape in SHAPES] for _ in range(STEPS)]
    gradients[3][1].zero_()
    given = [rand((2, 3)) * 2, rand((4,)) * 2, rand(())]
    schedules = [schedule_case("cosine", cosine, *sizes) for sizes in ((0, 10), (3, 12), (5, 5), (1, 1))]
    schedules.append(schedule_case("cosine", cosine, 2, 12, cycles=1.5))
    schedules += [schedule_case("linear", linear, 3, 12), schedule_case("constant", constant, 3, 6)]
    golden_json.write(
        OUT,
        {
            "parameters": [golden_json.tensor_json(value) for value in initial],
            "gradients": [[golden_json.flat(value) for value in step] for step in gradients],
            "runs": [optimizer_run(*run, initial, gradients) for run in RUNS],
            "clipGradNorm": [
                clip_case("above", given, 1.0),
                clip_case("below", given, 100.0),
                clip_case("norm_1", given, 2.0, 1.0),
                clip_case("norm_inf", given, 0.5, math.inf),
                clip_case("zero", [torch.zeros(3, dtype=torch.float64)], 1.0),
            ],
            "schedules": schedules,
        },
    )
    print(f"{len(RUNS)} runs, {OUT.stat().st_size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
