// Integer formats: codes of 4 or 8 bits times a float32 scale a group, a group being a run of a row, a row (output
// channel), or the tensor. Symmetric ones have no zero point: x ≈ scale · code, code within ±7 or ±127. Asymmetric ones
// span from the least to the largest value (and 0): x ≈ scale · (code − zeroPoint), unsigned codes.
//
// 4-bit codes stand two a byte, the even element in the low half, rows on whole bytes; symmetric ones are stored with 8
// added, which leaves room for −8: rounding to nearest has no use for it, methods that choose codes (calibrated/) do, and give scales
// either sign. 4-bit scales are searched: of the 20 scales from the full range down to 62 % of it, the one with the least squared
// error is taken. Codes are rounded half to even.
//
// quantize(dequantize(q)) gives the bytes of q for symmetric formats. For that a scale is rounded once more, to one that
// survives scale → most · scale → scale in float32 (this moves few scales by one unit in the last place). For asymmetric
// ones codes and zero points return except at ties of the rounding, and scales to within some units in the last place.

import { ArgumentError } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import type { BlockFormat, GridCodes, PartLayout, Parts, WeightShape } from "./format.js";

const { fround } = Math;

export interface IntegerFormatOptions {
  readonly bits: 4 | 8;
  /** What shares a scale: so many elements of a row (a multiple of 32), a row, or all. */
  readonly group: number | "row" | "tensor";
  /** Zero points, for weights that are not centred (default false). */
  readonly asymmetric?: boolean;
}

/** Nearest integer, ties to even. */
export function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

function clamp(x: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, x));
}

/** A scale for magnitudes up to `absmax` in `most` steps, exact on the way back. */
function symmetricScale(absmax: number, most: number): number {
  const scale = fround(absmax / most);
  const again = fround(fround(scale * most) / most);
  // Next to the largest float, most · scale overflows: one unit less does not.
  return Number.isFinite(again) ? again : fround(scale * (1 - 2 ** -24));
}

/** How one group is coded: x ≈ scale · (code − zero). */
interface ZeroPointGrid {
  readonly scale: number;
  readonly zero: number;
}

interface Range {
  readonly low: number;
  readonly high: number;
}

/** Factors of the range that the search tries, the full one first: it wins ties, so that what was coded is coded again. */
const searchSteps = 20;
const searchStep = 0.02;

/**
 * An integer format.
 *
 * The names of the common ones, `int8`, `int4`, ..., are in the registry; others are called after
 * their options, such as `int4_asym_g128`.
 * @throws {ArgumentError} for a group size that is no multiple of 32, or 4 bits for a whole tensor
 */
