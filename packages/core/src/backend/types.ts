// The contract between the operations and what computes them. Operations have checked shapes, dtypes,
// broadcasting and ownership before a backend is called: it gets valid work only, and repeats no check.

import type { DType, DTypeArray } from "../dtype.js";

/** A backend's memory block. Only the backend that made it looks inside. */
export interface BufferHandle {
  /** Bytes that were asked for. */
  readonly bytes: number;
}

/** A tensor as a kernel sees it. `strides` and `offset` count elements, not bytes. */
export interface Operand {
  readonly buffer: BufferHandle;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
}

export type UnaryKind =
  | "neg"
  | "abs"
  | "sign"
  | "sqrt"
  | "rsqrt"
  | "exp"
  | "expm1"
  | "log"
  | "log1p"
  | "sin"
  | "cos"
  | "tanh"
  | "erf"
  | "sigmoid"
  | "silu"
  | "gelu"
  | "geluTanh"
  | "softplus"
  | "relu"
  | "square"
  | "reciprocal"
  | "floor"
  | "ceil"
  | "round";

/**
 * minimum and maximum return NaN when either operand is NaN. floorDivide rounds down and remainder has the sign of the divisor, as
 * in Python; integers by 0 give 0. The bitwise kinds are for int32; shifts take the count modulo 32 and shiftRight keeps the sign.
 */
export type BinaryKind =
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "pow"
  | "minimum"
  | "maximum"
  | "floorDivide"
  | "remainder"
  | BitwiseKind;

export type BitwiseKind = "bitwiseAnd" | "bitwiseOr" | "bitwiseXor" | "shiftLeft" | "shiftRight";

export type CompareKind = "equal" | "notEqual" | "less" | "lessEqual" | "greater" | "greaterEqual";

/** max and min return NaN when a NaN is among the elements. */
export type ReduceKind = "sum" | "prod" | "max" | "min";

/** Mean, variance, standard deviation, √Σ x² and log Σ e^x. */
export type StatisticKind = "mean" | "variance" | "std" | "norm" | "logsumexp";

/** Running sum and running product. */
export type ScanKind = "cumsum" | "cumprod";

export type ArgReduceKind = "argmax" | "argmin";

export interface MatmulOptions {
  /** Factor of the product. */
  readonly alpha: number;
  /** Factor of what `out` held before; with 0 `out` is not read, so it may hold anything. */
  readonly beta: number;
}

/** One of several products: matrices (two axes) as `matmul` takes them. */
export interface MatmulProduct extends MatmulOptions {
  readonly a: Operand;
  readonly b: Operand;
  readonly out: Operand;
}

export interface AttentionOptions {
  /** Factor of q·kᵀ. */
  readonly scale: number;
  /** Query i sees keys up to i + (keys − queries): queries are aligned to the end of the keys. */
  readonly causal: boolean;
  /**
   * Bool (true where a query sees a key) or float32 (added to the scaled scores; below −1e30 the key is not seen), of shape
   * [batch, heads, queries, keys], any strides; null for none, and where the kernels are not `attentionMasks`.
   */
  readonly mask: Operand | null;
}

export interface AdamWOptions {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** 1 − beta1^step and 1 − beta2^step. */
  readonly biasCorrection1: number;
  readonly biasCorrection2: number;
  /** Factor applied to the gradient first (clipping). */
  readonly gradientScale: number;
}

/** One parameter's part of a step; all operands have its shape. */
export interface AdamWUpdate {
  readonly parameter: Operand;
  readonly gradient: Operand;
  readonly m: Operand;
  readonly v: Operand;
  readonly options: AdamWOptions;
}

/** What the code of one element of a packed weight is written with. Expressions are JavaScript; positions count elements from 0. */
export interface ElementScope {
  /** The element's row and column, and row · columns + column. */
  readonly row: string;
  readonly column: string;
  readonly index: string;
  /** Length of a row. */
  readonly columns: number;
  /** A position under a name. */
  position(expression: string): string;
  /** ⌊position / by⌋, under a name. */
  divide(position: string, by: number): string;
  /** The number at `position` of the weight's part number `part`, under a name; bytes count from 0 or, for int8, −128. */
  part(part: number, position: string): string;
  /** The value at a position that is itself a number (a code), under a name. */
  look(table: Float32Array, code: string): string;
  /** The low (0) or the high half (1) of a byte, 0 … 15. */
  half(byte: string, which: string): string;
  /** The `width` bits of a byte from `place` on, a position. */
  bits(byte: string, place: string, width: number): string;
  /** `one` where `which`, a position of 0 or 1, is 1, and `other` where it is 0. Both are computed. */
  choose(which: string, one: string, other: string): string;
  /** A byte as int8 counts it. */
  signed(byte: string): string;
  /** The number whose float16 is the two bytes. */
  float16(low: string, high: string): string;
}

