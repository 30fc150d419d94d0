// One AdamW step in place over contiguous elements: decoupled weight decay, as torch.optim.AdamW.

import { address, float, int } from "./abi";
import { runGroup } from "./group";

/**
 * Arguments: 0 elements, 1 elements per unit (a multiple of 4), 2 parameter, 3 gradient, 4 m, 5 v; floats 0 rate, 1 β1,
 * 2 β2, 3 ε, 4 weight decay, 5 1 − β1^t, 6 1 − β2^t, 7 factor of the gradient.
 */
function adamw(args: usize, begin: i32, end: i32, _scratch: usize): void {
  let at = (<usize>begin * <usize>int(args, 1)) << 2;
  const n = min(<usize>end * <usize>int(args, 1), <usize>int(args, 0));
  const stop = n << 2;
  const whole = (n & ~3) << 2;
  const p = address(args, 2);
  const g = address(args, 3);
  const m = address(args, 4);
  const v = address(args, 5);
  const beta1 = f32x4.splat(<f32>float(args, 1));
  const beta2 = f32x4.splat(<f32>float(args, 2));
  const rest1 = f32x4.splat(<f32>(1.0 - float(args, 1)));
  const rest2 = f32x4.splat(<f32>(1.0 - float(args, 2)));
  const epsilon = f32x4.splat(<f32>float(args, 3));
  const decay = f32x4.splat(<f32>(1.0 - float(args, 0) * float(args, 4)));
  const step = f32x4.splat(<f32>(float(args, 0) / float(args, 5)));
  const correction = f32x4.splat(<f32>(1.0 / sqrt<f64>(float(args, 6))));
  const scale = f32x4.splat(<f32>float(args, 7));
  for (; at < whole; at += 16) {
    const d = f32x4.mul(v128.load(g + at), scale);
    const m1 = f32x4.add(f32x4.mul(beta1, v128.load(m + at)), f32x4.mul(rest1, d));
    const v1 = f32x4.add(f32x4.mul(beta2, v128.load(v + at)), f32x4.mul(rest2, f32x4.mul(d, d)));
    v128.store(m + at, m1);
    v128.store(v + at, v1);
    const denominator = f32x4.add(f32x4.mul(f32x4.sqrt(v1), correction), epsilon);
    const q = f32x4.mul(v128.load(p + at), decay);
    v128.store(p + at, f32x4.sub(q, f32x4.div(f32x4.mul(step, m1), denominator)));
  }
  for (; at < stop; at += 4) {
    const d = f32x4.mul(v128.load32_zero(g + at), scale);
    const m1 = f32x4.add(f32x4.mul(beta1, v128.load32_zero(m + at)), f32x4.mul(rest1, d));
    const v1 = f32x4.add(f32x4.mul(beta2, v128.load32_zero(v + at)), f32x4.mul(rest2, f32x4.mul(d, d)));
    v128.store_lane<u32>(m + at, m1, 0);
    v128.store_lane<u32>(v + at, v1, 0);
    const denominator = f32x4.add(f32x4.mul(f32x4.sqrt(v1), correction), epsilon);
    const q = f32x4.mul(v128.load32_zero(p + at), decay);
    v128.store_lane<u32>(p + at, f32x4.sub(q, f32x4.div(f32x4.mul(step, m1), denominator)), 0);
  }
}

/** A step of each block of a table. Arguments: see runGroup. */
export function adamwGroup(args: usize, begin: i32, end: i32, scratch: usize): void {
  runGroup(args, begin, end, scratch, adamw);
}
