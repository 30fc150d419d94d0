// Rows picked by int32 indices, and rows added at indices. Indices were checked before.

import { address, int } from "./abi";
import { copyBytes } from "./copy";

/** Arguments: 0 bytes of a row, 1 x, 2 byte stride of x's rows, 3 indices, 4 out. A unit is one index. */
export function gather(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const bytes = address(args, 0);
  for (let i = begin; i < end; i++) {
    const index = load<i32>(address(args, 3) + ((<usize>i) << 2));
    copyBytes(address(args, 4) + <usize>i * bytes, address(args, 1) + <usize>index * address(args, 2), bytes);
  }
}

/**
 * out[index] += source row, for all indices in order, over some columns: a unit is a block of columns, so that each
 * destination has one writer. Arguments: 0 indices, 1 columns, 2 columns per unit, 3 source, 4 indices, 5 out.
 */
// @ts-ignore: decorator
@inline
function scatter(float: bool, args: usize, begin: i32, end: i32): void {
  const count = int(args, 0);
  const columns = int(args, 1);
  const first = begin * int(args, 2);
  const n = min(end * int(args, 2), columns) - first;
  const bytes = (<usize>columns) << 2;
  for (let i = 0; i < count; i++) {
    const index = load<i32>(address(args, 4) + ((<usize>i) << 2));
    let src = address(args, 3) + <usize>i * bytes + ((<usize>first) << 2);
    let dst = address(args, 5) + <usize>index * bytes + ((<usize>first) << 2);
    const whole = dst + ((<usize>(n & ~3)) << 2);
    const stop = dst + ((<usize>n) << 2);
    for (; dst < whole; dst += 16, src += 16) {
      const a = v128.load(dst);
      const b = v128.load(src);
      v128.store(dst, float ? f32x4.add(a, b) : i32x4.add(a, b));
    }
    for (; dst < stop; dst += 4, src += 4) {
      if (float) store<f32>(dst, load<f32>(dst) + load<f32>(src));
      else store<i32>(dst, load<i32>(dst) + load<i32>(src));
    }
  }
}

export function scatterAdd(args: usize, begin: i32, end: i32, _scratch: usize): void {
  scatter(true, args, begin, end);
}

export function scatterAddInt(args: usize, begin: i32, end: i32, _scratch: usize): void {
  scatter(false, args, begin, end);
}
