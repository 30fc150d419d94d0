// AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), as torch.optim.AdamW.

import type { Tensor } from "../tensor.js";
import { AdamFamily, type AdamOptions } from "./adam.js";
import type { ParameterGroup } from "./optimizer.js";

export type AdamWOptions = AdamOptions;

/** AdamW as torch.optim.AdamW: weight decay acts on the parameter itself. State: `m`, `v` and, with amsgrad, `vMax`. */
export class AdamW extends AdamFamily {
  protected override readonly decoupled = true;

  /** @throws {ArgumentError} for options out of range */
  constructor(
    parameters: readonly Tensor[] | readonly ParameterGroup<AdamWOptions>[],
    options: Partial<AdamWOptions> = {},
  ) {
    super(
      "AdamW",
      parameters,
      {
        learningRate: 1e-3,
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weightDecay: 0.01,
        amsgrad: false,
      },
      options,
    );
  }
}
