"""Writes packages/core/test/fixtures/semantics.json: the points on which libraries differ, as NumPy and PyTorch decide them.

Every case is {op, arguments, inputs, output, dy, gradients}: arguments follow the inputs in the TypeScript function of that name,
and every tensor names its exact dtype, or "float" where it is the backend's own. See README.md.
"""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

import golden_json

OUT = golden_json.ROOT / "packages/core/test/fixtures/semantics.json"
CASES = []
nan, inf = math.nan, math.inf
rng = np.random.default_rng(31)
generator = torch.Generator().manual_seed(31)
torch.set_num_threads(1)

# Of 64-bit integers and of int16, which nomoat lacks, int32 takes the place.
NAMES = {
    torch.float64: "float", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16",
    torch.int64: "int32", torch.int32: "int32", torch.int16: "int32", torch.int8: "int8", torch.uint8: "uint8", torch.bool: "bool",
}
DTYPES = ["float64", "float32", "float16", "bfloat16", "int32", "int8", "uint8", "bool"]


def as_tensor(value):
    if isinstance(value, (np.ndarray, np.generic)):
        value = torch.from_numpy(np.array(value, order="C", ndmin=1)).reshape(np.shape(value))
    return value


def json_tensor(value):
    value = as_tensor(value).detach()
    return {"shape": list(value.shape), "dtype": NAMES[value.dtype], "data": golden_json.flat(value)}


def floats(*values):
    return torch.tensor(values, dtype=torch.float64)


def typed(dtype, *values):
    return torch.tensor(values, dtype=getattr(torch, dtype))


def rand(*shape):
    """Multiples of 1/16."""
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 16).round() / 16


def case(op, inputs, arguments, output):
    """`output` is a value, or a function of the inputs whose gradients are asked for too."""
    inputs = [as_tensor(value) for value in inputs]
    entry = {"op": op, "arguments": [golden_json.number(a) if isinstance(a, float) else a for a in arguments]}
    entry["inputs"] = [json_tensor(value) for value in inputs]
    if callable(output):
        leaves = [x.clone().requires_grad_(x.dtype == torch.float64) for x in inputs]
        result = output(*leaves)
        wanted = [x for x in leaves if x.requires_grad]
        entry["output"] = json_tensor(result)
        dy = rand(*result.shape)
        entry["dy"] = json_tensor(dy)
        entry["gradients"] = [json_tensor(g) for g in torch.autograd.grad(result, wanted, dy)]
    else:
        entry["output"] = json_tensor(output)
    CASES.append(entry)


def empties():
    """Axes of length 0: in broadcasting, reductions, products, losses."""
    def empty(*shape):
        return torch.zeros(shape, dtype=torch.float64)

    for a, b in [((2, 0), (2, 1)), ((1,), (0,)), ((0, 1), (1, 0)), ((3, 1, 0), (2, 1)), ((), (0, 2))]:
        case("add", [empty(*a), empty(*b)], [], empty(*a) + empty(*b))
        case("less", [empty(*a), empty(*b)], [], empty(*a) < empty(*b))
    x = empty(2, 0, 3)
    for axes in ([1], [0, 1], [0], [0, 1, 2]):
        for keep in (False, True):
            case("sum", [x], [axes, keep], x.sum(axes, keep))
            case("mean", [x], [axes, keep], x.mean(axes, keep))
            case("any", [x], [axes, keep], np.any(x.numpy(), tuple(axes), keepdims=keep))
            case("all", [x], [axes, keep], np.all(x.numpy(), tuple(axes), keepdims=keep))
            case("prod", [x], [axes, keep], np.prod(x.numpy(), tuple(axes), keepdims=keep))
            case("logsumexp", [x], [axes, keep], torch.logsumexp(x, axes, keep))
    for axis in (0, 2):
        case("max", [x], [axis], x.amax(axis))
        case("min", [x], [axis], x.amin(axis))
        case("argmax", [x], [axis], x.argmax(axis))
        case("norm", [x], [inf, axis], torch.linalg.vector_norm(x, inf, axis))
    for order in (0, 1, 2, 3):
        case("norm", [x], [float(order), 1], torch.linalg.vector_norm(x, order, 1))
    case("variance", [x], [1], x.var(1))
    case("std", [x], [1, True, 0], x.std(1, unbiased=False, keepdim=True))
    for axis in (0, 1, 2):
        case("cumsum", [x], [axis], x.cumsum(axis))
        case("cumprod", [x], [axis], x.cumprod(axis))
        case("softmax", [x], [axis], x.softmax(axis))
        case("logSoftmax", [x], [axis], x.log_softmax(axis))
        case("sort", [x], [axis], x.sort(axis).values)
        case("argsort", [x], [axis], x.argsort(axis))
    case("matmul", [empty(3, 0), empty(0, 2)], [], empty(3, 0) @ empty(0, 2))
    case("matmul", [empty(2, 0, 4), empty(4, 3)], [], empty(2, 0, 4) @ empty(4, 3))
    case("dot", [empty(0), empty(0)], [], empty(0) @ empty(0))
    case("outer", [empty(0), rand(2)], [], torch.outer(empty(0), rand(2)))
    case("where", [torch.zeros(2, 0, dtype=torch.bool), empty(2, 1), empty(0)], [], empty(2, 0))
    case("layerNorm", [empty(0, 4)], [], F.layer_norm(empty(0, 4), [4]))
    case("embedding", [rand(3, 2), torch.zeros(2, 0, dtype=torch.int64)], [], empty(2, 0, 2))
    case("linear", [empty(0, 3), rand(2, 3)], [], empty(0, 2))
    for reduction in ("mean", "sum", "none"):
        case("mse", [empty(0, 2), empty(0, 2)], [{"reduction": reduction}], F.mse_loss(empty(0, 2), empty(0, 2), reduction=reduction))
        labels = torch.zeros(0, dtype=torch.int64)
        case("crossEntropy", [empty(0, 3), labels], [{"reduction": reduction}], F.cross_entropy(empty(0, 3), labels, reduction=reduction))


