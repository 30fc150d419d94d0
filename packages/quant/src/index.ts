// @nomoat/quant: quantized weights. Public exports, nothing else.

export { type ActivationGrid, type ActivationRange, activationGrid } from "./activations.js";
export { fromBitsAndBytes, toBitsAndBytes } from "./bitsandbytes.js";
export { type AwqOptions, outputError, quantizeAwq } from "./calibrated/awq.js";
export type { AwqMapping } from "./calibrated/awq-mappings.js";
export { type GptqOptions, quantizeGptq } from "./calibrated/gptq.js";
export { type HqqOptions, quantizeHqq } from "./calibrated/hqq.js";
export { ActivationHistogram, type CalibrateOptions, calibrateActivations } from "./calibrated/observer.js";
export { ActivationStatistics, collectStatistics } from "./calibrated/statistics.js";

export { dequantizeRows, QuantizedEmbedding } from "./embedding.js";
export {
  type BlockFormat,
  dequantizeValues,
  type Grid,
  type GridCodes,
  type PartArray,
  type PartLayout,
  type Parts,
  quantizeValues,
  type WeightShape,
} from "./formats/format.js";
export { type FormatName, formatByName, formats } from "./formats/index.js";
export { type IntegerFormatOptions, integerFormat } from "./formats/integer.js";
export { QuantizedLinear, type QuantizedLinearOptions } from "./linear.js";
export { type QuantizedMatmulOptions, quantizedMatmul } from "./matmul.js";
export type { StaticActivations } from "./matmul-integers.js";
export {
  type QuantizeModelAsyncOptions,
  type QuantizeModelOptions,
  quantizeModel,
  quantizeModelAsync,
} from "./model.js";
export { PredictionComparison, type PredictionError } from "./predictions.js";
export { hostDevice, type QuantizeOptions, quantize } from "./quantize.js";
export { type QuantizationError, QuantizedTensor } from "./quantized-tensor.js";
export {
  type LayerReport,
  QuantizationReport,
  type QuantizationReportOptions,
  quantizationReport,
} from "./report.js";
