// What ggml's formats have in common: every block is a record of fixed size, and rows are whole blocks. One file a
// format defines the records.

import { ShapeError } from "@nomoat/core";
import type { ElementScope } from "@nomoat/core/extend";
import type { BlockFormat, GridCodes } from "./format.js";
import { fromHalf, toHalf } from "./half.js";

/** How one ggml format codes a block. */
export interface GgmlBlock {
  readonly name: string;
  readonly blockSize: number;
  readonly bytesPerBlock: number;
  readonly limit: number;
  readonly kernel?: number;
  readonly integerDot?: "few rows";
  /** Where a block has one float16 scale at its start, and after it a minimum or none: its codes. */
  readonly codes?: GgmlCodes;
  /** Writes the record of the block at `values[from]` to `bytes[at]`. */
  encode(values: Float32Array, from: number, bytes: Uint8Array, at: number): void;
  /** Writes the values of the record at `bytes[at]` to `out[to]`. */
  decode(bytes: Uint8Array, at: number, out: Float32Array, to: number): void;
  /** The code of element `place` (0 … blockSize − 1) of the record whose bytes `byte` names, as {@link BlockFormat.element}. */
  element?(scope: ElementScope, byte: (at: string) => string, place: string): string;
  errorBound(absmax: number): number;
}

export interface GgmlCodes {
  readonly least: number;
  readonly most: number;
  /** Whether a float16 minimum follows the scale. */
  readonly minimum: boolean;
  /** Stores the codes of the block whose record begins at `bytes[at]`; `code` gives that of element j, from `least` to `most`. */
  store(bytes: Uint8Array, at: number, code: (j: number) => number): void;
}

function gridOf({ least, most, minimum, store }: GgmlCodes, bytesPerBlock: number): GridCodes {
  const rounded = (value: number) => fromHalf(toHalf(value));
  return {
    least,
    most,
    offsets: minimum ? "free" : "none",
    nearest: ({ scale, offset }) => ({ scale: rounded(scale), offset: minimum ? rounded(offset) : 0 }),
    read(parts, block) {
      const bytes = parts.data as Uint8Array;
      const at = block * bytesPerBlock;
      const offset = minimum ? fromHalf(halfBits(bytes, at + 2)) : 0;
      return { scale: fromHalf(halfBits(bytes, at)), offset };
    },
    write(parts, block, { scale, offset }, codes, from) {
      const bytes = parts.data as Uint8Array;
      const at = block * bytesPerBlock;
      storeHalf(bytes, at, scale);
      if (minimum) storeHalf(bytes, at + 2, offset);
      store(bytes, at, (j) => codes[from + j]);
    },
  };
}

/** A ggml format from its block's code. */
export function ggmlFormat(block: GgmlBlock): BlockFormat {
  const { name, blockSize, bytesPerBlock, codes } = block;
  const element = block.element && {
    element(scope: ElementScope): string {
      const record = scope.divide(scope.index, blockSize);
      const place = scope.position(`${scope.index} - ${blockSize} * ${record}`);
      const byte = (at: string) => scope.part(0, `${record} * ${bytesPerBlock} + ${at}`);
      return block.element!(scope, byte, place);
    },
  };
  return {
    name,
    blockSize,
    bytesPerBlock,
    rowWise: true,
    grid: codes && gridOf(codes, bytesPerBlock),
    limit: block.limit,
    kernel: block.kernel ?? null,
    integerDot: block.integerDot ?? true,
    checkShape([, columns], tensor) {
      if (columns % blockSize !== 0) {
        throw new ShapeError(
          `quantize: ${tensor}: ${name} needs rows that are a multiple of ${blockSize} long, not ${columns}; use nf4 or int8, or skip it`,
        );
      }
    },
    parts: ([rows, columns]) => [
      { name: "data", dtype: "uint8", shape: [rows, (columns / blockSize) * bytesPerBlock] },
    ],
    quantizeBlock(values, from, _count, parts, index) {
      block.encode(values, from, parts.data as Uint8Array, index * bytesPerBlock);
    },
    dequantizeBlock(parts, index, out, to) {
      block.decode(parts.data as Uint8Array, index * bytesPerBlock, out, to);
    },
    ...element,
    errorBound: block.errorBound,
  };
}

/** The code of a number in two bytes from `at` on. */
export function halfElement(scope: ElementScope, byte: (at: string) => string, at: number): string {
  return scope.float16(byte(`${at}`), byte(`${at + 1}`));
}

/** The code of four bits of element `place`: byte j has element j in its low and element j + 16 in its high half. */
export function nibbleElement(
  scope: ElementScope,
  byte: (at: string) => string,
  at: number,
  place: string,
): string {
  const upper = scope.divide(place, 16);
  return scope.half(byte(`${at} + ${place} - 16 * ${upper}`), upper);
}

/** The code of five bits, as {@link storeFiveBits} lays them out. */
export function fiveBitElement(
  scope: ElementScope,
  byte: (at: string) => string,
  at: number,
  place: string,
): string {
  const eighth = scope.divide(place, 8);
  const fifth = scope.bits(byte(`${at} + ${eighth}`), `${place} - 8 * ${eighth}`, 1);
  return `(${nibbleElement(scope, byte, at + 4, place)} + 16.0 * ${fifth})`;
}

/** Stores `value` as little-endian float16. */
export function storeHalf(bytes: Uint8Array, at: number, value: number): void {
  const half = toHalf(value);
  bytes[at] = half & 0xff;
  bytes[at + 1] = half >>> 8;
}

/** The bits of the float16 at `bytes[at]`. */
export function halfBits(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8);
}

/** 1/d in float32, 0 where d is 0 or so small that the quotient overflows. */
export function inverse(d: number): number {
  const id = Math.fround(1 / d);
  return Number.isFinite(id) ? id : 0;
}

/** Least and largest of `count` values. */
export function range(values: Float32Array, from: number, count: number): [min: number, max: number] {
  let min = values[from];
  let max = min;
  for (let i = from + 1; i < from + count; i++) {
    if (values[i] < min) min = values[i];
    if (values[i] > max) max = values[i];
  }
  return [min, max];
}

/** The first of the values with the largest magnitude. */
export function signedExtreme(values: Float32Array, from: number, count: number): number {
  let extreme = 0;
  for (let i = from; i < from + count; i++) {
    if (Math.abs(values[i]) > Math.abs(extreme)) extreme = values[i];
  }
  return extreme;
}

/** Stores 32 codes of 4 bits in 16 bytes, element j beside element j + 16. */
export function storeNibbles(bytes: Uint8Array, at: number, code: (j: number) => number): void {
  for (let j = 0; j < 16; j++) bytes[at + j] = code(j) | (code(j + 16) << 4);
}

/** Stores 32 codes of 5 bits: fifth bits as a 32-bit number, then low halves, element j beside element j + 16. */
export function storeFiveBits(bytes: Uint8Array, at: number, code: (j: number) => number): void {
  bytes.fill(0, at, at + 4);
  for (let j = 0; j < 16; j++) {
    const [low, high] = [code(j), code(j + 16)];
    bytes[at + 4 + j] = (low & 15) | ((high & 15) << 4);
    bytes[at + (j >> 3)] |= (low >> 4) << (j & 7);
    bytes[at + 2 + (j >> 3)] |= (high >> 4) << (j & 7);
  }
}

/** The fifth bits of 32 codes, bit j for element j. */
export function fifthBits(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
}
