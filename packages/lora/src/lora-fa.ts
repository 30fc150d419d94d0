// LoRA-FA (Zhang et al., arXiv:2308.03303): A stays as it began and only B learns, so that a layer keeps u = x·Aᵀ and not x for
// backward. With the gradient of B corrected as in PEFT's LoraFAOptimizer (LoRA-Pro, arXiv:2407.18242).

import { matmul, noGrad, tensor, tidy } from "@nomoat/core";
import type { Adapter } from "./adapter.js";
import { requireAdapter } from "./adapter.js";
import type { AdapterBranch } from "./branch.js";
import { fromTensor, inverseSpd, multiply, transposed } from "./linalg.js";
import { AdaLoraBranch } from "./variants/adalora.js";
import { LoraBranch } from "./variants/lora.js";

/** True where the update is s·B·A of a linear layer, DoRA's included. */
function hasPlainFactors(branch: AdapterBranch): branch is LoraBranch {
  return branch instanceof LoraBranch && branch.loraA.rank === 2 && !(branch instanceof AdaLoraBranch);
}

/** Freezes every A of linear layers. `adapter.parameters()` still lists them; an optimizer takes `adapter.trainableParameters()`. */
export function freezeA(adapter: Adapter): Adapter {
  requireAdapter("freezeA", adapter);
  for (const branch of adapter.branches().values()) {
    if (hasPlainFactors(branch)) branch.loraA.requiresGrad = false;
  }
  return adapter;
}

/**
 * Replaces the gradient of every B by grad · (A·Aᵀ + δ)⁻¹ / scaling², which makes the change of the whole weight closest to that of
 * full training. Call it between `backward` and the optimizer's step.
 *
 * @param damping - δ, times the identity (default 1e-8, PEFT's)
 */
export function correctLoraFaGradients(adapter: Adapter, damping = 1e-8): void {
  requireAdapter("correctLoraFaGradients", adapter);
  for (const branch of adapter.branches().values()) {
    if (!hasPlainFactors(branch)) continue;
    const gradient = branch.loraB.grad;
    if (!gradient) continue;
    const a = fromTensor("correctLoraFaGradients", branch.loraA);
    const square = multiply(a, transposed(a));
    for (let i = 0; i < square.rows; i++) square.data[i * (square.rows + 1)] += damping;
    const inverse = inverseSpd(square);
    noGrad(() =>
      tidy(() => {
        const { dtype, device } = gradient;
        const factor = tensor(inverse.data, { shape: [inverse.rows, inverse.columns], dtype, device });
        gradient.copyFrom(matmul(gradient, factor, { alpha: 1 / branch.scaling ** 2 }));
      }),
    );
  }
}
