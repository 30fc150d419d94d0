"""Golden bytes of the quantized formats, from their published definitions, in NumPy alone.

    /usr/bin/python3 tools/golden/quant_formats.py

writes packages/quant/test/fixtures/formats.json. Independent of the TypeScript: ggml's formats follow the reference
quantizers of ggml-quants.c (quantize_row_q4_0_ref, quantize_row_q8_0_ref, ...), NF4 and the dynamic map follow
bitsandbytes (dQuantizeNF4, create_dynamic_map). Arrays are base64 of little-endian bytes.
"""

import base64
import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "packages/quant/test/fixtures/formats.json"
F = np.float32

NF4_VALUES = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    dtype=F,
)  # fmt: skip

# The constants of dQuantizeNF4's decision tree, in ascending order.
NF4_PIVOTS = np.array(
    [
        -0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544,
        -0.23460740596055984, -0.13791173323988914, -0.045525018125772476, 0.03979014977812767,
        0.1202552504837513, 0.2035212516784668, 0.2920137718319893, 0.3893125355243683,
        0.5016634166240692, 0.6427869200706482, 0.8614784181118011,
    ],
    dtype=F,
)  # fmt: skip


def dynamic_map():
    values = [0.0, 1.0]
    for i in range(7):
        boundaries = np.linspace(0.1, 1.0, 2**i + 1, dtype=np.float64)
        means = (boundaries[:-1] + boundaries[1:]) / 2 * 10.0 ** (i - 6)
        values += list(means) + list(-means)
    assert len(values) == 256
    return np.sort(np.array(values, dtype=np.float64)).astype(F)


def round_half_away(x):
    """C's roundf."""
    return np.trunc(x + np.copysign(F(0.5), x).astype(np.float64))


def q4_0(x):
    out = bytearray()
    for block in x.reshape(-1, 32):
        extreme = block[np.argmax(np.abs(block))] if np.any(block) else F(0)
        d = F(extreme / F(-8))
        inverse = F(1) / d if d != 0 else F(0)
        codes = np.minimum(15, np.trunc((block * inverse).astype(F) + F(8.5))).astype(np.uint8)
        out += np.float16(d).tobytes() + (codes[:16] | (codes[16:] << 4)).tobytes()
    return bytes(out)


def q8_0(x):
    out = bytearray()
    for block in x.reshape(-1, 32):
        d = F(np.max(np.abs(block)) / F(127))
        inverse = F(1) / d if d != 0 else F(0)
        codes = round_half_away((block * inverse).astype(F)).astype(np.int8)
        out += np.float16(d).tobytes() + codes.tobytes()
    return bytes(out)


def five_bits(codes):
    """Fifth bits as a little-endian 32-bit number, then low halves, element j beside element j + 16."""
    high = int(np.sum((codes >> 4).astype(np.uint64) << np.arange(32, dtype=np.uint64)))
    low = codes & 15
    return high.to_bytes(4, "little") + (low[:16] | (low[16:] << 4)).astype(np.uint8).tobytes()


def q5_0(x):
    out = bytearray()
    for block in x.reshape(-1, 32):
        extreme = block[np.argmax(np.abs(block))] if np.any(block) else F(0)
        d = F(extreme / F(-16))
        inverse = F(1) / d if d != 0 else F(0)
        codes = np.minimum(31, np.trunc((block * inverse).astype(F) + F(16.5))).astype(np.uint8)
        out += np.float16(d).tobytes() + five_bits(codes)
    return bytes(out)


def with_minimum(x, bits):
    """Q4_1 and Q5_1."""
    out = bytearray()
    for block in x.reshape(-1, 32):
        least, most = np.min(block), np.max(block)
        d = F(F(most - least) / F(2**bits - 1))
        inverse = F(1) / d if d != 0 else F(0)
        codes = np.trunc(((block - least).astype(F) * inverse).astype(F) + F(0.5)).astype(np.uint8)
        codes = np.minimum(codes, 2**bits - 1)
        out += np.float16(d).tobytes() + np.float16(least).tobytes()
        out += five_bits(codes) if bits == 5 else (codes[:16] | (codes[16:] << 4)).tobytes()
    return bytes(out)


# K-quants, decoded element by element from the descriptions of their blocks in ggml-common.h.


def half_at(block, at):
    return F(np.frombuffer(block[at : at + 2].tobytes(), np.float16)[0])


