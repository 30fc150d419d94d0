"""Writes packages/core/test/fixtures/ops.json: operations with float64 outputs and gradients. See README.md.

float32 holds every input exactly (most are multiples of 1/256), so float32 backends start from the same numbers.
"""

import math
import sys

import torch
import torch.nn.functional as F

import golden_json
from llama import apply_rotary, attention, rotary_tables

OUT = golden_json.ROOT / "packages/core/test/fixtures/ops.json"
CASES = []
generator = torch.Generator().manual_seed(2024)


def rand(*shape, scale=1.0):
    """Normal numbers, rounded to multiples of 1/256."""
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale * 256).round() / 256


def positive(*shape):
    """Numbers from 1/4 on, multiples of 1/256."""
    return rand(*shape).abs() + 0.25


def floats(*values):
    return torch.tensor(values, dtype=torch.float64)


def ints(*values):
    return torch.tensor(values, dtype=torch.int64)


def case(name, fn, inputs, attrs=None, grad=True, variant=""):
    """Adds the case `name/variant`: output of `fn(**inputs)` and, for a random dy, the gradients of float inputs."""
    floating = {key: value for key, value in inputs.items() if value.is_floating_point()}
    leaves = {key: value.clone().requires_grad_(grad and key in floating) for key, value in inputs.items()}
    output = fn(**leaves)
    grad = grad and output.requires_grad
    full_name = f"{name}/{variant or 'basic'}"
    assert full_name not in {entry["name"] for entry in CASES}, full_name
    dy = rand(*output.shape) if grad else None
    grads = torch.autograd.grad(output, [leaves[key] for key in floating], dy) if grad else []
    CASES.append(
        {
            "name": full_name,
            "op": name,
            "attrs": attrs or {},
            "inputs": {key: golden_json.tensor_json(value) for key, value in inputs.items()},
            "output": golden_json.tensor_json(output.detach()),
            "dy": golden_json.tensor_json(dy) if grad else None,
            "grads": {key: golden_json.tensor_json(value) for key, value in zip(floating, grads)} if grad else None,
        }
    )


def shape_name(*tensors):
    return "_".join("x".join(map(str, tensor.shape)) or "scalar" for tensor in tensors)


def matmul_cases():
    def add(a_shape, b_shape, trans_a=False, trans_b=False):
        a, b = rand(*a_shape), rand(*b_shape)

        def fn(a, b):
            return torch.matmul(a.transpose(-1, -2) if trans_a else a, b.transpose(-1, -2) if trans_b else b)

        letters = ("t" if trans_a else "n") + ("t" if trans_b else "n")
        attrs = {"transA": trans_a, "transB": trans_b}
        case("matmul", fn, {"a": a, "b": b}, attrs, variant=f"{letters}_{shape_name(a, b)}")

    for trans_a in (False, True):
        for trans_b in (False, True):
            add((4, 3) if trans_a else (3, 4), (5, 4) if trans_b else (4, 5), trans_a, trans_b)
            add((2, 4, 3) if trans_a else (2, 3, 4), (5, 4) if trans_b else (4, 5), trans_a, trans_b)
    add((2, 1, 2, 3), (3, 3, 2))
    add((3, 4), (2, 4, 3))
    add((2, 3, 4), (2, 5, 4), trans_b=True)
    add((1, 7), (7, 1))
    add((2, 0), (0, 3))
    add((0, 3), (3, 2))


def binary_cases():
    functions = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}
    functions.update(maximum=torch.maximum, minimum=torch.minimum)
    shapes = [((2, 3), (2, 3)), ((2, 3, 4), (4,)), ((2, 1, 3), (2, 1)), ((), (2, 2)), ((0, 3), (1, 3))]
    for name, fn in functions.items():
        for a_shape, b_shape in shapes:
            a = rand(*a_shape)
            b = rand(*b_shape)
            if name == "div":
                b = torch.where(b < 0, b - 0.25, b + 0.25)
            case(name, lambda a, b, fn=fn: fn(a, b), {"a": a, "b": b}, variant=shape_name(a, b))
    nan = math.nan
    for name in ("maximum", "minimum"):
        a, b = floats(1, 2, -3, 0), floats(1, 1, -2, 0)
        case(name, lambda a, b, fn=functions[name]: fn(a, b), {"a": a, "b": b}, variant="ties")
        a, b = floats(nan, 1, nan, -math.inf), floats(0, nan, nan, math.inf)
        case(name, lambda a, b, fn=functions[name]: fn(a, b), {"a": a, "b": b}, grad=False, variant="nan")
    a, b = floats(1, -1, 0, math.inf), floats(0, 0, 0, math.inf)
    case("div", lambda a, b: a / b, {"a": a, "b": b}, grad=False, variant="by_zero")

    case("pow", lambda a, b: a.pow(b), {"a": positive(2, 3), "b": rand(2, 3)}, variant="tensor")
    case("pow", lambda a, b: a.pow(b), {"a": positive(2, 3), "b": rand(3)}, variant="broadcast")
    inputs = {"a": floats(-2, -1.5, -0.5), "b": floats(2, 3, -1)}
    case("pow", lambda a, b: a.pow(b), inputs, grad=False, variant="negative_base")
    for exponent in (2, 3, -1, 0.5, 0, 1):
        a = positive(4) if exponent == 0.5 else floats(-1.5, -0.25, 0.5, 2)
        attrs = {"exponent": exponent}
        case("pow", lambda a, e=exponent: a.pow(e), {"a": a}, attrs, variant=f"scalar_{exponent}")
    zero = {"a": floats(0, 0, 0)}
    for exponent in (0, 1, 2):
        case("pow", lambda a, e=exponent: a.pow(e), zero, {"exponent": exponent}, variant=f"zero_base_{exponent}")

    inputs = {"a": floats(1, 2, 3, nan, math.inf, -0.0), "b": floats(2, 2, 2, nan, math.inf, 0.0)}
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        case(name, lambda a, b, n=name: getattr(torch, n)(a, b), inputs, grad=False)


