"""Writes packages/quant/test/fixtures/bitsandbytes.safetensors: weights laid out as bitsandbytes saves Linear4bit
(QuantState.as_dict(packed=True), the keys of its JSON in that order), and bitsandbytes-quantized.safetensors.

In the first `double.weight` is NF4 with quantized scales, `single.weight` FP4 with float32 ones, of random codes (standard
library only); `double` and `single` are the values that bitsandbytes decodes them to. In the second `{nf4,fp4}.weight` and
`{nf4,fp4}_single.weight` are what it makes of `saved_values()` (by quant_formats.py, in NumPy), 258 blocks, the last one short.
"""

import json
import pathlib
import random
import struct

import numpy as np

from quant_formats import double_quantize, fp4, nf4

NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
FP4 = [0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0]
FP4 = [x / 12 for x in FP4] + [-x / 12 for x in FP4]
DYNAMIC = [0.0, 1.0]
for i in range(7):
    bounds = [0.1 + 0.9 * j / 2**i for j in range(2**i + 1)]
    for a, b in zip(bounds, bounds[1:]):
        mean = (a + b) / 2 * 10.0 ** (i - 6)
        DYNAMIC += [mean, -mean]
DYNAMIC.sort()
rng = random.Random(7)


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def floats(values):
    return "F32", [len(values)], struct.pack(f"<{len(values)}f", *values)


def octets(values, shape=None):
    return "U8", shape or [len(values)], bytes(values)


def decode(codes, book, scales):
    nibbles = [n for byte in codes for n in (byte >> 4, byte & 15)]
    return [f32(f32(book[n]) * scales[i // 64]) for i, n in enumerate(nibbles)]


tensors = {}


def layer(name, kind, book, shape, nested):
    size = shape[0] * shape[1]
    codes = [rng.randrange(256) for _ in range(size // 2)]
    blocks = -(-size // 64)
    state = {"quant_type": kind, "blocksize": 64, "dtype": "bfloat16", "shape": shape}
    prefix = f"{name}.weight"
    tensors[prefix] = octets(codes, [size // 2, 1])
    if nested:
        absmax = [rng.randrange(256) for _ in range(blocks)]
        outer = [f32(0.5 + k) for k in range(-(-blocks // 256))]
        offset = f32(1.7)
        scales = [f32(f32(f32(DYNAMIC[a]) * outer[i // 256]) + offset) for i, a in enumerate(absmax)]
        tensors[f"{prefix}.absmax"] = octets(absmax)
        tensors[f"{prefix}.nested_absmax"] = floats(outer)
        tensors[f"{prefix}.nested_quant_map"] = floats(DYNAMIC)
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
    else:
        scales = [f32(rng.random()) for _ in range(blocks)]
        tensors[f"{prefix}.absmax"] = floats(scales)
    tensors[f"{prefix}.quant_map"] = floats(book)
    tensors[f"{prefix}.quant_state.bitsandbytes__{kind}"] = octets(json.dumps(state).encode())
    tensors[name] = floats(decode(codes, book, scales))


def write(name):
    header, data = {}, b""
    for key, (dtype, shape, raw) in tensors.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = pathlib.Path(__file__).resolve().parents[2] / "packages/quant/test/fixtures" / name
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def saved_values():
    """[130, 127], exact in float32: blocks of five sizes."""
    i = np.arange(130 * 127)
    return ((i * 48271 % 65521 - 32760) / 4096 * (1 + i // 64 % 5)).astype(np.float32).reshape(130, 127)


def saved(kind, quantize, book, double):
    name = kind if double else f"{kind}_single"
    prefix = f"{name}.weight"
    values = saved_values()
    codes, absmax = quantize(values)
    state = {"quant_type": kind, "blocksize": 64, "dtype": "float32", "shape": list(values.shape)}
    tensors[prefix] = octets(codes.tolist(), [codes.size, 1])
    tensors[f"{prefix}.quant_map"] = floats(book)
    if double:
        scales, outer, offset = double_quantize(absmax)
        tensors[f"{prefix}.absmax"] = octets(scales.tolist())
        tensors[f"{prefix}.nested_absmax"] = floats(outer.tolist())
        tensors[f"{prefix}.nested_quant_map"] = floats(DYNAMIC)
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset)}
    else:
        tensors[f"{prefix}.absmax"] = floats(absmax.tolist())
    tensors[f"{prefix}.quant_state.bitsandbytes__{kind}"] = octets(json.dumps(state).encode())


layer("double", "nf4", NF4, [6, 48], True)
layer("single", "fp4", FP4, [5, 30], False)
write("bitsandbytes.safetensors")

tensors = {}
for double in (True, False):
    saved("nf4", nf4, NF4, double)
    saved("fp4", fp4, FP4, double)
write("bitsandbytes-quantized.safetensors")
