// @nomoat/llama: LLaMA-family models. Public exports, nothing else.

export { awqMappings } from "./awq-mappings.js";
export { applyChatTemplate, type ChatTemplateOptions } from "./chat-template.js";
export { type ComparePredictionsOptions, comparePredictions } from "./compare-predictions.js";
export { type CompensatedMergeOptions, compensatedMerge } from "./compensated-merge.js";
export {
  type ChatExample,
  type ChatMessage,
  type CompletionExample,
  type DataSource,
  type Example,
  loadData,
  type TextExample,
  type TokenExample,
} from "./data/examples.js";
export { type SplitOptions, splitData } from "./data/split.js";
export { finetune } from "./finetune.js";
export type {
  Evaluation,
  FinetuneOptions,
  FinetuneResult,
  StepInfo,
  Trainable,
} from "./finetune-options.js";
export { type FinetuneTogetherOptions, finetuneTogether, type TogetherRun } from "./finetune-together.js";
export {
  type FinishReason,
  type GenerateOptions,
  type GenerateTokensOptions,
  generate,
  generateTokens,
} from "./generate.js";
export { type SaveGgufOptions, saveGguf } from "./gguf.js";
export { loadLoraGguf, loraGgufToPeft, type SaveLoraGgufOptions, saveLoraGguf } from "./gguf-lora.js";
export {
  type LlamaSource,
  type LoadLlamaOptions,
  loadLlama,
  loadTokenizer,
  type SaveLlamaOptions,
  saveLlama,
} from "./load.js";
export { estimateMemory, type MemoryEstimate, type MemoryEstimateOptions } from "./memory-estimate.js";
export type { LoadQuantization } from "./model/assemble.js";
export { KVCache } from "./model/cache.js";
export { formatConfig, type LlamaConfig, parseConfig, type RopeScaling } from "./model/config.js";
export { type HiddenOptions, LlamaForCausalLM, llamaShapes } from "./model/model.js";
export { type PerplexityOptions, type PerplexityResult, perplexity } from "./perplexity.js";
export { Sampler, type SamplingOptions } from "./sampling.js";
export {
  type DecodeOptions,
  type DecodeStream,
  type EncodeOptions,
  Tokenizer,
  type TokenizerFiles,
} from "./tokenizer.js";
