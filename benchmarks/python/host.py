"""The process of a native peer: NumPy or PyTorch. Reads requests from stdin, answers on stdout, as src/peers/host.ts."""

import base64
import json
import sys
import time

import numpy as np


longest = {}


def uniform(seed, count):
    """The values of uniformWords in src/inputs.ts, kept: shorter ones are the beginning of longer ones."""
    if len(longest.get(seed, ())) < count:
        longest[seed] = made(seed, count)
    return longest[seed][:count]


def made(seed, count):
    """By mulberry32, whose states are an arithmetic progression."""
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
            # Whole paths: Debian's OpenBLAS is a libblas in a folder of that name.
            files = {line[line.index("/") :].strip() for line in maps if "/" in line}
    except OSError:
        return ""
    for name in ["libmkl", "openblas", "libblis", "libblas"]:
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
        self.version = torch.__version__ + blas()

    def array(self, values):
        return self.torch.from_numpy(values)

    def multiply(self, a, b, out):
        with self.torch.no_grad():
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


def stored(task):
    """The tensors of a file (src/peers/stored.ts) by name."""
    # One by one: the whole file beside its tensors would count as the process's memory.
    def read(entry):
        count = int(np.prod(entry["shape"]))
        values = np.fromfile(task["stored"]["file"], "<f4", count, offset=entry["offset"])
        return values.reshape(entry["shape"])

    return {name: read(entry) for name, entry in task["stored"]["tensors"].items()}


class LoraMlp:
    """Forward and backward through a gated MLP with low-rank adapters."""

    parameters = ["x"] + [f"{name}.{which}" for name in ["gate", "up", "down"] for which in "AB"]

    def __init__(self, library, task):
        if not hasattr(library, "torch"):
            raise ValueError("has no gradients")
        self.torch = library.torch
        self.tensors = {name: self.torch.from_numpy(values) for name, values in stored(task).items()}
        for name in self.parameters:
            self.tensors[name].requires_grad_(True)

    def project(self, name, x):
        weight, a, b = (self.tensors[f"{name}.{part}"] for part in ["weight", "A", "B"])
        linear = self.torch.nn.functional.linear
        return linear(x, weight) + linear(linear(x, a), b)

    def forward(self):
        x = self.tensors["x"]
        gate = self.torch.nn.functional.silu(self.project("gate", x))
        return self.project("down", gate * self.project("up", x))

    def run(self):
        inputs = [self.tensors[name] for name in self.parameters]
        y = self.forward()
        return [y] + list(self.torch.autograd.grad((y * self.tensors["dy"]).sum(), inputs))

    def result(self):
        return np.concatenate([part.detach().numpy().reshape(-1) for part in self.run()])


def images(library, task):
    """What convolutions and pooling are given, and how their windows lie."""
    if not hasattr(library, "torch"):
        raise ValueError(f"has no {task['kind']}")
    shape = [task["images"], task["channels"], task["height"], task["width"]]
    return library.torch, shape, {"stride": task["stride"], "padding": task["padding"]}