def ties_and_nan():
    """Who wins among equals, what NaN does, and who gets the gradient."""
    tied = floats([1, 3, 3, -2], [2, 2, 2, 2], [-2, 0, -0.0, -2])
    for op, reduce, arg in (("max", torch.amax, torch.argmax), ("min", torch.amin, torch.argmin)):
        for axis in (0, 1):
            case(op, [tied], [axis], lambda x, a=axis, f=reduce: f(x, a))
        case("arg" + op, [tied], [], arg(tied))
        integers = typed("int32", [4, 4, 1], [0, 4, 4])
        for axis in (0, 1):
            case("arg" + op, [integers], [axis], arg(integers, axis))
        flags = typed("bool", [False, True, True], [False, False, False])
        case("arg" + op, [flags], [1], getattr(np, "arg" + op)(flags.numpy(), 1))
        bad = floats([1, nan, 3, nan], [nan, -inf, inf, 0], [inf, inf, -inf, -inf])
        case(op, [bad], [1], reduce(bad, 1))
        case(op, [bad], [], reduce(bad))
        for axis in (0, 1):
            case("arg" + op, [bad], [axis], arg(bad, axis))
    bad = floats([1, nan, -3], [nan, -inf, inf])
    for op in ("maximum", "minimum"):
        fn = getattr(torch, op)
        case(op, [bad, floats(0, 0, nan)], [], fn(bad, floats(0, 0, nan)))
        case(op, [floats(1, 2, -1), floats(1, 3, -1)], [], fn)
    for op, arguments, fn in (
        ("relu", [], F.relu), ("clip", [-0.5, 0.75], lambda x: x.clamp(-0.5, 0.75)), ("leakyRelu", [0.25], lambda x: F.leaky_relu(x, 0.25)),
        ("abs", [], torch.abs), ("neg", [], torch.neg), ("square", [], torch.square), ("floor", [], torch.floor), ("sigmoid", [], torch.sigmoid),
        ("softplus", [], F.softplus), ("isnan", [], torch.isnan), ("isfinite", [], torch.isfinite), ("isinf", [], torch.isinf),
        ("logicalNot", [], torch.logical_not), ("cumsum", [1], lambda x: x.cumsum(1)), ("cumprod", [1], lambda x: x.cumprod(1)),
        ("trunc", [], torch.trunc), ("tanh", [], torch.tanh), ("erf", [], torch.erf), ("log1p", [], torch.log1p), ("expm1", [], torch.expm1),
        ("log2", [], torch.log2), ("log10", [], torch.log10),
    ):
        case(op, [bad], arguments, fn(bad))
    case("sign", [bad], [], np.sign(bad.numpy()))
    case("relu", [floats(-1, 0, -0.0, 2)], [], F.relu)
    case("abs", [floats(-1, 0, 2)], [], torch.abs)
    case("leakyRelu", [floats(-1, 0, 2)], [0.25], lambda x: F.leaky_relu(x, 0.25))
    case("clip", [floats(-1, -0.5, 0, 0.75, 2)], [-0.5, 0.75], lambda x: x.clamp(-0.5, 0.75))
    case("clip", [floats(-1, 0.5, 2)], [1.0, 0.0], torch.clamp(floats(-1, 0.5, 2), 1, 0))
    order = floats([2, nan, 2, -inf, nan, inf, 2], [0, -0.0, 0, 1, 1, -1, -1])
    for axis, descending in ((0, False), (1, False), (1, True)):
        values, indices = torch.sort(order, dim=axis, descending=descending, stable=True)
        case("sort", [order], [axis, descending], values)
        case("argsort", [order], [axis, descending], indices)
    case("sort", [floats([3, 1, 3, 2])], [1], lambda x: torch.sort(x, dim=1, stable=True).values)
    for k, largest in ((1, True), (3, True), (3, False), (7, True)):
        values, indices = torch.sort(order, dim=1, descending=largest, stable=True)
        case("topk.values", [order], [k, 1, largest], values[:, :k])
        case("topk.indices", [order], [k, 1, largest], indices[:, :k])
    values, inverse, counts = np.unique(order.numpy(), return_inverse=True, return_counts=True)
    case("unique.values", [order], [], values)
    case("unique.inverse", [order], [], inverse.reshape(order.shape))
    case("unique.counts", [order], [], counts)
    case("any", [bad], [1], np.any(bad.numpy(), 1))
    case("all", [bad], [1], np.all(bad.numpy(), 1))
    for size in (1, 2, 3):
        image = floats([[[1, nan, 2, 5], [2, 2, 2, 5], [-inf, -inf, 0, 0], [-inf, -inf, 7, 7]]])
        if size == 2:
            pooled, indices = F.max_pool2d(image, 2, 2, return_indices=True)
            case("maxPool2dWithIndices.values", [image], [2], pooled)
            case("maxPool2dWithIndices.indices", [image], [2], indices)
        case("maxPool2d", [image], [size, {"stride": 1}], F.max_pool2d(image, size, 1))
        case("avgPool2d", [image], [size, {"stride": 1}], F.avg_pool2d(image, size, 1))


