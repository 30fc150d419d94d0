// Seeded random numbers: the counter-based Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
// 1, 2, 3" (SC 2011). Numbers alone, made on the host, so they are the same on every backend and for every thread count.
// Normal numbers go through Math.log, cos and sin, whose last bit may differ between JavaScript engines. Not for secrets.

import { requireProbability, requireThat } from "./arguments.js";
import { ArgumentError } from "./errors.js";
import { runtime } from "./runtime.js";

const multiplier0 = 0xd2511f53;
const multiplier1 = 0xcd9e8d57;
const weyl0 = 0x9e3779b9; // golden ratio
const weyl1 = 0xbb67ae85; // √3 − 1

/** The high word of a 32 × 32 bit product from four 16 × 16 bit ones; no sum exceeds 2³² − 1. */
function highProduct(x: number, y: number): number {
  const a = x & 0xffff;
  const b = x >>> 16;
  const low = y & 0xffff;
  const high = y >>> 16;
  const t = (Math.imul(b, low) + (Math.imul(a, low) >>> 16)) >>> 0;
  const u = (Math.imul(a, high) + (t & 0xffff)) >>> 0;
  return (Math.imul(b, high) + (t >>> 16) + (u >>> 16)) | 0;
}

/**
 * Fills `out`, whose length is a multiple of 4, with the Philox4x32-10 blocks of one counter after another, starting at
 * (counter0, counter1, counter2, counter3); the two low words count on as one 64-bit number.
 */
export function philox4x32(
  out: Uint32Array,
  key0: number,
  key1: number,
  counter0: number,
  counter1: number,
  counter2: number,
  counter3: number,
): void {
  let first = counter0;
  let second = counter1;
  for (let i = 0; i < out.length; i += 4) {
    let c0 = first | 0;
    let c1 = second | 0;
    let c2 = counter2 | 0;
    let c3 = counter3 | 0;
    let k0 = key0 | 0;
    let k1 = key1 | 0;
    for (let round = 0; round < 10; round++) {
      const high0 = highProduct(c0, multiplier0);
      const high1 = highProduct(c2, multiplier1);
      const low0 = Math.imul(c0, multiplier0);
      const low1 = Math.imul(c2, multiplier1);
      c0 = high1 ^ c1 ^ k0;
      c1 = low1;
      c2 = high0 ^ c3 ^ k1;
      c3 = low0;
      k0 = (k0 + weyl0) | 0;
      k1 = (k1 + weyl1) | 0;
    }
    out[i] = c0;
    out[i + 1] = c1;
    out[i + 2] = c2;
    out[i + 3] = c3;
    first = (first + 1) >>> 0;
    if (first === 0) second = (second + 1) >>> 0;
  }
}

/** A generator's place, as plain JSON; see {@link Generator.state}. */
export interface GeneratorState {
  readonly algorithm: "philox4x32-10";
  /** Decimal, 0 … 2⁶⁴ − 1. */
  readonly seed: string;
  /** Decimal, 0 … 2⁶⁴ − 1; 0 but for forks. */
  readonly stream: string;
  /** Decimal, blocks of four 32-bit words already used. */
  readonly block: string;
}

const scratch = /* @__PURE__ */ new Uint32Array(4096);

const limit64 = 0x1_0000_0000_0000_0000n;

function uint64(name: string, value: number | bigint): bigint {
  const wide = typeof value === "bigint" ? value : Number.isSafeInteger(value) ? BigInt(value) : -1n;
  requireThat(wide >= 0n && wide < limit64, "Generator", name, "an integer within 0 … 2⁶⁴ − 1", value);
  return wide;
}

/**
 * A stream of random numbers. Every call starts at a fresh block of four 32-bit words, so what a call gives depends on the
 * blocks that the calls before it used, not on what was left over.
 */
export class Generator {
  #seed: bigint;
  #stream: bigint;
  #block = 0;

  /**
   * @param seed - integer, 0 … 2⁶⁴ − 1
   * @param stream - integer, 0 … 2⁶⁴ − 1; streams of one seed are independent
   * @throws {ArgumentError} for any other seed or stream
   */
  constructor(seed: number | bigint, stream: number | bigint = 0n) {
    this.#seed = uint64("seed", seed);
    this.#stream = uint64("stream", stream);
  }

