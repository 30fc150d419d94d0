// Where a LLaMA takes in the scales of activation-aware quantization (AWQ): its normalisations, value and up projections.

import type { AwqMapping } from "@nomoat/quant";
import type { LlamaForCausalLM } from "./model/model.js";
import { requireLlama } from "./options.js";

/**
 * For `quantizeModel(model, { method: "awq", mappings: awqMappings(model), ... })`: with them the scaled layers compute nothing more
 * than others. Heads that share keys and values share scales.
 */
export function awqMappings(model: LlamaForCausalLM): AwqMapping[] {
  requireLlama("awqMappings", model);
  const { numLayers, numHeads, numKeyValueHeads, headDim } = model.config;
  const sharing = numHeads / numKeyValueHeads;
  // Output of v_proj that each input of o_proj is mixed from.
  const channels = Int32Array.from({ length: numHeads * headDim }, (_, i) => {
    const head = Math.floor(i / headDim);
    return Math.floor(head / sharing) * headDim + (i % headDim);
  });
  return Array.from({ length: numLayers }, (_, layer): AwqMapping[] => {
    const at = (name: string) => `model.layers.${layer}.${name}`;
    const all = (...names: string[]) => names.map(at);
    return [
      {
        smoothLayer: at("input_layernorm"),
        balanceLayers: all("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
      },
      { smoothLayer: at("self_attn.v_proj"), balanceLayers: all("self_attn.o_proj"), channels },
      {
        smoothLayer: at("post_attention_layernorm"),
        balanceLayers: all("mlp.gate_proj", "mlp.up_proj"),
      },
      { smoothLayer: at("mlp.up_proj"), balanceLayers: all("mlp.down_proj") },
    ];
  }).flat();
}