export function integerFormat(options: IntegerFormatOptions): BlockFormat {
  requireOptions("integerFormat", options);
  const { bits, group, asymmetric = false } = options;
  if (bits === 4 && group === "tensor") {
    throw new ArgumentError("integerFormat: 4 bits with one scale for a whole tensor are not offered");
  }
  if (typeof group === "number" && !(group > 0 && group % 32 === 0)) {
    throw new ArgumentError(`integerFormat: a group must be a multiple of 32 elements, not ${group}`);
  }
  const suffix = group === "row" ? "" : group === "tensor" ? "_tensor" : `_g${group}`;
  const name = `int${bits}${asymmetric ? "_asym" : ""}${suffix}`;
  const blockSize = typeof group === "number" ? group : Infinity;
  const most = asymmetric ? 2 ** bits - 1 : 2 ** (bits - 1) - 1;
  const least = asymmetric ? 0 : -most;
  /** What is added to symmetric codes of 4 bits, to store them without a sign. */
  const bias = bits === 4 && !asymmetric ? 8 : 0;
  const groupsOfRow = (columns: number) =>
    group === "tensor" ? 0 : group === "row" ? 1 : Math.ceil(columns / group);
  const groups = ([rows, columns]: WeightShape) => (group === "tensor" ? 1 : rows * groupsOfRow(columns));

  const gridOf = ({ low, high }: Range): ZeroPointGrid => {
    if (!asymmetric) return { scale: symmetricScale(Math.max(-low, high), most), zero: 0 };
    // Divided first: the range of two large floats overflows.
    const scale = fround(fround(high / most) - fround(low / most));
    return { scale, zero: scale === 0 ? 0 : clamp(-roundEven(fround(low / scale)), 0, most) };
  };
  const codeOf = (x: number, { scale, zero }: ZeroPointGrid) =>
    scale === 0 ? zero : clamp(roundEven(fround(x / scale)) + zero, least, most);

  /** Squared error in four float32 sums, as the kernel has it in four lanes. */
  const squaredError = (values: Float32Array, from: number, count: number, grid: ZeroPointGrid): number => {
    const sums = [0, 0, 0, 0];
    for (let i = 0; i < count; i++) {
      const x = values[from + i];
      const e = fround(x - fround(grid.scale * (codeOf(x, grid) - grid.zero)));
      sums[i & 3] = fround(sums[i & 3] + fround(e * e));
    }
    return fround(fround(sums[0] + sums[2]) + fround(sums[1] + sums[3]));
  };
  const search = (values: Float32Array, from: number, count: number, range: Range): ZeroPointGrid => {
    let best = gridOf(range);
    if (bits === 8) return best;
    let smallest = squaredError(values, from, count, best);
    for (let step = 1; step < searchSteps && smallest > 0; step++) {
      const factor = fround(1 - searchStep * step);
      const grid = gridOf({ low: fround(range.low * factor), high: fround(range.high * factor) });
      const error = squaredError(values, from, count, grid);
      if (error < smallest) {
        smallest = error;
        best = grid;
      }
    }
    return best;
  };
  /** Byte and shift of the code of flat element `index`. */
  const place = (index: number, columns: number): [byte: number, shift: number] => {
    if (bits === 8) return [index, 0];
    const row = Math.floor(index / columns);
    const column = index - row * columns;
    return [row * Math.ceil(columns / 2) + (column >> 1), (column & 1) * 4];
  };

  /** `code` with its bias, in place of flat element `index`. */
  const storeCode = (parts: Parts, index: number, columns: number, code: number) => {
    const [byte, shift] = place(index, columns);
    if (bits === 8) parts.data[byte] = code;
    else parts.data[byte] = (parts.data[byte] & (0xf0 >> shift)) | (code << shift);
  };
  const grid: GridCodes = {
    least: -bias || least,
    most,
    offsets: asymmetric ? "multiples" : "none",
    nearest({ scale, offset }) {
      const stored = fround(scale);
      if (!asymmetric || stored === 0) return { scale: stored, offset: 0 };
      return { scale: stored, offset: -stored * clamp(roundEven(-offset / stored), 0, most) };
    },
    read(parts, block) {
      const scale = parts.scales[block];
      return { scale, offset: asymmetric ? -scale * parts.zeroPoints[block] : 0 };
    },
    write(parts, block, { scale, offset }, codes, from, count, columns) {
      parts.scales[block] = scale;
      if (asymmetric) parts.zeroPoints[block] = scale === 0 ? 0 : roundEven(-offset / scale);
      for (let i = from; i < from + count; i++) storeCode(parts, i, columns, codes[i] + bias);
    },
  };

  return {
    name,
    grid,
    blockSize,
    bytesPerBlock: blockSize === Infinity ? Infinity : (blockSize * bits) / 8 + (asymmetric ? 5 : 4),
    rowWise: group !== "tensor",
    // Beyond, scale · (code − zeroPoint) can overflow: the zero point is rounded.
    limit: asymmetric ? 2 ** 127 : Infinity,
    kernel: bits === 8 ? (asymmetric ? 5 : 2) : asymmetric ? 7 : 6,
    integerDot: true,
    checkShape() {},
    parts(shape): PartLayout[] {
      const [rows, columns] = shape;
      const width = bits === 8 ? columns : Math.ceil(columns / 2);
      const scales: PartLayout = { name: "scales", dtype: "float32", shape: [groups(shape)] };
      return [
        { name: "data", dtype: bits === 8 && !asymmetric ? "int8" : "uint8", shape: [rows, width] },
        ...(asymmetric ? [scales, { ...scales, name: "zeroPoints", dtype: "uint8" } as const] : [scales]),
      ];
    },
    kernelOptions: (columns) => [
      group === "row" || group === "tensor" ? columns : group,
      groupsOfRow(columns),
    ],
    element(scope) {
      const { row, column, columns } = scope;
      const groupOfRow = typeof group === "number" ? scope.divide(column, group) : "0";
      const at = group === "tensor" ? "0" : `${row} * ${groupsOfRow(columns)} + ${groupOfRow}`;
      const scale = scope.part(1, at);
      const zero = asymmetric ? scope.part(2, at) : `${bias}.0`;
      if (bits === 8) return `${scale} * (${scope.part(0, scope.index)} - ${zero})`;
      const pair = scope.divide(column, 2);
      const byte = scope.part(0, `${row} * ${Math.ceil(columns / 2)} + ${pair}`);
      return `${scale} * (${scope.half(byte, `${column} - 2 * ${pair}`)} - ${zero})`;
    },
    quantizeBlock(values, from, count, parts, block, columns) {
      let low = 0;
      let high = 0;
      for (let i = from; i < from + count; i++) {
        low = Math.min(low, values[i]);
        high = Math.max(high, values[i]);
      }
      const found = search(values, from, count, { low, high });
      parts.scales[block] = found.scale;
      if (asymmetric) parts.zeroPoints[block] = found.zero;
      for (let i = from; i < from + count; i++) {
        storeCode(parts, i, columns, codeOf(values[i], found) + bias);
      }
    },
    dequantizeBlock(parts, block, out, to, count, columns) {
      const scale = parts.scales[block];
      const zero = asymmetric ? parts.zeroPoints[block] : bias;
      for (let i = to; i < to + count; i++) {
        const [byte, shift] = place(i, columns);
        const code = bits === 8 ? parts.data[byte] : (parts.data[byte] >> shift) & 15;
        out[i] = scale * (code - zero);
      }
    },
    // Half a step of a range that is at most twice absmax; the search may cut an extreme by 38 %.
    errorBound: (absmax) =>
      bits === 8
        ? (absmax / 127) * (0.5 + 2 ** -15) * (asymmetric ? 2 : 1)
        : absmax * (asymmetric ? 0.55 : 0.45),
  };
}

export const int8 = integerFormat({ bits: 8, group: "row" });

const pattern = /^int([48])(_asym)?(?:_(tensor)|_g(\d+))?$/;

/** The integer format of that name, or undefined when it is no such name. */
export function integerFormatByName(name: string): BlockFormat | undefined {
  const match = pattern.exec(name);
  if (!match) return undefined;
  const group = match[3] ? "tensor" : match[4] ? Number(match[4]) : "row";
  return integerFormat({ bits: Number(match[1]) as 4 | 8, group, asymmetric: match[2] !== undefined });
}
