// Layers one after another.

import { describe } from "../arguments.js";
import { ArgumentError } from "../errors.js";
import { tidy } from "../memory.js";
import { alias } from "../ops/elementwise.js";
import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";

/** A layer of one input, or a function such as `relu`. */
export type Layer = (Module & { forward(x: Tensor): Tensor }) | ((x: Tensor) => Tensor);

/** Each layer's output is the next one's input. Modules are named by their place, as in PyTorch: `0.weight`, `2.weight`. */
export class Sequential extends Module {
  static override get brand(): string {
    return "@nomoat/core/Sequential";
  }

  readonly length: number;
  readonly [place: number]: Layer;

  constructor(...layers: readonly Layer[]) {
    super();
    this.length = layers.length;
    layers.forEach((layer, i) => {
      if (!(layer instanceof Module || typeof layer === "function"))
        throw new ArgumentError(
          `Sequential: layer ${i} is ${describe(layer)}, neither a module nor a function`,
        );
      (this as Record<number, Layer>)[i] = layer;
    });
  }

  override forward(x: Tensor): Tensor {
    return tidy(() => {
      let y = x;
      for (let i = 0; i < this.length; i++) {
        const layer = this[i];
        y = typeof layer === "function" ? layer(y) : layer.forward(y);
      }
      return y === x ? alias(x) : y;
    });
  }
}
