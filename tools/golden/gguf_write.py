"""Writes packages/quant/test/fixtures/tiny.gguf by the layout of ggml's docs/gguf.md, with struct alone.

One value of every metadata type, tensors of every plain type, and one of Q8_0 whose bytes are 0, 1, 2, ... mod 251.
"""

import pathlib
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, item):
    if kind == STRING:
        return string(item)
    if kind == ARRAY:
        of, items = item
        return struct.pack("<IQ", of, len(items)) + b"".join(value(of, each) for each in items)
    return struct.pack("<" + PACK[kind], item)


METADATA = [
    ("general.architecture", STRING, "test"),
    ("general.alignment", U32, 64),
    ("t.u8", U8, 255),
    ("t.i8", I8, -128),
    ("t.u16", U16, 65535),
    ("t.i16", I16, -32768),
    ("t.i32", I32, -(2**31)),
    ("t.f32", F32, 0.5),
    ("t.bool", BOOL, 1),
    ("t.u64", U64, 2**64 - 1),
    ("t.i64", I64, -(2**63)),
    ("t.f64", F64, 0.1),
    ("t.words", ARRAY, (STRING, ["", "a", "\u2581\u00e9"])),
    ("t.floats", ARRAY, (F32, [1.5, -2.0])),
    ("t.bools", ARRAY, (BOOL, [1, 0])),
    ("t.nested", ARRAY, (ARRAY, [(I32, [1, 2]), (I32, [])])),
]
# Names, dims in ggml's order (fastest first), type, bytes.
TENSORS = [
    ("f32", [3, 2], 0, struct.pack("<6f", *range(6))),
    ("f16", [2], 1, struct.pack("<2e", 1.0, -2.5)),
    ("bf16", [2], 30, struct.pack("<2H", 0x3F80, 0xC020)),
    ("f64", [1], 28, struct.pack("<d", 0.1)),
    ("i8", [3], 24, struct.pack("<3b", -1, 0, 127)),
    ("i16", [2], 25, struct.pack("<2h", -32768, 5)),
    ("i32", [1, 1, 1, 2], 26, struct.pack("<2i", -7, 9)),
    ("i64", [1], 27, struct.pack("<q", -3)),
    ("q8_0", [64, 2], 8, bytes(i % 251 for i in range(4 * 34))),
    ("scalar", [], 0, struct.pack("<f", 42.0)),
]
ALIGNMENT = 64


def pad(data):
    return data + bytes(-len(data) % ALIGNMENT)


out = b"GGUF" + struct.pack("<IQQ", 3, len(TENSORS), len(METADATA))
for key, kind, item in METADATA:
    out += string(key) + struct.pack("<I", kind) + value(kind, item)
data = b""
for name, dims, kind, raw in TENSORS:
    out += string(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
    out += struct.pack("<IQ", kind, len(data))
    data = pad(data + raw)
path = pathlib.Path(__file__).resolve().parents[2] / "packages/quant/test/fixtures/tiny.gguf"
path.write_bytes(pad(out) + data)
