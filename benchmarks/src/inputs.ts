// Seeded inputs, the same for every implementation, machine and run. Plain integer arithmetic, so that peers and browsers
// get the same bits, and fast enough that making inputs takes no time worth mentioning.

/** A 32-bit hash of a string (FNV-1a). */
export function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/** A stream of 32-bit numbers (mulberry32 by Tommy Ettinger, public domain). */
export function randomWords(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** Values that were made lately, the longest of each kind: shorter ones are their beginnings. */
const kept = new Map<string, Float32Array>();
/** Bytes of values that are kept. */
const mostKept = 384 << 20;

function keep(key: string, values: Float32Array): void {
  kept.delete(key);
  kept.set(key, values);
  let bytes = [...kept.values()].reduce((sum, one) => sum + one.byteLength, 0);
  for (const [oldest, { byteLength }] of kept) {
    if (bytes <= mostKept || oldest === key) break;
    kept.delete(oldest);
    bytes -= byteLength;
  }
}

/** Lets go of all values that are kept. */
export function forgetValues(): void {
  kept.clear();
}

/** As `uniformValues`, of a seed that is hashed already. */
export function uniformWords(seed: number, count: number, low = -0.5, high = 0.5): Float32Array {
  const key = `${seed} ${low} ${high}`;
  const known = kept.get(key);
  if (known && known.length >= count) {
    keep(key, known);
    return known.subarray(0, count);
  }
  const next = randomWords(seed);
  const values = new Float32Array(count);
  const width = high - low;
  for (let i = 0; i < count; i++) values[i] = low + width * ((next() >>> 8) * 2 ** -24);
  keep(key, values);
  return values;
}

/** `count` float32 values, uniform in [low, high). Shared with whoever asks for the same: not to be written to. */
export function uniformValues(seed: string, count: number, low = -0.5, high = 0.5): Float32Array {
  return uniformWords(hash(seed), count, low, high);
}

/** `count` integers in 0 … below − 1. */
export function integerValues(seed: string, count: number, below: number): Int32Array {
  const next = randomWords(hash(seed));
  const values = new Int32Array(count);
  for (let i = 0; i < count; i++) values[i] = next() % below;
  return values;
}

/** `count` codes of so many bits: the high bits of seeded words. */
export function codeValues(seed: number, count: number, bits: number): Uint8Array {
  const next = randomWords(seed);
  const values = new Uint8Array(count);
  for (let i = 0; i < count; i++) values[i] = next() >>> (32 - bits);
  return values;
}