def unary_cases():
    functions = {
        "neg": torch.neg,
        "exp": torch.exp,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
        "gelu": F.gelu,
        "geluTanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu": F.relu,
        "erf": torch.erf,
        "sin": torch.sin,
        "cos": torch.cos,
        "abs": torch.abs,
        "square": torch.square,
        "log": torch.log,
        "sqrt": torch.sqrt,
        "rsqrt": torch.rsqrt,
        "reciprocal": torch.reciprocal,
    }
    of_positive = ("log", "sqrt", "rsqrt", "reciprocal")
    for name, fn in functions.items():
        x = positive(2, 5) if name in of_positive else rand(2, 5, scale=2)
        case(name, lambda x, fn=fn: fn(x), {"x": x})
    large = floats(-60, -30, -10, -6, -(2**-10), 0, 2**-10, 6, 10, 30, 60)
    for name in ("exp", "tanh", "sigmoid", "silu", "gelu", "geluTanh", "relu", "erf", "sin", "cos", "abs"):
        case(name, lambda x, fn=functions[name]: fn(x), {"x": large}, variant="wide")
    special = floats(0.0, -0.0, -1, math.inf, -math.inf, math.nan)
    for name, fn in functions.items():
        if name not in ("gelu", "geluTanh", "silu"):  # PyTorch gives NaN at -Infinity there, the limit is 0
            case(name, lambda x, fn=fn: fn(x), {"x": special}, grad=False, variant="special")
    halves = floats(-3.5, -2.5, -1.5, -0.5, -0.0, 0.5, 1.5, 2.5, 3.5, 0.5 - 2**-25, 2.375, -2.625, 2**23 + 1)
    for name in ("round", "floor", "ceil", "sign"):
        case(name, lambda x, n=name: getattr(torch, n)(x), {"x": halves}, grad=False)
    case("clamp", lambda x: x.clamp(-0.5, 1), {"x": rand(2, 5)}, {"min": -0.5, "max": 1})


def reduce_cases():
    def product(x, axis, keepdim):
        """torch.prod takes one axis at a time."""
        for one in sorted(axis, reverse=True):
            x = x.prod(one, keepdim=keepdim)
        return x

    functions = {
        "sum": torch.sum,
        "mean": torch.mean,
        "max": torch.amax,
        "min": torch.amin,
        "prod": product,
        "logsumexp": torch.logsumexp,
        "var": torch.var,
        "std": torch.std,
    }
    corrected = ("var", "std")
    axes = {"all": None, "first": 0, "last": -1, "outer": [0, 2]}

    def add(name, x, axis, keep, variant, grad=True, correction=1):
        rank = x.dim()
        listed = list(range(rank)) if axis is None else axis if isinstance(axis, list) else [axis]
        listed = [one % rank for one in listed]
        attrs = {"axis": axis, "keepDims": keep}
        if name in corrected:
            attrs["correction"] = correction
        options = {key: value for key, value in attrs.items() if key == "correction"}
        case(name, lambda x: functions[name](x, listed, keepdim=keep, **options), {"x": x}, attrs, grad, variant)

    for name in functions:
        for label, axis in axes.items():
            for keep in (False, True):
                add(name, rand(2, 3, 2), axis, keep, label + ("_keep" if keep else ""))
    for name in corrected:
        for correction in (0, 2):
            add(name, rand(2, 4), -1, False, f"correction{correction}", correction=correction)
    ties = floats([1, 3, 3], [2, 2, 2])
    nans = floats([1, math.nan, 3], [math.nan, math.nan, math.nan], [-math.inf, math.inf, 0])
    for name in ("max", "min"):
        add(name, ties, -1, False, "ties")
        add(name, nans, -1, False, "nan", grad=False)
    for name in ("sum", "mean", "prod"):
        add(name, nans, -1, False, "nan", grad=False)
        add(name, rand(0, 3), 0, False, "empty", grad=False)
    add("prod", floats([2, 0, 3], [0, 0, 5], [1, -2, 4]), -1, False, "zeros")
    add("logsumexp", floats([1000, 1000, 999], [-1000, -1001, -1002]), -1, False, "wide")
    infinite = floats([-math.inf, 0, 1], [-math.inf, -math.inf, -math.inf], [math.inf, 0, 1])
    add("logsumexp", infinite, -1, False, "infinite", grad=False)

    for name in ("argmax", "argmin"):
        fn = getattr(torch, name)
        for axis in (0, -1):
            case(name, lambda x: fn(x, axis), {"x": rand(3, 4)}, {"axis": axis}, variant=f"axis{axis}")
        tied = floats([1, 3, 3, 1], [2, 2, 2, 2], [-0.0, 0.0, -1, -1])
        case(name, lambda x: fn(x, -1), {"x": tied}, {"axis": -1}, variant="ties_first_wins")
        case(name, lambda x: fn(x, -1), {"x": nans}, {"axis": -1}, variant="nan_wins")
    for axis in (0, 1, -1):
        case("cumsum", lambda x, a=axis: x.cumsum(a), {"x": rand(2, 3, 2)}, {"axis": axis}, variant=f"axis{axis}")


