// How compiled kernels are packed into a TypeScript file: the baseline module compressed by raw DEFLATE, the relaxed one
// as edits of the baseline, since the two differ in few places. packages/core/src/backend/wasm/builds.ts unpacks them.

import { constants, deflateRawSync } from "node:zlib";

/** Runs of bytes shorter than this are not worth a reference. */
const shortestCopy = 8;
/** Places where a run begins that are looked at; more find little more. */
const candidates = 64;

/** An unsigned integer, seven bits a byte, the lowest first. */
function writeVarint(bytes, value) {
  let rest = value;
  for (; rest > 127; rest >>>= 7) bytes.push((rest & 127) | 128);
  bytes.push(rest);
}

/**
 * What makes `to` out of `from`, as records of: count of new bytes, the new bytes, count of bytes to copy, where they
 * begin in `from`, counted from where the last copy ended (zigzag). Counts and places are varints.
 */
export function edits(from, to) {
  const places = new Map();
  const keyAt = (bytes, at) => bytes.toString("latin1", at, at + shortestCopy);
  for (let i = 0; i + shortestCopy <= from.length; i++) {
    const key = keyAt(from, i);
    const known = places.get(key);
    if (!known) places.set(key, [i]);
    else if (known.length < candidates) known.push(i);
  }
  const bytes = [];
  let fresh = [];
  let expected = 0;
  const record = (place, length) => {
    writeVarint(bytes, fresh.length);
    bytes.push(...fresh);
    fresh = [];
    writeVarint(bytes, length);
    const step = place - expected;
    writeVarint(bytes, step < 0 ? -2 * step - 1 : 2 * step);
    expected = place + length;
  };
  for (let at = 0; at < to.length; ) {
    let length = 0;
    let place = 0;
    for (const candidate of [expected, ...(places.get(keyAt(to, at)) ?? [])]) {
      let same = 0;
      while (
        at + same < to.length &&
        candidate + same < from.length &&
        to[at + same] === from[candidate + same]
      )
        same++;
      if (same > length) [length, place] = [same, candidate];
    }
    if (length >= shortestCopy) {
      record(place, length);
      at += length;
    } else {
      fresh.push(to[at++]);
    }
  }
  if (fresh.length > 0) record(expected, 0);
  return Buffer.from(bytes);
}

/** Bytes as core's `KernelBuilds` has them. */
function packed(bytes) {
  const data = deflateRawSync(bytes, { level: constants.Z_BEST_COMPRESSION, memLevel: 9 });
  return { size: bytes.length, data: data.toString("base64") };
}

/** Two compiled modules as core's `KernelBuilds`. */
export function packKernels({ baseline, relaxed }) {
  return { baseline: packed(baseline), relaxed: packed(edits(baseline, relaxed)) };
}
