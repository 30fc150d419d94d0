"""Golden bytes of ggml's K-quants, from the published reference quantizers, in NumPy alone.

    python3 tools/golden/quant_k.py

writes packages/quant/test/fixtures/k-quants.json. Independent of the TypeScript: it follows quantize_row_q2_K_ref to
quantize_row_q6_K_ref of ggml-quants.c (no importance matrix), whole sub-blocks at a time; sums run from left to right in
float32, and no product is contracted with a sum. Arrays are base64 of little-endian bytes.
"""

import base64
import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "packages/quant/test/fixtures/k-quants.json"
F = np.float32
EPSILON = F(1e-15)


def total(terms):
    """The sum in order, rounded after each term."""
    return np.add.accumulate(terms.astype(F), dtype=F)[-1]


def nearest(x):
    return np.rint(x.astype(F) if isinstance(x, np.ndarray) else F(x)).astype(int)


def qx(x, most):
    """make_qx_quants with rmse_type 1."""
    extreme = x[np.argmax(np.abs(x))]
    if abs(extreme) < EPSILON:
        return F(0), np.zeros(x.size, int)
    w = x * x

    def attempt(inverse):
        codes = np.clip(nearest(inverse * x), -most, most - 1)
        level = codes.astype(F)
        return codes, total(w * x * level), total(w * level * level)

    codes, sumlx, suml2 = attempt(F(-most) / extreme)
    scale = sumlx / suml2 if suml2 else F(0)
    best = scale * sumlx
    for step in [s for s in range(-9, 10) if s]:
        tried, xl, ll = attempt(-(F(most) + F(0.1) * F(step)) / extreme)
        if ll > 0 and xl * xl > best * ll:
            codes, scale = tried, xl / ll
            best = scale * xl
    return scale, codes + most


def q3(x):
    """make_q3_quants(16, 4, ..., do_rmse)."""
    extreme = x[np.argmax(np.abs(x))]
    if abs(extreme) < EPSILON:
        return F(0), np.zeros(x.size, int)
    w = x * x
    codes = np.clip(nearest(F(-4) / extreme * x), -4, 3)
    xl, ll = total(w * x * codes.astype(F)), total(w * codes.astype(F) * codes.astype(F))
    for _ in range(5):
        before = codes.copy()
        for i in range(x.size):
            old = F(codes[i])
            rest = xl - w[i] * x[i] * old
            if rest > 0:
                rest2 = ll - w[i] * old * old
                new = int(np.clip(nearest(x[i] * rest2 / rest), -4, 3))
                if new != codes[i]:
                    rest, rest2 = rest + w[i] * x[i] * F(new), rest2 + w[i] * F(new) * F(new)
                    if rest2 > 0 and rest * rest * ll > xl * xl * rest2:
                        codes[i], xl, ll = new, rest, rest2
        if (codes == before).all():
            break
    return (xl / ll if ll > 0 else F(0)), codes + 4


def qkx2(x, w, most, first, step, steps, mad):
    """make_qkx2_quants: scale, minimum (positive), codes."""
    low, high = min(np.min(x), F(0)), np.max(x)
    if low == high:
        return F(0), -low, np.zeros(x.size, int)
    sum_w, sum_x = total(w), total(w * x)

    def cost(scale, codes, least):
        difference = scale * codes.astype(F) + least - x
        return total(w * (np.abs(difference) if mad else difference * difference))

    inverse = F(most) / (high - low)
    scale = F(1) / inverse
    codes = np.clip(nearest(inverse * (x - low)), 0, most)
    best = cost(scale, codes, low)
    for i in range(steps + 1):
        inverse = (F(first) + F(step) * F(i) + F(most)) / (high - low)
        tried = np.clip(nearest(inverse * (x - low)), 0, most)
        level = tried.astype(F)
        sum_l, sum_l2, sum_xl = total(w * level), total(w * level * level), total(w * level * x)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        if determinant > 0:
            this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
            this_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
            if this_low > 0:
                this_low, this_scale = F(0), sum_xl / sum_l2
            error = cost(this_scale, tried, this_low)
            if error < best:
                best, codes, scale, low = error, tried, this_scale, this_low
    return scale, -low, codes


def halves(value):
    """As stored, and what comes back."""
    half = np.float16(value)
    return half.tobytes(), F(half)


def recode(x, codes, scale, minimum, least, most, bias=0):
    if scale == 0:
        return codes
    return np.clip(nearest((x + minimum) / scale), least, most) + bias


def pairs(codes):
    c = codes.reshape(2, 4, 32)
    return (c[:, 0] | (c[:, 1] << 2) | (c[:, 2] << 4) | (c[:, 3] << 6)).astype(np.uint8).tobytes()


def q2_k(x):
    parts = x.reshape(16, 16)
    found = [qkx2(p, np.abs(p), 3, -0.5, 0.1, 15, True) for p in parts]
    scales, mins = np.array([f[0] for f in found], F), np.array([f[1] for f in found], F)
    top, low = max(F(0), np.max(scales)), max(F(0), np.max(mins))
    s = nearest(F(15) / top * scales) if top > 0 else np.zeros(16, int)
    m = nearest(F(15) / low * mins) if low > 0 else np.zeros(16, int)
    d, d_back = halves(top / F(15) if top > 0 else 0)
    dmin, dmin_back = halves(low / F(15) if low > 0 else 0)
    codes = [recode(p, f[2], d_back * F(a), dmin_back * F(b), 0, 3) for p, f, a, b in zip(parts, found, s, m)]
    return (s | (m << 4)).astype(np.uint8).tobytes() + pairs(np.concatenate(codes)) + d + dmin