def rounding():
    """Halves to even, the sign of zero, and both 16-bit formats at ties, subnormals and overflow."""
    halves = floats(-2.5, -1.5, -0.5, -0.25, -0.0, 0.0, 0.25, 0.5, 1.5, 2.5, 0.5 - 2**-25, 2**22 + 0.5, inf, -inf, nan)
    for op in ("round", "floor", "ceil", "trunc", "neg", "abs", "sqrt"):
        case(op, [halves], [], getattr(torch, op)(halves))
    case("sign", [halves], [], np.sign(halves.numpy()))
    for op in ("round", "floor", "ceil", "sign", "trunc"):
        case(op, [rand(5)], [], getattr(torch, op))
    wide = [1, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-20, 65504, 65519, 65520, 1e9, -70000, 2**-24, 2**-25, 2**-25 * 1.5, 3 * 2**-25,
            2**-14, 2**-14 - 2**-24, 2**-15, -(2**-26), 0.1, -1 / 3, 0.0, -0.0, inf, -inf, nan, 1e-30]
    narrow = [1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 3.3895314e38, 3.3961775e38, 3.4e38, -3.4e38, 2**-126, 2**-130, 2**-133,
              2**-134, 3 * 2**-134, 2**-149, 0.1, -1 / 3, 0.0, -0.0, inf, -inf, nan, 16777216]
    for dtype, values in (("float16", wide), ("bfloat16", narrow)):
        x = typed("float32", *values)
        case("cast", [x], [dtype], x.to(getattr(torch, dtype)))
        y = x.to(getattr(torch, dtype))
        case("cast", [y], ["float32"], y.float())
        case("add", [y, y], [], y + y)
        case("mul", [y, y], [], y * y)
    x = floats(1.9, -1.9, 0.5, -0.5, 127.9, -128.5, 2**31 - 1, -(2**31))
    case("cast", [x[:6]], ["int8"], x[:6].to(torch.int8))
    case("cast", [floats(1.9, 255.9, -0.9, 0.0)], ["uint8"], floats(1.9, 255.9, -0.9, 0.0).to(torch.uint8))
    case("cast", [x[:6]], ["int32"], x[:6].to(torch.int32))
    truth = floats(0.0, -0.0, nan, 1e-30, -inf)
    case("cast", [truth], ["bool"], truth.bool())
    for dtype in ("int32", "int8", "uint8"):
        small = typed(dtype, 0, 1, 100)
        for target in DTYPES[1:]:
            case("cast", [small], [target], small.to(getattr(torch, target)))


