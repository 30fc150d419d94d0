// Matrix products on the wasm kernels: folds batch axes, chooses the kernel and how to cut the work. All choices follow
// from shapes and strides alone, so that results do not depend on the number of threads. Computes nothing itself.

import type { MatmulOptions, Operand } from "../types.js";
import type { WasmRuntime } from "./runtime.js";

// As in assembly/pack.ts and gemm.ts.
const tileRows = 4;
const panelColumns = 16;
const blockK = 384;
const edgeBytes = 192;
const onceColumns = 32;
const packHere = 0;
const direct = 1;
const prepacked = 2;
const windows = 3;

/** Rows of A packed at once, beside what is packed of B and by itself: 192 rows × 384 are 288 KiB and stay in L2. */
const blockRows = 96;
const sharedBlockRows = 192;
/** Up to so many rows against more columns, and from so many steps of k on, B is not packed as a whole. */
const wideRows = 1024;
/** From so many rows on packing A once pays, where the product is large. */
const leastWideRows = 32;
const shortK = 32;
/** Rows of such a product that are written together where rows of C lie whole pages apart: they share the few places of L1. */
const fewRows = 12;
/** Long sums are taken in stretches, so that what every group of columns reads of A again is still in the cache. */
const stretch = 6 * blockK;
/** Operations that are worth a thread's while, and elements to pack: about 20 and 2 µs. */
export const grainOperations = 600_000;
const grainElements = 1 << 13;
/** A matrix of so many elements is worth reading in place for up to so many vectors, by what stands side by side in it. */
const largeMatrix = 1 << 18;
const axpyVectors = 32;
const dotVectors = 12;
/** Most bytes of packed B that are made at once, for all threads and for one chunk. */
const packedBytesLimit = 8 << 20;
const chunkBytesLimit = 1 << 19;
/** Most columns of windows of one chunk. */
const mostWindows = 2048;

/** A product with its operands' byte addresses and strides. */
export interface Product {
  m: number;
  n: number;
  k: number;
  a: number;
  aRow: number;
  aK: number;
  b: number;
  bK: number;
  bColumn: number;
  out: number;
  outRow: number;
  /** Batch axes, innermost first. */
  axes: Axis[];
  batch: number;
  alpha: number;
  beta: number;
}

interface Axis {
  length: number;
  a: number;
  b: number;
  out: number;
}

/**
 * out [batch…, m, n] = alpha · a [batch…, m, k] · b [batch…, k, n] + beta · out, all float32, ranks and batch axes equal.
 * Any strides for a and b; out's last stride is 1. Results are the same bits for every number of threads.
 */
export function matmul(
  runtime: WasmRuntime,
  a: Operand,
  b: Operand,
  options: MatmulOptions,
  out: Operand,
): void {
  const product = describe(runtime, a, b, options, out);
  const { m, n, k, batch } = product;
  if (m === 0 || n === 0 || batch === 0) return;
  if (k === 0) scale(runtime, product);
  else if (!vectors(runtime, product)) blocks(runtime, product);
}

/** The operands of a product in bytes, batch axes folded. */
export function describe(
  runtime: WasmRuntime,
  a: Operand,
  b: Operand,
  options: MatmulOptions,
  out: Operand,
): Product {
  const rank = out.shape.length;
  const axes: Axis[] = [];
  let batch = 1;
  for (let i = rank - 3; i >= 0; i--) {
    const length = out.shape[i];
    batch *= length;
    if (length === 1) continue;
    const axis = { length, a: 4 * a.strides[i], b: 4 * b.strides[i], out: 4 * out.strides[i] };
    const inner = axes[axes.length - 1];
    if (
      inner &&
      follows(axis.a, inner.a, inner) &&
      follows(axis.b, inner.b, inner) &&
      follows(axis.out, inner.out, inner)
    ) {
      inner.length *= length;
    } else {
      axes.push(axis);
    }
  }
  const product: Product = {
    m: out.shape[rank - 2],
    n: out.shape[rank - 1],
    k: a.shape[rank - 1],
    a: runtime.address(a),
    aRow: 4 * a.strides[rank - 2],
    aK: 4 * a.strides[rank - 1],
    b: runtime.address(b),
    bK: 4 * b.strides[rank - 2],
    bColumn: 4 * b.strides[rank - 1],
    out: runtime.address(out),
    outRow: 4 * out.strides[rank - 2],
    axes,
    batch,
    alpha: options.alpha,
    beta: options.beta,
  };
  foldRows(product);
  // An axis of length 1 may have any stride; the natural one lets the contiguous paths see it.
  if (product.k === 1) {
    if (product.bColumn !== 4) product.bK = 4;
    if (product.aRow !== 4) product.aK = 4;
  }
  if (product.n === 1) product.bColumn = product.bK === 4 ? 0 : 4;
  if (product.m === 1) product.aRow = product.aK === 4 ? 0 : 4;
  return product;
}