/** A weight [outFeatures, inFeatures] in packed arrays. */
export interface PackedWeight {
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  /** Codes, scales, …: contiguous and whole blocks of memory. */
  readonly parts: readonly Operand[];
  /** The code of one element: an expression of float32. The same function for all weights of a format. */
  readonly element: (scope: ElementScope) => string;
}

/** How the windows of a convolution lie: along rows, along columns. */
export interface ConvolutionGeometry {
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  /** Zeros before the first row and the first column; a negative number leaves as many out. What is missing at the end is 0 too. */
  readonly padding: readonly number[];
  readonly groups: number;
}

/** How the windows of pooling lie along an axis; there are two, that of rows first. */
export interface PoolingAxis {
  /** Of the input. */
  readonly length: number;
  /** Of windows. */
  readonly count: number;
  readonly size: number;
  /** 0: window i reaches from ⌊i·length/count⌋ to ⌈(i+1)·length/count⌉, and `size`, `padding` and `dilation` say nothing. */
  readonly stride: number;
  readonly padding: number;
  readonly dilation: number;
}

/** The largest element of a window, or the mean of those on the axes, or of those in the padding too, which are 0. */
export type PoolingKind = "max" | "mean" | "paddedMean";

/**
 * Fused kernels that a backend may have. Unless said otherwise operands are contiguous float32, outputs are
 * preallocated, do not alias inputs, and hold anything before. Every one has a reference in `ops/`, made of primitives,
 * that defines its meaning and that runs where it is missing. "rows" is the product of all but the last axis.
 */