def integers():
    """Results of whole numbers: their dtypes, wrapping, division and remainder by sign and by zero."""
    for dtype, values in (("int32", [-7, 7, 0, 3]), ("int8", [-7, 7, 0, 100]), ("uint8", [249, 7, 0, 100])):
        x = typed(dtype, *values)
        for op in ("abs", "sign", "neg", "square", "relu", "floor", "ceil", "round", "trunc"):
            case(op, [x], [], getattr(torch, op)(x))
        case("clip", [x], [1, 5], x.clamp(1, 5))
        for op in ("exp", "sqrt", "sin", "sigmoid", "tanh", "rsqrt", "log", "reciprocal", "expm1"):
            case(op, [x], [], getattr(torch, op)(x))
        matrix = x.reshape(2, 2)
        for op, fn in (("sum", torch.sum), ("prod", torch.prod), ("max", torch.amax), ("min", torch.amin), ("argmax", torch.argmax),
                       ("cumsum", torch.cumsum), ("cumprod", torch.cumprod)):
            case(op, [matrix], [1], fn(matrix, 1))
        case("mean", [matrix], [0], matrix.float().mean(0))
        case("sort", [x], [], x.sort().values)
        case("pow", [x], [3], x**3)
        for op in ("add", "sub", "mul", "maximum", "minimum", "equal", "less"):
            name = {"equal": "eq", "less": "lt"}.get(op, op)
            for other in ("int32", "int8", "uint8", "bool", "float32"):
                y = typed(other, 1, 0, 1, 1)
                if op == "sub" and other == "bool":
                    continue  # refused, here and there
                case(op, [x, y], [], getattr(torch, name)(x, y))
        case("div", [x, typed(dtype, 2, 2, 0, 3)], [], x / typed(dtype, 2, 2, 0, 3))
        case("where", [x > 3, x, typed("bool", True, False, True, True)], [], torch.where(x > 3, x, typed(dtype, 1, 0, 1, 1)))
    flags = typed("bool", [True, False], [True, True])
    for op in ("sum", "prod", "cumsum", "cumprod"):
        case(op, [flags], [1], getattr(torch, op)(flags, 1))
    case("max", [flags], [1], flags.amax(1))
    case("min", [flags], [1], flags.amin(1))
    case("mean", [flags], [1], flags.float().mean(1))
    case("logicalNot", [flags], [], ~flags)
    case("bitwiseNot", [flags], [], ~flags)
    for dtype in ("int32", "int8"):
        a, b = np.array(list(itertools.product([7, -7, 6, -6, 0, 1, -1, -128], [2, -2, 3, -3, 7, -7, 0, -1])), dtype).T
        with np.errstate(all="ignore"):
            case("floorDivide", [a, b], [], np.floor_divide(a, b))
            case("remainder", [a, b], [], np.remainder(a, b))
    a, b = np.array(list(itertools.product([7, 255, 0, 1], [2, 3, 255, 0])), "uint8").T
    with np.errstate(all="ignore"):
        case("floorDivide", [a, b], [], np.floor_divide(a, b))
        case("remainder", [a, b], [], np.remainder(a, b))
    a, b = np.array(list(itertools.product([7.0, -7, 0.5, -0.5, 0.0, inf, nan], [2.0, -2, 0.0, inf, -inf, 0.25])), "float64").T
    with np.errstate(all="ignore"):
        case("floorDivide", [a, b], [], np.floor_divide(a, b))
        case("remainder", [a, b], [], np.remainder(a, b))


