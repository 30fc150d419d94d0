// Running sums and products of float32 and int32 lines. Floats are carried in float64, so that the error of a long running sum
// is that of its last rounding. Element i of line (o, c) of a contiguous [outer, length, inner] stands at o·length·inner + i·inner + c.
//
// Arguments: 0 length, 1 inner, 2 units for each outer, 3 x, 4 out. A unit is up to four neighbouring lines.

import { address, int } from "./abi";

const SUM: i32 = 0;
const PRODUCT: i32 = 1;

// @ts-ignore: decorator
@inline
function line<T, A>(kind: i32, x: usize, out: usize, length: i32, stride: usize): void {
  let carried: A = kind == SUM ? <A>0 : <A>1;
  for (let i = 0; i < length; i++) {
    const value = <A>load<T>(x);
    carried = kind == SUM ? carried + value : carried * value;
    store<T>(out, <T>carried);
    x += stride;
    out += stride;
  }
}

// @ts-ignore: decorator
@inline
function fourLines(kind: i32, x: usize, out: usize, length: i32, stride: usize): void {
  let low = f64x2.splat(kind == SUM ? 0.0 : 1.0);
  let high = low;
  for (let i = 0; i < length; i++) {
    const value = v128.load(x);
    const a = f64x2.promote_low_f32x4(value);
    const b = f64x2.promote_low_f32x4(i32x4.shuffle(value, value, 2, 3, 0, 1));
    low = kind == SUM ? f64x2.add(low, a) : f64x2.mul(low, a);
    high = kind == SUM ? f64x2.add(high, b) : f64x2.mul(high, b);
    v128.store(
      out,
      i32x4.shuffle(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 1, 4, 5),
    );
    x += stride;
    out += stride;
  }
}

// @ts-ignore: decorator
@inline
function scan<T, A>(kind: i32, args: usize, begin: i32, end: i32): void {
  const length = int(args, 0);
  const inner = int(args, 1);
  const units = int(args, 2);
  const stride = (<usize>inner) << 2;
  for (let unit = begin; unit < end; unit++) {
    const column = (unit % units) << 2;
    const start = <usize>(unit / units) * <usize>length * stride + ((<usize>column) << 2);
    const x = address(args, 3) + start;
    const out = address(args, 4) + start;
    const lines = min(4, inner - column);
    if (isFloat<T>() && lines == 4) fourLines(kind, x, out, length, stride);
    else for (let c = 0; c < lines; c++) line<T, A>(kind, x + (<usize>c << 2), out + (<usize>c << 2), length, stride);
  }
}

export function scan_cumsum(args: usize, begin: i32, end: i32, scratch: usize): void {
  scan<f32, f64>(SUM, args, begin, end);
}

export function scan_cumprod(args: usize, begin: i32, end: i32, scratch: usize): void {
  scan<f32, f64>(PRODUCT, args, begin, end);
}

export function scanInt_cumsum(args: usize, begin: i32, end: i32, scratch: usize): void {
  scan<i32, i32>(SUM, args, begin, end);
}

export function scanInt_cumprod(args: usize, begin: i32, end: i32, scratch: usize): void {
  scan<i32, i32>(PRODUCT, args, begin, end);
}
