// Decompression of raw DEFLATE (RFC 1951), with which the kernels' modules are packed. Not for files of others: the
// packed modules are part of this package.

import { BackendError } from "../../errors.js";

const lengthBase = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
  227, 258,
];
const lengthExtra = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const distanceBase = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097,
  6145, 8193, 12289, 16385, 24577,
];
const distanceExtra = [
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
];
/** The order in which a dynamic block gives the lengths of the codes for code lengths. */
const lengthOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/** A prefix code as a table over `bits` bits in the order of the stream: `symbol << 4 | length`, 0 where there is none. */
interface PrefixCode {
  readonly bits: number;
  readonly table: Uint16Array;
}

/** The canonical prefix code (RFC 1951, 3.2.2) of symbols with these code lengths. */
function prefixCode(lengths: readonly number[]): PrefixCode {
  const bits = Math.max(1, ...lengths);
  const next = new Uint16Array(17);
  for (const length of lengths) if (length > 0) next[length + 1]++;
  for (let length = 1; length <= 16; length++) next[length] = (next[length] + next[length - 1]) << 1;
  // next[length] holds the first code of each length, shifted on as shorter codes were counted.
  const table = new Uint16Array(1 << bits);
  for (const [symbol, length] of lengths.entries()) {
    if (length === 0) continue;
    let reversed = 0;
    for (let code = next[length]++, i = 0; i < length; i++, code >>>= 1)
      reversed = (reversed << 1) | (code & 1);
    for (let at = reversed; at < table.length; at += 1 << length) table[at] = (symbol << 4) | length;
  }
  return { bits, table };
}

const fixedLengths = Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8));

/**
 * Decompresses raw DEFLATE data.
 *
 * @param source - a whole stream
 * @param size - bytes that it decompresses to
 * @throws {BackendError} when the data are damaged or of another size
 */
export function inflateRaw(source: Uint8Array, size: number): Uint8Array<ArrayBuffer> {
  const output = new Uint8Array(size);
  let at = 0;
  let position = 0;
  let buffer = 0;
  let buffered = 0;

  const damaged = () => new BackendError("wasm: the packed kernels are damaged");
  /** Makes at least `count` bits available, zeros past the end. */
  const need = (count: number) => {
    while (buffered < count) {
      if (position > source.length + 4) throw damaged();
      buffer |= (source[position++] ?? 0) << buffered;
      buffered += 8;
    }
  };
  const take = (count: number): number => {
    need(count);
    const value = buffer & ((1 << count) - 1);
    buffer >>>= count;
    buffered -= count;
    return value;
  };
  const symbol = ({ bits, table }: PrefixCode): number => {
    need(bits);
    const entry = table[buffer & ((1 << bits) - 1)];
    const length = entry & 15;
    if (length === 0) throw damaged();
    buffer >>>= length;
    buffered -= length;
    return entry >>> 4;
  };
  const dynamicCodes = (): [PrefixCode, PrefixCode] => {
    const literals = take(5) + 257;
    const distances = take(5) + 1;
    const lengths: number[] = new Array(19).fill(0);
    for (let i = take(4) + 4, j = 0; j < i; j++) lengths[lengthOrder[j]] = take(3);
    const lengthsCode = prefixCode(lengths);
    const all: number[] = [];
    while (all.length < literals + distances) {
      const code = symbol(lengthsCode);
      if (code < 16) all.push(code);
      else {
        const value = code === 16 ? all[all.length - 1] : 0;
        const count = code === 16 ? take(2) + 3 : code === 17 ? take(3) + 3 : take(7) + 11;
        for (let i = 0; i < count; i++) all.push(value);
      }
    }
    return [prefixCode(all.slice(0, literals)), prefixCode(all.slice(literals))];
  };

  for (let last = 0; last === 0; ) {
    last = take(1);
    const type = take(2);
    if (type === 0) {
      take(buffered & 7);
      const count = take(16);
      take(16);
      for (let i = 0; i < count; i++) output[at++] = take(8);
      continue;
    }
    if (type === 3) throw damaged();
    const [literals, distances] =
      type === 1 ? [prefixCode(fixedLengths), prefixCode(new Array(30).fill(5))] : dynamicCodes();
    for (let code: number; (code = symbol(literals)) !== 256; ) {
      if (code < 256) {
        output[at++] = code;
        continue;
      }
      const length = lengthBase[code - 257] + take(lengthExtra[code - 257]);
      const slot = symbol(distances);
      const from = at - distanceBase[slot] - take(distanceExtra[slot]);
      if (!(from >= 0) || at + length > size) throw damaged();
      for (let i = 0; i < length; i++) output[at++] = output[from + i];
    }
  }
  if (at !== size) throw damaged();
  return output;
}