def integer_products():
    """Products of whole numbers, which nomoat gives in int32 whatever their width."""
    def whole(dtype, *shape):
        low, high = (0, 2) if dtype == "bool" else (0, 256) if dtype == "uint8" else (-128, 128)
        return rng.integers(low, high, shape).astype(dtype)

    def add(op, inputs, arguments, output):
        case(op, inputs, arguments, output(*[x.astype("int32") for x in inputs]))

    for dtype in ("int32", "int8", "uint8", "bool"):
        add("matmul", [whole(dtype, 2, 3), whole(dtype, 3, 4)], [], np.matmul)
    for a, b in [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 1, 2, 3), (4, 3, 2)), ((2, 0), (0, 3)), ((0, 2), (2, 3)), ((2, 2, 3), (3, 4))]:
        add("matmul", [whole("int32", *a), whole("int8", *b)], [], np.matmul)
    large = np.array([[2**31 - 1, 12345], [-(2**31), 99999]], "int32")
    add("matmul", [large, large], [], np.matmul)
    add("matmul", [whole("int32", 3, 2), whole("int32", 4, 3)], [{"transA": True, "transB": True}], lambda a, b: a.T @ b.T)
    add("linear", [whole("int32", 2, 3), whole("int32", 4, 3)], [], lambda x, w: x @ w.T)
    add("bmm", [whole("int32", 2, 2, 3), whole("int32", 2, 3, 2)], [], np.matmul)
    add("dot", [whole("int32", 5), whole("uint8", 5)], [], np.dot)
    add("outer", [whole("int32", 3), whole("int32", 2)], [], np.outer)
    for equation, shapes in [("ij,jk->ik", [(2, 3), (3, 2)]), ("bij,bkj->bik", [(2, 2, 3), (2, 2, 3)]), ("ij,jk,kl->il", [(2, 2)] * 3)]:
        add("einsum", [whole("int32", *shape) for shape in shapes], [equation], lambda *x, e=equation: np.einsum(e, *x))
    x, w = whole("int32", 1, 2, 5), whole("int32", 3, 2, 2)
    add("conv1d", [x, w], [], lambda x, w: np.stack([[(x[0, :, i : i + 2] * k).sum() for i in range(4)] for k in w])[None].astype("int32"))


def powers_and_sums():
    """pow of negative bases and of zero, orders of norms, corrections of var, rows of −∞."""
    a = floats(-2, -2, -8, 0, 0, 0, 0, -0.0, -0.0, 1, 1, nan, nan, 2, inf, -inf, -inf, 0.5, 0.5, -1, -1, 2, 2)
    b = floats(3, 0.5, 1 / 3, 0, 2, -1, -2, -1, 3, nan, inf, 0, 1, nan, -1, 3, 2, inf, -inf, inf, -inf, inf, -inf)
    case("pow", [a, b], [], a**b)
    case("pow", [floats(0, 0, 0, 2, -2)], [2], lambda x: x**2)
    case("pow", [floats(0, 0, 2), floats(2, 1, 0)], [], lambda x, y: x**y)
    for exponent in (0, 1, 2, 3, -1, 0.5, -0.5):
        base = floats(-2, 0, -0.0, 2, inf, -inf, nan)
        with np.errstate(all="ignore"):  # C's pow, where PyTorch takes roots of its own for ±0.5
            case("pow", [base], [float(exponent)], base.numpy() ** np.full(7, exponent))
    x = rand(3, 4)
    for correction in (0, 1, 2, 4, 5):
        for op in ("variance", "std"):
            fn = torch.var if op == "variance" else torch.std
            if correction < 4:
                case(op, [x], [1, False, correction], lambda x, f=fn, c=correction: f(x, [1], correction=c))
    one = floats([3], [-1])
    for op in ("variance", "std"):
        fn = torch.var if op == "variance" else torch.std
        case(op, [one], [1], fn(one, 1))
        case(op, [one], [1, True, 0], fn(one, 1, unbiased=False, keepdim=True))
    for order in (0, 1, 2, 3, 0.5, -1, -2, inf, -inf):
        case("norm", [x], [float(order), 1], lambda x, p=order: torch.linalg.vector_norm(x, p, 1) + 0 * x.sum(1))
        case("norm", [floats([0, 0, 0], [0, 3, -4])], [float(order), 1], torch.linalg.vector_norm(floats([0, 0, 0], [0, 3, -4]), order, 1))
        case("norm", [floats(3, nan, -inf)], [float(order)], torch.linalg.vector_norm(floats(3, nan, -inf), order))
        case("norm", [floats(3, -inf)], [float(order)], torch.linalg.vector_norm(floats(3, -inf), order))
    case("norm", [torch.zeros(2, 3, dtype=torch.float64)], [2, 1], lambda x: torch.linalg.vector_norm(x, 2, 1))
    case("norm", [floats([3, 3, -3], [0, 0, 0])], [inf, 1], lambda x: torch.linalg.vector_norm(x, inf, 1))
    rows = floats([-inf, -inf], [0, -inf], [inf, 0], [nan, 0], [1000, 1000])
    for op, fn in (("softmax", torch.softmax), ("logSoftmax", torch.log_softmax), ("logsumexp", torch.logsumexp)):
        case(op, [rows], [1], fn(rows, 1))
    case("prod", [floats([2, 0, 3], [0, 0, 5], [1, -2, 4])], [1], lambda x: x.prod(1))
    case("cumprod", [floats([2, 0, 3, 4], [0, 0, 5, 1])], [1], lambda x: x.cumprod(1))
    for op, fn in (("gelu", F.gelu), ("silu", F.silu), ("softplus", F.softplus)):
        wide = floats(-40, -10, -5, -1, -0.0, 0, 1e-3, 1, 5, 20, 40, inf)
        case(op, [wide], [], fn(wide))
    case("gelu", [wide], ["tanh"], F.gelu(wide, approximate="tanh"))
    case("gelu", [rand(6)], [], F.gelu)
    case("gelu", [rand(6)], ["tanh"], lambda x: F.gelu(x, approximate="tanh"))


