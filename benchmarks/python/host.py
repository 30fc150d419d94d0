"""The process of a native peer: NumPy or PyTorch. Reads requests from stdin, answers on stdout, as src/peers/host.ts."""

import base64
import json
import sys
import time

import numpy as np


def uniform(seed, count):
    """The values of uniformValues in src/inputs.ts (mulberry32, whose states are an arithmetic progression)."""
    state = (np.uint32(seed) + np.arange(1, count + 1, dtype=np.uint32) * np.uint32(0x6D2B79F5)).astype(np.uint32)
    t = (state ^ (state >> np.uint32(15))) * (state | np.uint32(1))
    t ^= t + (t ^ (t >> np.uint32(7))) * (t | np.uint32(61))
    words = t ^ (t >> np.uint32(14))
    return ((words >> np.uint32(8)).astype(np.float64) * 2.0**-24 - 0.5).astype(np.float32)


def blas():
    """The BLAS that this process has loaded, where the system tells: it makes a difference of ten."""
    np.matmul(np.ones((8, 8), np.float32), np.ones((8, 8), np.float32))
    try:
        with open("/proc/self/maps") as maps:
            files = {line.split("/")[-1].strip() for line in maps if "/" in line}
    except OSError:
        return ""
    for name in ["mkl", "openblas", "blis", "libblas"]:
        if any(name in file for file in files):
            return f" with {'the reference BLAS' if name == 'libblas' else name}"
    return ""


class NumPy:
    def __init__(self, threads):
        # The number of threads is set by the environment, before the import.
        self.version = np.__version__ + blas()

    def array(self, values):
        return values

    def multiply(self, a, b, out):
        np.matmul(a, b, out=out)

    def empty(self, shape):
        return np.empty(shape, np.float32)

    def transposed(self, x):
        return np.swapaxes(x, -1, -2)

    def values(self, x):
        return x


class PyTorch:
    def __init__(self, threads):
        import torch

        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.version = torch.__version__ + blas()

    def array(self, values):
        return self.torch.from_numpy(values)

    def multiply(self, a, b, out):
        self.torch.matmul(a, b, out=out)

    def empty(self, shape):
        return self.torch.empty(shape)

    def transposed(self, x):
        return x.transpose(-1, -2)

    def values(self, x):
        return x.numpy()


class Product:
    def __init__(self, library, task):
        self.library = library
        batch, m, n, k = task["batch"], task["m"], task["n"], task["k"]
        head = [batch] if batch > 1 else []

        def operand(seed, rows, columns, letter):
            stored = [columns, rows] if letter == "T" else [rows, columns]
            x = library.array(uniform(seed, batch * rows * columns).reshape(head + stored))
            return library.transposed(x) if letter == "T" else x

        self.a = operand(task["seeds"][0], m, k, task["transposes"][0])
        self.b = operand(task["seeds"][1], k, n, task["transposes"][1])
        self.out = library.empty(head + [m, n])

    def run(self):
        self.library.multiply(self.a, self.b, self.out)

    def result(self):
        self.run()
        return np.ascontiguousarray(self.library.values(self.out), dtype=np.float32)


class Host:
    def __init__(self):
        self.library = None
        self.job = None

    def answer(self, request):
        what = request["do"]
        if what == "start":
            self.library = {"numpy": NumPy, "pytorch": PyTorch}[request["peer"]](request["threads"])
            return {"version": self.library.version}
        if what == "prepare":
            if request["task"]["kind"] != "gemm":
                raise ValueError("has no quantized product")
            self.job = Product(self.library, request["task"])
            return {}
        if what == "time":
            started = time.perf_counter()
            for _ in range(request["calls"]):
                self.job.run()
            return {"seconds": time.perf_counter() - started}
        if what == "result":
            return {"values": base64.b64encode(self.job.result().astype("<f4").tobytes()).decode()}
        self.job = None
        return {}


def main():
    host = Host()
    for line in sys.stdin:
        try:
            reply = host.answer(json.loads(line))
        except Exception as error:  # whatever a library throws is the answer
            reply = {"error": str(error).split("\n")[0] or type(error).__name__}
        print(json.dumps({"nomoat": reply}, separators=(",", ":")), flush=True)


main()