def softmax_cases():
    for name, fn in {"softmax": torch.softmax, "logSoftmax": torch.log_softmax}.items():
        for axis in (0, 1, -1):
            attrs = {"axis": axis}
            case(name, lambda x, a=axis: fn(x, a), {"x": rand(2, 3, 4, scale=2)}, attrs, variant=f"axis{axis}")
        wide = floats([1000, 999, 0, -1000], [-1000, -1001, -1002, -1003])
        case(name, lambda x: fn(x, -1), {"x": wide}, {"axis": -1}, variant="wide")
        masked = floats([0.5, -math.inf, 1, -math.inf], [-math.inf, -math.inf, -math.inf, 2])
        case(name, lambda x: fn(x, -1), {"x": masked}, {"axis": -1}, grad=False, variant="masked")
        case(name, lambda x: fn(x, -1), {"x": rand(3, 1)}, {"axis": -1}, variant="one_item")


def norm_cases():
    def rms_norm(x, weight, eps):
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))

    for eps in (1e-5, 0.5):
        for shape in ((3, 6), (2, 2, 5)):
            inputs = {"x": rand(*shape), "weight": rand(shape[-1])}
            variant = f"{shape_name(inputs['x'])}_eps{eps}"
            case("rmsNorm", lambda x, weight: rms_norm(x, weight, eps), inputs, {"eps": eps}, variant=variant)
    zero_row = {"x": torch.cat((torch.zeros(1, 4, dtype=torch.float64), rand(1, 4))), "weight": rand(4)}
    case("rmsNorm", lambda x, weight: rms_norm(x, weight, 1e-5), zero_row, {"eps": 1e-5}, variant="zero_row")

    def layer_norm(x, weight=None, bias=None):
        return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)

    attrs = {"eps": 1e-5}
    case("layerNorm", layer_norm, {"x": rand(3, 6), "weight": rand(6), "bias": rand(6)}, attrs, variant="affine")
    case("layerNorm", layer_norm, {"x": rand(2, 2, 5), "weight": rand(5)}, attrs, variant="weight_only")
    case("layerNorm", layer_norm, {"x": rand(3, 6)}, attrs, variant="plain")


def model_cases():
    for theta in (10000.0, 500000.0):
        for start in (0, 5):
            positions = torch.arange(start, start + 3)

            def rope(x):
                return apply_rotary(x, *rotary_tables(positions, x.shape[-1], theta, x.dtype))

            attrs = {"theta": theta, "offset": start, "layout": "half-split"}
            case("rope", rope, {"x": rand(1, 2, 3, 8)}, attrs, variant=f"theta{int(theta)}_offset{start}")

    def add_attention(batch, heads, kv_heads, tq, tk, dim, causal, scale=None):
        q, k, v = rand(batch, heads, tq, dim), rand(batch, kv_heads, tk, dim), rand(batch, kv_heads, tk, dim)
        attrs = {"causal": causal, "scale": 1 / math.sqrt(dim) if scale is None else scale}
        variant = f"h{heads}_kv{kv_heads}_tq{tq}_tk{tk}_{'causal' if causal else 'full'}{'_scale' if scale else ''}"
        fn = lambda q, k, v: attention(q, k, v, causal, scale)
        case("scaledDotProductAttention", fn, {"q": q, "k": k, "v": v}, attrs, variant=variant)

    for causal in (False, True):
        add_attention(1, 2, 2, 4, 4, 4, causal)
        add_attention(2, 4, 2, 3, 3, 4, causal)
        add_attention(1, 4, 2, 2, 5, 4, causal)
        add_attention(1, 3, 1, 1, 6, 2, causal)
    add_attention(1, 2, 1, 3, 3, 4, True, scale=0.25)

    case("swiglu", lambda gate, up: F.silu(gate) * up, {"gate": rand(2, 3, 4, scale=2), "up": rand(2, 3, 4)})
    inputs = {"indices": ints([0, 2, 2], [4, 0, 2]), "weight": rand(6, 3)}
    case("embedding", lambda indices, weight: F.embedding(indices, weight), inputs, variant="repeated")
    case("linear", lambda x, weight: F.linear(x, weight), {"x": rand(2, 3, 4), "weight": rand(5, 4)}, variant="plain")
    inputs = {"x": rand(2, 3, 4), "weight": rand(5, 4), "bias": rand(5)}
    case("linear", lambda x, weight, bias: F.linear(x, weight, bias), inputs, variant="bias")