def layers():
    """Normalisation of constant rows, epsilon, losses in which nothing counts, dropout at its ends."""
    x, weight, bias = rand(2, 4, 3), rand(3), rand(3)
    flat = torch.full((2, 4), 0.75, dtype=torch.float64)
    for eps in (1e-5, 0.5):
        case("layerNorm", [x, weight, bias], [eps], lambda x, w, b, e=eps: F.layer_norm(x, [3], w, b, e))
        case("layerNorm", [flat, torch.ones(4, dtype=torch.float64)], [None, eps], F.layer_norm(flat, [4], torch.ones(4, dtype=torch.float64), None, eps))
        case("groupNorm", [rand(2, 4, 3)], [2, None, None, eps], lambda x, e=eps: F.group_norm(x, 2, eps=e))
        case("groupNorm", [torch.full((1, 4, 2), 0.75, dtype=torch.float64)], [2, None, None, eps], torch.zeros(1, 4, 2, dtype=torch.float64))
    case("layerNorm", [rand(3, 1)], [], torch.zeros(3, 1, dtype=torch.float64))
    logits = rand(3, 4)
    for smoothing in (0.0, 0.1, 1.0):
        for reduction in ("mean", "sum", "none"):
            options = {"labelSmoothing": smoothing, "reduction": reduction}
            theirs = {"label_smoothing": smoothing, "reduction": reduction}
            ignored = typed("int64", -100, -100, -100)
            case("crossEntropy", [logits, ignored], [options], F.cross_entropy(logits, ignored, **theirs))
            some = typed("int64", 3, -100, 0)
            case("crossEntropy", [logits, some], [options], lambda x, labels, o=theirs: F.cross_entropy(x, labels, **o))
    for reduction in ("mean", "sum", "none"):
        a, b = floats(1, 1, -2), floats(1, 3, nan)
        case("mse", [a, b], [{"reduction": reduction}], F.mse_loss(a, b, reduction=reduction))
    a, b = floats(-100, 0, 100, 1000, -1000), floats(0, 0.5, 1, 0, 1)
    case("bceWithLogits", [a, b], [{"reduction": "none"}], lambda a, b: F.binary_cross_entropy_with_logits(a, b, reduction="none"))
    for p in (0.0, 1.0):
        case("dropout", [rand(2, 3)], [p], lambda x, p=p: F.dropout(x, p))


