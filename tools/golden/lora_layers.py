"""Writes packages/lora/test/fixtures/layers.json: DoRA of an embedding, LoHa and LoKr of convolutions, in float64 with gradients. See README.md.

Formulas as in PEFT (tuners/lora/dora.py, DoraEmbeddingLayer; tuners/loha/layer.py and tuners/lokr/layer.py, make_weight_cp and make_kron),
written anew on torch alone: outputs of a layer, the merged weight, and the gradients of a weighted sum of the outputs.
"""

import torch
import torch.nn.functional as F

import golden_json

OUT = golden_json.ROOT / "packages/lora/test/fixtures/layers.json"
ALPHA = 3.0
CONV = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
torch.manual_seed(20)


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def case(name, config, weight, x, factors, merged, forward):
    """`factors` are named as PEFT saves them; `merged` and `forward` are functions of them."""
    leaves = {key: value.clone().requires_grad_() for key, value in factors.items()}
    y = forward(leaves)
    dy = rand(*y.shape)
    (y * dy).sum().backward()
    return {
        "name": name,
        "config": config,
        "weight": golden_json.tensor_json(weight),
        "x": golden_json.tensor_json(x),
        "factors": {key: golden_json.tensor_json(value) for key, value in factors.items()},
        "merged": golden_json.tensor_json(merged(factors)),
        "y": golden_json.tensor_json(y),
        "dy": golden_json.tensor_json(dy),
        "gradients": {key: golden_json.tensor_json(leaf.grad) for key, leaf in leaves.items()},
    }


def dora_embedding():
    rows, width, r = 7, 5, 2
    weight, ids = rand(rows, width), torch.tensor([[0, 3, 6], [3, 3, 1]])
    scaling = ALPHA / r
    factors = {
        "lora_embedding_A": rand(r, rows),
        "lora_embedding_B": rand(width, r),
        "lora_magnitude_vector": rand(width).abs() + 0.5,
    }

    def norm(f):
        """Of every column: PEFT transposes the table (fan_in_fan_out)."""
        update = f["lora_embedding_B"] @ f["lora_embedding_A"]
        return torch.linalg.norm(weight.T + scaling * update, dim=1).detach()

    def forward(f):
        scale = f["lora_magnitude_vector"] / norm(f)
        after = F.embedding(ids, f["lora_embedding_A"].T) @ f["lora_embedding_B"].T
        return scale * F.embedding(ids, weight) + scale * after * scaling

    def merged(f):
        update = (f["lora_embedding_B"] @ f["lora_embedding_A"]).T * scaling
        return (f["lora_magnitude_vector"] / norm(f)).view(1, -1) * (weight + update)

    return case("DoRA of an embedding", {"r": r, "useDora": True}, weight, ids, factors, merged, forward)


def rebuild(t, a, b):
    """A CP decomposition's weight, as LyCORIS: t [r, r, k, l], a [r, out], b [r, in] → [out, in, k, l]."""
    return torch.einsum("ijkl,ip,jq->pqkl", t, a, b)


def convolution(name, config, shape, factors, kernel):
    weight, x = rand(*shape), rand(1, shape[1], 4, 5)
    scaling = ALPHA / config["r"]

    def whole(f):
        return weight + scaling * kernel(f).reshape(shape)

    return case(name, config, weight, x, factors, whole, lambda f: F.conv2d(x, whole(f), **CONV))


def loha(name, effective, shape, r):
    out, into, k, l = shape
    if effective and (k, l) != (1, 1):
        parts = lambda i: {
            f"hada_w{i}_a": rand(r, out), f"hada_w{i}_b": rand(r, into), f"hada_t{i}": rand(r, r, k, l),
        }
        one = lambda f, i: rebuild(f[f"hada_t{i}"], f[f"hada_w{i}_a"], f[f"hada_w{i}_b"])
    else:
        parts = lambda i: {f"hada_w{i}_a": rand(out, r), f"hada_w{i}_b": rand(r, into * k * l)}
        one = lambda f, i: f[f"hada_w{i}_a"] @ f[f"hada_w{i}_b"]
    factors = {**parts(1), **parts(2)}
    config = {"peftType": "LOHA", "r": r, "useEffectiveConv2d": effective}
    return convolution(name, config, shape, factors, lambda f: one(f, 1) * one(f, 2))


def lokr(name, effective, shape, r, split, factor, both=False):
    """`split`: (outL, outK), (inM, inN), as PEFT's factorization gives them for these sizes and `factor`."""
    (out_l, out_k), (in_m, in_n) = split
    kernel = shape[2:]
    factors = {}
    if both and r < max(out_l, in_m) / 2:
        factors |= {"lokr_w1_a": rand(out_l, r), "lokr_w1_b": rand(r, in_m)}
    else:
        factors["lokr_w1"] = rand(out_l, in_m)
    if r >= max(out_k, in_n) / 2:
        factors["lokr_w2"] = rand(out_k, in_n, *kernel)
    elif effective and tuple(kernel) != (1, 1):
        factors |= {"lokr_t2": rand(r, r, *kernel), "lokr_w2_a": rand(r, out_k), "lokr_w2_b": rand(r, in_n)}
    else:
        factors |= {"lokr_w2_a": rand(out_k, r), "lokr_w2_b": rand(r, in_n * kernel[0] * kernel[1])}

    def product(f):
        w1 = f["lokr_w1"] if "lokr_w1" in f else f["lokr_w1_a"] @ f["lokr_w1_b"]
        if "lokr_w2" in f:
            w2 = f["lokr_w2"]
        elif "lokr_t2" in f:
            w2 = rebuild(f["lokr_t2"], f["lokr_w2_a"], f["lokr_w2_b"])
        else:
            w2 = f["lokr_w2_a"] @ f["lokr_w2_b"]
        return torch.kron(w1[:, :, None, None] if w2.dim() == 4 else w1, w2)

    config = {
        "peftType": "LOKR", "r": r, "useEffectiveConv2d": effective, "decomposeFactor": factor, "decomposeBoth": both,
    }
    return convolution(name, config, shape, factors, product)


def main():
    cases = [
        dora_embedding(),
        loha("LoHa of a convolution", False, (4, 3, 3, 2), 2),
        loha("LoHa of a convolution, effective", True, (4, 3, 3, 2), 2),
        loha("LoHa of a 1 × 1 convolution, effective", True, (4, 3, 1, 1), 2),
        lokr("LoKr of a convolution, whole factors", False, (4, 6, 3, 2), 3, ((2, 2), (2, 3)), -1),
        lokr("LoKr of a convolution", False, (6, 9, 2, 2), 1, ((3, 2), (3, 3)), 3, both=True),
        lokr("LoKr of a convolution, effective", True, (6, 9, 2, 2), 1, ((3, 2), (3, 3)), 3),
    ]
    golden_json.write(
        OUT, {"alpha": ALPHA, "conv": {key: list(value) for key, value in CONV.items()}, "cases": cases}
    )


if __name__ == "__main__":
    main()
