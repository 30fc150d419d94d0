// Float64 references by the library's reference backend: the same call, on the same values, in plain loops.

import { noGrad, type Tensor, tensor, tidy, withBackend } from "@nomoat/core";
import { compareArrays } from "./accuracy.js";
import type { Accuracy } from "./model.js";

/** Tensors' values on the reference backend, in float64 where they are floats. */
export function toReference(x: Tensor): Tensor {
  const values = x.dataSync();
  return x.dtype === "int32"
    ? tensor(Int32Array.from(values as Int32Array), { shape: x.shape, dtype: "int32", device: "reference" })
    : tensor(Float64Array.from(values as Float32Array), {
        shape: x.shape,
        dtype: "float64",
        device: "reference",
      });
}

/**
 * Compares `results` with what `compute` gives for the inputs on the reference backend.
 *
 * @param compute - the operation; called with the inputs in float64
 */
export function compareWithReference(
  results: readonly Tensor[],
  inputs: readonly Tensor[],
  compute: (inputs: Tensor[]) => readonly Tensor[],
  tolerance: number,
): Accuracy {
  return tidy(() =>
    withBackend("reference", () => {
      const wanted = compute(inputs.map(toReference));
      const parts = wanted.map((one, i) =>
        compareArrays(
          results[i].dataSync() as ArrayLike<number>,
          one.dataSync() as ArrayLike<number>,
          tolerance,
        ),
      );
      return worst(parts);
    }),
  );
}

/** As `compareWithReference`, without gradients. */
export function compareForward(
  result: Tensor,
  inputs: readonly Tensor[],
  compute: (inputs: Tensor[]) => Tensor,
  tolerance: number,
): Accuracy {
  return noGrad(() => compareWithReference([result], inputs, (given) => [compute(given)], tolerance));
}

/** Of several comparisons that with the largest relative error, with the values of all counted. */
export function worst(parts: readonly Accuracy[]): Accuracy {
  const relative = ({ maxError, scale }: Accuracy): number => (maxError === 0 ? 0 : maxError / scale);
  const [first] = [...parts].sort((a, b) => relative(b) - relative(a));
  return { ...first, compared: parts.reduce((sum, part) => sum + part.compared, 0) };
}
