"""Writes packages/llama/test/fixtures/lora-steps: runs of LoRA fine-tuning of a tiny LLaMA, step by step.

Each case is run twice from the same numbers, in float64 and in float32. See README.md for the files' layout.
"""

import sys

import torch

import golden_json
import safetensors_io
from llama import Config, adapter_parameters, apply_lora, next_token_loss_sum, random_llama

FOLDER = golden_json.ROOT / "packages/llama/test/fixtures/lora-steps"
STEPS, DETAILED_STEPS, BATCHES, MASK_SETS = 40, 5, 4, 3
BATCH_SIZE, LENGTH = 2, 12
OPTIMIZER = {"lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
MAX_GRAD_NORM = 1.0
BASES = {"tied": (Config(tie_word_embeddings=True), 1), "untied": (Config(tie_word_embeddings=False), 2)}
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = [
    dict(name="attention", base="tied", r=8, lora_alpha=16, seed=11),
    dict(name="all-linear", base="untied", r=4, lora_alpha=8, targets=ALL_LINEAR, b_std=0.05, seed=12),
    dict(name="rslora", base="untied", r=2, lora_alpha=4, use_rslora=True, b_std=0.05, seed=13),
    dict(name="dropout", base="tied", r=2, lora_alpha=4, lora_dropout=0.25, seed=14),
    dict(name="accumulate-tokens", base="tied", r=2, lora_alpha=4, accumulation="tokens", b_std=0.05, seed=15),
    dict(name="accumulate-means", base="tied", r=2, lora_alpha=4, accumulation="means", b_std=0.05, seed=15),
    dict(name="dora", base="untied", r=2, lora_alpha=4, use_dora=True, targets=ALL_LINEAR, b_std=0.05, seed=16, brief=True),
    dict(
        name="dora-dropout", base="tied", r=2, lora_alpha=4, use_dora=True, lora_dropout=0.25, targets=["q_proj"],
        seed=17, brief=True,
    ),
    dict(
        name="patterns", base="untied", r=4, lora_alpha=6, use_rslora=True, targets=ALL_LINEAR, b_std=0.05, seed=18,
        rank_pattern={"down_proj": 2, r"layers\.1\.self_attn\.[qk]_proj": 3, "gate_proj": 1},
        alpha_pattern={"^model.layers.0.mlp.up_proj": 3, "v_proj": 1}, brief=True,
    ),
    dict(
        name="clip-decay", base="tied", r=2, lora_alpha=4, b_std=0.05, max_grad_norm=0.05, weight_decay=0.5, seed=19,
        brief=True,
    ),
    dict(
        name="lora-plus", base="untied", r=2, lora_alpha=4, targets=["q_proj", "v_proj", "embed_tokens"], b_std=0.05,
        loraplus={"lr_ratio": 8, "lr_embedding": 3e-3}, lr=2e-3, seed=20, brief=True,
    ),
]


def lora_config(case):
    """PEFT's adapter_config.json of a case."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": case["r"],
        "lora_alpha": case["lora_alpha"],
        "lora_dropout": case.get("lora_dropout", 0.0),
        "target_modules": case.get("targets", ["q_proj", "v_proj"]),
        "use_rslora": case.get("use_rslora", False),
        "init_lora_weights": "b_std" not in case,
        "bias": "none",
        "fan_in_fan_out": False,
        **{name: case[name] for name in ("use_dora", "rank_pattern", "alpha_pattern") if name in case},
    }


def make_optimizer(case, parameters):
    """AdamW; with LoRA+ (arXiv:2402.12354) in PEFT's groups, B and embeddings at learning rates of their own.

    Vectors are not decayed, as in Hugging Face's trainer.
    """
    options = optimizer_options(case)
    plus = case.get("loraplus", {"lr_ratio": 1, "lr_embedding": options["lr"]})
    groups = []
    for name, parameter in parameters.items():
        lr = options["lr"]
        if "lora_embedding" in name:
            lr = plus["lr_embedding"]
        elif "lora_B" in name or parameter.ndim == 1:
            lr *= plus["lr_ratio"]
        decay = options["weight_decay"] if parameter.ndim > 1 else 0.0
        groups.append({"params": [parameter], "lr": lr, "weight_decay": decay})
    return torch.optim.AdamW(groups, foreach=False, **options)


def optimizer_options(case):
    return {**OPTIMIZER, **{name: case[name] for name in ("lr", "weight_decay") if name in case}}


def max_grad_norm(case):
    return case.get("max_grad_norm", MAX_GRAD_NORM)


def make_batches(seed):
    """Token ids, and labels that ignore a prefix of each row and a few positions inside; counts differ by batch."""
    generator = torch.Generator().manual_seed(seed)
    shape = (BATCHES, BATCH_SIZE, LENGTH)
    input_ids = torch.randint(0, 64, shape, generator=generator)
    prefix = torch.randint(0, 5, shape[:2], generator=generator)
    ignored = torch.rand(shape, generator=generator) < 0.1
    ignored |= torch.arange(LENGTH) < prefix[..., None]
    return input_ids, input_ids.masked_fill(ignored, -100)


def make_masks(case, layers):
    """`MASK_SETS` sets of dropout multipliers, 0 or 1 / (1 - p), by module name: `[batch, length, in]`."""
    p = case.get("lora_dropout")
    if not p:
        return []
    generator = torch.Generator().manual_seed(case["seed"] + 200)
    shapes = {name: (BATCH_SIZE, LENGTH, layer.base_layer.in_features) for name, layer in layers.items()}
    return [
        {name: (torch.rand(shape, generator=generator) >= p).double() / (1 - p) for name, shape in shapes.items()}
        for _ in range(MASK_SETS)
    ]


def step_loss(model, input_ids, labels, accumulation):
    """Runs the micro-batches of one step forwards and backwards; returns the loss that was differentiated.

    "tokens" is the mean over all positions that count in the step; "means" is the mean of the micro-batches' means.
    """
    counted = int((labels[:, :, 1:] != -100).sum())
    loss = 0.0
    for ids, targets in zip(input_ids, labels):
        total, count = next_token_loss_sum(model(ids), targets)
        part = total / count / len(input_ids) if accumulation == "means" else total / counted
        part.backward()
        loss += part.detach()
    return float(loss)


def run(case, dtype):
    """Trains one case. Returns its tensors by the fixture's keys, the losses, the gradient norms and the masks."""
    config, base_seed = BASES[case["base"]]
    model = random_llama(config, base_seed).to(dtype)
    layers = apply_lora(model, lora_config(case), case.get("b_std", 0.0), case["seed"])
    parameters = adapter_parameters(layers)
    masks = make_masks(case, layers)
    input_ids, labels = make_batches(case["seed"] + 100)
    micro = 2 if "accumulation" in case else 1
    optimizer = make_optimizer(case, parameters)
    detailed = 0 if case.get("brief") else DETAILED_STEPS

    tensors, losses, norms = {}, [], []

    def record(prefix, values):
        for name, value in values.items():
            tensors[f"{prefix}.{name}"] = value.detach().numpy().copy()

    record("init", parameters)
    for step in range(STEPS):
        for name, mask in (masks[step % MASK_SETS] if masks else {}).items():
            layers[name].mask = mask.to(dtype)
        chosen = [(step * micro + i) % BATCHES for i in range(micro)]
        optimizer.zero_grad()
        losses.append(step_loss(model, input_ids[chosen], labels[chosen], case.get("accumulation")))
        if step < detailed:
            record(f"step{step}.grad", {name: parameter.grad for name, parameter in parameters.items()})
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), max_grad_norm(case))))
        optimizer.step()
        if step < detailed:
            record(f"step{step}.after", parameters)
    record("final", parameters)
    for index, mask_set in enumerate(masks):
        record(f"mask{index}", mask_set)
    return tensors, losses, norms


