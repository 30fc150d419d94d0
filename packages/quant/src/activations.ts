// Static quantization of activations: one scale and one zero point for all inputs of a layer, found beforehand
// (calibrated/observer.ts). This is its definition, by core's operations; what a kernel computes has to equal it.

import { ArgumentError, noGrad, type Tensor, tidy } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";

/** x ≈ scale · (code − zeroPoint), codes −128 … 127. */
export interface ActivationGrid {
  /** Positive and finite. */
  readonly scale: number;
  /** From −128 to 127: the code of 0. */
  readonly zeroPoint: number;
}

/** Range of inputs that codes are to cover. */
export interface ActivationRange {
  readonly low: number;
  readonly high: number;
}

/**
 * The grid over a range, which is widened to hold 0: scale (high − low)/255.
 * @throws {ArgumentError} for a range that is not finite, or upside down
 */
export function activationGrid(range: ActivationRange): ActivationGrid {
  requireOptions("activationGrid", range);
  const { low, high } = range;
  if (!(Number.isFinite(low) && Number.isFinite(high) && low <= high)) {
    throw new ArgumentError(`activationGrid: [${low}, ${high}] is no range`);
  }
  const [least, most] = [Math.min(0, low), Math.max(0, high)];
  const scale = Math.fround((most - least) / 255);
  // A layer that sees nothing but zeros, or denormals.
  if (!(scale > 0)) return { scale: 1, zeroPoint: 0 };
  return { scale, zeroPoint: Math.max(-128, Math.min(127, Math.round(-128 - least / scale))) };
}

/**
 * x rounded to the grid: scale · (clip(round(x/scale + zeroPoint), −128, 127) − zeroPoint), to nearest even. The gradient passes
 * as it is where x is within the range, and is 0 outside (PyTorch's fake_quantize).
 *
 * @param x - float [...]
 * @param scale - float32 [1]
 * @param zeroPoint - float32 [1], whole
 */
export function roundToGrid(x: Tensor, scale: Tensor, zeroPoint: Tensor): Tensor {
  return tidy(() => {
    const places = x.div(scale).add(zeroPoint).clip(-128, 127);
    const step = noGrad(() => places.detach().round().sub(places.detach()));
    return places.add(step).sub(zeroPoint).mul(scale);
  });
}
