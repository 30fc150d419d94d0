// One decoder block: attention and gated feed-forward, each on a normalised residual stream. Property names are Hugging Face's.

import { add, rope, scaledDotProductAttention, swiglu, type Tensor, tidy } from "@nomoat/core";
import { type LinearBase, linearGroup, Module, type RMSNorm } from "@nomoat/core/nn";
import type { KVCache } from "./cache.js";
import type { LlamaConfig } from "./config.js";

/** What every block of one pass shares. */
export interface PassState {
  /** [length, headDim/2] */
  readonly cos: Tensor;
  /** [length, headDim/2] */
  readonly sin: Tensor;
  readonly cache: KVCache | null;
}

export interface AttentionLayers {
  q_proj: LinearBase;
  k_proj: LinearBase;
  v_proj: LinearBase;
  o_proj: LinearBase;
}

/** Causal self-attention with rotary positions and grouped key-value heads. */
export class LlamaAttention extends Module implements AttentionLayers {
  q_proj: LinearBase;
  k_proj: LinearBase;
  v_proj: LinearBase;
  o_proj: LinearBase;
  readonly #config: LlamaConfig;
  readonly #layer: number;

  constructor(config: LlamaConfig, layer: number, layers: AttentionLayers) {
    super();
    this.#config = config;
    this.#layer = layer;
    this.q_proj = layers.q_proj;
    this.k_proj = layers.k_proj;
    this.v_proj = layers.v_proj;
    this.o_proj = layers.o_proj;
  }

  /** x [batch, length, hiddenSize] → the same shape. */
  override forward(x: Tensor, state: PassState): Tensor {
    const { numHeads, numKeyValueHeads, headDim } = this.#config;
    const [batch, length] = x.shape;
    // A view [batch, heads, length, headDim] of the projection's rows; the kernels take it as it lies.
    const heads = (y: Tensor, count: number): Tensor =>
      y.reshape(batch, length, count, headDim).permute(0, 2, 1, 3);
    const projected = linearGroup(x, [this.q_proj, this.k_proj, this.v_proj]);
    const q = rope(heads(projected[0], numHeads), state.cos, state.sin);
    let keys = rope(heads(projected[1], numKeyValueHeads), state.cos, state.sin);
    let values = heads(projected[2], numKeyValueHeads);
    if (state.cache) ({ keys, values } = state.cache.append(this.#layer, keys, values));
    const mixed = scaledDotProductAttention(q, keys, values, { causal: true });
    return this.o_proj.forward(mixed.permute(0, 2, 1, 3).reshape(batch, length, numHeads * headDim));
  }
}

export interface MLPLayers {
  gate_proj: LinearBase;
  up_proj: LinearBase;
  down_proj: LinearBase;
}

/** down(silu(gate(x)) · up(x)). */
export class LlamaMLP extends Module implements MLPLayers {
  gate_proj: LinearBase;
  up_proj: LinearBase;
  down_proj: LinearBase;

  constructor(layers: MLPLayers) {
    super();
    this.gate_proj = layers.gate_proj;
    this.up_proj = layers.up_proj;
    this.down_proj = layers.down_proj;
  }

  override forward(x: Tensor): Tensor {
    return tidy(() => {
      const [gate, up] = linearGroup(x, [this.gate_proj, this.up_proj]);
      return this.down_proj.forward(swiglu(gate, up));
    });
  }
}

export class LlamaBlock extends Module {
  readonly input_layernorm: RMSNorm;
  readonly self_attn: LlamaAttention;
  readonly post_attention_layernorm: RMSNorm;
  readonly mlp: LlamaMLP;

  constructor(norms: readonly [RMSNorm, RMSNorm], attention: LlamaAttention, mlp: LlamaMLP) {
    super();
    [this.input_layernorm, this.post_attention_layernorm] = norms;
    this.self_attn = attention;
    this.mlp = mlp;
  }

  /** x [batch, length, hiddenSize] → the same shape. */
  override forward(x: Tensor, state: PassState): Tensor {
    // A scope for each part: what the gradients do not need is gone before the next one begins.
    return tidy(() => {
      const attended = tidy(() => add(x, this.self_attn.forward(this.input_layernorm.forward(x), state)));
      return add(attended, this.mlp.forward(this.post_attention_layernorm.forward(attended)));
    });
  }
}