def loss_cases():
    labels = ints(1, -100, 4, 0, -100)
    for reduction in ("mean", "sum", "none"):
        for smoothing in (0.0, 0.1):
            options = dict(reduction=reduction, label_smoothing=smoothing, ignore_index=-100)
            attrs = {"ignoreIndex": -100, "labelSmoothing": smoothing, "reduction": reduction}
            variant = reduction + ("_smooth" if smoothing else "")
            inputs = {"logits": rand(5, 6, scale=2), "labels": labels}
            fn = lambda logits, labels: F.cross_entropy(logits, labels, **options)
            case("crossEntropy", fn, inputs, attrs, variant=variant)
            inputs = {"x": rand(5, 3), "weight": rand(6, 3), "labels": labels}
            fn = lambda x, weight, labels: F.cross_entropy(F.linear(x, weight), labels, **options)
            case("linearCrossEntropy", fn, inputs, attrs, variant=variant)
    attrs = {"ignoreIndex": 2, "labelSmoothing": 0.0, "reduction": "mean"}
    fn = lambda logits, labels: F.cross_entropy(logits, labels, ignore_index=2)
    case("crossEntropy", fn, {"logits": rand(3, 4), "labels": ints(2, 1, 3)}, attrs, variant="ignore_index_2")
    attrs = {"ignoreIndex": -100, "labelSmoothing": 0.0, "reduction": "mean"}
    inputs = {"logits": floats([1000, 0, -1000], [-1000, 1000, 999]), "labels": ints(0, 2)}
    case("crossEntropy", lambda logits, labels: F.cross_entropy(logits, labels), inputs, attrs, variant="wide")
    inputs = {"logits": rand(2, 3), "labels": ints(-100, -100)}
    for reduction in ("mean", "sum"):
        attrs = {"ignoreIndex": -100, "labelSmoothing": 0.0, "reduction": reduction}
        fn = lambda logits, labels: F.cross_entropy(logits, labels, reduction=reduction)
        case("crossEntropy", fn, inputs, attrs, grad=reduction == "sum", variant=f"all_ignored_{reduction}")


def indexing_cases():
    condition = torch.tensor([[True, False, True], [False, False, True]])
    fn = lambda condition, a, b: torch.where(condition, a, b)
    case("where", fn, {"condition": condition, "a": rand(2, 3), "b": rand(2, 3)}, variant="same_shape")
    case("where", fn, {"condition": condition, "a": rand(3), "b": rand()}, variant="broadcast")
    case("where", fn, {"condition": condition[:, :1], "a": rand(2, 1), "b": rand(1, 3)}, variant="outer")
    inputs = {"x": rand(3, 4), "indices": ints([0, 3], [1, 1], [2, 0])}
    case("gather", lambda x, indices: x.gather(1, indices), inputs, {"axis": 1})
    inputs = {"x": rand(3, 4), "indices": ints(2, 0, 2)}
    for axis in (0, 1):
        fn = lambda x, indices: x.index_select(axis, indices)
        case("indexSelect", fn, inputs, {"axis": axis}, variant=f"axis{axis}")
    inputs = {"a": rand(2, 3), "b": rand(2, 1)}
    case("concat", lambda a, b: torch.cat((a, b), 1), inputs, {"axis": 1})


if __name__ == "__main__":
    torch.set_num_threads(1)
    matmul_cases()
    binary_cases()
    unary_cases()
    reduce_cases()
    softmax_cases()
    norm_cases()
    model_cases()
    loss_cases()
    indexing_cases()
    golden_json.write(OUT, {"cases": CASES})
    print(f"{len(CASES)} cases, {OUT.stat().st_size / 1000:.0f} kB", file=sys.stderr)
