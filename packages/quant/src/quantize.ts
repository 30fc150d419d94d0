// From a float weight to a QuantizedTensor, by kernels where there are some.

import { ArgumentError, noGrad, type Tensor, tensor, tidy, withBackend, zeros } from "@nomoat/core";
import { hostValues, requireOptions, use } from "@nomoat/core/extend";
import {
  allocateParts,
  type BlockFormat,
  doesNotFit,
  type PartArray,
  quantizeValues,
  sizeOf,
  type WeightShape,
} from "./formats/format.js";
import { type FormatName, formatByName } from "./formats/index.js";
import { addressOf, type Kernels, kernelsFor } from "./kernels.js";
import { dequantizeParts, QuantizedTensor, quantizationError, weightShape } from "./quantized-tensor.js";

export interface QuantizeOptions {
  /** Name of a format, or a format. */
  readonly format: FormatName | BlockFormat;
  /** Name of the tensor in messages. */
  readonly name?: string;
  /** Measure the error against the original (default true; it costs about as much as quantizing). */
  readonly measure?: boolean;
}

/**
 * Quantizes a float weight [outFeatures, inFeatures]; the result is on the backend where the weight is, which stays as it is. What
 * a device computed cannot be read here: `quantizeModelAsync` waits for it.
 *
 * @returns a QuantizedTensor that the caller disposes
 * @throws {ShapeError} when the weight is no matrix, or its rows do not suit the format
 * @throws {ArgumentError} for a NaN, an infinity or a value beyond the format, naming tensor and index; for an unknown format
 * @throws {BackendError} for a weight that a device computed
 */
export function quantize(weight: Tensor, options: QuantizeOptions): QuantizedTensor {
  use("quantize", weight);
  requireOptions("quantize", options);
  const format = resolveFormat(options.format);
  const name = options.name ?? "tensor";
  const shape = weightShape("quantize", weight);
  format.checkShape(shape, name);
  if (!weight.storage.backend.synchronous) {
    const { dtype } = weight;
    const values = hostValues("quantize", weight, waitForWeights);
    const quantized = tidy(() => quantize(tensor(values, { shape, dtype, device: hostDevice() }), options));
    try {
      return quantized.to(weight.device);
    } finally {
      quantized.dispose();
    }
  }
  return tidy(() =>
    noGrad(() => {
      const cast = weight.dtype === "float32" ? weight : weight.cast("float32");
      const values = cast.isContiguous ? cast : cast.clone();
      const kernels = kernelsFor(values, format);
      const parts = kernels
        ? quantizeByKernel(kernels, format, values, shape, name)
        : quantizeByReference(format, values, shape, name);
      const error =
        options.measure === false
          ? null
          : quantizationError(values, dequantizeParts(format, shape, [...parts.values()]));
      return new QuantizedTensor(format, shape, parts, error);
    }),
  );
}

/** The backend that quantizes for those that cannot be read at once: wasm where it runs. */
export function hostDevice(): "wasm" | "reference" {
  try {
    return withBackend("wasm", () => "wasm" as const);
  } catch {
    return "reference";
  }
}

/** A format by name, or the given one. @throws {ArgumentError} for an unknown name */
export function resolveFormat(format: FormatName | BlockFormat): BlockFormat {
  if (typeof format === "string") return formatByName(format);
  if (typeof format?.quantizeBlock !== "function") {
    throw new ArgumentError(`quantize: format must be a name or a BlockFormat, not ${String(format)}`);
  }
  return format;
}

/** What to do where a weight's values have to be waited for (gpu). */
export const waitForWeights =
  'use await quantizeModelAsync(model, ...) for a model, tensor(await weight.data(), { shape, device: "wasm" }) for a tensor';

function quantizeByReference(
  format: BlockFormat,
  values: Tensor,
  shape: WeightShape,
  name: string,
): Map<string, Tensor> {
  const arrays = quantizeValues(format, values.dataSync() as Float32Array, shape, name);
  return toTensors(format, shape, arrays, values.device);
}

function toTensors(
  format: BlockFormat,
  shape: WeightShape,
  arrays: Readonly<Record<string, PartArray>>,
  device: Tensor["device"],
): Map<string, Tensor> {
  return new Map(
    format
      .parts(shape)
      .map((part) => [
        part.name,
        tensor(arrays[part.name], { shape: part.shape, dtype: part.dtype, device }),
      ]),
  );
}

const scanUnit = 16384;

/** Throws for the first value that does not fit. */
function scan(kernels: Kernels, format: BlockFormat, values: Tensor, shape: WeightShape, name: string): void {
  const units = Math.ceil(values.size / scanUnit);
  const found = zeros([units], { dtype: "int32", device: values.device });
  const args = [addressOf(kernels, values), values.size, addressOf(kernels, found)];
  kernels.module.launch("findUnfit", units, args, [format.limit], { grain: 4 });
  const first = found.dataSync().find((index) => index >= 0);
  if (first === undefined) return;
  const value = tidy(() => values.reshape(-1).dataSync()[first]);
  throw doesNotFit(format, name, shape, first, value);
}

function quantizeByKernel(
  kernels: Kernels,
  format: BlockFormat,
  values: Tensor,
  shape: WeightShape,
  name: string,
): Map<string, Tensor> {
  const { device } = values;
  const layouts = format.parts(shape);
  const parts = new Map(
    layouts.map((part) => [part.name, zeros(part.shape, { dtype: part.dtype, device })] as const),
  );
  const size = sizeOf(shape);
  if (size === 0) return parts;
  scan(kernels, format, values, shape, name);
  const [data, scales, zeroPoints] = [...parts.values()];
  // Scales that are quantized in their turn go to a place of their own first.
  const [[scratchName, scratch] = []] = Object.entries(format.scratch?.(shape) ?? {});
  const floatScales = scratch ? tensor(scratch, { device }) : (scales ?? data);
  const run = format.rowWise ? shape[1] : size;
  const block = Math.min(format.blockSize, run);
  const blocksOfRun = Math.ceil(run / block);
  const args = [
    format.kernel as number,
    addressOf(kernels, values),
    addressOf(kernels, data),
    addressOf(kernels, floatScales),
    addressOf(kernels, zeroPoints ?? data),
    block,
    blocksOfRun,
    run,
    shape[1],
  ];
  const grain = Math.max(1, Math.ceil(16384 / block));
  kernels.module.launch("quantize", blocksOfRun * (size / run), args, [], { grain, scratchBytes: 8192 });
  if (!scratchName) return parts;
  const shared = allocateParts(layouts.slice(1));
  format.finish?.({ ...shared, [scratchName]: floatScales.dataSync() as Float32Array });
  for (const [part, array] of Object.entries(shared)) parts.get(part)?.copyFrom(array);
  return parts;
}
