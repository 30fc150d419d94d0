// @nomoat/lora: low-rank adaptation, with PEFT's names and files. Public exports, nothing else.

export {
  Adapter,
  adaptedLayers,
  adaptersOf,
  peftPrefix,
  setActiveAdapters,
  withAdaptersDisabled,
} from "./adapter.js";
export { type ApplyOptions, adapterShapes, applyLora } from "./apply.js";
export { AdapterBranch, type BranchOptions, type LoraVariant, type MaskSource } from "./branch.js";
export {
  addWeightedAdapter,
  type CombinationType,
  type CombineOptions,
  type CompressionError,
  compressAdapter,
} from "./combine.js";
export {
  type LoraConfig,
  type LoraInit,
  layerwiseConfig,
  loraDefaults,
  type PeftType,
  resolveLoraConfig,
} from "./config.js";
export { hotSwapAdapter } from "./hot-swap.js";
export { applyEva, type EvaOptions } from "./init/eva.js";
export { initLoftq, type LoftqError, type LoftqOptions } from "./init/loftq.js";
export { InputMoments, layerInputs } from "./inputs.js";
export { type KohyaPrefix, kohyaToPeft, loadKohyaAdapter } from "./kohya.js";
export { type AdaptedLayer, LoraConv2d, LoraEmbedding, LoraLinear } from "./layer.js";
export { correctLoraFaGradients, freezeA } from "./lora-fa.js";
export { type LoraPlusGroup, type LoraPlusOptions, loraPlusGroups } from "./lora-plus.js";
export { merge, mergeAndUnload, unmerge } from "./merge.js";
export type { MergeOptions } from "./merge-layers.js";
export { denseMerge, type MergeQuantizer } from "./merge-quantizer.js";
export { type MergeFidelity, MergeReport, type MergeReportOptions, mergeReport } from "./merge-report.js";
export { withAdapterRows } from "./mixed.js";
export { loadMlxAdapter, mlxToPeft, saveMlxAdapter, serializeMlxAdapter } from "./mlx.js";
export {
  type LoadAdapterOptions,
  loadAdapter,
  readAdapterConfig,
  type SaveAdapterOptions,
  saveAdapter,
  serializeAdapter,
} from "./peft.js";
export { fromPeftJson, toPeftJson, type WarningHandler } from "./peft-config.js";
export { type AdapterSource, peftFiles } from "./peft-folder.js";
export { orthogonalPenalty, RankAllocator } from "./rank-allocator.js";
export { resolveTargets, type Target } from "./targets.js";