class Convolution:
    """The output of a convolution, or one of its gradients."""

    def __init__(self, library, task):
        torch, shape, options = images(library, task)
        functional = torch.nn.functional
        options["groups"] = task["groups"]
        weight_shape = [task["outChannels"], shape[1] // task["groups"], *task["kernel"]]

        def made(seed, shape):
            return torch.from_numpy(uniform(seed, int(np.prod(shape)))).reshape(shape)

        x, weight = made(task["seeds"][0], shape), made(task["seeds"][1], weight_shape)
        with torch.no_grad():
            y = functional.conv2d(x, weight, **options)
        if task["wanted"] == "output":

            def run():
                with torch.no_grad():
                    return functional.conv2d(x, weight, **options)

        else:
            dy = made(task["seeds"][2], y.shape)
            leaf = x if task["wanted"] == "input" else weight
            leaf.requires_grad_(True)
            y = functional.conv2d(x, weight, **options)

            def run():
                return torch.autograd.grad(y, leaf, dy, retain_graph=True)[0]

        self.run = run

    def result(self):
        return self.run().detach().numpy()


class Pooling:
    def __init__(self, library, task):
        torch, shape, options = images(library, task)
        functional = torch.nn.functional
        x = torch.from_numpy(uniform(task["seed"], int(np.prod(shape)))).reshape(shape)

        def run():
            with torch.no_grad():
                if task["reduction"] == "max":
                    return functional.max_pool2d(x, task["kernel"], **options)
                return functional.avg_pool2d(x, task["kernel"], count_include_pad=False, **options)

        self.run = run

    def result(self):
        return self.run().numpy()


class TrainStep:
    """A training step of a LLaMA with low-rank adapters at its seven projections."""

    projections = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    projections += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]

    def __init__(self, library, task):
        if not hasattr(library, "torch"):
            raise ValueError("has no gradients")
        torch = self.torch = library.torch
        self.task = task
        self.weights = {name: torch.from_numpy(values) for name, values in stored(task).items()}
        self.trained = []
        for name, tensor in self.weights.items():
            if name.endswith((".lora_A", ".lora_B")):
                tensor.requires_grad_(True)
                self.trained.append(tensor)
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=task["learningRate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01
        )
        self.ids = torch.tensor(task["ids"])
        length = self.ids.shape[1]
        head = self.weights["model.embed_tokens.weight"].shape[1] // task["heads"]
        frequencies = task["theta"] ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
        angles = torch.cat([angles, angles], -1)
        self.cos, self.sin = angles.cos().float(), angles.sin().float()
        self.mask = torch.full((length, length), float("-inf")).triu(1)

    def linear(self, name, x):
        linear = self.torch.nn.functional.linear
        weights = self.weights
        low = linear(linear(x, weights[f"{name}.lora_A"]), weights[f"{name}.lora_B"])
        return linear(x, weights[f"{name}.weight"]) + low

    def norm(self, name, x):
        scale = self.torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.task["epsilon"])
        return x * scale * self.weights[f"{name}.weight"]

    def rotate(self, x):
        half = x.shape[-1] // 2
        turned = self.torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * self.cos + turned * self.sin

    def block(self, name, x):
        torch = self.torch
        batch, length, width = x.shape
        heads = self.task["heads"]

        def split(y):
            # Key and value heads may be fewer: several query heads share one.
            parts = y.view(batch, length, -1, width // heads).transpose(1, 2)
            return parts.repeat_interleave(heads // parts.shape[1], 1)

        normed = self.norm(f"{name}.input_layernorm", x)
        q, k, v = (split(self.linear(f"{name}.self_attn.{which}_proj", normed)) for which in "qkv")
        q, k = self.rotate(q), self.rotate(k)
        scores = q @ k.transpose(-1, -2) / (width // heads) ** 0.5 + self.mask
        mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.linear(f"{name}.self_attn.o_proj", mixed)
        normed = self.norm(f"{name}.post_attention_layernorm", x)
        gate = torch.nn.functional.silu(self.linear(f"{name}.mlp.gate_proj", normed))
        return x + self.linear(f"{name}.mlp.down_proj", gate * self.linear(f"{name}.mlp.up_proj", normed))

    def loss(self):
        embedding = self.weights["model.embed_tokens.weight"]
        x = self.torch.nn.functional.embedding(self.ids, embedding)
        for layer in range(self.task["layers"]):
            x = self.block(f"model.layers.{layer}", x)
        # The output layer is the embedding.
        logits = self.norm("model.norm", x)[:, :-1] @ embedding.T
        return self.torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), self.ids[:, 1:].reshape(-1)
        )

    def run(self):
        loss = self.loss()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def result(self):
        # From the weights of the file, whatever was run before.
        fresh = TrainStep(type("Library", (), {"torch": self.torch}), self.task)
        return np.array([fresh.run() for _ in range(self.task["losses"])], np.float32)


jobs = {"gemm": Product, "lora-mlp": LoraMlp, "train-step": TrainStep}
jobs |= {"convolution": Convolution, "pooling": Pooling}


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
            kind = request["task"]["kind"]
            if kind not in jobs:
                raise ValueError(f"has no {kind}")
            self.job = jobs[kind](self.library, request["task"])
            return {}
        if what == "time":
            started = time.perf_counter()
            for _ in range(request["calls"]):
                self.job.run()
            return {"seconds": time.perf_counter() - started}
        if what == "result":
            values, places = self.job.result(), request["places"]
            if places:
                values = values.reshape(-1, places["width"])[np.ix_(places["rows"], places["columns"])]
            return {"values": base64.b64encode(values.astype("<f4").tobytes()).decode()}
        if what == "memory":
            import resource  # Windows has none.

            # Kilobytes, but on macOS.
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return {"bytes": most if sys.platform == "darwin" else 1024 * most}
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
