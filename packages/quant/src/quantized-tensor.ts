// QuantizedTensor: the packed arrays of one weight in core's storage, their format, and the logical shape. It is no
// Tensor and has no arithmetic; `dequantize` makes one.

import { ArgumentError, DisposedError, keep, ShapeError, type Tensor, tensor, tidy } from "@nomoat/core";
import { describe, empty, operand, use } from "@nomoat/core/extend";
import {
  type BlockFormat,
  dequantizeValues,
  type PartArray,
  sizeOf,
  type WeightShape,
} from "./formats/format.js";
import { addressOf, kernelsFor, packedWeight, weightArguments } from "./kernels.js";

/** How far a quantized weight is from what it was made of. */
export interface QuantizationError {
  /** Root mean square of x − x̂. */
  readonly rms: number;
  /** Largest |x − x̂|. */
  readonly max: number;
  /** Signal to quantization noise, 10·log₁₀(Σx² / Σ(x − x̂)²), in decibels; Infinity without error. */
  readonly sqnr: number;
  /** Σx² and Σ(x − x̂)², for sums over layers. */
  readonly signal: number;
  readonly noise: number;
}

/** What tells packed weights that another copy of this package made (ESM and CJS in one process). */
const brand = Symbol.for("@nomoat/quant/QuantizedTensor");

/** A weight [outFeatures, inFeatures] in a quantized format. */
export class QuantizedTensor {
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && (value as { [brand]?: boolean })[brand] === true;
  }

  get [brand](): true {
    return true;
  }

  readonly format: BlockFormat;
  /** Logical shape, never worked out from packed bytes. */
  readonly shape: WeightShape;
  /** Packed arrays by name, as the format lists them. */
  readonly parts: ReadonlyMap<string, Tensor>;
  /** Error against the original; null when it was not measured (read from a file). */
  readonly error: QuantizationError | null;

  /**
   * Takes over `parts`, which live on one backend.
   * @throws {ShapeError} when the shape does not suit the format
   * @throws {ArgumentError} listing every missing, unexpected or misshapen part
   */
  constructor(
    format: BlockFormat,
    shape: WeightShape,
    parts: ReadonlyMap<string, Tensor>,
    error: QuantizationError | null = null,
  ) {
    format.checkShape(shape, "weight");
    const layouts = format.parts(shape);
    const faults = layouts.flatMap(({ name, dtype, shape: expected }) => {
      const part = parts.get(name);
      if (!part) return [`missing "${name}"`];
      if (part.dtype !== dtype || part.size !== sizeOf(expected) || !part.isContiguous) {
        return [
          `"${name}" is ${part.dtype} [${part.shape.join(", ")}], expected contiguous ${dtype} [${expected.join(", ")}]`,
        ];
      }
      return [];
    });
    for (const name of parts.keys()) {
      if (!layouts.some((layout) => layout.name === name)) faults.push(`unexpected "${name}"`);
    }
    if (faults.length > 0) throw new ArgumentError(`QuantizedTensor: ${format.name}: ${faults.join("; ")}`);
    this.format = format;
    this.shape = [shape[0], shape[1]];
    this.parts = new Map(layouts.map(({ name }) => [name, keep(parts.get(name) as Tensor)]));
    this.error = error;
  }

  get outFeatures(): number {
    return this.shape[0];
  }

  get inFeatures(): number {
    return this.shape[1];
  }

  /** Bytes of all parts. */
  get bytes(): number {
    let bytes = 0;
    for (const part of this.parts.values()) bytes += part.size * (part.dtype === "float32" ? 4 : 1);
    return bytes;
  }

  /** Bits per weight, scales included. */
  get bitsPerWeight(): number {
    return (this.bytes * 8) / sizeOf(this.shape);
  }

  /** Name of the backend that holds the parts. */
  get device(): Tensor["device"] {
    return this.partList("device")[0].device;
  }

  get disposed(): boolean {
    for (const part of this.parts.values()) if (part.disposed) return true;
    return false;
  }

  /** @internal The parts in the format's order. @throws {DisposedError} */
  partList(operation: string): Tensor[] {
    if (this.disposed) {
      throw new DisposedError(
        `${operation}: a ${this.format.name} weight [${this.shape.join(", ")}] was used after it was disposed`,
      );
    }
    return [...this.parts.values()];
  }

  /** The weight as float32 [outFeatures, inFeatures], outside the graph; the caller disposes it. */
  dequantize(): Tensor {
    return dequantizeParts(this.format, this.shape, this.partList("dequantize"));
  }

  /** The same weight on another backend; the caller disposes it. @throws {BackendError} as {@link Tensor.to} */
  to(device: Tensor["device"]): QuantizedTensor {
    const parts = this.partList("to").map((part) => part.to(device));
    const names = [...this.parts.keys()];
    return new QuantizedTensor(
      this.format,
      this.shape,
      new Map(names.map((name, i) => [name, parts[i]])),
      this.error,
    );
  }

  dispose(): void {
    for (const part of this.parts.values()) part.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    const what = `${this.format.name} [${this.shape.join(", ")}]`;
    return this.disposed
      ? `QuantizedTensor(${what}, disposed)`
      : `QuantizedTensor(${what}, ${this.bytes} bytes)`;
  }
}

