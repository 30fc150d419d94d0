// What the calibrated methods share: the lines that a format's codes stand on, and weights made of codes that a method has chosen
// itself.

import { ArgumentError, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { hostValues } from "@nomoat/core/extend";
import {
  allocateParts,
  type BlockFormat,
  doesNotFit,
  type Grid,
  type GridCodes,
  type PartArray,
  type WeightShape,
} from "../formats/format.js";
import { roundEven } from "../formats/integer.js";
import { waitForWeights } from "../quantize.js";
import { dequantizeParts, QuantizedTensor, quantizationError, weightShape } from "../quantized-tensor.js";

/** The code whose place on the line is nearest to `x`, ties to even. */
export function nearestCode({ least, most }: GridCodes, x: number, { scale, offset }: Grid): number {
  const code = scale === 0 ? 0 : roundEven((x - offset) / scale);
  return Math.max(least, Math.min(most, code));
}

/** Codes of a weight in a format of whole numbers, one an element, and a line for each block (group) of a row. */
export class GridCoder {
  readonly format: BlockFormat;
  readonly shape: WeightShape;
  readonly grids: GridCodes;
  /** Elements of a row that share a line; the last group of a row may be shorter. */
  readonly group: number;
  readonly groupsOfRow: number;
  readonly codes: Int16Array;
  readonly #lines: Grid[];

  /** @throws {ArgumentError} for formats whose codes are no whole numbers in groups of a row; as `checkShape` */
  constructor(method: string, format: BlockFormat, shape: WeightShape, name: string) {
    if (!format.grid || !format.rowWise) {
      throw new ArgumentError(
        `${method}: ${format.name} is not a format of integers in groups of a row (int4_g64, int4_asym_g128, int8, q4_0, q4_1, ...)`,
      );
    }
    format.checkShape(shape, name);
    this.format = format;
    this.shape = shape;
    this.grids = format.grid;
    this.group = Math.max(1, Math.min(format.blockSize, shape[1]));
    this.groupsOfRow = Math.ceil(shape[1] / this.group);
    this.codes = new Int16Array(shape[0] * shape[1]);
    this.#lines = new Array(shape[0] * this.groupsOfRow);
  }

  /** The line that round-to-nearest gives `values`, its search included. */
  fit(values: ArrayLike<number>): Grid {
    if (values.length === 0) return { scale: 0, offset: 0 };
    const parts = allocateParts(this.format.parts([1, values.length]));
    this.format.quantizeBlock(Float32Array.from(values), 0, values.length, parts, 0, values.length);
    return this.grids.read(parts, 0);
  }

  setGrid(row: number, group: number, grid: Grid): void {
    this.#lines[row * this.groupsOfRow + group] = grid;
  }

  grid(row: number, group: number): Grid {
    return this.#lines[row * this.groupsOfRow + group];
  }

  /** The packed weight, its error measured against `original`. */
  pack(original: Tensor): QuantizedTensor {
    const { format, shape } = this;
    const [rows, columns] = shape;
    const layouts = format.parts(shape);
    const parts = allocateParts(layouts);
    for (let row = 0; row < rows; row++) {
      for (let g = 0; g < this.groupsOfRow; g++) {
        const from = g * this.group;
        const count = Math.min(this.group, columns - from);
        const block = row * this.groupsOfRow + g;
        this.grids.write(parts, block, this.#lines[block], this.codes, row * columns + from, count, columns);
      }
    }
    return noGrad(() =>
      tidy(() => {
        const { device } = original;
        const tensors = layouts.map((part) => {
          const { name, dtype } = part;
          return [name, tensor(parts[name] as PartArray, { dtype, shape: part.shape, device })] as const;
        });
        const dense = dequantizeParts(
          format,
          shape,
          tensors.map(([, part]) => part),
        );
        return new QuantizedTensor(format, shape, new Map(tensors), quantizationError(original, dense));
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
  const values = noGrad(() =>
    tidy(() => hostValues(method, weight.detach().cast("float32").clone(), waitForWeights) as Float32Array),
  );
  for (let i = 0; i < values.length; i++) {
    if (!(Math.abs(values[i]) < format.limit)) throw doesNotFit(format, name, shape, i, values[i]);
  }
  return values;
}
