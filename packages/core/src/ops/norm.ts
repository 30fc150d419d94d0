// Normalisations: over the last axes, and over groups of channels.

import { requireNonNegative } from "../arguments.js";
import { fusedBackward, gradientPlaces, type OwnRule } from "../autograd/rule.js";
import type { BackendName } from "../backend/registry.js";
import { ones, zeros } from "../creation.js";
import { requireFloat } from "../dtype.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, sameShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finishBy, operand } from "./dispatch.js";
import { add, mul, rsqrt, square, sub } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { throughFloat32 } from "./narrow.js";
import { mean } from "./statistics.js";
import { reshape } from "./view.js";

/**
 * x / √(mean x² + eps) · weight over the last axis (Zhang and Sennrich, arXiv:1910.07467).
 * @param weight - [n], n the length of x's last axis
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps = 1e-6): Tensor {
  const backend = commonBackend("rmsNorm", [x, weight]);
  requireFloat("rmsNorm", "x", x.dtype);
  requireNonNegative("rmsNorm", "eps", eps);
  if (weight.rank !== 1 || x.rank === 0 || weight.shape[0] !== x.shape[x.rank - 1]) {
    throw new ShapeError(
      `rmsNorm: weight ${formatShape(weight.shape)} does not fit the last axis of x ${formatShape(x.shape)}`,
    );
  }
  if (!fusedKernels([x, weight], "rmsNorm", "rmsNormBackward")) return rmsNormReference(x, weight, eps);
  return tidy(() => {
    const rows = contiguous(x);
    const scale = contiguous(weight);
    const out = empty(backend, x.dtype, x.shape);
    const inverse = empty(backend, x.dtype, x.shape.slice(0, -1));
    backend.fused.rmsNorm!(operand(rows), operand(scale), eps, operand(out), operand(inverse));
    return finishBy(rmsNormRule, [rows, scale], { eps }, out, [inverse]);
  });
}

export const rmsNormRule: OwnRule<{ eps: number }> = {
  name: "rmsNorm",
  needs: () => ["extras", 0, 1],
  backward: (c, dy) =>
    fusedBackward(
      c,
      dy,
      2,
      ([x, weight]) => rmsNormReference(x, weight, c.attributes.eps),
      (dy) => {
        const [places, [dx, dWeight]] = gradientPlaces(c, dy);
        const [x, weight, inverse] = [c.input(0), c.input(1), c.extra(0)].map((t) => operand(t));
        dy.storage.backend.fused.rmsNormBackward!(x, weight, inverse, operand(dy), dx, dWeight);
        return places;
      },
    ),
  remake: (input, { eps }) => rmsNorm(input(0), input(1), eps),
};

/** rmsNorm in primitives. */
export function rmsNormReference(x: Tensor, weight: Tensor, eps: number): Tensor {
  return tidy(() => {
    const scaled = (rows: Tensor) => mul(rows, rsqrt(add(mean(square(rows), -1, true), eps)));
    return mul(throughFloat32(x, scaled) ?? scaled(x), weight);
  });
}

/** (x − mean) / √(variance + eps) over `axes`; the variance is the biased one. */
function standardize(x: Tensor, axes: readonly number[], eps: number): Tensor {
  const narrow = throughFloat32(x, (wide) => standardize(wide, axes, eps));
  if (narrow) return narrow;
  const centred = sub(x, mean(x, axes, true));
  return mul(centred, rsqrt(add(mean(square(centred), axes, true), eps)));
}

/**
 * (x − mean) / √(variance + eps) · weight + bias over the last axes (Ba, Kiros and Hinton, arXiv:1607.06450), as
 * torch.nn.functional.layer_norm.
 * @param weight - of the shape of the axes to normalise; null for none, and then over the last axis
 * @param bias - of weight's shape, or null
 */
