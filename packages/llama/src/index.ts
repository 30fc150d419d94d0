// @nomoat/llama: LLaMA-family models. Public exports, nothing else.

export { type LlamaSource, type LoadLlamaOptions, loadLlama, loadTokenizer, saveLlama } from "./load.js";
export { KVCache } from "./model/cache.js";
export { formatConfig, type LlamaConfig, parseConfig, type RopeScaling } from "./model/config.js";
export { type HiddenOptions, LlamaForCausalLM, llamaShapes } from "./model/model.js";
export { Tokenizer } from "./tokenizer.js";
