"""A LLaMA decoder and low-rank adapters in plain PyTorch, with the semantics and names of Hugging Face and PEFT.

Every module runs in the dtype of its weights. Hugging Face's RMSNorm and rotary tables go through float32 whatever
the weights are; here a float64 model is float64 throughout, and a float32 model is the same as theirs.
"""

import math
import re
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    """The fields of Hugging Face's config.json that matter here."""

    model_type: str = "llama"
    vocab_size: int = 64
    hidden_size: int = 32
    intermediate_size: int = 48
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 8
    max_position_embeddings: int = 64
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False

    def to_json(self):
        return {"architectures": ["LlamaForCausalLM"], **asdict(self)}


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotary_tables(positions, head_dim, theta, dtype):
    """cos and sin of the angle of each position and channel, `[T, head_dim]`; the two halves hold the same angles."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).to(dtype) / head_dim
    angles = positions.to(dtype)[:, None] * (1.0 / theta**exponents)[None, :]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate_half(x):
    """(x1, x2) -> (-x2, x1), where x1 and x2 are the halves of the last axis."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((-x2, x1), dim=-1)


def apply_rotary(x, cos, sin):
    """Rotates `x` `[..., T, head_dim]`; channel i is paired with channel i + head_dim / 2."""
    return x * cos + rotate_half(x) * sin


def attention(q, k, v, causal=True, scale=None):
    """softmax(q kᵀ · scale) v with grouped heads: q `[B, H, Tq, D]`; k, v `[B, Hkv, Tk, D]`.

    Query head h reads key-value head h // (H / Hkv). With `causal` the last query is aligned to the last key:
    query i sees the keys j <= i + Tk - Tq.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        tq, tk = scores.shape[-2:]
        visible = torch.ones(tq, tk, dtype=torch.bool).tril(tk - tq)
        scores = scores.masked_fill(~visible, -math.inf)
    return scores.softmax(-1) @ v


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        hidden, dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(hidden, config.num_attention_heads * dim, bias=False)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * dim, bias=False)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * dim, hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, time, _ = x.shape

        def heads(y):  # [B, T, H·D] -> [B, H, T, D]
            return y.view(batch, time, -1, self.config.head_dim).transpose(1, 2)

        q = apply_rotary(heads(self.q_proj(x)), cos, sin)
        k = apply_rotary(heads(self.k_proj(x)), cos, sin)
        y = attention(q, k, heads(self.v_proj(x)))
        return self.o_proj(y.transpose(1, 2).reshape(batch, time, -1))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, input_ids):
        x = self.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1])
        cos, sin = rotary_tables(positions, self.config.head_dim, self.config.rope_theta, x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class LlamaForCausalLM(nn.Module):
    """`state_dict()` has Hugging Face's names; `lm_head.weight` is among them only when the embedding is untied."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, input_ids):
        hidden = self.model(input_ids)
        if self.config.tie_word_embeddings:
            return F.linear(hidden, self.model.embed_tokens.weight)
        return self.lm_head(hidden)


def random_llama(config, seed):
    """A model with weights of realistic scale, all exact in float32, held in float64."""
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(config)
    for name, parameter in model.state_dict().items():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            parameter.copy_(1 + 0.1 * noise)
        elif "embed_tokens" in name:
            parameter.copy_(0.2 * noise)
        else:
            parameter.copy_(noise / math.sqrt(parameter.shape[1]))
    return model.double()


def next_token_loss_sum(logits, labels):
    """Summed cross entropy of `logits[:, t]` against `labels[:, t + 1]`, and how many positions counted.

    Labels are not shifted beforehand (Hugging Face's convention); -100 is ignored.
    """
    targets = labels[:, 1:].reshape(-1)
    predicted = logits[:, :-1].reshape(-1, logits.shape[-1])
    return F.cross_entropy(predicted, targets, ignore_index=-100, reduction="sum"), int((targets != -100).sum())