def shapes():
    """Slices with steps and negative ends, indices of every kind together, einsum's rarer equations."""
    x = np.arange(60.0).reshape(3, 4, 5)

    def end():
        return None if rng.random() < 0.3 else int(rng.integers(-7, 8))

    for _ in range(40):
        ranges, slices = [], []
        for _ in range(int(rng.integers(1, 4))):
            if rng.random() < 0.2:
                i = int(rng.integers(-3, 3))
                ranges.append(i)
                slices.append(i)
            else:
                one = [end(), end(), int(rng.choice([-3, -2, -1, 1, 2, 3]))]
                ranges.append(one)
                slices.append(slice(*one))
        case("slice", [x], ranges, x[tuple(slices)])
    i, j, k = np.array([[0], [-1]]), np.array([1, -4, 2]), np.array(2)
    mask, row, none = rng.random((3, 4)) < 0.5, np.array([True, False, True]), np.zeros((3, 4), bool)
    two = np.array([True, True, False])
    for arguments, indices, picked in [
        (["t0"], [k], x[k]), ([None, "t0", "t1"], [i, j], x[:, i, j]), (["t0", None, "t1"], [two, np.array([0, 4])], x[two, :, [0, 4]]),
        (["t0", "t1"], [mask, np.array(-1)], x[mask, -1]), (["t0"], [none], x[none]), (["t0", "t1"], [row, np.array([3, 0])], x[row, [3, 0]]),
        (["t0", [None, None, -2], 1], [row], x[row, ::-2, 1]), ([[None, None, -1], "t0"], [j], x[::-1, j]),
        ([0, "t0", "t1"], [j, np.array([0, 1, 2])], x[0, j, [0, 1, 2]]), (["t0", "t1", "t2"], [i, j, k], x[i, j, k]),
        ([None, None, "t0"], [np.zeros((0,), int)], x[:, :, np.zeros(0, int)]), ([-1, "t0", [1, None, 2]], [i], x[-1, i, 1::2]),
    ]:
        case("index", [x, *indices], arguments, picked)

    def values(*shape):
        return np.round(rng.standard_normal(shape) * 16) / 16

    for equation, operands in [
        ("...ii->...i", [values(2, 3, 3)]), ("...ii", [values(2, 3, 3)]), ("i...->...", [values(2, 3)]), ("...ba", [values(2, 3, 4)]),
        ("ii...->i...", [values(3, 3, 2)]), ("iijj->ij", [values(2, 2, 3, 3)]), ("iii->i", [values(3, 3, 3)]), ("iii", [values(2, 2, 2)]),
        ("ba,bc", [values(2, 3), values(2, 4)]), ("Ab,bC", [values(2, 3), values(3, 4)]), (" ij , jk -> ik ", [values(2, 3), values(3, 2)]),
        ("...,...", [values(2, 1), values(3)]), ("...a,a...->...", [values(2, 3), values(3, 2)]), ("ij->", [values(2, 3)]), ("->", [values()]),
        (",", [values(), values()]), ("ij,ij,ij->i", [values(2, 3), values(2, 3), values(2, 3)]), ("i,j,k->kji", [values(2), values(3), values(2)]),
        ("ij,jk,kl,lm->im", [values(2, 3), values(3, 2), values(2, 3), values(3, 2)]), ("bij,bjk->", [values(2, 2, 3), values(2, 3, 2)]),
        ("ijk,k->ij", [values(2, 0, 3), values(3)]), ("ij,kj->ik", [values(1, 3), values(4, 3)]), ("i...j,j...->i...", [values(2, 4, 3), values(3, 4)]),
    ]:
        case("einsum", operands, [equation], np.einsum(equation, *operands))


