// The rate at which this host multiplies and adds f32x4 in registers: the bound that benchmarks compare GEMM with.

import { address, float, madd } from "./abi";

/**
 * A unit is 1000 rounds of 12 independent multiply-adds of 4 lanes, 96000 operations; 12 chains hide the latency of
 * the two instructions. Integers: 0 out, 64 bytes. Floats: 0 factor, below 1 so that the sums stay finite.
 */
export function peak(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const x = f32x4.splat(<f32>float(args, 0));
  let a = x, b = x, c = x, d = x, e = x, f = x, g = x, h = x, i = x, j = x, k = x, l = x;
  for (let n = (end - begin) * 1000; n > 0; n--) {
    a = madd(a, x, x);
    b = madd(b, x, x);
    c = madd(c, x, x);
    d = madd(d, x, x);
    e = madd(e, x, x);
    f = madd(f, x, x);
    g = madd(g, x, x);
    h = madd(h, x, x);
    i = madd(i, x, x);
    j = madd(j, x, x);
    k = madd(k, x, x);
    l = madd(l, x, x);
  }
  a = f32x4.add(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)), f32x4.add(f32x4.add(e, f), f32x4.add(g, h)));
  v128.store(address(args, 0), f32x4.add(a, f32x4.add(f32x4.add(i, j), f32x4.add(k, l))));
}
