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
        codes, scales = int8_rows(x)
        case["int8"] = {"data": encode(codes), "scales": encode(scales)}
        if x.shape[1] % 32 == 0:
            case["q4_0"] = {"data": encode(q4_0(x))}
            case["q8_0"] = {"data": encode(q8_0(x))}
        cases.append(case)
    document = {
        "nf4Codebook": encode(NF4_VALUES),
        "nf4Pivots": encode(NF4_PIVOTS),
        "dynamicMap": encode(dynamic_map()),
        "cases": cases,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(
        f"{json.dumps(key)}:{json.dumps(value)}" if key != "cases" else
        '"cases":[\n' + ",\n".join(json.dumps(case) for case in value) + "\n]"
        for key, value in document.items()
    )
    OUT.write_text("{\n" + lines + "\n}\n")
    print(f"{OUT.name}: {len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