def later():
    """Infinities in activations, bounds that are tensors, targets that are probabilities, diagonals, closeness. Last, so that the random
    numbers of what stands above stay."""
    ends = floats(-inf, inf, nan, -1e10, -20, 0)
    for op, arguments, fn in (("silu", [], F.silu), ("gelu", [], F.gelu), ("gelu", ["tanh"], lambda x: F.gelu(x, approximate="tanh"))):
        case(op, [ends], arguments, fn)
    case("square", [typed("bool", True, False)], [], torch.square(typed("bool", True, False)))
    x, low, high = floats(-2, -1, 0, 1, nan, 2), floats(-1, -1, 1, -1, 0, 3), floats(1.25)
    case("clip", [x, low, high], [], lambda x, low, high: torch.clamp(x, low, high))
    case("clip", [rand(2, 3), rand(3)], [], lambda x, low: torch.clamp(x, low))
    logits, weight = rand(3, 4), floats(0.5, 2, 0, 1.25)
    for smoothing, reduction, given in itertools.product((0.0, 0.25), ("mean", "sum", "none"), (None, weight)):
        options = {"labelSmoothing": smoothing, "reduction": reduction}
        theirs = {"label_smoothing": smoothing, "reduction": reduction, "weight": given}
        constants = []
        if given is not None:
            options["weight"] = "t2"
            constants = [given.float()]  # no gradient is asked for
            case("crossEntropy", [logits, typed("int64", 3, -100, 1), *constants], [options],
                 lambda x, labels, _, o=theirs: F.cross_entropy(x, labels, **o))
        case("crossEntropy", [logits, rand(3, 4).softmax(1), *constants], [options],
             lambda x, p, *_, o=theirs: F.cross_entropy(x, p, **o))
    case("crossEntropy", [logits, typed("uint8", 3, 0, 1)], [{}], F.cross_entropy(logits, typed("int64", 3, 0, 1)))
    case("crossEntropy", [rand(0, 4), rand(0, 4)], [{}], F.cross_entropy(rand(0, 4), rand(0, 4)))
    case("crossEntropy", [rand(4), floats(0, 1, 0, 0)], [{}], lambda x, p: F.cross_entropy(x, p))
    for shape, axes in (((3, 4), (0, 1)), ((4, 3), (1, 0)), ((2, 3, 4), (-1, 0))):
        for offset in (0, 1, -1, 3, 9):
            case("diagonal", [rand(*shape)], [offset, *axes], lambda x, o=offset, a=axes: torch.diagonal(x, o, *a))
    for k in (0, 2, -1):
        case("diag", [rand(3)], [k], lambda x, k=k: torch.diag(x, k))
        case("diag", [rand(3, 4)], [k], lambda x, k=k: torch.diag(x, k))
        case("diag", [typed("int32", 1, 2)], [k], torch.diag(typed("int32", 1, 2), k))
        stacked = rand(3, 4, 2)
        case("trace", [stacked], [k], np.trace(stacked.numpy(), k))
    for source, to in ((0, -1), ([0, 1], [-1, 0]), ([2, 0, 1], [0, 1, 2])):
        case("moveaxis", [rand(2, 3, 4)], [source, to], lambda x, s=source, t=to: torch.moveaxis(x, s, t))
    for i, indexing in itertools.product(range(3), ("ij", "xy")):
        vectors = [rand(2), rand(3), rand(1)]
        case(f"meshgrid.{i}", vectors, [indexing], np.meshgrid(*[v.numpy() for v in vectors], indexing=indexing)[i])
    rows = rand(2, 3)
    case("unbind.1", [rows], [1], torch.unbind(rows, 1)[1])
    a, b = floats(1, 1, 1, inf, inf, -inf, nan, nan, 0, 1e-9, 1e9), floats(1, 1.00002, 1.000001, inf, 1, inf, nan, 0, 1e-9, 0, 1e9 + 2e3)
    for arguments in ([], [1e-3, 0.0], [0.0, 0.0], [1e-5, 1e-8, True]):
        names = dict(zip(("rtol", "atol", "equal_nan"), arguments))
        case("isclose", [a, b], arguments, torch.isclose(a, b, **names))
    case("isclose", [typed("uint8", 1, 255), typed("uint8", 2, 255)], [], torch.isclose(typed("uint8", 1, 255), typed("uint8", 2, 255)))


def promotion():
    return [[a, b, NAMES[torch.promote_types(getattr(torch, a), getattr(torch, b))].replace("float", "float64", 1)
             if torch.promote_types(getattr(torch, a), getattr(torch, b)) == torch.float64
             else NAMES[torch.promote_types(getattr(torch, a), getattr(torch, b))]] for a in DTYPES for b in DTYPES]


if __name__ == "__main__":
    empties()
    ties_and_nan()
    rounding()
    integers()
    integer_products()
    powers_and_sums()
    layers()
    shapes()
    later()
    golden_json.write(OUT, {"cases": CASES, "promotion": promotion()})
    print(f"{len(CASES)} cases, {OUT.stat().st_size / 1000:.0f} kB")
