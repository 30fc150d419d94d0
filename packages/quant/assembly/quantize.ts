// Quantizing float32, byte for byte as src/formats does it. Values are finite and within the format's limit.

import { address, float, int } from "../../core/assembly/abi";
import { toHalf } from "./codes";
import { quantizeInteger } from "./quantize-integer";
import { quantizeKQuant } from "./quantize-k";
import {
  FP4, FP4_SINGLE, INT4, INT8, NF4, NF4_SINGLE, kRecordBytes, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, UINT4, UINT8,
} from "./weight";

// Bounds between NF4 codes.
const nf4Bounds = memory.data<f32>(
  [
    -0.8480963706970215, -0.6106328964233398, -0.4599952697753906, -0.33967941999435425, -0.23460739850997925,
    -0.13791173696517944, -0.045525018125772476, 0.03979014977812767, 0.120255246758461, 0.2035212516784668,
    0.2920137643814087, 0.3893125355243683, 0.5016634464263916, 0.6427869200706482, 0.8614784479141235,
  ],
  16,
);

// @ts-ignore: decorator
@inline
function inverse(d: f32): f32 {
  const id: f32 = 1 / d;
  return isFinite(id) ? id : 0;
}

function absoluteMaximum(from: usize, count: i32): f32 {
  let m = f32x4.splat(0);
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    m = f32x4.max(m, f32x4.abs(v128.load(from)));
    from += 16;
  }
  let result = max(
    max(f32x4.extract_lane(m, 0), f32x4.extract_lane(m, 1)),
    max(f32x4.extract_lane(m, 2), f32x4.extract_lane(m, 3)),
  );
  for (; i < count; i++) {
    result = max(result, abs(load<f32>(from)));
    from += 4;
  }
  return result;
}

// @ts-ignore: decorator
@inline
function code4(value: f32, id: f32): u32 {
  return <u32>min<i32>(15, <i32>(value * id + 8.5));
}

// The first of 32 values with the largest magnitude.
function signedExtreme(x: usize): f32 {
  let absmax: f32 = 0, extreme: f32 = 0;
  for (let j: usize = 0; j < 128; j += 4) {
    const value = load<f32>(x + j);
    if (abs(value) > absmax) {
      absmax = abs(value);
      extreme = value;
    }
  }
  return extreme;
}

function quantizeQ4_0(x: usize, out: usize): void {
  const d: f32 = signedExtreme(x) / -8;
  const id = inverse(d);
  store<u16>(out, <u16>toHalf(d));
  for (let j: usize = 0; j < 16; j++) {
    const at = x + (j << 2);
    store<u8>(out + j, code4(load<f32>(at), id) | (code4(load<f32>(at, 64), id) << 4), 2);
  }
}

// Stores codes j and j + 16 of 5 bits, fifth bits at `bits`, low halves at `halves`.
// @ts-ignore: decorator
@inline
function storeFiveBits(bits: usize, halves: usize, j: i32, low: u32, high: u32): void {
  store<u8>(halves + <usize>j, (low & 15) | ((high & 15) << 4));
  store<u32>(bits, load<u32>(bits) | ((low >> 4) << j) | ((high >> 4) << (j + 16)));
}

// @ts-ignore: decorator
@inline
function code5(value: f32, id: f32): u32 {
  return <u32>min<i32>(31, <i32>(value * id + 16.5));
}

function quantizeQ5_0(x: usize, out: usize): void {
  const d: f32 = signedExtreme(x) / -16;
  const id = inverse(d);
  store<u16>(out, <u16>toHalf(d));
  store<u32>(out, 0, 2);
  for (let j = 0; j < 16; j++) {
    const at = x + ((<usize>j) << 2);
    storeFiveBits(out + 2, out + 6, j, code5(load<f32>(at), id), code5(load<f32>(at, 64), id));
  }
}

// @ts-ignore: decorator
@inline
function codeAbove(value: f32, least: f32, id: f32): u32 {
  return <u32>((value - least) * id + 0.5);
}

// Q4_1 (steps 15) and Q5_1 (steps 31).
function quantizeWithMinimum(x: usize, steps: i32, out: usize): void {
  let least = load<f32>(x), most = least;
  for (let j: usize = 4; j < 128; j += 4) {
    const value = load<f32>(x + j);
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const d: f32 = (most - least) / <f32>steps;
  const id = inverse(d);
  store<u16>(out, <u16>toHalf(d));
  store<u16>(out, <u16>toHalf(least), 2);
  if (steps == 31) store<u32>(out, 0, 4);
  for (let j = 0; j < 16; j++) {
    const at = x + ((<usize>j) << 2);
    const low = codeAbove(load<f32>(at), least, id), high = codeAbove(load<f32>(at, 64), least, id);
    if (steps == 31) storeFiveBits(out + 4, out + 8, j, low, high);
    else store<u8>(out + <usize>j, min<u32>(low, 15) | (min<u32>(high, 15) << 4), 4);
  }
}

function quantizeQ8_0(x: usize, out: usize): void {
  const d: f32 = absoluteMaximum(x, 32) / 127;
  const id = inverse(d);
  store<u16>(out, <u16>toHalf(d));
  for (let j: usize = 0; j < 32; j++) {
    const scaled = load<f32>(x + (j << 2)) * id;
    // Half away from zero, exactly: adding 0.5 in float32 could round up what is just below a half.
    const code = <i32>(f64.copysign(Math.floor(Math.abs(<f64>scaled) + 0.5), <f64>scaled));
    store<i8>(out + j, <i8>code, 2);
  }
}

// Bounds between ascending magnitudes of FP4, and the steps from each code to the next.
const fp4Bounds = memory.data<f32>(
  [0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333],
  16,
);
const fp4Steps = memory.data<i32>([1, 5, 1, -3, 1, -3, 1], 16);

// Codes of four normalized values, as int32 lanes: how many bounds they exceed, put in the codebook's order.
// @ts-ignore: decorator
@inline
function codes(x: v128, fp4: bool): v128 {
  let result = i32x4.splat(0);
  if (fp4) {
    const magnitude = f32x4.abs(x);
    for (let i: usize = 0; i < 28; i += 4) {
      const above = f32x4.gt(magnitude, v128.load32_splat(fp4Bounds + i));
      result = i32x4.add(result, v128.and(above, v128.load32_splat(fp4Steps + i)));
    }
    return v128.or(result, v128.and(f32x4.lt(x, f32x4.splat(0)), i32x4.splat(8)));
  }
  for (let i: usize = 0; i < 60; i += 4) {
    result = i32x4.sub(result, f32x4.gt(x, v128.load32_splat(nf4Bounds + i)));
  }
  return result;
}

// @ts-ignore: decorator
@inline
function normalized(x: usize, absmax: f32, reciprocal: f32): v128 {
  const values = v128.load(x);
  return isFinite(reciprocal) ? f32x4.mul(values, f32x4.splat(reciprocal)) : f32x4.div(values, f32x4.splat(absmax));
}

function codeOf(x: usize, absmax: f32, reciprocal: f32, fp4: bool): u32 {
  const value = load<f32>(x);
  const scaled: f32 = isFinite(reciprocal) ? value * reciprocal : value / absmax;
  return i32x4.extract_lane(codes(f32x4.splat(scaled), fp4), 0);
}

// NF4 or FP4.
// @ts-ignore: decorator
@inline
function quantizeCodebook(x: usize, count: i32, out: usize, scaleAt: usize, fp4: bool): void {
  const absmax = absoluteMaximum(x, count);
  store<f32>(scaleAt, absmax);
  if (absmax == 0) {
    memory.fill(out, fp4 ? 0 : 0x77, (count + 1) >> 1);
    return;
  }
  const reciprocal: f32 = 1 / absmax;
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    const low = codes(normalized(x, absmax, reciprocal), fp4);
    const high = codes(normalized(x + 16, absmax, reciprocal), fp4);
    // Pairs of codes stand in the halves of int32 lanes: first · 16 + second.
    const all = i16x8.narrow_i32x4_u(low, high);
    const pairs = v128.or(i32x4.shl(all, 4), i32x4.shr_u(all, 16));
    const bytes = i16x8.narrow_i32x4_u(v128.and(pairs, i32x4.splat(255)), i32x4.splat(0));
    v128.store32_lane(out, i8x16.narrow_i16x8_u(bytes, bytes), 0);
    x += 32;
    out += 4;
  }
  for (; i < count; i += 2) {
    const second: u32 = i + 1 < count ? codeOf(x + 4, absmax, reciprocal, fp4) : fp4 ? 0 : 7;
    store<u8>(out, (codeOf(x, absmax, reciprocal, fp4) << 4) | second);
    x += 8;
    out++;
  }
}