/** True when a stride continues the inner axis, so that both are one. */
function follows(stride: number, innerStride: number, inner: Axis): boolean {
  return stride === innerStride * inner.length;
}

/** x [batch, rows, k] · w [k, n] is one product of batch · rows rows. */
function foldRows(product: Product): void {
  while (product.axes.length > 0) {
    const [axis] = product.axes;
    const rowsFollow =
      product.m === 1 || (axis.a === product.aRow * product.m && axis.out === product.outRow * product.m);
    if (axis.b !== 0 || !rowsFollow) return;
    if (product.m === 1) {
      product.aRow = axis.a;
      product.outRow = axis.out;
    }
    product.m *= axis.length;
    product.batch /= axis.length;
    product.axes.shift();
  }
}

/** The product over an empty k: out · beta. */
export function scale(runtime: WasmRuntime, { out, outRow, m, n, axes, batch, beta }: Product): void {
  const ints = [out, outRow, m, n, axes.length];
  for (const axis of axes) ints.push(axis.length, axis.out);
  runtime.core.launch("gemmScale", m * batch, ints, [beta], { grain: Math.max(1, Math.ceil(65536 / n)) });
}

/** Runs products with few vectors along the matrix's contiguous direction; false when this is none. */
function vectors(runtime: WasmRuntime, p: Product): boolean {
  if (p.n > p.m && fewVectors(p.m, p.n, p.k, p.bK, dotVectors)) {
    // Bᵀ is the matrix, the rows of A are the vectors.
    const kernel = p.bK === 4 ? "gemvDot" : p.bColumn === 4 ? "gemvAxpy" : undefined;
    if (!kernel) return false;
    const stride = p.bK === 4 ? p.bColumn : p.bK;
    const ints = [p.b, stride, p.a, p.aK, p.out, 4, p.n, p.k, p.m, p.aRow, p.outRow];
    launchVectors(runtime, kernel, ints, p, (axis) => [axis.length, axis.b, axis.a, axis.out]);
    return true;
  }
  // Columns of B are packed across its rows, and A as it stands serves the tiles of the product too.
  if (fewVectors(p.n, p.m, p.k, p.aK, 4)) {
    const kernel = p.aK === 4 ? "gemvDot" : p.aRow === 4 ? "gemvAxpy" : undefined;
    if (!kernel) return false;
    const stride = p.aK === 4 ? p.aRow : p.aK;
    const ints = [p.a, stride, p.b, p.bK, p.out, p.outRow, p.m, p.k, p.n, p.bColumn, 4];
    launchVectors(runtime, kernel, ints, p, (axis) => [axis.length, axis.a, axis.b, axis.out]);
    return true;
  }
  return false;
}

/** Whether so many vectors times a matrix [rows, k] are worth the kernels that read it where it stands, once. */
function fewVectors(count: number, rows: number, k: number, kStride: number, mostDots: number): boolean {
  if (count === 1) return true;
  const inner = kStride === 4;
  if (rows * k >= largeMatrix) return count <= (inner ? mostDots : axpyVectors);
  // Packing the vectors, sums over lanes, and sorting rows' sums at the end want some rows and some k to pay.
  if (count <= 3) return rows >= 8 && k >= (inner ? 8 : 48);
  return inner && count <= 6 && rows >= 16 && k >= 32;
}

