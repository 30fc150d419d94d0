// How a kernel reads its argument block, and the multiply-add. Nothing here is exported from the module.
//
// Every exported kernel is `(args, begin, end, scratch)`: int32 values at args + 4·i, float64 values at
// args + 384 + 8·j, the units begin … end of the work, and memory of the thread's own.

/** Argument i as an int32. */
// @ts-ignore: decorator
@inline
export function int(args: usize, i: i32): i32 {
  return load<i32>(args + ((<usize>i) << 2));
}

/** Argument i as an address or a byte count. */
// @ts-ignore: decorator
@inline
export function address(args: usize, i: i32): usize {
  return <usize>load<u32>(args + ((<usize>i) << 2));
}

/** Float argument j. */
// @ts-ignore: decorator
@inline
export function float(args: usize, j: i32): f64 {
  return load<f64>(args + 384 + ((<usize>j) << 3));
}

// Kernels are compiled for relaxed SIMD. Where the host has none, unpack/index.ts puts a product and a sum in the place of each fused
// multiply-add.

/** Whether the host has relaxed SIMD, 0 or 1. */
// @ts-ignore: decorator
@external("env", "relaxed")
export declare const RELAXED: i32;

/** a·b + c, fused where the host has relaxed SIMD. */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  return f32x4.relaxed_madd(a, b, c);
}

/** Float number k of a static table, in all four lanes. */
// @ts-ignore: decorator
@inline
export function constant(table: usize, k: i32): v128 {
  return v128.load32_splat(table + ((<usize>k) << 2));
}

/** Float64 number k of a static table, in both lanes. */
// @ts-ignore: decorator
@inline
export function wide(table: usize, k: i32): v128 {
  return v128.load64_splat(table + ((<usize>k) << 3));
}

/** Sum of the four lanes, as (0 + 2) + (1 + 3). */
// @ts-ignore: decorator
@inline
export function laneSum(x: v128): f32 {
  const y = f32x4.add(x, i32x4.shuffle(x, x, 2, 3, 0, 1));
  return f32x4.extract_lane(y, 0) + f32x4.extract_lane(y, 1);
}

/** Largest lane; NaN when one is NaN. */
// @ts-ignore: decorator
@inline
export function laneMax(x: v128): f32 {
  const y = f32x4.max(x, i32x4.shuffle(x, x, 2, 3, 0, 1));
  return max(f32x4.extract_lane(y, 0), f32x4.extract_lane(y, 1));
}