def write_case(case):
    """Runs a case in both dtypes and writes `<name>.safetensors` and `<name>.json`."""
    tensors, losses, norms = run(case, torch.float64)
    tensors32, losses32, norms32 = run(case, torch.float32)
    wanted = {name: value for name, value in tensors32.items() if ".grad." in name or name.startswith("final.")}
    tensors.update({f"f32.{name}": value for name, value in wanted.items()})
    safetensors_io.save(FOLDER / f"{case['name']}.safetensors", tensors)
    input_ids, labels = make_batches(case["seed"] + 100)
    golden_json.write(
        FOLDER / f"{case['name']}.json",
        {
            "name": case["name"],
            "base": f"base-{case['base']}.safetensors",
            "config": BASES[case["base"]][0].to_json(),
            "lora": lora_config(case),
            "optimizer": {"name": "AdamW", **optimizer_options(case)},
            **({"loraplus": case["loraplus"]} if "loraplus" in case else {}),
            "max_grad_norm": max_grad_norm(case),
            "steps": STEPS,
            "detailed_steps": 0 if case.get("brief") else DETAILED_STEPS,
            "gradient_accumulation_steps": 2 if "accumulation" in case else 1,
            "accumulation": case.get("accumulation", "tokens"),
            "mask_sets": MASK_SETS if "lora_dropout" in case else 0,
            "input_ids": input_ids.tolist(),
            "labels": labels.tolist(),
            "losses_f64": losses,
            "losses_f32": losses32,
            "grad_norms_f64": norms,
            "grad_norms_f32": norms32,
        },
    )
    drift = max(abs(a - b) for a, b in zip(losses, losses32))
    print(
        f"{case['name']:18} loss {losses[0]:.4f} -> {losses[-1]:.4f}"
        f"  norms {min(norms):.3f}..{max(norms):.3f}  float32 drift {drift:.1e}",
        file=sys.stderr,
    )


def write_bases():
    """Writes the frozen models, and the logits that they give for one batch in both dtypes."""
    logits, described = {}, {}
    input_ids = make_batches(100)[0][0]
    for name, (config, seed) in BASES.items():
        model = random_llama(config, seed)
        weights = {key: value.numpy() for key, value in model.state_dict().items()}
        safetensors_io.save(FOLDER / f"base-{name}.safetensors", weights, {"format": "pt"})
        with torch.no_grad():
            logits[name] = model(input_ids).numpy()
            logits[f"f32.{name}"] = model.float()(input_ids).numpy()
        described[name] = {"base": f"base-{name}.safetensors", "config": config.to_json()}
    safetensors_io.save(FOLDER / "logits.safetensors", logits)
    golden_json.write(FOLDER / "logits.json", {**described, "input_ids": input_ids.tolist()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_bases()
    for case in CASES:
        write_case(case)