class LoraLinear(nn.Module):
    """y = base(x) + scaling · B(A(mask ∘ x)); `mask` holds a given dropout's multipliers, or is None.

    With `dora` (arXiv:2402.09353) as PEFT has it: m · (W + s·B·A) / ‖W + s·B·A‖ row by row, the norm a constant in
    backward; with a mask, the base's part outside of it: base(x) + ((m / norm) · (W + s·B·A) - W) · (mask ∘ x).
    """

    def __init__(self, base, rank, scaling, b_std, generator, dora=False):
        super().__init__()
        self.base_layer, self.scaling, self.mask = base, scaling, None
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        # What nn.init.kaiming_uniform_(a=√5) gives: the gain is √(1/3), so the bound is 1/√fan_in.
        bound = 1 / math.sqrt(base.in_features)
        with torch.no_grad():
            self.lora_A.weight.uniform_(-bound, bound, generator=generator)
            self.lora_B.weight.normal_(0, b_std, generator=generator) if b_std else self.lora_B.weight.zero_()
        self.lora_magnitude_vector = None
        if dora:
            # In float32, so that both dtypes start from the same numbers.
            magnitude = self.float_weight().norm(dim=1)
            self.lora_magnitude_vector = nn.Parameter(magnitude.float().detach())

    def float_weight(self):
        """W + s·B·A in float32, whatever the base's dtype."""
        return self.base_layer.weight.float() + self.scaling * (self.lora_B.weight @ self.lora_A.weight).float()

    def forward(self, x):
        dropped = x if self.mask is None else x * self.mask
        if self.lora_magnitude_vector is None:
            return self.base_layer(x) + self.lora_B(self.lora_A(dropped)) * self.scaling
        weight = self.base_layer.weight
        adapted = weight + self.scaling * (self.lora_B.weight @ self.lora_A.weight)
        factor = self.lora_magnitude_vector / adapted.detach().norm(dim=1)
        return self.base_layer(x) + F.linear(dropped, factor[:, None] * adapted - weight)

    def parameters_by_suffix(self):
        named = {"lora_A.weight": self.lora_A.weight, "lora_B.weight": self.lora_B.weight}
        if self.lora_magnitude_vector is not None:
            named["lora_magnitude_vector"] = self.lora_magnitude_vector
        return named


class LoraEmbedding(nn.Module):
    """Rows of W + scaling · (B·A)ᵀ, by PEFT's names; A [rank, rows], B [width, rank]."""

    def __init__(self, base, rank, scaling, generator):
        super().__init__()
        self.base_layer, self.scaling = base, scaling
        self.lora_embedding_A = nn.Parameter(0.05 * torch.randn(rank, base.num_embeddings, generator=generator))
        self.lora_embedding_B = nn.Parameter(torch.randn(base.embedding_dim, rank, generator=generator))

    def forward(self, ids):
        return self.base_layer(ids) + F.embedding(ids, self.lora_embedding_A.T) @ self.lora_embedding_B.T * self.scaling

    def parameters_by_suffix(self):
        return {"lora_embedding_A": self.lora_embedding_A, "lora_embedding_B": self.lora_embedding_B}


def by_pattern(patterns, name, default):
    """The value of the first pattern that matches the end of a name, as PEFT's get_pattern_key."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def apply_lora(model, lora, b_std, seed):
    """Replaces the target layers; returns them by module name. Draws in float32, so that every value is exact there."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    layers = {}
    for name, module in list(model.named_modules()):
        if name.split(".")[-1] not in lora["target_modules"]:
            continue
        rank = by_pattern(lora.get("rank_pattern", {}), name, lora["r"])
        alpha = by_pattern(lora.get("alpha_pattern", {}), name, lora["lora_alpha"])
        scaling = alpha / math.sqrt(rank) if lora["use_rslora"] else alpha / rank
        parent, _, child = name.rpartition(".")
        dtype = module.weight.dtype
        if isinstance(module, nn.Embedding):
            layer = LoraEmbedding(module, rank, scaling, generator)
        else:
            layer = LoraLinear(module, rank, scaling, b_std, generator, lora.get("use_dora", False))
        layers[name] = layer.to(dtype)
        setattr(model.get_submodule(parent), child, layers[name])
    return layers


def adapter_parameters(layers):
    """The trainable tensors by the names of PEFT's adapter_model.safetensors."""
    return {
        f"base_model.model.{name}.{suffix}": parameter
        for name, layer in layers.items()
        for suffix, parameter in layer.parameters_by_suffix().items()
    }
