// Cross entropy of contiguous rows of logits, with their gradient written over them when it is wanted.

import { address, int } from "./abi";
import { maxOf } from "./reduce";
import { scaleRow, sumExp } from "./softmax";
import { log } from "./power";

/** Arguments: 0 classes, 1 logits, 2 targets, 3 ignored target, 4 losses, 5 scales or 0. A unit is a row. */
export function crossEntropy(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const classes = int(args, 0);
  const scales = address(args, 5);
  const bytes = (<usize>classes) << 2;
  for (let row = begin; row < end; row++) {
    const at = (<usize>row) << 2;
    const x = address(args, 1) + <usize>row * bytes;
    const target = load<i32>(address(args, 2) + at);
    if (target == int(args, 3)) {
      store<f32>(address(args, 4) + at, 0);
      if (scales) memory.fill(x, 0, bytes);
      continue;
    }
    const hit = x + ((<usize>target) << 2);
    const highest = maxOf(x, classes);
    const logit = <f64>load<f32>(hit);
    const sum = sumExp(x, classes, highest, scales ? x : 0);
    store<f32>(address(args, 4) + at, <f32>(log(sum) + <f64>highest - logit));
    if (scales) {
      const scale = load<f32>(scales + at);
      scaleRow(x, classes, <f32>(<f64>scale / sum));
      store<f32>(hit, load<f32>(hit) - scale);
    }
  }
}