export interface FusedKernels {
  /** Softmax over the last axis. */
  softmax(x: Operand, out: Operand): void;
  /** dx = y · (dy − Σ dy·y). */
  softmaxBackward(y: Operand, dy: Operand, dx: Operand): void;
  logSoftmax(x: Operand, out: Operand): void;
  /** dx = dy − exp(y) · Σ dy. */
  logSoftmaxBackward(y: Operand, dy: Operand, dx: Operand): void;
  /** Each `length` (at least 1) elements of x that follow one another to one of out; sums of a mean, a variance or its root by `divisor`. */
  statistic(kind: StatisticKind, x: Operand, length: number, divisor: number, out: Operand): void;
  /** out = x · inverse · weight, inverse [rows] = 1/√(mean x² + eps), kept for backward. */
  rmsNorm(x: Operand, weight: Operand, eps: number, out: Operand, inverse: Operand): void;
  /** dx [rows, n] and dWeight [n]; either may be null when nobody wants it. */
  rmsNormBackward(
    x: Operand,
    weight: Operand,
    inverse: Operand,
    dy: Operand,
    dx: Operand | null,
    dWeight: Operand | null,
  ): void;
  /**
   * out = (x − mean) · inverse · weight + bias; mean and inverse [rows] = 1/√(variance + eps), the biased variance, are kept for
   * backward. weight and bias [n].
   */
  layerNorm(
    x: Operand,
    weight: Operand,
    bias: Operand,
    eps: number,
    out: Operand,
    mean: Operand,
    inverse: Operand,
  ): void;
  /** dx [rows, n], dWeight and dBias [n]; each may be null when nobody wants it. */
  layerNormBackward(
    x: Operand,
    weight: Operand,
    mean: Operand,
    inverse: Operand,
    dy: Operand,
    dx: Operand | null,
    dWeight: Operand | null,
    dBias: Operand | null,
  ): void;
  /**
   * Rotary embedding in the half-split convention. x, out [batch, heads, length, headDim], any strides but the last, which is 1;
   * cos, sin [length, headDim/2]. out = (x1·cos − s·x2·sin, x2·cos + s·x1·sin), s = +1, or −1 for the inverse.
   */
  rope(x: Operand, cos: Operand, sin: Operand, sign: 1 | -1, out: Operand): void;
  /** out = silu(gate) · up. */
  swiglu(gate: Operand, up: Operand, out: Operand): void;
  swigluBackward(gate: Operand, up: Operand, dy: Operand, dGate: Operand | null, dUp: Operand | null): void;
  /**
   * Scaled-dot-product attention. q, out [batch, heads, queries, headDim]; k, v [batch, kvHeads, keys, headDim];
   * heads is a multiple of kvHeads; any strides but the last, which is 1. logSumExp [batch, heads, queries] of the scaled,
   * masked scores, kept for backward (null when there is none). A row that sees no key gives zeros. Never stores queries × keys.
   */
  attention(
    q: Operand,
    k: Operand,
    v: Operand,
    options: AttentionOptions,
    out: Operand,
    logSumExp: Operand | null,
  ): void;
  /** attention and attentionBackward take masks; without it, an attention under a mask runs as its composition. */
  readonly attentionMasks: true;
  /** dq, dk, dv are laid out freely but for a last stride of 1; all three are written whole. */
  attentionBackward(
    q: Operand,
    k: Operand,
    v: Operand,
    out: Operand,
    logSumExp: Operand,
    dOut: Operand,
    options: AttentionOptions,
    dq: Operand,
    dk: Operand,
    dv: Operand,
  ): void;
  /**
   * logits [rows, classes], targets int32 [rows] → losses [rows] = logsumexp − logit of the target, 0 where the target is
   * ignoreIndex. With `scales` [rows], logits are overwritten by their gradient, scale · (softmax − onehot), 0 where ignored.
   */
  crossEntropy(
    logits: Operand,
    targets: Operand,
    ignoreIndex: number,
    losses: Operand,
    scales: Operand | null,
  ): void;
  /** out [outFeatures, inFeatures] = the weight's elements. */
  unpack(weight: PackedWeight, out: Operand): void;
  /**
   * out += or = x · wᵀ, x [rows, inFeatures], out [rows, outFeatures]; with `transposed` x · w, x [rows, outFeatures], out
   * [rows, inFeatures]. With `beta` 0 out is overwritten, with 1 added to.
   */
  packedMatmul(x: Operand, weight: PackedWeight, transposed: boolean, beta: 0 | 1, out: Operand): void;
  /**
   * Runs `work`, whose products may share one packed copy of x [..., k] as their left operand. x is contiguous and not written to
   * meanwhile. The results are the same bits.
   */
  sharePacking<T>(x: Operand, work: () => T): T;
  /** `matmul` of each product, in one go; strides are as free as there. No out overlaps another or any operand. */
  matmulGroup(products: readonly MatmulProduct[]): void;
  /**
   * out [images, outChannels, rows, columns] = windows of x [images, channels, …] · weight [outChannels, channels / groups, kernel…] (+
   * bias [outChannels]). Nothing is empty.
   */
  convolve(
    x: Operand,
    weight: Operand,
    bias: Operand | null,
    geometry: ConvolutionGeometry,
    out: Operand,
  ): void;
  /** out, as weight above, = its gradient; dy [outChannels, images, rows, columns], the first two axes of the output swapped. */
  convolveWeights(x: Operand, dy: Operand, geometry: ConvolutionGeometry, out: Operand): void;
  /**
   * out [planes…, rows, columns] from the windows of x [planes…, …]; indices, where wanted, int32: where in its plane the largest
   * element stands, the first of equals and of NaNs, −1 where a window has none.
   */
  pool(
    x: Operand,
    axes: readonly PoolingAxis[],
    kind: PoolingKind,
    out: Operand,
    indices: Operand | null,
  ): void;
  /** dx from dy, both as above; indices of "max" alone. */
  poolBackward(
    dy: Operand,
    axes: readonly PoolingAxis[],
    kind: PoolingKind,
    dx: Operand,
    indices: Operand | null,
  ): void;
  /**
   * One AdamW step of each, in place (decoupled weight decay, as torch.optim.AdamW):
   * g·=gradientScale; p −= lr·wd·p; m = β1·m+(1−β1)·g; v = β2·v+(1−β2)·g²; p −= lr·(m/bc1) / (√(v/bc2)+ε).
   */
  adamw(updates: readonly AdamWUpdate[]): void;
}

/** What a backend has in hand, in bytes. */
export interface BackendMemory {
  /** Handed out and not freed. */
  used: number;
  /** Highest `used` since start or {@link Backend.resetPeak}. */
  peak: number;
  /** Taken from the system. */
  reserved: number;
}

