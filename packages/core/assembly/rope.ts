// Rotary position embedding in the half-split convention: element i of the first half turns with element i of the
// second by the angle whose cosine and sine stand in row t of two tables.

import { address, float, int } from "./abi";

/**
 * x, out [batch, heads, length, 2·half]. Arguments: 0 heads, 1 length, 2 half, 3 x, 4 … 6 x's byte strides (batch,
 * heads, length), 7 out, 8 … 10 out's, 11 cos, 12 sin [length, half]; float 0 the sign of sin. A unit is one vector.
 */
export function rope(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const heads = int(args, 0);
  const length = int(args, 1);
  const half = int(args, 2);
  const bytes = (<usize>half) << 2;
  const sign = <f32>float(args, 0);
  const signs = f32x4.splat(sign);
  for (let unit = begin; unit < end; unit++) {
    const t = unit % length;
    const head = (unit / length) % heads;
    const batch = unit / length / heads;
    let a = address(args, 3) + <usize>batch * address(args, 4) + <usize>head * address(args, 5) + <usize>t * address(args, 6);
    let out = address(args, 7) + <usize>batch * address(args, 8) + <usize>head * address(args, 9) + <usize>t * address(args, 10);
    let cos = address(args, 11) + <usize>t * bytes;
    let sin = address(args, 12) + <usize>t * bytes;
    const whole = a + ((<usize>(half & ~3)) << 2);
    const stop = a + bytes;
    for (; a < whole; a += 16, out += 16, cos += 16, sin += 16) {
      const x1 = v128.load(a);
      const x2 = v128.load(a + bytes);
      const c = v128.load(cos);
      const s = f32x4.mul(signs, v128.load(sin));
      v128.store(out, f32x4.sub(f32x4.mul(x1, c), f32x4.mul(x2, s)));
      v128.store(out + bytes, f32x4.add(f32x4.mul(x2, c), f32x4.mul(x1, s)));
    }
    for (; a < stop; a += 4, out += 4, cos += 4, sin += 4) {
      const x1 = load<f32>(a);
      const x2 = load<f32>(a + bytes);
      const c = load<f32>(cos);
      const s = sign * load<f32>(sin);
      store<f32>(out, x1 * c - x2 * s);
      store<f32>(out + bytes, x2 * c + x1 * s);
    }
  }
}
