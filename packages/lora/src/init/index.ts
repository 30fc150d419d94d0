// Initial values of the low-rank matrices that do not look at the base's weight.

import { type CreationOptions, type Generator, type Tensor, zeros } from "@nomoat/core";
import { kaimingUniform, normal } from "@nomoat/core/nn";
import type { LoraInit } from "../config.js";

export interface InitTarget extends Pick<CreationOptions, "dtype" | "device"> {
  generator?: Generator | undefined;
}

/**
 * A [r, inFeatures] and B [outFeatures, r] as {@link LoraConfig.initLoraWeights} says, by PEFT's formulas
 * (tuners/lora/layer.py, reset_lora_parameters).
 */
export function initialFactors(
  init: LoraInit,
  size: { r: number; inFeatures: number; outFeatures: number },
  options: InitTarget,
): { a: Tensor; b: Tensor } {
  const { generator, ...place } = options;
  const random = generator ? { ...place, generator } : place;
  const { r, inFeatures, outFeatures } = size;
  const a =
    init === "gaussian"
      ? normal([r, inFeatures], 1 / r, random)
      : kaimingUniform([r, inFeatures], Math.sqrt(5), random);
  const b =
    init === false ? kaimingUniform([outFeatures, r], Math.sqrt(5), random) : zeros([outFeatures, r], place);
  return { a, b };
}
