"""Writes packages/lora/test/fixtures/peft/: adapters that PEFT itself made, trained, merged and saved. See README.md.

Needs PEFT (0.19 or later; `pip install peft`) besides PyTorch. A small model in float64 gets an adapter of each supported configuration;
its trained tensors are filled with noise, the folder is saved, and 40 steps of AdamW follow.
"""

import copy
import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

import golden_json
import safetensors_io
from peft import AdaLoraConfig, EvaConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, VeraConfig, get_peft_model
from peft import get_peft_model_state_dict, initialize_lora_eva_weights
from peft.optimizers import create_lorafa_optimizer
from peft.tuners.loha import layer as loha_layer
from peft.tuners.lora import layer as lora_layer
from peft.utils import merge_utils

FOLDER = golden_json.ROOT / "packages/lora/test/fixtures/peft"
STEPS, LR = 40, 1e-2
NOISE = torch.Generator()


def noise(*shape):
    """Normal numbers that float32 holds."""
    return torch.randn(*shape, generator=NOISE).double()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.down = nn.Linear(8, 6, bias=False)

    def forward(self, x):
        return x + self.down(F.silu(self.up(x)))


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.layers = nn.ModuleList([Block(), Block()])
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        image = x.view(-1, 4, 2, 3)
        return x + self.conv(image).view(x.shape)


class Net(nn.Module):
    """Token ids [rows, 4] → [rows, 4, 5]; with a target, also the mean squared error."""

    def __init__(self):
        super().__init__()
        self.model = Body()
        self.head = nn.Linear(6, 5)

    def forward(self, ids, target=None):
        logits = self.head(self.model(ids))
        return logits if target is None else SimpleNamespace(logits=logits, loss=F.mse_loss(logits, target))


def base():
    torch.manual_seed(3)
    model = Net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model.double()


IDS = torch.tensor([[0, 3, 6, 3], [1, 1, 5, 2]])
NOISE.manual_seed(4)
DY, TARGET = noise(2, 4, 5), noise(2, 4, 5)

LINEAR = ["up", "down"]
EVERY = ["up", "down", "embed", "conv"]
CASES = {
    "lora": LoraConfig(r=2, lora_alpha=5, target_modules=EVERY),
    "rslora-patterns": LoraConfig(
        r=3, lora_alpha=5, target_modules=LINEAR, use_rslora=True, rank_pattern={"down": 2, r"layers\.1\.up": 4},
        alpha_pattern={"^model.layers.0.down": 3},
    ),
    "dora": LoraConfig(r=2, lora_alpha=5, target_modules=EVERY, use_dora=True),
    "lora-bias": LoraConfig(r=2, lora_alpha=5, target_modules=["up"], lora_bias=True),
    "bias-all": LoraConfig(r=2, lora_alpha=5, target_modules=LINEAR, bias="all"),
    "modules-to-save": LoraConfig(r=2, lora_alpha=5, target_modules=["up"], modules_to_save=["head"]),
    "tokens": LoraConfig(r=2, lora_alpha=5, target_modules=["up"], trainable_token_indices={"embed": [1, 3, 6]}),
    "exclude": LoraConfig(r=2, lora_alpha=5, target_modules=LINEAR, exclude_modules=["layers.0.up"]),
    "expression": LoraConfig(r=2, lora_alpha=5, target_modules=r".*\.(1\.up|0\.down)"),
    "layers": LoraConfig(r=2, lora_alpha=5, target_modules=LINEAR, layers_to_transform=[1], layers_pattern="layers"),
    "all-linear": LoraConfig(r=2, lora_alpha=5, target_modules="all-linear"),
    "lora-fa": LoraConfig(r=2, lora_alpha=5, target_modules=LINEAR),
    "ia3": IA3Config(target_modules=["down", "head"], feedforward_modules=["down"]),
    "loha": LoHaConfig(r=2, alpha=5, target_modules=["up", "down", "conv"]),
    "loha-effective": LoHaConfig(r=2, alpha=5, target_modules=["conv"], use_effective_conv2d=True),
    "lokr": LoKrConfig(r=2, alpha=5, target_modules=["up", "down", "conv"]),
    "lokr-both": LoKrConfig(
        r=1, alpha=5, target_modules=["up", "down", "conv"], decompose_both=True, decompose_factor=4,
        use_effective_conv2d=True,
    ),
    "vera": VeraConfig(r=4, target_modules=LINEAR, d_initial=0.3),
    "adalora": AdaLoraConfig(
        init_r=4, target_r=2, lora_alpha=5, target_modules=LINEAR, tinit=5, tfinal=10, deltaT=2, total_step=STEPS,
        orth_reg_weight=0.3,
    ),
}