def q3_k(x):
    parts = x.reshape(16, 16)
    found = [q3(p) for p in parts]
    scales = np.array([f[0] for f in found], F)
    top = scales[np.argmax(np.abs(scales))]
    packed = np.zeros(12, int)
    s = np.full(16, -32)
    d, d_back = halves(0)
    if top:
        inverse = F(-32) / top
        s = np.clip(nearest(inverse * scales), -32, 31)
        for j, value in enumerate(s + 32):
            packed[j % 8] |= (value & 15) << (0 if j < 8 else 4)
            packed[8 + j % 4] |= (value >> 4) << (2 * (j // 4))
        d, d_back = halves(F(1) / inverse)
    codes = np.concatenate([recode(p, f[1], d_back * F(a), F(0), -4, 3, 4) for p, f, a in zip(parts, found, s)])
    mask = np.sum((codes.reshape(8, 32) > 3).astype(int) << np.arange(8)[:, None], axis=0)
    return mask.astype(np.uint8).tobytes() + pairs(codes & 3) + packed.astype(np.uint8).tobytes() + d


def q45_k(x, bits):
    parts = x.reshape(8, 32)
    search = (15, -1.0, 0.1, 20) if bits == 4 else (31, -0.5, 0.1, 15)
    found = [qkx2(p, np.sqrt(total(p * p) / F(32)) + np.abs(p), *search, False) for p in parts]
    scales, mins = np.array([f[0] for f in found], F), np.array([f[1] for f in found], F)
    top, low = max(F(0), np.max(scales)), max(F(0), np.max(mins))
    s = np.minimum(63, nearest((F(63) / top if top > 0 else F(0)) * scales))
    m = np.minimum(63, nearest((F(63) / low if low > 0 else F(0)) * mins))
    packed = np.concatenate([s[:4] | ((s[4:] >> 4) << 6), m[:4] | ((m[4:] >> 4) << 6), (s[4:] & 15) | ((m[4:] & 15) << 4)])
    d, d_back = halves(top / F(63))
    dmin, dmin_back = halves(low / F(63))
    most = 2**bits - 1
    codes = np.array([recode(p, f[2], d_back * F(a), dmin_back * F(b), 0, most) for p, f, a, b in zip(parts, found, s, m)])
    fifth = np.sum((codes >> 4) << np.arange(8)[:, None], axis=0).astype(np.uint8).tobytes() if bits == 5 else b""
    c = (codes & 15).reshape(4, 2, 32)
    return d + dmin + packed.astype(np.uint8).tobytes() + fifth + (c[:, 0] | (c[:, 1] << 4)).astype(np.uint8).tobytes()


def q6_k(x):
    parts = x.reshape(16, 16)
    found = [qx(p, 32) for p in parts]
    scales = np.array([f[0] for f in found], F)
    top = scales[np.argmax(np.abs(scales))]
    if abs(top) < EPSILON:
        return bytes(210)
    inverse = F(-128) / top
    d, d_back = halves(F(1) / inverse)
    s = np.minimum(127, nearest(inverse * scales))
    codes = np.array([recode(p, f[1], d_back * F(a), F(0), -32, 31, 32) for p, f, a in zip(parts, found, s)])
    c = codes.reshape(2, 4, 32)
    low = np.stack([(c[:, 0] & 15) | ((c[:, 2] & 15) << 4), (c[:, 1] & 15) | ((c[:, 3] & 15) << 4)], axis=1)
    high = (c[:, 0] >> 4) | ((c[:, 1] >> 4) << 2) | ((c[:, 2] >> 4) << 4) | ((c[:, 3] >> 4) << 6)
    return low.astype(np.uint8).tobytes() + high.astype(np.uint8).tobytes() + s.astype(np.int8).tobytes() + d


FORMATS = {
    "q2_K": q2_k,
    "q3_K": q3_k,
    "q4_K": lambda x: q45_k(x, 4),
    "q5_K": lambda x: q45_k(x, 5),
    "q6_K": q6_k,
}


def inputs():
    random = np.random.default_rng(20261123)
    normal = random.standard_normal((2, 512)).astype(F)
    yield "normal", normal
    yield "small weights", (random.standard_normal((1, 256)) * 0.02).astype(F)
    yield "heavy tails", random.standard_t(2, (1, 256)).astype(F)
    yield "positive", (np.abs(random.standard_normal((1, 256))) + 0.5).astype(F)
    mixed = normal[:1, :256].copy()
    mixed[0, :32] = 0
    mixed[0, 32:64] = 0.25
    mixed[0, 64:96] *= F(1e-3)
    mixed[0, 96:112] = -mixed[0, 96:112].__abs__()
    yield "zeros, constants, scales apart", mixed
    yield "zero", np.zeros((1, 256), F)
    yield "tiny", (normal[1:, :256] * F(1e-12)).astype(F)


def encode(data):
    return base64.b64encode(data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()).decode()


def main():
    cases = []
    for name, x in inputs():
        case = {"name": name, "shape": list(x.shape), "values": encode(x)}
        for format_name, function in FORMATS.items():
            with np.errstate(divide="ignore", under="ignore"):
                case[format_name] = {"data": encode(b"".join(function(block) for block in x.reshape(-1, 256)))}
        cases.append(case)
    OUT.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{OUT.name}: {len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