def k_scale_min(scales, j):
    """Scale and minimum j of eight, 6 bits each, in 12 bytes."""
    if j < 4:
        return scales[j] & 63, scales[j + 4] & 63
    scale = (scales[j + 4] & 15) | ((scales[j - 4] >> 6) << 4)
    return scale, (scales[j + 4] >> 4) | ((scales[j] >> 6) << 4)


def decode_q2_k(block):
    scales, codes = block[:16].astype(int), block[16:80].astype(int)
    d, dmin = half_at(block, 80), half_at(block, 82)
    out = []
    for chunk in range(2):
        for shift in range(0, 8, 2):
            for part in range(2):
                sub = scales[len(out) // 16]
                for position in range(16):
                    code = (codes[32 * chunk + 16 * part + position] >> shift) & 3
                    out.append(F(F(d * F(sub & 15)) * F(code)) - F(dmin * F(sub >> 4)))
    return out


def decode_q3_k(block):
    mask, codes, packed = block[:32].astype(int), block[32:96].astype(int), block[96:108].astype(int)
    d = half_at(block, 108)
    low = [packed[j] & 15 for j in range(8)] + [packed[j] >> 4 for j in range(8)]
    scales = [low[j] | (((packed[8 + j % 4] >> (2 * (j // 4))) & 3) << 4) for j in range(16)]
    out = []
    for chunk in range(2):
        for step in range(4):
            for position in range(32):
                code = (codes[32 * chunk + position] >> (2 * step)) & 3
                code -= 0 if mask[position] & (1 << (4 * chunk + step)) else 4
                out.append(F(F(d * F(scales[len(out) // 16] - 32)) * F(code)))
    return out


def decode_q45_k(block, five):
    d, dmin = half_at(block, 0), half_at(block, 2)
    scales = block[4:16].astype(int)
    high = block[16:48].astype(int) if five else np.zeros(32, int)
    codes = block[48:].astype(int) if five else block[16:].astype(int)
    out = []
    for j in range(8):
        scale, least = k_scale_min(scales, j)
        for position in range(32):
            byte = codes[32 * (j // 2) + position]
            code = (byte >> 4 if j % 2 else byte & 15) + 16 * ((high[position] >> j) & 1)
            out.append(F(F(d * F(scale)) * F(code)) - F(dmin * F(least)))
    return out


def decode_q6_k(block):
    low, high = block[:128].astype(int), block[128:192].astype(int)
    scales = block[192:208].view(np.int8).astype(int)
    d = half_at(block, 208)
    out = []
    for chunk in range(2):
        for quarter in range(4):
            for position in range(32):
                byte = low[64 * chunk + 32 * (quarter % 2) + position]
                code = byte & 15 if quarter < 2 else byte >> 4
                code |= ((high[32 * chunk + position] >> (2 * quarter)) & 3) << 4
                out.append(F(F(d * F(scales[len(out) // 16])) * F(code - 32)))
    return out


K_QUANTS = {
    "q2_K": (84, (80, 82), decode_q2_k),
    "q3_K": (110, (108,), decode_q3_k),
    "q4_K": (144, (0, 2), lambda block: decode_q45_k(block, False)),
    "q5_K": (176, (0, 2), lambda block: decode_q45_k(block, True)),
    "q6_K": (210, (208,), decode_q6_k),
}


def k_quant_cases():
    """Two blocks of random bytes, their float16 scales made ordinary numbers."""
    random = np.random.default_rng(7)
    for name, (size, halves, decode) in K_QUANTS.items():
        blocks = random.integers(0, 256, (2, size), dtype=np.uint8)
        for block in blocks:
            for at in halves:
                scale = np.float16(random.uniform(-0.1, 0.1))
                block[at : at + 2] = np.frombuffer(scale.tobytes(), np.uint8)
        values = np.array([value for block in blocks for value in decode(block)], F)
        yield {"name": name, "data": encode(blocks), "values": encode(values)}


FP4_MAGNITUDES = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3]) / 12


def fp4_code(x):
    """dQuantizeFP4's decision tree."""
    sign = 8 if x < 0 else 0
    x = abs(x)
    if x > F(0.29166667):
        if x > F(0.583333):
            return (3 if x > F(0.8333333) else 2) + sign
        return (5 if x > F(0.4166667) else 4) + sign
    if x > F(0.0859375):
        return (7 if x > F(0.20833333) else 6) + sign
    return (1 if x > F(0.00260417) else 0) + sign


def fp4(x):
    flat = x.reshape(-1)
    blocks = -(-flat.size // 64)
    padded = np.zeros(blocks * 64, F)
    padded[: flat.size] = flat
    padded = padded.reshape(blocks, 64)
    absmax = np.max(np.abs(padded), axis=1).astype(F)
    inverse = np.divide(F(1), absmax, out=np.zeros_like(absmax), where=absmax != 0)
    normalized = (padded * inverse[:, None]).astype(F).reshape(-1)
    codes = np.array([fp4_code(value) for value in normalized], np.uint8)
    packed = (codes[0::2] << 4) | codes[1::2]
    return packed[: -(-flat.size // 2)], absmax


def grid(low, high, bits, asymmetric):
    most = F(2**bits - 1 if asymmetric else 2 ** (bits - 1) - 1)
    if asymmetric:
        scale = F(F(high / most) - F(low / most))
        zero = 0 if scale == 0 else int(np.clip(-np.rint(F(low / scale)), 0, most))
        return scale, zero, 0, int(most)
    scale = F(F(F(F(max(abs(low), high)) / most) * most) / most)
    return scale, 0, -int(most), int(most)


def grid_codes(group, scale, zero, least, most):
    if scale == 0:
        return np.full(group.size, zero, int)
    return np.clip(np.rint((group / scale).astype(F)).astype(int) + zero, least, most)


def integer(x, bits, group_size, asymmetric):
    """Codes [rows, columns], scales and zero points of groups of a row; at 4 bits the best of 20 scales."""
    codes, scales, zeros = np.zeros(x.shape, int), [], []
    for row in range(x.shape[0]):
        for start in range(0, x.shape[1], group_size):
            group = x[row, start : start + group_size]
            low, high = min(F(0), np.min(group)), max(F(0), np.max(group))
            best = None
            for step in range(20 if bits == 4 else 1):
                factor = F(1 - 0.02 * step)
                scale, zero, least, most = grid(F(low * factor), F(high * factor), bits, asymmetric)
                found = grid_codes(group, scale, zero, least, most)
                error = (group - (scale * (found - zero).astype(F)).astype(F)).astype(F)
                lanes = [F(0)] * 4
                for i, value in enumerate(error):
                    lanes[i % 4] = F(lanes[i % 4] + F(value * value))
                total = F(F(lanes[0] + lanes[2]) + F(lanes[1] + lanes[3]))
                if best is None or total < best[0]:
                    best = (total, scale, zero, found)
            codes[row, start : start + group_size] = best[3]
            scales.append(best[1])
            zeros.append(best[2])
    return codes, np.array(scales, F), np.array(zeros, np.uint8)


def nibbles(codes):
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return (codes[:, 0::2] | (codes[:, 1::2] << 4)).astype(np.uint8)


def int8_rows(x):
    """scale = absmax/127, made to survive scale → 127·scale → scale in float32; codes as numpy.rint."""
    scales = (np.max(np.abs(x), axis=1) / F(127)).astype(F)
    scales = ((scales * F(127)).astype(F) / F(127)).astype(F)
    safe = np.where(scales == 0, F(1), scales)[:, None]
    codes = np.clip(np.rint((x / safe).astype(F)), -127, 127)
    return np.where(scales[:, None] == 0, 0, codes).astype(np.int8), scales


def nf4(x):
    """Codes and float32 absmax of blocks of 64 of the flattened tensor."""
    flat = x.reshape(-1)
    blocks = -(-flat.size // 64)
    padded = np.zeros(blocks * 64, F)
    padded[: flat.size] = flat
    padded = padded.reshape(blocks, 64)
    absmax = np.max(np.abs(padded), axis=1).astype(F)
    inverse = np.divide(F(1), absmax, out=np.zeros_like(absmax), where=absmax != 0)
    normalized = (padded * inverse[:, None]).astype(F)
    # x > pivot[i] moves one code up.
    codes = np.searchsorted(NF4_PIVOTS, normalized.reshape(-1), side="left").astype(np.uint8)
    packed = (codes[0::2] << 4) | codes[1::2]
    return packed[: -(-flat.size // 2)], absmax


def double_quantize(absmax):
    code = dynamic_map()
    offset = F(np.sum(absmax.astype(np.float64)) / absmax.size)
    centered = (absmax - offset).astype(F)
    nested, codes = [], []
    for start in range(0, centered.size, 256):
        part = centered[start : start + 256]
        top = F(np.max(np.abs(part)))
        normalized = (part * (F(1) / top)).astype(F) if top != 0 else np.zeros_like(part)
        distance = np.abs(code[None, :].astype(np.float64) - normalized[:, None])
        codes.append(np.argmin(distance, axis=1))
        nested.append(top)
    return np.concatenate(codes).astype(np.uint8), np.array(nested, F), offset


def encode(array):
    data = array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes()
    return base64.b64encode(data).decode()


def inputs():
    random = np.random.default_rng(20261123)
    normal = random.standard_normal((4, 64)).astype(F)
    yield "normal", normal
    yield "small weights", (random.standard_normal((3, 128)) * 0.02).astype(F)
    heavy = random.standard_t(2, (2, 96)).astype(F)
    yield "heavy tails", heavy
    zero = normal.copy()
    zero[0, :32] = 0
    zero[1, :] = 0
    zero[2, 0:64:2] = -0.0
    yield "zero blocks", zero
    yield "spread of scales", (normal * np.array([[1e-6], [1e-3], [1], [400]])).astype(F)
    yield "ties and extremes", np.tile(np.array([1, -1, 0.5, -0.5, 0.25, 127, -127, 63.5], F), (2, 8))
    yield "odd", random.standard_normal((5, 13)).astype(F)
    yield "one", np.array([[-0.37]], F)


def main():
    cases = []
    for name, x in inputs():
        case = {"name": name, "shape": list(x.shape), "values": encode(x)}
        data, absmax = nf4(x)
        codes, nested, offset = double_quantize(absmax)
        case["nf4_single"] = {"data": encode(data), "absmax": encode(absmax)}
        case["nf4"] = {
            "data": encode(data),
            "absmax": encode(codes),
            "nestedAbsmax": encode(nested),
            "offset": encode(offset.reshape(1)),
        }
        data, absmax = fp4(x)
        codes, nested, offset = double_quantize(absmax)
        case["fp4_single"] = {"data": encode(data), "absmax": encode(absmax)}
        case["fp4"] = {
            "data": encode(data),
            "absmax": encode(codes),
            "nestedAbsmax": encode(nested),
            "offset": encode(offset.reshape(1)),
        }
        codes, scales, _ = integer(x.reshape(1, -1), 8, x.size, False)
        case["int8_tensor"] = {"data": encode(codes.astype(np.int8)), "scales": encode(scales)}
        codes, scales, _ = integer(x, 8, 128, False)
        case["int8_g128"] = {"data": encode(codes.astype(np.int8)), "scales": encode(scales)}
        codes, scales, zeros = integer(x, 8, x.shape[1], True)
        case["int8_asym"] = {
            "data": encode(codes.astype(np.uint8)),
            "scales": encode(scales),
            "zeroPoints": encode(zeros),
        }
        codes, scales, _ = integer(x, 4, 32, False)
        data = nibbles(codes + 8)
        if x.shape[1] % 2:
            data[:, -1] &= 15
        case["int4_g32"] = {"data": encode(data), "scales": encode(scales)}
        codes, scales, zeros = integer(x, 4, 64, True)
        case["int4_asym_g64"] = {
            "data": encode(nibbles(codes)),
            "scales": encode(scales),
            "zeroPoints": encode(zeros),
        }
        codes, scales = int8_rows(x)
        case["int8"] = {"data": encode(codes), "scales": encode(scales)}
        if x.shape[1] % 32 == 0:
            case["q4_0"] = {"data": encode(q4_0(x))}
            case["q4_1"] = {"data": encode(with_minimum(x, 4))}
            case["q5_0"] = {"data": encode(q5_0(x))}
            case["q5_1"] = {"data": encode(with_minimum(x, 5))}
            case["q8_0"] = {"data": encode(q8_0(x))}
        cases.append(case)
    document = {
        "nf4Codebook": encode(NF4_VALUES),
        "nf4Pivots": encode(NF4_PIVOTS),
        "fp4Codebook": encode(np.concatenate([FP4_MAGNITUDES, -FP4_MAGNITUDES]).astype(F)),
        "dynamicMap": encode(dynamic_map()),
        "kQuants": list(k_quant_cases()),
        "cases": cases,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(
        f"{json.dumps(key)}:{json.dumps(value)}" if isinstance(value, str) else
        f"{json.dumps(key)}:[\n" + ",\n".join(json.dumps(case) for case in value) + "\n]"
        for key, value in document.items()
    )
    OUT.write_text("{\n" + lines + "\n}\n")
    print(f"{OUT.name}: {len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
