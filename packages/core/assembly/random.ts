// Random words: Philox4x32-10, as src/random.ts defines it, four blocks at a time, one in each lane.
//
// Arguments: 0 out, 1 and 2 key, 3 … 6 counter, whose two low words count the blocks. A unit is four blocks: 16 words.

import { address, int } from "./abi";

const MULTIPLIERS: usize = memory.data<u32>([0xd2511f53, 0xcd9e8d57]);

/** High halves of the products of a and b, 32 bits each. */
// @ts-ignore: decorator
@inline
function highWords(a: v128, b: v128): v128 {
  return i32x4.shuffle(i64x2.extmul_low_i32x4_u(a, b), i64x2.extmul_high_i32x4_u(a, b), 1, 3, 5, 7);
}

export function philox(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const first = <u64>load<u32>(args + 12) | (<u64>load<u32>(args + 16) << 32);
  const multiplier0 = v128.load32_splat(MULTIPLIERS);
  const multiplier1 = v128.load32_splat(MULTIPLIERS + 4);
  let dst = address(args, 0) + ((<usize>begin) << 6);
  for (let unit = begin; unit < end; unit++, dst += 64) {
    const low = i64x2.add(i64x2.splat(first + ((<u64>unit) << 2)), i64x2(0, 1));
    const high = i64x2.add(low, i64x2.splat(2));
    let c0 = i32x4.shuffle(low, high, 0, 2, 4, 6);
    let c1 = i32x4.shuffle(low, high, 1, 3, 5, 7);
    let c2 = i32x4.splat(int(args, 5));
    let c3 = i32x4.splat(int(args, 6));
    let key0 = int(args, 1);
    let key1 = int(args, 2);
    for (let round = 0; round < 10; round++) {
      const high0 = highWords(c0, multiplier0);
      const high1 = highWords(c2, multiplier1);
      const low0 = i32x4.mul(c0, multiplier0);
      const low1 = i32x4.mul(c2, multiplier1);
      c0 = v128.xor(v128.xor(high1, c1), i32x4.splat(key0));
      c1 = low1;
      c2 = v128.xor(v128.xor(high0, c3), i32x4.splat(key1));
      c3 = low0;
      key0 += 0x9e3779b9;
      key1 += 0xbb67ae85;
    }
    // From lanes to blocks.
    const a = i32x4.shuffle(c0, c1, 0, 4, 1, 5);
    const b = i32x4.shuffle(c2, c3, 0, 4, 1, 5);
    const c = i32x4.shuffle(c0, c1, 2, 6, 3, 7);
    const d = i32x4.shuffle(c2, c3, 2, 6, 3, 7);
    v128.store(dst, i64x2.shuffle(a, b, 0, 2));
    v128.store(dst, i64x2.shuffle(a, b, 1, 3), 16);
    v128.store(dst, i64x2.shuffle(c, d, 0, 2), 32);
    v128.store(dst, i64x2.shuffle(c, d, 1, 3), 48);
  }
}
