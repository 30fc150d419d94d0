"""A tiny writer of GGUF, by the layout of ggml's docs/gguf.md, with struct alone."""

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


def serialize(metadata, tensors, alignment=32):
    """The file's bytes.

    metadata: (key, type, value); tensors: (name, dims in ggml's order, fastest first, type's number, bytes).
    """

    def pad(data):
        return data + bytes(-len(data) % alignment)

    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, kind, item in metadata:
        out += string(key) + struct.pack("<I", kind) + value(kind, item)
    data = b""
    for name, dims, kind, raw in tensors:
        out += string(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        out += struct.pack("<IQ", kind, len(data))
        data = pad(data + raw)
    return pad(out) + data
