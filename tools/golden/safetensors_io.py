"""A tiny reader and writer of the safetensors format, with numpy alone.

Covers F64, F32, F16, I64 and I32, which is all that the fixtures need. It trusts its input: it is no model of how
to read files from strangers.
"""

import json
import struct

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items()}


def save(path, tensors, metadata=None):
    """Writes `tensors` (name -> array) sorted by width, then name, so that every tensor is aligned to its items."""
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    for name in names:
        array = arrays[name]
        header[name] = {
            "dtype": NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8 bytes
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(arrays[name].astype(arrays[name].dtype.newbyteorder("<")).tobytes())


def load(path):
    """Reads a file that `save` (or anyone) wrote. Returns `(tensors by name, metadata)`."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata
