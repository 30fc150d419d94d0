// Quantizing to the K-quants, byte for byte as src/formats/k-encode.ts does it: what search-k.ts found, packed into records.

import { half, toHalf } from "./codes";
import {
  BYTES, CODES, MINIMA, NOTHING, roundCode, SCALES, searchQ2_K, searchShifted, searchSymmetric, searchThreeBits, spread,
} from "./search-k";
import { Q2_K, Q3_K, Q4_K, Q5_K, Q6_K } from "./weight";

// most / largest; 0 where there is nothing to scale, or too little for float32.
function inverseOf(most: f32, largest: f32): f32 {
  const inverse: f32 = largest > 0 ? most / largest : 0;
  return isFinite(inverse) ? inverse : 0;
}

// Codes of sub-block `block` anew on its line, as bytes; with scale 0 those of the search stay.
function recode(spare: usize, block: i32, length: i32, scale: f32, minimum: f32, least: f32, most: f32, bias: f32): void {
  const place = (<usize>(block & ~3)) * ((<usize>length) << 2) + ((<usize>(block & 3)) << 2);
  const out = spare + BYTES + <usize>(block * length);
  for (let i: usize = 0; i < <usize>length; i++) {
    const at = spare + place + (i << 4);
    let code = load<f32>(at, CODES);
    if (scale != 0) code = bias + roundCode((load<f32>(at) + minimum) / scale, least, most);
    store<u8>(out + i, <u8><i32>code);
  }
}

// The scale of `count` with the largest magnitude.
function largestOf(scales: usize): f32 {
  let largest: f32 = 0;
  for (let i: usize = 0; i < 64; i += 4) {
    const scale = load<f32>(scales + i);
    if (abs(scale) > abs(largest)) largest = scale;
  }
  return largest;
}

function maximum(values: usize, count: usize): f32 {
  let largest: f32 = 0;
  for (let i: usize = 0; i < count; i++) largest = max<f32>(largest, load<f32>(values + (i << 2)));
  return largest;
}

// @ts-ignore: decorator
@inline
function storedHalf(at: usize, value: f32): f32 {
  store<u16>(at, <u16>toHalf(value));
  return half(at);
}

// 2 bits each of four elements 32 apart, in 64 bytes.
function storePairs(codes: usize, out: usize): void {
  const three = i8x16.splat(3);
  for (let i: usize = 0; i < 64; i += 16) {
    const from = codes + ((i >> 5) << 7) + (i & 31);
    let bits = v128.and(v128.load(from), three);
    bits = v128.or(bits, i16x8.shl(v128.and(v128.load(from, 32), three), 2));
    bits = v128.or(bits, i16x8.shl(v128.and(v128.load(from, 64), three), 4));
    v128.store(out + i, v128.or(bits, i16x8.shl(v128.and(v128.load(from, 96), three), 6)));
  }
}

// The highest bit, number `bit`, of eight codes 32 apart, in 32 bytes.
function storeTops(codes: usize, bit: u32, out: usize): void {
  for (let i: usize = 0; i < 32; i++) {
    let bits: u32 = 0;
    for (let j = 0; j < 8; j++) bits |= ((<u32>load<u8>(codes + i + ((<usize>j) << 5))) >> bit) << j;
    store<u8>(out + i, bits);
  }
}

// Low halves of the codes: byte i of each 32 holds elements i and i + 32 of 64.
function storeLowHalves(codes: usize, out: usize): void {
  const mask = i8x16.splat(15);
  for (let i: usize = 0; i < 128; i += 16) {
    const from = codes + ((i >> 5) << 6) + (i & 31);
    v128.store(out + i, v128.or(v128.and(v128.load(from), mask), i16x8.shl(v128.and(v128.load(from, 32), mask), 4)));
  }
}

function encodeQ2_K(out: usize, spare: usize): void {
  for (let group: usize = 0; group < 4; group++) {
    searchQ2_K(spare + (group << 8), spare + SCALES + (group << 4), spare + MINIMA + (group << 4));
  }
  const largestScale = maximum(spare + SCALES, 16), largestMinimum = maximum(spare + MINIMA, 16);
  const inverseScale = inverseOf(15, largestScale), inverseMinimum = inverseOf(15, largestMinimum);
  const d = storedHalf(out + 80, inverseScale == 0 ? 0 : largestScale / 15);
  const dmin = storedHalf(out + 82, inverseMinimum == 0 ? 0 : largestMinimum / 15);
  for (let j = 0; j < 16; j++) {
    const at = spare + ((<usize>j) << 2);
    const scale = nearest(inverseScale * load<f32>(at, SCALES)), minimum = nearest(inverseMinimum * load<f32>(at, MINIMA));
    store<u8>(out + <usize>j, <i32>scale | (<i32>minimum << 4));
    recode(spare, j, 16, d * scale, dmin * minimum, 0, 3, 0);
  }
  storePairs(spare + BYTES, out + 16);
}

function encodeQ3_K(out: usize, spare: usize): void {
  for (let group: usize = 0; group < 4; group++) {
    searchThreeBits(spare + (group << 8), spare + CODES + (group << 8), spare + SCALES + (group << 4));
  }
  const largest = largestOf(spare + SCALES);
  memory.fill(out, 0, 110);
  const inverse: f32 = largest == 0 ? 0 : -32 / largest;
  const d = storedHalf(out + 108, inverse == 0 ? 0 : 1 / inverse);
  for (let j = 0; j < 16; j++) {
    const found = inverse * load<f32>(spare + SCALES + ((<usize>j) << 2));
    // Without a scale ggml leaves the record at 0, which stands for −32.
    const scale: f32 = inverse == 0 ? -32 : roundCode(found, -32, 31);
    const code = <i32>scale + 32;
    const low = out + 96 + <usize>(j & 7), high = out + 104 + <usize>(j & 3);
    store<u8>(low, load<u8>(low) | ((code & 15) << (j < 8 ? 0 : 4)));
    store<u8>(high, load<u8>(high) | ((code >> 4) << ((j >> 2) << 1)));
    recode(spare, j, 16, d * scale, 0, -4, 3, 4);
  }
  storeTops(spare + BYTES, 2, out);
  storePairs(spare + BYTES, out + 32);
}

// Q4_K and Q5_K up to their codes: d, dmin and the twelve bytes of scales and minima.
function encodeShifted(out: usize, spare: usize, most: f32, first: f32, steps: i32): void {
  for (let group: usize = 0; group < 2; group++) {
    searchShifted(spare + (group << 9), most, first, steps, spare + SCALES + (group << 4), spare + MINIMA + (group << 4));
  }
  const largestScale = maximum(spare + SCALES, 8), largestMinimum = maximum(spare + MINIMA, 8);
  const inverseScale = inverseOf(63, largestScale), inverseMinimum = inverseOf(63, largestMinimum);
  const d = storedHalf(out, inverseScale == 0 ? 0 : largestScale / 63);
  const dmin = storedHalf(out + 2, inverseMinimum == 0 ? 0 : largestMinimum / 63);
  const packed = out + 4;
  memory.fill(packed, 0, 12);
  for (let j = 0; j < 8; j++) {
    const at = spare + ((<usize>j) << 2), to = packed + <usize>j;
    const scale = min<f32>(63, nearest(inverseScale * load<f32>(at, SCALES)));
    const minimum = min<f32>(63, nearest(inverseMinimum * load<f32>(at, MINIMA)));
    const s = <i32>scale, m = <i32>minimum;
    if (j < 4) {
      store<u8>(to, s);
      store<u8>(to, m, 4);
    } else {
      store<u8>(to, (s & 15) | ((m & 15) << 4), 4);
      store<u8>(to - 4, load<u8>(to - 4) | ((s >> 4) << 6));
      store<u8>(to, load<u8>(to) | ((m >> 4) << 6));
    }
    recode(spare, j, 32, d * scale, dmin * minimum, 0, most, 0);
  }
}

function encodeQ5_K(out: usize, spare: usize): void {
  encodeShifted(out, spare, 31, -0.5, 15);
  storeTops(spare + BYTES, 4, out + 16);
  storeLowHalves(spare + BYTES, out + 48);
}

function encodeQ6_K(out: usize, spare: usize): void {
  for (let group: usize = 0; group < 4; group++) {
    searchSymmetric(spare + (group << 8), spare + CODES + (group << 8), spare + SCALES + (group << 4));
  }
  const largest = largestOf(spare + SCALES);
  memory.fill(out, 0, 210);
  if (abs(largest) < NOTHING) return;
  const inverse: f32 = -128 / largest;
  const d = storedHalf(out + 208, 1 / inverse);
  for (let j = 0; j < 16; j++) {
    const scale = min<f32>(127, nearest(inverse * load<f32>(spare + SCALES + ((<usize>j) << 2))));
    store<u8>(out + 192 + <usize>j, <i32>scale);
    recode(spare, j, 16, d * scale, 0, -32, 31, 32);
  }
  const mask = i8x16.splat(15);
  for (let part: usize = 0; part < 2; part++) {
    const codes = spare + BYTES + (part << 7), low = out + (part << 6), high = out + 128 + (part << 5);
    for (let i: usize = 0; i < 64; i += 16) {
      const upper = v128.load(codes + i, 64);
      v128.store(low + i, v128.or(v128.and(v128.load(codes + i), mask), i16x8.shl(v128.and(upper, mask), 4)));
    }
    const two = i8x16.splat(48);
    for (let i: usize = 0; i < 32; i += 16) {
      let bits = i16x8.shr_u(v128.and(v128.load(codes + i), two), 4);
      bits = v128.or(bits, i16x8.shr_u(v128.and(v128.load(codes + i, 32), two), 2));
      bits = v128.or(bits, v128.and(v128.load(codes + i, 64), two));
      v128.store(high + i, v128.or(bits, i16x8.shl(v128.and(v128.load(codes + i, 96), two), 2)));
    }
  }
}

/** The record of the 256 values at `x` to `out`. `spare`: K_SPARE_BYTES bytes. */
export function quantizeKQuant(format: i32, x: usize, out: usize, spare: usize): void {
  spread(x, format == Q4_K || format == Q5_K ? 32 : 16, spare);
  switch (format) {
    case Q2_K: encodeQ2_K(out, spare); break;
    case Q3_K: encodeQ3_K(out, spare); break;
    case Q4_K: {
      encodeShifted(out, spare, 15, -1, 20);
      storeLowHalves(spare + BYTES, out + 16);
      break;
    }
    case Q5_K: encodeQ5_K(out, spare); break;
    case Q6_K: encodeQ6_K(out, spare); break;
  }
}
