"""Writes packages/llama/test/fixtures/lora-steps/adapter.{gguf,json}: an adapter as llama.cpp has it, and its logits.

The rules are those of llama.cpp's convert_lora_to_gguf.py and of its graph: an update counts alpha / rank times, with one
alpha for all and each weight's own rank; an embedding's lora_a is transposed; rows of B of query and key projections are
in the order in which convert_hf_to_gguf.py (LlamaModel.permute) puts the rows of those weights.
"""

import numpy as np
import torch

import golden_json
from gguf_io import F32, STRING, serialize
from llama import apply_lora, random_llama
from lora_steps import ALL_LINEAR, BASES, FOLDER, make_batches

ALPHA = 5.0
LORA = {
    "r": 2,
    "lora_alpha": ALPHA,
    "use_rslora": False,
    "target_modules": [*ALL_LINEAR, "lm_head", "embed_tokens"],
    "rank_pattern": {"q_proj": 3, "down_proj": 1},
}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    if name == "model.embed_tokens":
        return "token_embd.weight"
    if name == "lm_head":
        return "output.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def permute(weights, heads):
    """convert_hf_to_gguf.py's order of rows."""
    shape = weights.shape
    return weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def main():
    config, seed = BASES["untied"]
    model = random_llama(config, seed)
    layers = apply_lora(model, LORA, 0.05, 31)
    tensors = []
    for name, layer in layers.items():
        a, b = (parameter.detach().numpy().astype(np.float32) for parameter in layer.parameters_by_suffix().values())
        if name.endswith("embed_tokens"):
            a = a.T
        if name.endswith(("q_proj", "k_proj")):
            b = permute(b, b.shape[0] // config.head_dim)
        for letter, matrix in (("a", a), ("b", b)):
            data = np.ascontiguousarray(matrix).tobytes()
            tensors.append((f"{gguf_name(name)}.lora_{letter}", list(matrix.shape[::-1]), 0, data))
    metadata = [
        ("general.architecture", STRING, "llama"),
        ("general.type", STRING, "adapter"),
        ("adapter.type", STRING, "lora"),
        ("adapter.lora.alpha", F32, ALPHA),
    ]
    (FOLDER / "adapter.gguf").write_bytes(serialize(metadata, tensors))
    input_ids = make_batches(131)[0][0]
    with torch.no_grad():
        logits = model(input_ids)
    golden_json.write(
        FOLDER / "adapter.json",
        {"base": "base-untied.safetensors", "config": config.to_json(), "input_ids": input_ids.tolist(),
         "logits": [round(value, 9) for value in logits[:, -2:].flatten().tolist()]},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
