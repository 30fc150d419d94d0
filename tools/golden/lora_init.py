"""Writes packages/lora/test/fixtures/inits.json: beginnings of adapters, and merged weights, by their formulas in NumPy.

Formulas as in PEFT (tuners/lora/layer.py, eva.py, dora.py; utils/loftq_utils.py): PiSSA (arXiv:2404.02948), OLoRA
(arXiv:2406.01775), LoftQ (arXiv:2310.08659) with rounding to multiples of a step, EVA (arXiv:2410.07170), and the weights that
LoRA, rank-stabilized LoRA, DoRA, LoHa, LoKr, VeRA and (IA)³ merge to.
"""

import numpy as np

import golden_json

PATH = golden_json.ROOT / "packages/lora/test/fixtures/inits.json"
OUT, IN, R, ALPHA = 8, 6, 3, 5.0
rng = np.random.default_rng(5)


def tensor(x):
    x = np.asarray(x, dtype=np.float64)
    return {"shape": list(x.shape), "dtype": "float64", "data": x.flatten().tolist()}


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32).astype(np.float64)


def pissa(w, r):
    u, s, vt = np.linalg.svd(w)
    return u[:, :r] @ np.diag(s[:r]) @ vt[:r]


def olora(w, r):
    q, upper = np.linalg.qr(w)
    return upper[:r], q[:, :r]


def loftq(w, r, step, iterations):
    """Quantized weight and correction, by turns."""
    rest = w
    for _ in range(iterations):
        quantized = np.rint(rest / step) * step
        product = pissa(w - quantized, r)
        rest = w - product
    return quantized, product


def eva(inputs, ranks, rho):
    """Components of each layer's inputs, and the ranks that go to the layers where they explain most."""
    parts = []
    for x in inputs:
        _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
        parts.append((vt, s**2 / (s**2).sum()))
    shares = [(share, i) for i, (_, ratio) in enumerate(parts) for share in ratio[: round(ranks[i] * rho)]]
    shares.sort(key=lambda pair: -pair[0])
    given = [sum(1 for _, i in shares[: sum(ranks)] if i == layer) for layer in range(len(inputs))]
    return [vt[:rank] for (vt, _), rank in zip(parts, given)], given


def main():
    w = normal(OUT, IN)
    a, b = normal(R, IN), normal(OUT, R)
    scaling = ALPHA / R
    adapted = w + scaling * b @ a
    magnitude = np.abs(normal(OUT)) + 0.5
    loha = [normal(OUT, R), normal(R, IN), normal(OUT, R), normal(R, IN)]
    w1, w2 = normal(2, 2), normal(4, 3)
    lambda_b, lambda_d = normal(OUT), normal(R)
    ia3 = normal(OUT, 1)
    a_olora, b_olora = olora(w, R)
    quantized, product = loftq(w, R, 0.5, 3)
    inputs = [normal(40, 5) * [3, 1, 0.5, 0.2, 2] + 4, normal(40, 5) * [1, 1.1, 0.9, 1, 1.2]]
    directions, ranks = eva(inputs, [2, 2], 2.0)
    golden_json.write(
        PATH,
        {
            "r": R,
            "alpha": ALPHA,
            "w": tensor(w),
            "a": tensor(a),
            "b": tensor(b),
            "pissa": tensor(pissa(w, R)),
            "olora": {"a": tensor(a_olora), "b": tensor(b_olora)},
            "loftq": {"step": 0.5, "iterations": 3, "quantized": tensor(quantized), "product": tensor(product)},
            "eva": {
                "inputs": [tensor(x) for x in inputs],
                "r": 2,
                "rho": 2.0,
                "ranks": ranks,
                "directions": [tensor(x) for x in directions],
            },
            "merged": {
                "lora": tensor(adapted),
                "rslora": tensor(w + ALPHA / np.sqrt(R) * b @ a),
                "dora": {
                    "magnitude": tensor(magnitude),
                    "weight": tensor((magnitude / np.linalg.norm(adapted, axis=1))[:, None] * adapted),
                },
                "loha": {
                    "factors": [tensor(x) for x in loha],
                    "weight": tensor(w + scaling * (loha[0] @ loha[1]) * (loha[2] @ loha[3])),
                },
                "lokr": {"factors": [tensor(w1), tensor(w2)], "weight": tensor(w + scaling * np.kron(w1, w2))},
                "vera": {
                    "factors": [tensor(lambda_b), tensor(lambda_d)],
                    "weight": tensor(w + lambda_b[:, None] * (b @ (lambda_d[:, None] * a))),
                },
                "ia3": {"factors": [tensor(ia3)], "weight": tensor(w * ia3)},
            },
        },
    )


if __name__ == "__main__":
    main()