/** float32 [outFeatures, inFeatures] from the parts of a weight, in the format's order. */
export function dequantizeParts(format: BlockFormat, shape: WeightShape, parts: readonly Tensor[]): Tensor {
  const kernels = kernelsFor(parts[0], format);
  const packed = kernels ? null : packedWeight(format, shape, parts);
  if (!kernels && !packed) return dequantizeReference(format, shape, parts);
  const [rows, columns] = shape;
  const { backend } = parts[0].storage;
  const out = empty(backend, "float32", [rows, columns]);
  if (packed) backend.fused.unpack!(packed, operand(out));
  if (!kernels) return out;
  if (out.size > 0) {
    const grain = Math.max(1, Math.ceil(16384 / columns));
    const args = [...weightArguments(kernels, format, parts, columns), addressOf(kernels, out)];
    kernels.module.launch("dequantize", rows, args, [], { grain, scratchBytes: 1024 });
  }
  return out;
}

function dequantizeReference(format: BlockFormat, shape: WeightShape, parts: readonly Tensor[]): Tensor {
  const names = format.parts(shape).map(({ name }) => name);
  const arrays = Object.fromEntries(names.map((name, i) => [name, parts[i].dataSync() as PartArray]));
  return tensor(dequantizeValues(format, arrays, shape), { shape, device: parts[0].device });
}

/** @throws {ShapeError} unless `weight` is a matrix */
export function weightShape(operation: string, weight: Tensor): WeightShape {
  use(operation, weight);
  if (weight.rank !== 2) {
    throw new ShapeError(
      `${operation}: a weight is [outFeatures, inFeatures], not [${weight.shape.join(", ")}]`,
    );
  }
  return [weight.shape[0], weight.shape[1]];
}

/** Throws unless `weight` is packed. */
export function requirePacked(operation: string, weight: unknown): asserts weight is QuantizedTensor {
  if (!(weight instanceof QuantizedTensor))
    throw new ArgumentError(`${operation}: expected a QuantizedTensor, not ${describe(weight)}`);
}

/** The distance of `approximation` from `original`, both [out, in]; sums run in float32 along rows, then in float64. */
export function quantizationError(original: Tensor, approximation: Tensor): QuantizationError {
  const [rows, columns] = original.shape;
  // In parts, so that the temporaries stay small beside the weight.
  const step = Math.max(1, Math.floor(2 ** 20 / Math.max(1, columns)));
  let signal = 0;
  let noise = 0;
  let max = 0;
  for (let row = 0; row < rows && columns > 0; row += step) {
    tidy(() => {
      const range: readonly [number, number] = [row, Math.min(row + step, rows)];
      const x = original.slice(range);
      const difference = x.sub(approximation.slice(range));
      signal += total(x.square().sum(1));
      noise += total(difference.square().sum(1));
      max = Math.max(max, difference.abs().max().item());
    });
  }
  return errorOf(signal, noise, max, original.size);
}

function total(rows: Tensor): number {
  let sum = 0;
  for (const row of rows.dataSync()) sum += row;
  return sum;
}

/** The figures from sums over `count` elements. */
export function errorOf(signal: number, noise: number, max: number, count: number): QuantizationError {
  return {
    rms: count === 0 ? 0 : Math.sqrt(noise / count),
    max,
    sqnr: noise === 0 ? Infinity : 10 * Math.log10(signal / noise),
    signal,
    noise,
  };
}
