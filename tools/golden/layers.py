"""Writes packages/core/test/fixtures/layers.json: convolution, pooling, padding, normalisation and losses, with gradients. See README.md."""

import torch
import torch.nn.functional as F

import golden_json
from ops import CASES, case, ints, positive, rand

OUT = golden_json.ROOT / "packages/core/test/fixtures/layers.json"


def distinct(*shape):
    """Numbers at least 1/16 apart in random order: no ties for maxima."""
    size = torch.Size(shape).numel()
    return ((rand(size).argsort() - size // 2).double() / 16).reshape(shape)


def convolution_cases():
    def add(variant, x, weight, bias=False, **options):
        spatial = x.dim() - 2
        fn = F.conv1d if spatial == 1 else F.conv2d
        inputs = {"x": x, "weight": weight}
        if bias:
            inputs["bias"] = rand(weight.shape[0])
        case(f"conv{spatial}d", lambda x, weight, bias=None: fn(x, weight, bias, **options), inputs, options, variant=variant)

    add("basic", rand(2, 3, 6), rand(4, 3, 2), bias=True)
    add("stride", rand(1, 2, 8), rand(3, 2, 3), stride=2, padding=1)
    add("dilation", rand(1, 4, 9), rand(4, 2, 3), bias=True, padding=2, dilation=2, groups=2)
    add("depthwise", rand(1, 3, 5), rand(3, 1, 3), padding=1, groups=3)
    add("one", rand(1, 3, 4), rand(2, 3, 1), stride=3)
    add("basic", rand(2, 2, 4, 5), rand(3, 2, 2, 3), bias=True)
    add("uneven", rand(1, 2, 6, 7), rand(2, 2, 3, 2), bias=True, stride=[2, 3], padding=[1, 0], dilation=[1, 2])
    add("groups", rand(1, 4, 4, 4), rand(6, 2, 3, 3), padding=1, groups=2)
    add("depthwise", rand(1, 2, 5, 4), rand(4, 1, 2, 2), bias=True, stride=2, padding=1, groups=2)


def pooling_cases():
    def add(op, variant, fn, x, size, torch_options=None, **options):
        attrs = {"size": size, **options}
        case(op, lambda x: fn(x, size, **(torch_options or {})), {"x": x}, attrs, variant=variant)

    for spatial, biggest, average in [(1, F.max_pool1d, F.avg_pool1d), (2, F.max_pool2d, F.avg_pool2d)]:
        x = distinct(2, 2, 7) if spatial == 1 else distinct(1, 2, 6, 7)
        size, uneven = (3, 2) if spatial == 1 else ([3, 2], [2, 3])
        pad = 1
        for variant, window, named in [
            ("basic", size, {}),
            ("stride", size, {"stride": 2}),
            ("padding", size, {"stride": 2, "padding": pad}),
            ("ceil", uneven, {"stride": 2, "ceilMode": True}),
            ("ceil-padding", uneven, {"stride": 3, "padding": pad, "ceilMode": True}),
        ]:
            plain = {("ceil_mode" if key == "ceilMode" else key): value for key, value in named.items()}
            add(f"maxPool{spatial}d", variant, biggest, x, window, plain, **named)
            add(f"avgPool{spatial}d", variant, average, x, window, plain, **named)
            if "padding" in named:
                add(
                    f"avgPool{spatial}d", f"{variant}-excluded", average, x, window,
                    {**plain, "count_include_pad": False}, **named, countIncludePad=False,
                )
        add(f"maxPool{spatial}d", "dilation", biggest, x, 2, {"stride": 1, "dilation": 3}, stride=1, dilation=3)
        add(
            f"maxPool{spatial}d", "every", biggest, x, 3,
            {"stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}, stride=2, padding=1, dilation=2, ceilMode=True,
        )

        def indices(x, size, spatial=spatial):
            fn = F.max_pool1d_with_indices if spatial == 1 else F.max_pool2d_with_indices
            return fn(x, size, stride=2, padding=1, ceil_mode=True)[1]

        attrs = {"size": 3, "stride": 2, "padding": 1, "ceilMode": True}
        case(f"maxPool{spatial}dIndices", lambda x: indices(x, 3), {"x": x}, attrs, grad=False)
        for count in (1, 3, 5, 9):
            averages = F.adaptive_avg_pool1d if spatial == 1 else F.adaptive_avg_pool2d
            largest = F.adaptive_max_pool1d if spatial == 1 else F.adaptive_max_pool2d
            case(f"adaptiveAvgPool{spatial}d", lambda x: averages(x, count), {"x": x}, {"size": count}, variant=str(count))
            case(f"adaptiveMaxPool{spatial}d", lambda x: largest(x, count), {"x": x}, {"size": count}, variant=str(count))
    x = distinct(1, 1, 5, 4)
    case("adaptiveAvgPool2d", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), {"x": x}, {"size": [2, 3]}, variant="uneven")
    # Equal elements: the gradient goes to the first of each window, in row-major order.
    few = torch.tensor([[[[1, 3, 3, 0], [3, 3, 2, 2], [2, 3, 2, 2], [0, 1, 2, 2], [1, 1, 1, 1]]]], dtype=torch.float64)
    add("maxPool2d", "ties", F.max_pool2d, few, 2, {"stride": 1}, stride=1)
    add("maxPool1d", "ties", F.max_pool1d, few[0], 3, {"stride": 1, "padding": 1}, stride=1, padding=1)
    case("adaptiveMaxPool2d", lambda x: F.adaptive_max_pool2d(x, 2), {"x": few}, {"size": 2}, variant="ties")
    case("adaptiveMaxPool2d", lambda x: F.adaptive_max_pool2d(x, 3), {"x": few}, {"size": 3}, variant="ties-uneven")


def pad_cases():
    """torch pads the last axes first and pairs them from the end."""

    def add(variant, x, widths, mode, value=0.0):
        flat = [width for pair in reversed(widths) for width in pair]
        fn = lambda x: F.pad(x, flat, mode, value) if mode == "constant" else F.pad(x, flat, mode)
        filling = value if mode == "constant" else mode
        case("pad", fn, {"x": x}, {"widths": widths, "filling": filling}, variant=variant)

    add("constant", rand(2, 3), [[1, 0], [2, 1]], "constant", 1.5)
    for mode in ("reflect", "replicate", "circular"):
        add(f"{mode}-1", rand(1, 2, 4), [[3, 2]], mode)
        add(f"{mode}-2", rand(1, 2, 3, 4), [[2, 1], [1, 3]], mode)
        add(f"{mode}-one-side", rand(1, 2, 3, 4), [[0, 2], [1, 0]], mode)


def norm_cases():
    def add(op, variant, fn, x, weight, bias, attrs):
        case(op, fn, {"x": x, **({"weight": weight, "bias": bias} if weight is not None else {})}, attrs, variant=variant)

    add("groupNorm", "basic", lambda x, weight, bias: F.group_norm(x, 2, weight, bias), rand(2, 4, 3), positive(4), rand(4), {"groups": 2, "eps": 1e-5})
    add("groupNorm", "image", lambda x, weight, bias: F.group_norm(x, 3, weight, bias, 0.01), rand(1, 6, 2, 3), positive(6), rand(6), {"groups": 3, "eps": 0.01})
    add("groupNorm", "instance", lambda x: F.group_norm(x, 3), rand(2, 3, 4), None, None, {"groups": 3, "eps": 1e-5})
    add("layerNorm", "two-axes", lambda x, weight, bias: F.layer_norm(x, [2, 3], weight, bias), rand(3, 2, 3), positive(2, 3), rand(2, 3), {"eps": 1e-5})
    indices = ints(4, 0, 2, 4, 4, 1).reshape(2, 3)
    case("embedding", lambda weight, indices: F.embedding(indices, weight), {"weight": rand(5, 3), "indices": indices}, variant="repeated")


def loss_cases():
    for reduction in ("mean", "sum", "none"):
        case("mse", lambda a, b: F.mse_loss(a, b, reduction=reduction), {"a": rand(3, 2), "b": rand(3, 2)}, {"reduction": reduction}, variant=reduction)
        target = torch.sigmoid(rand(2, 3)).mul(256).round() / 256
        case(
            "bceWithLogits",
            lambda a, b: F.binary_cross_entropy_with_logits(a, b, reduction=reduction),
            {"a": rand(2, 3, scale=6), "b": target}, {"reduction": reduction}, variant=reduction,
        )
    weight, positive_weight = positive(2, 1), positive(3)
    case(
        "bceWithLogits",
        lambda a, b: F.binary_cross_entropy_with_logits(a, b, weight, pos_weight=positive_weight),
        {"a": rand(2, 3), "b": target},
        {"reduction": "mean", "weight": weight.tolist(), "posWeight": positive_weight.tolist()}, variant="weighted",
    )
    shares = torch.tensor([[0.25, 0.5, 0.25], [0, 0.375, 0.625]], dtype=torch.float64)
    for reduction in ("batchmean", "mean", "sum", "none"):
        case("klDivergence", lambda a: F.kl_div(a, shares, reduction=reduction), {"a": rand(2, 3)}, {"reduction": reduction, "target": shares.tolist()}, variant=reduction)
    case(
        "klDivergence", lambda a, b: F.kl_div(a, b, reduction="batchmean", log_target=True),
        {"a": rand(2, 3), "b": rand(2, 3)}, {"reduction": "batchmean", "logTarget": True}, variant="log-target",
    )


def attention_runs():
    """torch.nn.MultiheadAttention with its joint projection cut in three: outputs and the gradients of inputs and parameters."""
    runs = []

    def add(name, heads, x, memory=None, bias=True, causal=False, mask=None):
        width = x.shape[-1]
        layer = torch.nn.MultiheadAttention(width, heads, bias=bias, batch_first=True, dtype=torch.float64)
        parts = ("q_proj", "k_proj", "v_proj")
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(rand(*parameter.shape))
        leaves = {"x": x.requires_grad_()}
        if memory is not None:
            leaves["memory"] = memory.requires_grad_()
        keys = leaves.get("memory", leaves["x"])
        hidden = mask
        if causal:
            hidden = torch.ones(x.shape[1], keys.shape[1], dtype=torch.bool).triu(1)
        elif mask is not None and mask.dtype == torch.bool:
            hidden = ~mask  # there true is what a query does not see
        output, _ = layer(leaves["x"], keys, keys, attn_mask=hidden, need_weights=False)
        dy = rand(*output.shape)
        output.backward(dy)

        def by_name(of):
            named = {}
            for kind, joint in (("weight", layer.in_proj_weight), ("bias", layer.in_proj_bias)):
                if joint is not None:
                    named.update({f"{part}.{kind}": value for part, value in zip(parts, of(joint).chunk(3))})
            own = {"out_proj.weight": layer.out_proj.weight, "out_proj.bias": layer.out_proj.bias}
            named.update({key: of(value) for key, value in own.items() if value is not None})
            return {key: golden_json.tensor_json(value) for key, value in named.items()}

        runs.append(
            {
                "name": name, "heads": heads, "causal": causal,
                "mask": golden_json.tensor_json(mask) if mask is not None else None,
                "inputs": {key: golden_json.tensor_json(value) for key, value in leaves.items()},
                "parameters": by_name(lambda parameter: parameter),
                "output": golden_json.tensor_json(output), "dy": golden_json.tensor_json(dy),
                "inputGradients": {key: golden_json.tensor_json(value.grad) for key, value in leaves.items()},
                "gradients": by_name(lambda parameter: parameter.grad),
            }
        )

    add("plain", 2, rand(2, 3, 4))
    add("one-head-without-bias", 1, rand(1, 2, 3), bias=False)
    add("memory", 2, rand(2, 2, 4), rand(2, 5, 4))
    add("causal", 4, rand(1, 4, 4), causal=True)
    seen = torch.tensor([[True, False, True], [False, True, False]])
    add("mask", 2, rand(2, 2, 4), rand(2, 3, 4), mask=seen)
    add("added-mask", 2, rand(2, 2, 4), rand(2, 3, 4), mask=rand(2, 3))
    return runs


if __name__ == "__main__":
    torch.set_num_threads(1)
    convolution_cases()
    pooling_cases()
    pad_cases()
    norm_cases()
    loss_cases()
    golden_json.write(OUT, {"cases": CASES, "multiheadAttention": attention_runs()})
    print(f"{OUT}: {len(CASES)} cases")