# PEFT's hand-written backward of this product gives w1a and w2a another gradient than the product has; torch's is right.
loha_layer.make_weight_cp = lambda *factors, scale: loha_layer.HadaWeightCP.forward(
    SimpleNamespace(save_for_backward=lambda *_: None), *factors, scale
)


def files(model, folder):
    """PEFT's own two files of its adapter, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(Path(saved) / name, folder / name)


def state(model):
    return {name: value.detach().clone() for name, value in get_peft_model_state_dict(model).items()}


def gradients(model):
    """By the names in a file; of what is trained alone."""
    copied = copy.deepcopy(model)
    before = state(copied)
    for own, parameter in zip(copied.parameters(), model.parameters()):
        if own.requires_grad:
            own.data = parameter.grad.clone()
    return {name: value for name, value in state(copied).items() if not torch.equal(value, before[name])}


def trained(model, name, config):
    """Losses of 40 steps, the model being changed."""
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=LR, weight_decay=0.01, foreach=False)
    if name == "lora-fa":
        optimizer = create_lorafa_optimizer(model, config.r, config.lora_alpha, LR)
        # PEFT adds epsilon before the bias is corrected, torch after; without it they are one.
        optimizer.param_groups[0]["eps"] = 0.0
    losses = []
    for step in range(STEPS):
        # The tuner's own forward, which adds AdaLoRA's penalty.
        loss = model.base_model(IDS, TARGET).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if name == "adalora":
            model.base_model.update_and_allocate(step)
        losses.append(float(loss.detach()))
    return losses


def write_case(name, config):
    torch.manual_seed(5)
    model = get_peft_model(base(), config)
    for key, parameter in model.named_parameters():
        # A number that PEFT means to freeze; in float64 it wraps it anew and loses that.
        if "ranknum" in key:
            parameter.requires_grad = False
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(noise(*parameter.shape).mul(0.3).float().double())
    files(model, FOLDER / name)
    out = model(IDS)
    (out * DY).sum().backward()
    expected = {"out": out.detach()}
    expected.update({f"gradient.{key}": value for key, value in gradients(model).items()})
    merged = copy.deepcopy(model).merge_and_unload()
    changed = dict(base().state_dict())
    expected.update(
        {f"merged.{key}": value for key, value in merged.state_dict().items() if not torch.equal(value, changed[key])}
    )
    model.zero_grad()
    losses = trained(model, name, config)
    frozen = {key for key, value in state(model).items() if f"gradient.{key}" not in expected}
    expected.update({f"final.{key}": value for key, value in state(model).items() if key not in frozen})
    if name == "adalora":
        pattern = model.peft_config["default"].rank_pattern
        (FOLDER / name / "rank_pattern.json").write_text(json.dumps(pattern, indent=1) + "\n")
    expected["losses"] = torch.tensor(losses, dtype=torch.float64)
    safetensors_io.save(FOLDER / name / "expected.safetensors", {key: value.numpy() for key, value in expected.items()})
    print(f"{name:16} loss {losses[0]:.4f} -> {losses[-1]:.4f}")


def given_bernoulli(masks):
    """Random masks as in merge_utils, noted in the order in which they are drawn."""

    def draw(probabilities):
        mask = (torch.rand(probabilities.shape, generator=NOISE) < probabilities).to(probabilities.dtype)
        masks.append(golden_json.tensor_json(mask.bool()))
        return mask

    return draw


def combinations():
    """Weighted combinations of three adapters: A, B of each layer, or their product where those have no fixed signs."""
    model = get_peft_model(base(), LoraConfig(r=2, lora_alpha=5, target_modules=["up", "embed"]), "a")
    model.add_adapter("b", LoraConfig(r=2, lora_alpha=3, target_modules=["up", "embed"], use_rslora=True))
    model.add_adapter("wide", LoraConfig(r=3, lora_alpha=4, target_modules=["up", "embed"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(noise(*parameter.shape))
    inputs = {}
    for name in ("a", "b", "wide"):
        model.set_adapter(name)
        with tempfile.TemporaryDirectory() as saved:
            model.save_pretrained(saved, selected_adapters=[name])
            (FOLDER / f"combine-{name}").mkdir(exist_ok=True)
            for file in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copyfile(Path(saved) / name / file, FOLDER / f"combine-{name}" / file)
    same, mixed = (["a", "b"], [0.7, -1.5]), (["a", "b", "wide"], [0.7, -1.5, 0.4])
    runs = []
    for kind, (adapters, weights), options in [
        ("linear", same, {}),
        ("linear", (["a"], [-2.0]), {}),
        ("cat", mixed, {}),
        ("svd", mixed, {"svd_rank": 2}),
        ("svd", mixed, {}),
        ("magnitude_prune", same, {"density": 0.4}),
        ("ties", same, {"density": 0.6}),
        ("ties", (["a", "b"], [1.0, 2.0]), {"density": 0.6, "majority_sign_method": "frequency"}),
        ("dare_linear", same, {"density": 0.5}),
        ("dare_ties", same, {"density": 0.7}),
        ("dare_ties", (["a", "b"], [1.0, 0.3]), {"density": 0.7, "majority_sign_method": "frequency"}),
        ("ties_svd", mixed, {"density": 0.5, "svd_rank": 3}),
        ("magnitude_prune_svd", mixed, {"density": 0.5, "svd_rank": 3}),
        ("dare_linear_svd", mixed, {"density": 0.5, "svd_rank": 3}),
        ("dare_ties_svd", mixed, {"density": 0.5, "svd_rank": 3}),
    ]:
        masks = []
        merge_utils.torch = SimpleNamespace(**{**vars(torch), "bernoulli": given_bernoulli(masks)})
        model.add_weighted_adapter(adapters, weights, "sum", combination_type=kind, **options)
        merge_utils.torch = torch
        exact = "svd" not in kind
        layers = {}
        for at in ("model.layers.0.up", "model.layers.1.up", "model.embed"):
            layer = model.base_model.model.get_submodule(at)
            a, b = (
                (layer.lora_embedding_A["sum"], layer.lora_embedding_B["sum"])
                if at == "model.embed"
                else (layer.lora_A["sum"].weight, layer.lora_B["sum"].weight)
            )
            scaling = layer.scaling["sum"]
            layers[at] = (
                {"a": golden_json.tensor_json(a), "b": golden_json.tensor_json(b)}
                if exact
                else {"product": golden_json.tensor_json(scaling * (b @ a))}
            ) | {"r": a.shape[0], "scaling": scaling}
        runs.append({"type": kind, "adapters": adapters, "weights": weights, "options": options, "layers": layers, "masks": masks})
        model.delete_adapter("sum")
    golden_json.write(FOLDER / "combinations.json", {"runs": runs})


class GivenNumbers:
    """Within it PEFT's and torch's beginnings take numbers of ours, which are noted: uniform ones of [0, 1), normal ones."""

    def __init__(self):
        self.numbers = []

    def note(self, numbers):
        self.numbers.append(golden_json.flat(numbers))
        return numbers

    def __enter__(self):
        self.own = torch.Tensor.uniform_, torch.Tensor.normal_, lora_layer.torch
        torch.Tensor.uniform_ = lambda x, low=0.0, high=1.0, generator=None: x.copy_(
            low + (high - low) * self.note(torch.rand(x.shape, generator=NOISE))
        )
        torch.Tensor.normal_ = lambda x, mean=0.0, std=1.0, generator=None: x.copy_(
            mean + std * self.note(torch.randn(x.shape, generator=NOISE))
        )
        randn = lambda *shape, **_: self.note(torch.randn(*shape, generator=NOISE))
        lora_layer.torch = SimpleNamespace(**{**vars(torch), "randn": randn})
        return self

    def __exit__(self, *_):
        torch.Tensor.uniform_, torch.Tensor.normal_, lora_layer.torch = self.own


def beginnings():
    """A, B and what is left of the base's weight when PEFT begins with given numbers."""
    runs = []
    for kind in [True, False, "gaussian", "orthogonal", "pissa", "pissa_niter_100", "olora"]:
        principal = isinstance(kind, str) and kind.startswith(("pissa", "olora"))
        # PEFT decomposes in float32 alone.
        model = base().float() if principal else base()
        config = LoraConfig(r=2, lora_alpha=5, target_modules=["layers.0.up"], init_lora_weights=kind)
        with GivenNumbers() as given:
            model = get_peft_model(model, config)
        layer = model.base_model.model.model.layers[0].up
        a, b = (factor["default"].weight.data.double() for factor in (layer.lora_A, layer.lora_B))
        runs.append(
            {
                "init": kind,
                # Two layers of torch's draw first; where PEFT begins them anew, those numbers do not count.
                "numbers": given.numbers if kind is False else given.numbers[2:] if not principal else [],
                "a": golden_json.tensor_json(a),
                "b": golden_json.tensor_json(b),
                "product": golden_json.tensor_json(layer.scaling["default"] * (b @ a)),
                "base": golden_json.tensor_json(layer.base_layer.weight.data.double()),
            }
        )
    golden_json.write(FOLDER / "beginnings.json", {"runs": runs})


