// What the calibrated methods share: the integer grid of a group, and weights made of codes that a method has chosen itself.

import { ArgumentError, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import {
  allocateParts,
  type BlockFormat,
  doesNotFit,
  type PartArray,
  type WeightShape,
} from "../formats/format.js";
import { roundEven } from "../formats/integer.js";
import { dequantizeParts, QuantizedTensor, quantizationError, weightShape } from "../quantized-tensor.js";

/** x ≈ scale · (code − zero). */
export interface Grid {
  readonly scale: number;
  readonly zero: number;
}

/** Codes of a weight in an integer format, one an element, and a grid for each group of a row. */
export class GridCoder {
  readonly format: BlockFormat;
  readonly shape: WeightShape;
  /** Elements of a row that share a grid; the last group of a row may be shorter. */
  readonly group: number;
  readonly groupsOfRow: number;
  readonly asymmetric: boolean;
  readonly #bits: number;
  readonly #least: number;
  readonly #most: number;
  readonly codes: Int16Array;
  readonly scales: Float32Array;
  readonly zeros: Uint8Array;

  /** @throws {ArgumentError} for formats other than integers in groups or rows */
  constructor(method: string, format: BlockFormat, shape: WeightShape) {
    const [, bits, asymmetric, group] = /^int([48])(_asym)?(?:_g(\d+))?$/.exec(format.name) ?? [];
    if (bits === undefined) {
      throw new ArgumentError(
        `${method}: ${format.name} is not a format of integers in groups of a row (int4_g64, int4_asym_g128, int8, ...)`,
      );
    }
    this.format = format;
    this.shape = shape;
    this.asymmetric = asymmetric !== undefined;
    this.#bits = Number(bits);
    this.#most = this.asymmetric ? 2 ** this.#bits - 1 : 2 ** (this.#bits - 1) - 1;
    this.#least = this.asymmetric ? 0 : -this.#most;
    this.group = Math.max(1, group === undefined ? shape[1] : Number(group));
    this.groupsOfRow = Math.ceil(shape[1] / this.group);
    this.codes = new Int16Array(shape[0] * shape[1]);
    this.scales = new Float32Array(shape[0] * this.groupsOfRow);
    this.zeros = new Uint8Array(this.scales.length);
  }

  /** The grid that round-to-nearest gives `values`, its search included. */
  fit(values: Float32Array): Grid {
    const parts = allocateParts(this.format.parts([1, values.length]));
    if (values.length > 0) this.format.quantizeBlock(values, 0, values.length, parts, 0, values.length);
    return { scale: parts.scales[0], zero: this.asymmetric ? parts.zeroPoints[0] : 0 };
  }

  code(x: number, { scale, zero }: Grid): number {
    if (scale === 0) return zero;
    return Math.max(this.#least, Math.min(this.#most, roundEven(x / scale) + zero));
  }

  clampZero(zero: number): number {
    return this.asymmetric ? Math.max(0, Math.min(this.#most, roundEven(zero))) : 0;
  }

  setGrid(row: number, group: number, { scale, zero }: Grid): void {
    this.scales[row * this.groupsOfRow + group] = scale;
    this.zeros[row * this.groupsOfRow + group] = zero;
  }

  grid(row: number, group: number): Grid {
    const at = row * this.groupsOfRow + group;
    return { scale: this.scales[at], zero: this.zeros[at] };
  }

  /** The packed weight, its error measured against `original`. */
  pack(original: Tensor): QuantizedTensor {
    const [rows, columns] = this.shape;
    const layouts = this.format.parts(this.shape);
    const parts = allocateParts(layouts);
    const { data } = parts;
    if (this.#bits === 8) data.set(this.codes);
    else {
      const width = Math.ceil(columns / 2);
      const bias = this.asymmetric ? 0 : 8;
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          const code = this.codes[row * columns + column] + bias;
          data[row * width + (column >> 1)] |= code << ((column & 1) * 4);
        }
      }
    }
    parts.scales.set(this.scales);
    if (this.asymmetric) parts.zeroPoints.set(this.zeros);
    return noGrad(() =>
      tidy(() => {
        const { device } = original;
        const tensors = layouts.map(
          ({ name, dtype, shape }) =>
            [name, tensor(parts[name] as PartArray, { dtype, shape, device })] as const,
        );
        const dense = dequantizeParts(
          this.format,
          this.shape,
          tensors.map(([, part]) => part),
        );
        return new QuantizedTensor(
          this.format,
          this.shape,
          new Map(tensors),
          quantizationError(original, dense),
        );
      }),
    );
  }
}

/**
 * The values of a weight, row-major.
 * @throws {ArgumentError} for NaN, infinities and values beyond the format, naming tensor and index
 */
export function finiteValues(
  method: string,
  weight: Tensor,
  format: BlockFormat,
  name: string,
): Float32Array {
  const shape = weightShape(method, weight);
  const values = noGrad(() => tidy(() => weight.detach().cast("float32").clone().dataSync() as Float32Array));
  for (let i = 0; i < values.length; i++) {
    if (!(Math.abs(values[i]) < format.limit)) throw doesNotFit(format, name, shape, i, values[i]);
  }
  return values;
}
