// Gradients against finite differences.

import { requireFunction, requireList, requireOptions, use } from "../arguments.js";
import { tensor } from "../creation.js";
import { AutogradError } from "../errors.js";
import { tidy } from "../memory.js";
import { mul } from "../ops/elementwise.js";
import { sum } from "../ops/reduce.js";
import type { Tensor } from "../tensor.js";
import { gradientsOf } from "./backward.js";

export interface GradcheckOptions {
  /** Step of the central differences (default 1e-5). */
  step?: number;
  /** Allowed |analytic − numeric| = absolute + relative · |numeric| (defaults 1e-6 and 1e-5). */
  absolute?: number;
  relative?: number;
}

/**
 * Compares the gradients of `fn` with central finite differences, entry by entry. Use float64 tensors of the reference
 * backend; `fn` must be deterministic and smooth at the inputs. The output is weighted by fixed irrational-looking numbers, so
 * that entries cannot cancel.
 *
 * @returns the largest difference found
 * @throws {AutogradError} naming the input, the entry and both values where they differ
 */
export function gradcheck(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  options: GradcheckOptions = {},
): number {
  requireFunction("gradcheck", fn);
  requireList("gradcheck", "inputs", inputs);
  requireOptions("gradcheck", options, ["step", "absolute", "relative"]);
  for (const input of inputs) use("gradcheck", input);
  const { step = 1e-5, absolute = 1e-6, relative = 1e-5 } = options;
  return tidy(() => {
    const handles = inputs.map((input) => {
      const handle = input.clone().detach();
      if (input.requiresGrad) handle.requiresGrad = true;
      return handle;
    });
    const weighted = (values: Tensor[]): Tensor => {
      const output = fn(...values);
      const weights = Float64Array.from({ length: output.size }, (_, i) => Math.sin(i * 1.7 + 0.6) + 0.3);
      return sum(
        mul(output, tensor(weights, { shape: output.shape, dtype: output.dtype, device: output.device })),
      );
    };
    const wanted = handles.filter((handle) => handle.requiresGrad);
    const gradients = gradientsOf(weighted(handles), wanted);
    let worst = 0;
    wanted.forEach((handle, index) => {
      const values = Float64Array.from(handle.dataSync());
      const analytic = gradients[index].dataSync();
      for (let i = 0; i < values.length; i++) {
        const at = (value: number): number =>
          tidy(() => {
            const moved = values.slice();
            moved[i] = value;
            // Recorded as the inputs are: `fn` may differentiate, too.
            const changed = tensor(moved, {
              shape: handle.shape,
              dtype: handle.dtype,
              device: handle.device,
              requiresGrad: true,
            });
            return weighted(handles.map((other) => (other === handle ? changed : other))).item();
          });
        const numeric = (at(values[i] + step) - at(values[i] - step)) / (2 * step);
        const difference = Math.abs(numeric - analytic[i]);
        if (!(difference <= absolute + relative * Math.abs(numeric))) {
          throw new AutogradError(
            `gradcheck: input ${handles.indexOf(handle)}, entry ${i}: analytic ${analytic[i]}, numeric ${numeric}${handle.dtype === "float64" ? "" : ` (${handle.dtype} is too coarse for finite differences: use float64 on the reference backend)`}`,
          );
        }
        worst = Math.max(worst, difference);
      }
    });
    return worst;
  });
}
