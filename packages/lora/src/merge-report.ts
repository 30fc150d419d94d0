// How much of an adapter survives a merge: into a quantized base the merged weight is quantized again, which can round a small update
// away. Reported layer by layer, without merging.

import { noGrad, type Tensor, tidy } from "@nomoat/core";
import type { Embedding, LinearBase, Module } from "@nomoat/core/nn";
import type { Adapter } from "./adapter.js";
import type { AdaptedLayer } from "./layer.js";

/** What a merge would make of the update ΔW of one layer; ΔW′ is what would be left of it in the merged weight. */
export interface MergeFidelity {
  readonly name: string;
  /** ‖ΔW′‖ / ‖ΔW‖ in the Frobenius norm; 1 for an update of zero that stays zero. */
  readonly normKept: number;
  /** Cosine of the angle between ΔW′ and ΔW; 1 is the same direction, 0 means that the update is lost. */
  readonly cosine: number;
  /** ‖ΔW′ − ΔW‖ / ‖ΔW‖. */
  readonly relativeError: number;
}

function denseWeight(layer: Module): Tensor {
  return "denseWeight" in layer ? (layer as LinearBase).denseWeight() : (layer as Embedding).weight.detach();
}

/**
 * What merging `adapter` would keep of its update, for each layer. The model is not changed; one layer at a time is merged aside.
 * Values near 1, 1 and 0 promise the same outputs; a low cosine says to keep the adapter apart, or to merge into a float base.
 * @throws {ArgumentError} for an adapter that cannot be merged
 */
export function mergeReport(adapter: Adapter): MergeFidelity[] {
  return Array.from(adapter.branches(), ([name, branch]) => {
    const { slots } = adapter.layers.get(name) as AdaptedLayer;
    const plan = slots.planMerge([branch.adapter]);
    try {
      return noGrad(() =>
        tidy(() => {
          const before = denseWeight(slots.original);
          const wanted = branch.updateWeight(before, before).sub(before);
          const got = denseWeight(plan.merged as Module).sub(before);
          const norm = (x: Tensor) => Math.sqrt(x.square().sum().item());
          const [wantedNorm, gotNorm] = [norm(wanted), norm(got)];
          if (wantedNorm === 0) {
            const relativeError = gotNorm === 0 ? 0 : Number.POSITIVE_INFINITY;
            return {
              name,
              normKept: gotNorm === 0 ? 1 : Number.POSITIVE_INFINITY,
              cosine: gotNorm === 0 ? 1 : 0,
              relativeError,
            };
          }
          const dot = wanted.mul(got).sum().item();
          return {
            name,
            normKept: gotNorm / wantedNorm,
            cosine: gotNorm === 0 ? 0 : dot / (wantedNorm * gotNorm),
            relativeError: norm(got.sub(wanted)) / wantedNorm,
          };
        }),
      );
    } finally {
      plan.merged?.dispose();
    }
  });
}
