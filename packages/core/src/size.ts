// The size of a shape: apart from shape.ts as describe.ts says.

import type { Shape } from "./shape.js";

/** Number of elements; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  let size = 1;
  for (const extent of shape) size *= extent;
  return size;
}