function launchVectors(
  runtime: WasmRuntime,
  kernel: "gemvDot" | "gemvAxpy",
  ints: number[],
  p: Product,
  strides: (axis: Axis) => number[],
): void {
  const [rows, , vectors] = ints.slice(6);
  // A block's part of the matrix fits L2, so that several vectors read it from there; axpy's rows are long for the prefetcher.
  const fit = Math.max(4, Math.floor(32768 / p.k) & ~3);
  const columns = Math.min(1024, Math.max(128, ceilTo(rows / 16, 32)));
  const block = Math.min(rows, kernel === "gemvDot" ? Math.min(fit, 256) : columns);
  ints.push(block, p.axes.length);
  for (const axis of p.axes) ints.push(...strides(axis));
  const units = Math.ceil(rows / block) * p.batch;
  const grain = Math.max(1, Math.ceil(65536 / (block * p.k * Math.ceil(vectors / 2))));
  const dotFloats = vectors === 1 ? p.k : 2 * ceilTo(Math.min(p.k, 2048), 4);
  const scratchBytes = 4 * (kernel === "gemvDot" ? dotFloats : ceilTo(block, 4) * ceilTo(vectors, 2));
  runtime.core.launch(kernel, units, ints, [p.alpha, p.beta], { grain, scratchBytes });
}

function blocks(runtime: WasmRuntime, p: Product): void {
  // The sum over k is added up block by block in any case, so stretches of whole blocks give the same bits.
  const step = p.k > 2 * stretch && p.batch === 1 ? stretch : p.k;
  for (let from = 0; from < p.k; from += step) {
    const k = Math.min(step, p.k - from);
    const [a, b] = [p.a + from * p.aK, p.b + from * p.bK];
    const part = { ...p, k, a, b, beta: from === 0 ? p.beta : 1 };
    const operations = 2 * p.m * p.n * k;
    const large = p.batch === 1 && operations > 4 * grainOperations;
    const rows = operations > 16 * grainOperations ? leastWideRows : blockRows + 1;
    if (large && p.m >= rows && p.m <= wideRows && p.n > p.m && k > shortK) wide(runtime, part);
    else if (large && p.m > blockRows) shared(runtime, part);
    else separate(runtime, part);
  }
}

/**
 * Some hundreds of rows against a B of more columns: A is packed once for all threads, and each takes columns, whose B it packs bit by
 * bit and uses while it is in L1. B passes the memory once and is written nowhere.
 */
function wide(runtime: WasmRuntime, p: Product): void {
  const { packedRows, allocator } = runtime;
  const { a, m, k, aRow, aK } = p;
  const together = aK === 4 && aRow === 4 * k ? packedRows.shared(a, m, k, m) : 0;
  const packed = together || packedRows.pack(a, m, k, m, aRow, aK);
  try {
    let columns = Math.max(onceColumns, ceilTo(p.n / 24, 16));
    // An even number of chunks, of whole cache lines.
    while (Math.ceil(p.n / columns) % 2 === 1 && columns < p.n / 4) columns += 16;
    launchBlocks(runtime, blockLaunch({ ...p, a: packed }, m, columns, prepacked, packHere, 1));
  } finally {
    if (!together) allocator.freeUncounted(packed);
  }
}