export function layerNorm(
  x: Tensor,
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  eps = 1e-5,
): Tensor {
  const backend = commonBackend("layerNorm", [x, ...[weight, bias].filter((t) => t !== null)]);
  requireFloat("layerNorm", "x", x.dtype);
  requireNonNegative("layerNorm", "eps", eps);
  const shape = (weight ?? bias)?.shape ?? x.shape.slice(-1);
  for (const [name, t] of [
    ["weight", weight],
    ["bias", bias],
  ] as const) {
    if (t && !(t.rank > 0 && sameShape(t.shape, shape) && sameShape(t.shape, x.shape.slice(-t.rank)))) {
      throw new ShapeError(
        `layerNorm: ${name} ${formatShape(t.shape)} does not fit the last axes of x ${formatShape(x.shape)}`,
      );
    }
  }
  if (x.rank === 0) throw new ShapeError("layerNorm: a scalar has no axes to normalise");
  return tidy(() => {
    // One axis to normalise, and parameters that are there: the kernel knows nothing else.
    const width = sizeOf(shape);
    const rows = reshape(x, [...x.shape.slice(0, x.rank - shape.length), width]);
    const device = { dtype: x.dtype, device: x.device as BackendName };
    const scale = weight ? reshape(weight, [width]) : ones([width], device);
    const shift = bias ? reshape(bias, [width]) : zeros([width], device);
    if (!fusedKernels([rows, scale, shift], "layerNorm", "layerNormBackward"))
      return reshape(layerNormReference(rows, scale, shift, eps), x.shape);
    const inputs = [rows, scale, shift].map(contiguous);
    const out = empty(backend, x.dtype, rows.shape);
    const [mean, inverse] = [0, 1].map(() => empty(backend, x.dtype, rows.shape.slice(0, -1)));
    const [xs, weights, biases] = inputs.map((t) => operand(t));
    backend.fused.layerNorm!(xs, weights, biases, eps, operand(out), operand(mean), operand(inverse));
    return reshape(finishBy(layerNormRule, inputs, { eps }, out, [mean, inverse]), x.shape);
  });
}

export const layerNormRule: OwnRule<{ eps: number }> = {
  name: "layerNorm",
  needs: () => ["extras", 0, 1, 2],
  backward: (c, dy) =>
    fusedBackward(
      c,
      dy,
      3,
      ([x, weight, bias]) => layerNormReference(x, weight, bias, c.attributes.eps),
      (dy) => {
        const [places, [dx, dWeight, dBias]] = gradientPlaces(c, dy);
        const inputs = [c.input(0), c.input(1), c.extra(0), c.extra(1)];
        const [x, weight, mean, inverse] = inputs.map((t) => operand(t));
        dy.storage.backend.fused.layerNormBackward!(
          x,
          weight,
          mean,
          inverse,
          operand(dy),
          dx,
          dWeight,
          dBias,
        );
        return places;
      },
    ),
};

/** layerNorm over the last axis in primitives; weight and bias [n]. */
export function layerNormReference(x: Tensor, weight: Tensor, bias: Tensor, eps: number): Tensor {
  return tidy(() => add(mul(standardize(x, [-1], eps), weight), bias));
}

/**
 * Each of `groups` parts of the channels normalised over its channels and all places (Wu and He, arXiv:1803.08494), as
 * torch.nn.functional.group_norm.
 * @param x - [batch, channels, ...]
 * @param weight - [channels], or null
 * @param bias - [channels], or null
 */
export function groupNorm(
  x: Tensor,
  groups: number,
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  eps = 1e-5,
): Tensor {
  commonBackend("groupNorm", [x, ...[weight, bias].filter((t) => t !== null)]);
  requireFloat("groupNorm", "x", x.dtype);
  requireNonNegative("groupNorm", "eps", eps);
  const [batch, channels, ...places] = x.shape;
  if (x.rank < 2 || !(Number.isInteger(groups) && groups > 0) || channels % groups !== 0) {
    throw new ShapeError(
      `groupNorm: expected x [batch, channels, ...] with channels a multiple of groups, not ${formatShape(x.shape)} and ${groups}`,
    );
  }
  const perChannel = (name: string, t: Tensor): Tensor => {
    if (t.rank !== 1 || t.shape[0] !== channels)
      throw new ShapeError(`groupNorm: ${name} ${formatShape(t.shape)} should be [${channels}]`);
    return reshape(t, [channels, ...places.map(() => 1)]);
  };
  return tidy(() => {
    const grouped = reshape(x, [batch, groups, (channels / groups) * sizeOf(places)]);
    let y = reshape(standardize(grouped, [2], eps), x.shape);
    if (weight) y = mul(y, perChannel("weight", weight));
    return bias ? add(y, perChannel("bias", bias)) : y;
  });
}