function quantizeNf4(x: usize, count: i32, out: usize, scaleAt: usize): void {
  quantizeCodebook(x, count, out, scaleAt, false);
}

function quantizeFp4(x: usize, count: i32, out: usize, scaleAt: usize): void {
  quantizeCodebook(x, count, out, scaleAt, true);
}

/**
 * Codes and scales of blocks. A unit is a block; blocks are cut from runs (rows, or the whole). Integers: 0 number of the
 * format, 1 values, 2 codes, 3 float32 scales, 4 zero points (where the format has them), 5 elements of a block, 6 blocks of
 * a run, 7 elements of a run, 8 columns. Scratch: 8192 bytes.
 */
export function quantize(args: usize, begin: i32, end: i32, scratch: usize): void {
  const format = int(args, 0), block = int(args, 5), blocks = int(args, 6);
  const data = address(args, 2);
  for (let unit = begin; unit < end; unit++) {
    const run = unit / blocks, offset = (unit % blocks) * block;
    const from = (<usize>run) * address(args, 7) + <usize>offset;
    const x = address(args, 1) + (from << 2);
    const scale = address(args, 3) + ((<usize>unit) << 2), zero = address(args, 4) + <usize>unit;
    const count = <i32>min<usize>(<usize>block, address(args, 7) - <usize>offset);
    switch (format) {
      case Q4_0: quantizeQ4_0(x, data + (<usize>unit) * 18); break;
      case Q8_0: quantizeQ8_0(x, data + (<usize>unit) * 34); break;
      case Q4_1: quantizeWithMinimum(x, 15, data + (<usize>unit) * 20); break;
      case Q5_0: quantizeQ5_0(x, data + (<usize>unit) * 22); break;
      case Q5_1: quantizeWithMinimum(x, 31, data + (<usize>unit) * 24); break;
      case INT8: quantizeInteger(x, count, data + from, 8, false, scale, 0, scratch); break;
      case UINT8: quantizeInteger(x, count, data + from, 8, true, scale, zero, scratch); break;
      case INT4:
      case UINT4: {
        const at = data + (<usize>run) * (<usize>((int(args, 8) + 1) >> 1)) + <usize>(offset >> 1);
        quantizeInteger(x, count, at, 4, format == UINT4, scale, zero, scratch);
        break;
      }
      case NF4_SINGLE:
      case NF4: quantizeNf4(x, count, data + (from >> 1), scale); break;
      case FP4_SINGLE:
      case FP4: quantizeFp4(x, count, data + (from >> 1), scale); break;
      case Q2_K:
      case Q3_K:
      case Q4_K:
      case Q5_K:
      case Q6_K: quantizeKQuant(format, x, data + (<usize>unit) * kRecordBytes(format), scratch); break;
    }
  }
}

/** Elements of a unit of findUnfit. */
const SCAN: i32 = 16384;

/**
 * out[unit] = index of the first value of the unit whose magnitude is not below the limit (NaN among them), or −1.
 * Integers: values, how many, out int32. Floats: limit.
 */
export function findUnfit(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const values = address(args, 0), out = address(args, 2);
  const limit = <f32>float(args, 0);
  const limits = f32x4.splat(limit);
  for (let unit = begin; unit < end; unit++) {
    let i = unit * SCAN;
    const last = min(i + SCAN, int(args, 1));
    let found = -1;
    for (; i + 4 <= last; i += 4) {
      const fits = f32x4.lt(f32x4.abs(v128.load(values + ((<usize>i) << 2))), limits);
      if (!i32x4.all_true(fits)) break;
    }
    for (; i < last; i++) {
      if (!(abs(load<f32>(values + ((<usize>i) << 2))) < limit)) {
        found = i;
        break;
      }
    }
    store<i32>(out + ((<usize>unit) << 2), found);
  }
}