/** One large product: B is packed once for all threads, then each takes blocks of rows. */
function shared(runtime: WasmRuntime, p: Product): void {
  const columns = Math.max(panelColumns, floorTo(packedBytesLimit / (4 * p.k), panelColumns));
  const buffer = runtime.allocator.allocateUncounted(4 * p.k * Math.min(columns, ceilTo(p.n, panelColumns)));
  try {
    for (let from = 0; from < p.n; from += columns) {
      const n = Math.min(columns, p.n - from);
      const part = { ...p, n, b: p.b + from * p.bColumn, out: p.out + 4 * from };
      const units = Math.ceil(p.k / blockK) * Math.ceil(n / 32);
      const packing = [part.b, p.bK, p.bColumn, p.k, n, buffer, 32, 0];
      const grain = Math.ceil(Math.max(units / 32, grainElements / (32 * Math.min(p.k, blockK))));
      runtime.core.launch("gemmPack", units, packing, [], { grain });
      // Eight blocks or a multiple, so that threads end at about the same time; fewer, but an even number, where they have 32 rows.
      const chunks = Math.min(ceilTo(p.m / sharedBlockRows, 8), floorTo(p.m / 32, 2));
      const rows = ceilTo(p.m / chunks, tileRows);
      // Such rows one after the other, by A in place, or, where tiles of packed A write whole lines, a few at a time.
      const apart = p.k <= shortK && p.outRow % 4096 === 0;
      const modeA =
        (apart && runtime.relaxed) || (p.aK === 4 && n <= directColumns(runtime)) ? direct : packHere;
      const block = apart && modeA === packHere ? Math.min(rows, fewRows) : rows;
      const packed = { ...part, b: buffer };
      const columnsOfC = ceilTo(n, panelColumns);
      const launch = blockLaunch(packed, block, columnsOfC, modeA, prepacked, Math.ceil(rows / block));
      launchBlocks(runtime, sharingRows(runtime, packed, launch));
    }
  } finally {
    runtime.allocator.freeUncounted(buffer);
  }
}

/** Arguments of the kernel `gemm`. */
export interface BlockLaunch {
  /** As the kernel counts them: 0 address of A, 11 rows of a block, 13 mode of A. */
  readonly ints: number[];
  readonly floats: readonly [alpha: number, beta: number];
  readonly units: number;
  readonly grain: number;
  readonly scratchBytes: number;
}

function separate(runtime: WasmRuntime, p: Product): void {
  launchBlocks(runtime, sharingRows(runtime, p, separateBlocks(runtime, p)));
}

/** The launch with A packed already, where others share it. */
function sharingRows(runtime: WasmRuntime, p: Product, launch: BlockLaunch): BlockLaunch {
  const { ints } = launch;
  if (ints[13] === packHere && p.batch === 1 && p.aK === 4 && p.aRow === 4 * p.k) {
    const packed = runtime.packedRows.shared(p.a, p.m, p.k, ints[11]);
    if (packed) [ints[0], ints[13]] = [packed, prepacked];
  }
  return launch;
}

/** Most columns for which A is not packed: the tiles of the baseline build (assembly/tile.ts) gain more by it. */
function directColumns(runtime: WasmRuntime): number {
  return runtime.relaxed ? 32 : 8;
}

/** Batches and products of few rows: every chunk packs the B that it needs. */
export function separateBlocks(runtime: WasmRuntime, p: Product): BlockLaunch {
  const rows = ceilTo(p.m / Math.ceil(p.m / blockRows), tileRows);
  const rowBlocks = Math.ceil(p.m / rows);
  let columns = ceilTo(p.n, panelColumns);
  // One block of rows uses what it packs at once; several keep all of a group's B.
  if (rowBlocks > 1) {
    columns = Math.min(columns, Math.max(panelColumns, floorTo(chunkBytesLimit / (4 * p.k), panelColumns)));
  }
  if (p.batch === 1) {
    // Some 16 chunks, but none too small.
    const worthwhile = ceilTo(grainOperations / (2 * p.m * p.k), panelColumns);
    columns = Math.min(columns, Math.max(worthwhile, ceilTo(p.n / 16, panelColumns), 32));
  }
  const groups = Math.ceil(p.n / columns);
  const perProduct = 2 * p.m * Math.min(columns, p.n) * p.k;
  const products = Math.max(1, Math.floor(grainOperations / perProduct));
  // Packing is cheap beside the tiles that it makes possible, more so in the baseline build, but not for few rows.
  const small = runtime.relaxed || p.m <= 16 ? 8192 : 1024;
  const modeB = p.bColumn === 4 && p.k * p.n <= small ? direct : packHere;
  const modeA =
    modeB === direct || p.n <= directColumns(runtime) || p.m * p.k <= small / 2 ? direct : packHere;
  const grain = Math.min(products * rowBlocks, rowBlocks * groups * p.batch);
  return blockLaunch(p, rows, columns, modeA, modeB, grain);
}

