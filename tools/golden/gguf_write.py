"""Writes packages/quant/test/fixtures/tiny.gguf by the layout of ggml's docs/gguf.md, with struct alone.

One value of every metadata type, tensors of every plain type, and one of Q8_0 whose bytes are 0, 1, 2, ... mod 251.
"""

import pathlib
import struct

from gguf_io import ARRAY, BOOL, F32, F64, I8, I16, I32, I64, STRING, U8, U16, U32, U64, serialize

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

path = pathlib.Path(__file__).resolve().parents[2] / "packages/quant/test/fixtures/tiny.gguf"
path.write_bytes(serialize(METADATA, TENSORS, alignment=64))
