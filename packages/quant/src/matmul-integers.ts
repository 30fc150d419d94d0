// The product of activations rounded to integers with a quantized weight: how activations are rounded, which weights have
// kernels for it, and the two kernels, for a few rows and for many.

import { ArgumentError, type Tensor } from "@nomoat/core";
import { empty } from "@nomoat/core/extend";
import type { BlockFormat, WeightShape } from "./formats/format.js";
import { addressOf, type Kernels, weightArguments } from "./kernels.js";

/** How activations are rounded to eight bits. */
export interface StaticActivations {
  /**
   * Step between neighbouring codes, the same for all activations (static quantization, from calibrated ranges). Without it every
   * block of a row gets the step that its largest magnitude needs (dynamic quantization): as many elements as share a scale in
   * the weight, from 32 to 128.
   */
  readonly activationScale?: number;
  /**
   * Code that stands for 0 (default 0): x ≈ scale · (code − zeroPoint), codes −128 … 127; what lies beyond is cut. Only with
   * `activationScale`.
   */
  readonly activationZeroPoint?: number;
}

/** @throws {ArgumentError} for a scale that is no positive number, a zero point that is no int8 or has no scale */
export function checkStaticActivations(where: string, range: StaticActivations): void {
  const { activationScale: scale, activationZeroPoint: zero } = range;
  if (scale !== undefined && !(Math.fround(scale) > 0 && Number.isFinite(Math.fround(scale)))) {
    throw new ArgumentError(`${where}: activationScale must be a positive float32, not ${scale}`);
  }
  if (zero === undefined) return;
  if (!Number.isInteger(zero) || zero < -128 || zero > 127) {
    throw new ArgumentError(`${where}: activationZeroPoint must be an integer from −128 to 127, not ${zero}`);
  }
  if (scale === undefined) {
    throw new ArgumentError(`${where}: an activationZeroPoint needs an activationScale`);
  }
}

/** Whether kernels multiply that many rows and a weight of that format by integers. */
export function hasIntegerProduct(format: BlockFormat, [, inFeatures]: WeightShape, rows: number): boolean {
  const { integerDot } = format;
  const straddles = !format.rowWise && Number.isFinite(format.blockSize) && inFeatures % 32 !== 0;
  return !straddles && (integerDot === "few rows" ? rows <= fewIntegerRows : integerDot);
}

/** Most rows whose products are computed where the weight lies packed; more go through tiles. Measured. */
const fewIntegerRows = 4;

/** K-quants come apart anew for every row, which three rows already pay tiles for. q2_K has none. */
function fewRowsOf({ blockSize, integerDot }: BlockFormat): number {
  return blockSize === 256 && integerDot === true ? 2 : fewIntegerRows;
}

/** Multiply-adds of one unit of work that is worth handing to a thread. */
const unitWork = 131072;

/** Floats that a block of 32 activations takes: see assembly/activations.ts. */
const floatsOfBlock = 26;

interface Weight {
  readonly format: BlockFormat;
  readonly shape: WeightShape;
  readonly parts: readonly Tensor[];
}

/** out [rows, outFeatures] = x · wᵀ for contiguous float32 x [rows, inFeatures], rounded to integers. */
export function multiplyIntegers(
  kernels: Kernels,
  weight: Weight,
  x: Tensor,
  rows: number,
  out: Tensor,
  range: StaticActivations,
): void {
  const { format, shape, parts } = weight;
  const [outFeatures, inFeatures] = shape;
  const { activationScale: scale = 0, activationZeroPoint: zero = 0 } = range;
  const blocks = Math.ceil(inFeatures / 32);
  const span = activationBlock(format, inFeatures) / 32;
  const { backend } = x.storage;
  const codes = empty(backend, "float32", [rows, blocks * floatsOfBlock]);
  kernels.module.launch(
    "quantizeActivations",
    rows,
    [addressOf(kernels, x), addressOf(kernels, codes), inFeatures, format.kernel as number, span],
    [scale, zero, -128, 127],
    { grain: Math.max(1, Math.ceil(16384 / inFeatures)), scratchBytes: 128 },
  );
  const args = weightArguments(kernels, format, parts, inFeatures);
  if (rows <= fewRowsOf(format)) {
    args.push(addressOf(kernels, codes), rows, addressOf(kernels, out), outFeatures);
    args.push(zero === 0 ? 1 : 0);
    const grain = Math.max(1, Math.ceil(unitWork / (inFeatures * rows)));
    kernels.module.launch("multiplyIntegers", outFeatures, args, [], { grain, scratchBytes: 1024 });
    return;
  }
  const packed = empty(backend, "int32", [Math.ceil(rows / 4) * 4 * blocks * 18]);
  const packGroup = 32;
  const packUnits = Math.ceil(blocks / packedBlocks) * Math.ceil(rows / packGroup);
  const packArgs = [addressOf(kernels, codes), rows, blocks, addressOf(kernels, packed), packGroup];
  kernels.module.launch("packIntegers", packUnits, packArgs, [], { grain: 4 });
  const columns = outFeatures <= 1024 ? 32 : 64;
  args.push(addressOf(kernels, packed), addressOf(kernels, out), rows, outFeatures);
  args.push(columns, rowsOfUnit, scale === 0 ? span : blocksOfRun(format, inFeatures));
  const units = Math.ceil(outFeatures / columns) * Math.ceil(rows / rowsOfUnit);
  kernels.module.launch("multiplyIntegerTiles", units, args, [], {
    grain: 1,
    scratchBytes: 8 * 1040 + 1024 + columns * Math.ceil(Math.min(rows, rowsOfUnit) / 4) * 16,
  });
}

/** Blocks that are packed at once, as in assembly/activations.ts. */
const packedBlocks = 16;
const rowsOfUnit = 256;

/** Elements of a row of activations that share a scale, where none is given for all. */
export function activationBlock(format: BlockFormat, inFeatures: number): number {
  return 32 * Math.min(4, blocksOfRun(format, inFeatures));
}

/** Blocks of 32 within which neither scale changes when the activations' is fixed: a divisor of those that are packed at once. */
function blocksOfRun(format: BlockFormat, inFeatures: number): number {
  const group = format.kernelOptions?.(inFeatures)[0] ?? 32;
  if (group >= inFeatures) return packedBlocks;
  for (let run = packedBlocks; ; run /= 2) if ((group / 32) % run === 0) return run;
}
