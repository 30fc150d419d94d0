// A change of what is merged, in several layers at once.

import type { AdaptedLayer } from "./layer.js";
import { layerPlacer, type MergeQuantizer } from "./merge-quantizer.js";
import { MergeReport, mayRound, mergeEnergies } from "./merge-report.js";
import type { WarningHandler } from "./peft-config.js";
import type { MergePlan } from "./slots.js";

export interface MergeOptions {
  /**
   * Makes the layers that the merged weights go into (default: the base's own kind, quantized again where the base is quantized):
   * `denseMerge`, or a quantizer with error compensation. The next change of what is merged does it the same way.
   */
  quantize?: MergeQuantizer;
  /** Told when rounding the merged weights would lose the update (default `console.warn`); `mergeReport` tells it beforehand. */
  onWarning?: WarningHandler;
}

type MergeChoice = (merged: string[], layer: AdaptedLayer) => string[];

/** Changes what is merged, in all layers or, after a fault, in none; `anew`: also where the names stay the same. */
export function mergeLayers(
  layers: Iterable<readonly [name: string, layer: AdaptedLayer]>,
  choose: MergeChoice,
  { quantize, onWarning = console.warn, anew = false }: MergeOptions & { anew?: boolean } = {},
): void {
  const plans: MergePlan[] = [];
  const rounded = new Map<string, ReturnType<typeof mergeEnergies>>();
  try {
    for (const [name, layer] of layers) {
      const merged = layer.slots.merged;
      const names = choose(merged, layer);
      if (names.join() === merged.join() && !anew) continue;
      const plan = layer.slots.planMerge(names, layerPlacer(name, quantize));
      plans.push(plan);
      const grows = names.some((one) => !merged.includes(one));
      if (plan.merged && grows && mayRound(plan.merged))
        rounded.set(name, mergeEnergies(layer, names, plan.merged));
    }
  } catch (error) {
    for (const plan of plans) plan.merged?.dispose();
    throw error;
  }
  for (const plan of plans) plan.slots.commitMerge(plan);
  const warning = rounded.size > 0 ? new MergeReport(rounded).warning : null;
  if (warning) onWarning(`merge: ${warning}`);
}
