// @nomoat/lora: low-rank adaptation, with PEFT's names and files. Public exports, nothing else.

export {
  Adapter,
  adaptedLayers,
  merge,
  mergeAndUnload,
  setActiveAdapters,
  unmerge,
  withAdaptersDisabled,
} from "./adapter.js";
export { type ApplyOptions, applyLora } from "./apply.js";
export { AdapterBranch, type BranchOptions, type LoraVariant, type MaskSource } from "./branch.js";
export { type LoraConfig, type LoraInit, loraDefaults, resolveLoraConfig } from "./config.js";
export { LoraLinear } from "./layer.js";
export {
  type AdapterSource,
  type LoadAdapterOptions,
  loadAdapter,
  readAdapterConfig,
  type SaveAdapterOptions,
  saveAdapter,
  serializeAdapter,
} from "./peft.js";
export { fromPeftJson, toPeftJson, type WarningHandler } from "./peft-config.js";
export { resolveTargets, type Target } from "./targets.js";