  /** Fills a whole number of blocks. */
  #words(out: Uint32Array): void {
    for (const uses of runtime.randomUses) if (!uses.has(this)) uses.set(this, this.state());
    const { key0, key1, stream0, stream1 } = this.#wordsOfKey();
    const low = this.#block % 2 ** 32;
    const words = [key0, key1, low, (this.#block - low) / 2 ** 32, stream0, stream1] as const;
    // A launch costs as much as some hundred words.
    if (out.length >= 256 && runtime.active?.philox) runtime.active.philox(out, ...words);
    else philox4x32(out, ...words);
    this.#block += out.length / 4;
  }

  #wordsOfKey() {
    return {
      key0: Number(this.#seed & 0xffffffffn),
      key1: Number(this.#seed >> 32n),
      stream0: Number(this.#stream & 0xffffffffn),
      stream1: Number(this.#stream >> 32n),
    };
  }

  /** Calls `use(words, start, count)` for chunks of `total` results that take `wordsEach` (1 or 2) words each. */
  #chunks(
    total: number,
    wordsEach: number,
    use: (words: Uint32Array, start: number, count: number) => void,
  ): void {
    const most = scratch.length / wordsEach;
    for (let start = 0; start < total; start += most) {
      const count = Math.min(most, total - start);
      const words = scratch.subarray(0, Math.ceil((count * wordsEach) / 4) * 4);
      this.#words(words);
      use(words, start, count);
    }
  }

  /**
   * `count` uniform 32-bit words.
   *
   * @throws {ArgumentError} when count is not an integer within 0 … 2³² − 1
   */
  nextUint32s(count: number): Uint32Array {
    const valid = Number.isInteger(count) && count >= 0 && count < 2 ** 32;
    requireThat(valid, "nextUint32s", "count", "an integer within 0 … 2³² − 1", count);
    const out = new Uint32Array(count);
    this.#chunks(count, 1, (words, start, size) => out.set(words.subarray(0, size), start));
    return out;
  }

  /** One uniform number in [0, 1), a multiple of 2⁻⁵³. */
  uniform(): number {
    const words = scratch.subarray(0, 4);
    this.#words(words);
    return unit53(words[0], words[1]);
  }

  /**
   * Fills `array` with uniform numbers in [low, high): low + (high − low)·u, with u a multiple of 2⁻²⁴ for float32 and of 2⁻⁵³
   * for float64.
   *
   * @throws {ArgumentError} when the bounds are not finite or low > high
   */
  fillUniform(array: Float32Array | Float64Array, low = 0, high = 1): void {
    const width = high - low;
    if (!(Number.isFinite(width) && width >= 0))
      throw new ArgumentError(`fillUniform: low ≤ high must be finite, not ${low} and ${high}`);
    // Rounding can reach `high`, which is outside the interval.
    if (array instanceof Float32Array) {
      const below = Math.fround(high);
      this.#chunks(array.length, 1, (words, start, count) => {
        for (let i = 0; i < count; i++) {
          const value = Math.fround(low + width * ((words[i] >>> 8) * 2 ** -24));
          array[start + i] = value < below ? value : low;
        }
      });
    } else {
      this.#chunks(array.length, 2, (words, start, count) => {
        for (let i = 0; i < count; i++) {
          const value = low + width * unit53(words[2 * i], words[2 * i + 1]);
          array[start + i] = value < high ? value : low;
        }
      });
    }
  }

  /**
   * Fills `array` with normal numbers, mean + std·z, by Box and Muller (1958): for u uniform in (0, 1] and v in [0, 1),
   * z₀ = √(−2 ln u)·cos 2πv and z₁ = √(−2 ln u)·sin 2πv; u and v have 32 bits for float32 (|z| < 6.67) and 53 for float64.
   *
   * @throws {ArgumentError} when mean is not finite or std not finite and ≥ 0
   */
  fillNormal(array: Float32Array | Float64Array, mean = 0, std = 1): void {
    requireThat(Number.isFinite(mean), "fillNormal", "mean", "finite", mean);
    requireThat(Number.isFinite(std) && std >= 0, "fillNormal", "std", "finite and ≥ 0", std);
    const single = array instanceof Float32Array;
    this.#chunks(Math.ceil(array.length / 2) * 2, single ? 1 : 2, (words, start, count) => {
      for (let i = 0; i < count; i += 2) {
        const u = single ? (words[i] + 1) * 2 ** -32 : 1 - unit53(words[2 * i], words[2 * i + 1]);
        const v = single ? words[i + 1] * 2 ** -32 : unit53(words[2 * i + 2], words[2 * i + 3]);
        const radius = std * Math.sqrt(-2 * Math.log(u));
        array[start + i] = mean + radius * Math.cos(2 * Math.PI * v);
        // Past the end for the second of an odd count, where a typed array ignores the store.
        array[start + i + 1] = mean + radius * Math.sin(2 * Math.PI * v);
      }
    });
  }

  /**
   * Fills `array` with 1 with probability `p` (to within 2⁻³²) and 0 otherwise.
   *
   * @throws {ArgumentError} when p is not within 0 … 1
   */
  fillBernoulli(array: Uint8Array | Int32Array | Float32Array | Float64Array, p: number): void {
    requireProbability("fillBernoulli", "p", p);
    const threshold = p * 2 ** 32;
    this.#chunks(array.length, 1, (words, start, count) => {
      for (let i = 0; i < count; i++) array[start + i] = words[i] < threshold ? 1 : 0;
    });
  }

  /**
   * A uniform integer in 0 … n − 1, without bias (words that would favour small results are drawn again).
   *
   * @throws {ArgumentError} when n is not an integer within 1 … 2⁵³ − 1
   */
  integer(n: number): number {
    requireThat(Number.isSafeInteger(n) && n >= 1, "integer", "n", "an integer within 1 … 2⁵³ − 1", n);
    const range = 2 ** 53;
    const usable = range - (range % n);
    for (;;) {
      const words = scratch.subarray(0, 4);
      this.#words(words);
      for (let i = 0; i < 4; i += 2) {
        const draw = unit53(words[i], words[i + 1]) * range;
        if (draw < usable) return draw % n;
      }
    }
  }

  /**
   * A random order of 0 … n − 1 (Fisher and Yates), every order equally likely.
   *
   * @throws {ArgumentError} when n is not an integer within 0 … 2³¹ − 1
   */
  permutation(n: number): Int32Array {
    const valid = Number.isInteger(n) && n >= 0 && n < 2 ** 31;
    requireThat(valid, "permutation", "n", "an integer within 0 … 2³¹ − 1", n);
    const order = new Int32Array(n);
    for (let i = 0; i < n; i++) order[i] = i;
    const words = scratch.subarray(0, Math.min(scratch.length, Math.ceil(n / 4) * 4));
    let used = words.length;
    for (let i = n - 1; i > 0; i--) {
      const size = i + 1;
      const usable = 2 ** 32 - (2 ** 32 % size);
      let draw: number;
      do {
        if (used === words.length) {
          this.#words(words);
          used = 0;
        }
        draw = words[used++];
      } while (draw >= usable);
      const j = draw % size;
      const moved = order[i];
      order[i] = order[j];
      order[j] = moved;
    }
    return order;
  }

  /**
   * An independent generator with the same seed. It depends on the seed, on this generator's own stream and on `stream`
   * alone, not on how many numbers were drawn.
   *
   * @param stream - a safe integer or a string; 1 and "1" are different streams
   * @throws {ArgumentError} for a number that is not a safe integer
   */
  fork(stream: number | string): Generator {
    if (typeof stream === "number") {
      requireThat(Number.isSafeInteger(stream), "fork", "stream", "a safe integer or a string", stream);
    }
    // Philox as a hash over the label's code units: each is encrypted together with what the ones before gave.
    const { key0, key1, stream0, stream1 } = this.#wordsOfKey();
    const label = `${typeof stream === "number" ? "n" : "s"}${stream}`;
    const state = new Uint32Array(4);
    state.set([stream0, stream1]);
    for (let i = 0; i < label.length; i++) {
      philox4x32(state, key0, key1, state[0], state[1], label.charCodeAt(i), label.length - i);
    }
    return new Generator(this.#seed, (BigInt(state[1]) << 32n) | BigInt(state[0]));
  }

  /** The place, to go on from later with {@link Generator.restore}. */
  state(): GeneratorState {
    return {
      algorithm: "philox4x32-10",
      seed: `${this.#seed}`,
      stream: `${this.#stream}`,
      block: `${this.#block}`,
    };
  }

  /**
   * A generator that goes on where {@link Generator.state} was taken.
   *
   * @throws {ArgumentError} when `state` is not one
   */
  static restore(state: GeneratorState): Generator {
    if (state?.algorithm !== "philox4x32-10") {
      throw new ArgumentError(`Generator.restore: unknown algorithm ${state?.algorithm}`);
    }
    const decimal = (field: "seed" | "stream" | "block", limit: bigint): bigint => {
      const text = state[field];
      if (typeof text === "string" && /^\d{1,20}$/.test(text) && BigInt(text) < limit) return BigInt(text);
      throw new ArgumentError(
        `Generator.restore: ${field} must be a decimal string below ${limit}, not ${text}`,
      );
    };
    const generator = new Generator(decimal("seed", limit64), decimal("stream", limit64));
    generator.#block = Number(decimal("block", 2n ** 53n));
    return generator;
  }

  /** Goes on where {@link Generator.state} was taken. @throws {ArgumentError} when `state` is not one */
  setState(state: GeneratorState): void {
    const other = Generator.restore(state);
    this.#seed = other.#seed;
    this.#stream = other.#stream;
    this.#block = other.#block;
  }
}

/** A multiple of 2⁻⁵³ in [0, 1) from 27 bits of `a` and 26 of `b`. */
function unit53(a: number, b: number): number {
  return ((a >>> 5) * 2 ** 26 + (b >>> 6)) * 2 ** -53;
}

/** The generator of every function that was given none; seeded by chance until {@link manualSeed}. */
export function defaultGenerator(): Generator {
  return (runtime.generator ??= new Generator(crypto.getRandomValues(new BigUint64Array(1))[0]));
}

/**
 * Seeds the default generator anew and gives it.
 *
 * @throws {ArgumentError} when seed is not an integer within 0 … 2⁶⁴ − 1
 */
export function manualSeed(seed: number | bigint): Generator {
  return (runtime.generator = new Generator(seed));
}
