// Merging adapters into quantized layers with error compensation: quant's GPTQ for lora's merge, which knows no quantizer.

import { ArgumentError, noGrad } from "@nomoat/core";
import { requireMap } from "@nomoat/core/extend";
import type { InputMoments, MergeQuantizer } from "@nomoat/lora";
import { ActivationStatistics, type GptqOptions, QuantizedLinear, quantizeGptq } from "@nomoat/quant";

export interface CompensatedMergeOptions extends Pick<GptqOptions, "actOrder" | "damping"> {
  /** Integers in groups or rows (default: the format of the base's layer, which has to be such a one). */
  format?: GptqOptions["format"];
}

/**
 * A quantizer for `merge`, `mergeAndUnload` and `mergeReport`: scales are derived anew from the merged weight, and what each column loses
 * by rounding is made up for by those that follow, for inputs like those of a text (GPTQ; see `quantizeGptq` of @nomoat/quant).
 *
 * ```ts
 * const inputs = await layerInputs(model, () => perplexity({ model, tokenizer, text }));
 * mergeAndUnload(model, { quantize: compensatedMerge(inputs, { format: "int4_asym_g64" }) });
 * ```
 *
 * @param inputs - of the adapted layers, by `layerInputs` of @nomoat/lora
 * @throws {ArgumentError} (when merging) for a layer without inputs, or a format that is none of integers
 */
export function compensatedMerge(
  inputs: ReadonlyMap<string, InputMoments>,
  options: CompensatedMergeOptions = {},
): MergeQuantizer {
  requireMap("compensatedMerge", "inputs", inputs);
  return (weight, base, name) => {
    const moments = inputs.get(name);
    if (!moments) throw new ArgumentError(`compensatedMerge: there are no inputs of ${name}`);
    const packed = base instanceof QuantizedLinear ? base : null;
    const format = options.format ?? packed?.quantized.format;
    if (!format)
      throw new ArgumentError(`compensatedMerge: ${name} is not quantized: give a format to quantize it to`);
    const statistics = new ActivationStatistics(moments.inFeatures);
    statistics.products.set(moments.products());
    statistics.magnitudes.set(moments.magnitudes);
    statistics.count = moments.count;
    const quantized = quantizeGptq(weight, statistics, { ...options, format, name });
    const bias = noGrad(() => base.bias?.clone() ?? null);
    return new QuantizedLinear(quantized, bias, packed ? { activations: packed.activations } : {});
  };
}
