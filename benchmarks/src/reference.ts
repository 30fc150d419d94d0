// Float64 references by the library's reference backend: the same call, on the same values, in plain loops.

import { noGrad, type Tensor, tensor, tidy, withBackend } from "@nomoat/core";
import { compareArrays, sharedReference } from "./accuracy.js";
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
 * @param key - names inputs and operation where others ask for the same reference
 */
export function compareWithReference(
  results: readonly Tensor[],
  inputs: readonly Tensor[],
  compute: (inputs: Tensor[]) => readonly Tensor[],
  tolerance: number,
  key: string | null = null,
): Accuracy {
  const make = (): ArrayLike<number>[] =>
    tidy(() =>
      withBackend("reference", () =>
        compute(inputs.map(toReference)).map((one) => Float64Array.from(one.dataSync() as ArrayLike<number>)),
      ),
    );
  const wanted = sharedReference(key, make);
  return worst(
    wanted.map((one, i) => compareArrays(results[i].dataSync() as ArrayLike<number>, one, tolerance)),
  );
}

/** As `compareWithReference`, without gradients. */
export function compareForward(
  result: Tensor,
  inputs: readonly Tensor[],
  compute: (inputs: Tensor[]) => Tensor,
  tolerance: number,
  key: string | null = null,
): Accuracy {
  return noGrad(() => compareWithReference([result], inputs, (given) => [compute(given)], tolerance, key));
}

/** Of several comparisons that with the largest relative error, with the values of all counted. */
export function worst(parts: readonly Accuracy[]): Accuracy {
  const relative = ({ maxError, scale }: Accuracy): number => (maxError === 0 ? 0 : maxError / scale);
  const [first] = [...parts].sort((a, b) => relative(b) - relative(a));
  return { ...first, compared: parts.reduce((sum, part) => sum + part.compared, 0) };
}