def eva():
    """Ranks and the directions that A begins with, from the layers' inputs over one batch, which PEFT sees until they settle."""
    model = base()
    ids = torch.randint(0, 5, (12, 4), generator=NOISE)
    config = LoraConfig(
        r=2, lora_alpha=5, target_modules=LINEAR, init_lora_weights="eva", eva_config=EvaConfig(rho=1.5),
    )
    model = get_peft_model(model, config)
    initialize_lora_eva_weights(
        model,
        [{"ids": ids}, {"ids": ids}],
        forward_fn=lambda net, batch: net(batch["ids"]),
        prepare_model_inputs_fn=None,
        prepare_layer_inputs_fn=lambda inputs, *_: inputs[0].flatten(0, 1),
        show_progress_bar=False,
    )
    layers = {}
    for name, layer in model.base_model.model.named_modules():
        if hasattr(layer, "lora_A"):
            layers[name] = {
                "r": layer.r["default"],
                "scaling": layer.scaling["default"],
                "a": golden_json.tensor_json(layer.lora_A["default"].weight.data.double()),
            }
    golden_json.write(FOLDER / "eva.json", {"ids": ids.tolist(), "layers": layers})


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = base()
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    safetensors_io.save(FOLDER / "base.safetensors", {**tensors, "dy": DY.numpy(), "target": TARGET.numpy()})
    for number, (name, config) in enumerate(CASES.items()):
        NOISE.manual_seed(100 + number)
        write_case(name, config)
    NOISE.manual_seed(7)
    combinations()
    NOISE.manual_seed(8)
    beginnings()
    NOISE.manual_seed(9)
    eva()


if __name__ == "__main__":
    main()