function launchBlocks(runtime: WasmRuntime, { units, ints, floats, grain, scratchBytes }: BlockLaunch): void {
  runtime.core.launch("gemm", units, ints, floats, { grain, scratchBytes });
}

function blockLaunch(
  p: Product,
  rows: number,
  columns: number,
  modeA: number,
  modeB: number,
  grain: number,
): BlockLaunch {
  const { m, n, k, axes } = p;
  const ints = [p.a, p.aRow, p.aK, p.b, p.bK, p.bColumn, p.out, p.outRow, m, n, k];
  ints.push(rows, columns, modeA, modeB, axes.length);
  for (const axis of axes) ints.push(axis.length, axis.a, axis.b, axis.out);
  const units = Math.ceil(m / rows) * Math.ceil(n / columns) * p.batch;
  const packedA = 4 * rows * Math.min(k, blockK);
  // As `gemm` in the assembly decides: with one block of rows B is packed bit by bit.
  const once = modeB === packHere && m <= rows;
  const pieces = modeB === windows ? blockK * (onceColumns + 1) + columns : Math.min(k, blockK) * onceColumns;
  const packedB = modeB === prepacked ? 0 : 4 * (once || modeB === windows ? pieces : k * columns);
  const scratchBytes = edgeBytes + packedA + packedB;
  return { ints, floats: [p.alpha, p.beta], units, grain, scratchBytes };
}

/** A contiguous A [m, k] times windows of an image: see {@link launchWindows}. */
export function windowProduct(
  m: number,
  n: number,
  k: number,
  a: number,
  b: number,
  out: number,
  axes: Axis[],
): Product {
  const batch = axes.reduce((product, { length }) => product * length, 1);
  const [aRow, aK, outRow] = [4 * k, 4, 4 * n];
  return { m, n, k, a, aRow, aK, b, bK: 0, bColumn: 0, out, outRow, axes, batch, alpha: 1, beta: 0 };
}

/** A product whose B is windows of an image; `walks` over k and columns, and what C holds before, as assembly/gemm.ts says. */
export function launchWindows(runtime: WasmRuntime, p: Product, walks: readonly number[]): void {
  const rows = ceilTo(p.m / Math.ceil(p.m / sharedBlockRows), tileRows);
  const units = Math.ceil(p.m / rows) * p.batch;
  // Some 16 chunks, but none too small, and none of more columns than there is memory for their offsets.
  const worthwhile = ceilTo(grainOperations / (2 * rows * p.k), panelColumns);
  const share = Math.max(2 * panelColumns, worthwhile, ceilTo((p.n * units) / 16, panelColumns));
  const columns = Math.min(share, ceilTo(p.n, panelColumns), mostWindows);
  const grain = Math.floor(grainOperations / (2 * rows * columns * p.k));
  const small = p.m * p.k <= 4096;
  const few = small && columns <= 4 * panelColumns;
  const together = p.axes.every(({ a }) => a === 0) && !small;
  const { packedRows, allocator } = runtime;
  const packed = together ? packedRows.pack(p.a, p.m, p.k, rows) : 0;
  try {
    if (packed) p.a = packed;
    const modeA = packed ? prepacked : few ? direct : packHere;
    const launch = blockLaunch(p, rows, columns, modeA, windows, grain);
    launch.ints.push(...walks);
    launchBlocks(runtime, launch);
  } finally {
    if (packed) allocator.freeUncounted(packed);
  }
}

export function ceilTo(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

function floorTo(value: number, multiple: number): number {
  return Math.floor(value / multiple) * multiple;
}
