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

/** `count` float32 values, uniform in [low, high). */
export function uniformValues(seed: string, count: number, low = -0.5, high = 0.5): Float32Array {
  const next = randomWords(hash(seed));
  const values = new Float32Array(count);
  const width = high - low;
  for (let i = 0; i < count; i++) values[i] = low + width * ((next() >>> 8) * 2 ** -24);
  return values;
}

/** `count` integers in 0 … below − 1. */
export function integerValues(seed: string, count: number, below: number): Int32Array {
  const next = randomWords(hash(seed));
  return Int32Array.from({ length: count }, () => next() % below);
}
