// out = silu(gate)·up over contiguous elements, and its gradient. A unit is a block of elements.

import { address, int } from "./abi";
import { logistic4, silu4 } from "./math";

/** Arguments: 0 elements, 1 elements per unit (a multiple of 4), 2 gate, 3 up, 4 out. */
export function swiglu(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const first = (<usize>begin * <usize>int(args, 1)) << 2;
  const n = min(<usize>end * <usize>int(args, 1), <usize>int(args, 0));
  let gate = address(args, 2) + first;
  let up = address(args, 3) + first;
  let out = address(args, 4) + first;
  const stop = address(args, 4) + (n << 2);
  const whole = address(args, 4) + ((n & ~3) << 2);
  for (; out < whole; out += 16, gate += 16, up += 16) {
    v128.store(out, f32x4.mul(silu4(v128.load(gate)), v128.load(up)));
  }
  for (; out < stop; out += 4, gate += 4, up += 4) {
    v128.store_lane<u32>(out, f32x4.mul(silu4(v128.load32_zero(gate)), v128.load32_zero(up)), 0);
  }
}

/**
 * Gradients of elements from byte `at` to `stop`; d silu(g) = σ·(1 + g·(1 − σ)) = σ + silu(g)·(1 − σ).
 *
 * Which of the two are wanted is a constant of the loop: a choice inside makes V8 compute σ once for each.
 */
// @ts-ignore: decorator
@inline
function gradients(args: usize, at: usize, stop: usize, wantsGate: bool, wantsUp: bool): void {
  const gate = address(args, 2);
  const up = address(args, 3);
  const dy = address(args, 4);
  const dGate = address(args, 5);
  const dUp = address(args, 6);
  for (const whole = stop & ~15; at < whole; at += 16) {
    const g = v128.load(gate + at);
    const d = v128.load(dy + at);
    const s = logistic4(g);
    const y = f32x4.mul(g, s);
    if (wantsGate) v128.store(dGate + at, f32x4.mul(f32x4.mul(d, v128.load(up + at)), slope(s, y)));
    if (wantsUp) v128.store(dUp + at, f32x4.mul(d, y));
  }
  for (; at < stop; at += 4) {
    const g = v128.load32_zero(gate + at);
    const d = v128.load32_zero(dy + at);
    const s = logistic4(g);
    const y = f32x4.mul(g, s);
    if (wantsGate) v128.store_lane<u32>(dGate + at, f32x4.mul(f32x4.mul(d, v128.load32_zero(up + at)), slope(s, y)), 0);
    if (wantsUp) v128.store_lane<u32>(dUp + at, f32x4.mul(d, y), 0);
  }
}

/** Derivative of silu from σ and silu. */
// @ts-ignore: decorator
@inline
function slope(s: v128, y: v128): v128 {
  return f32x4.add(s, f32x4.mul(y, f32x4.sub(f32x4.splat(1.0), s)));
}

/** Arguments: 0 elements, 1 elements per unit (a multiple of 4), 2 gate, 3 up, 4 dy, 5 dGate or 0, 6 dUp or 0. */
export function swigluBackward(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const first = (<usize>begin * <usize>int(args, 1)) << 2;
  const stop = min(<usize>end * <usize>int(args, 1), <usize>int(args, 0)) << 2;
  if (address(args, 5) && address(args, 6)) gradients(args, first, stop, true, true);
  else if (address(args, 5)) gradients(args, first, stop, true, false);
  else if (address(args, 6)) gradients(args, first, stop, false, true);
}