export interface Backend {
  readonly name: string;
  /** True when results can be read at once: host backends. */
  readonly synchronous: boolean;
  /** The dtypes that can be stored. */
  readonly dtypes: ReadonlySet<DType>;
  /** The dtypes that arithmetic works on; others are cast first. int32, uint8 and bool are always among them for copy, gather, compare, where. */
  readonly arithmetic: ReadonlySet<DType>;

  /** @throws {OutOfMemoryError} leaving everything usable */
  alloc(bytes: number): BufferHandle;
  free(buffer: BufferHandle): void;
  /** What `philox4x32` of random.ts writes into `out`, where the backend can tell sooner: key and counter, low words first. */
  philox?(
    out: Uint32Array,
    ...words: [key0: number, key1: number, c0: number, c1: number, c2: number, c3: number]
  ): void;
  write(buffer: BufferHandle, byteOffset: number, source: Uint8Array): void;
  /** A copy of the bytes. */
  read(buffer: BufferHandle, byteOffset: number, bytes: number): Promise<Uint8Array>;
  /** A copy of the bytes; absent on backends that are not synchronous. */
  readSync?(buffer: BufferHandle, byteOffset: number, bytes: number): Uint8Array;
  /** A live window over elements of a contiguous operand; absent on backends that are not synchronous. */
  window?(operand: Operand): DTypeArray;
  memory(): BackendMemory;
  resetPeak(): void;

  // Primitives. `out` is contiguous unless said otherwise (operations on transposed tensors name all operands' axes in the order of
  // memory first, see `elementByElement`); inputs have out's shape (broadcast axes have stride 0) unless
  // said otherwise, any strides (negative ones too), any rank from 0, any axis may be 0 long.

  /** out may have any strides. */
  fill(out: Operand, value: number): void;
  /** Same dtype; out may have any strides and must not overlap x. */
  copy(x: Operand, out: Operand): void;
  /** To out's dtype: round to nearest even to 16-bit floats, truncate and saturate to integers (NaN → 0), x ≠ 0 to bool. */
  cast(x: Operand, out: Operand): void;
  /** out may be x itself (same buffer, offset and strides). */
  unary(kind: UnaryKind, x: Operand, out: Operand): void;
  /** All three of one dtype; out may be a itself. */
  binary(kind: BinaryKind, a: Operand, b: Operand, out: Operand): void;
  /** a, b of one dtype; out is bool. */
  compare(kind: CompareKind, a: Operand, b: Operand, out: Operand): void;
  /** condition is bool; a, b, out of one dtype. */
  where(condition: Operand, a: Operand, b: Operand, out: Operand): void;
  /** out has x's shape with each of `axes` (sorted, distinct) 1 long. Empty sums are 0, products 1, max −∞, min +∞. */
  reduce(kind: ReduceKind, x: Operand, axes: readonly number[], out: Operand): void;
  /** Element i of out along `axis` is the sum or product of x's elements 0 … i. */
  scan(kind: ScanKind, x: Operand, axis: number, out: Operand): void;
  /** out int32 has x's shape with `axis` 1 long; the first of equals wins, and the first NaN before all. */
  argReduce(kind: ArgReduceKind, x: Operand, axis: number, out: Operand): void;
  /**
   * out [batch…, m, n] = alpha · a [batch…, m, k] · b [batch…, k, n] + beta · out, of floats. Ranks are equal and batch axes too
   * (stride 0 where broadcast). Transposes come as strides. out's last stride is 1, its others are free. k may be 0.
   */
  matmul(a: Operand, b: Operand, options: MatmulOptions, out: Operand): void;
  /** out [indices…, rest…] = x [n, rest…] at int32 indices, each checked to be within 0 … n−1 by the backend (ShapeError with the index). */
  gather(x: Operand, indices: Operand, out: Operand): void;
  /** out [n, rest…] += source [indices…, rest…] at indices (in index order, so sums are reproducible), each checked to be within 0 … n−1 (ShapeError with the index). */
  scatterAdd(source: Operand, indices: Operand, out: Operand): void;

  readonly fused: Partial<FusedKernels>;
  /** Changes how many threads compute; absent where there are none to choose. */
  setThreads?(threads: number): void;
  /** Stops workers and lets go of memory. */
  shutdown(): void;
}
