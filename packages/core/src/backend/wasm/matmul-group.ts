// Several small matrix products in one launch.

import type { MatmulProduct } from "../types.js";
import { launchGroup } from "./group.js";
import { type BlockLaunch, describe, grainOperations, scale, separateBlocks } from "./matmul.js";
import type { WasmRuntime } from "./runtime.js";

/** out = alpha · a · b + beta · out for each product, of matrices; no out overlaps another or any operand. */
export function matmulGroup(runtime: WasmRuntime, products: readonly MatmulProduct[]): void {
  const blocks: BlockLaunch[] = [];
  let operations = 0;
  let units = 0;
  let scratchBytes = 0;
  for (const { a, b, out, alpha, beta } of products) {
    const product = describe(runtime, a, b, { alpha, beta }, out);
    const { m, n, k } = product;
    if (m === 0 || n === 0) continue;
    if (k === 0) {
      scale(runtime, product);
      continue;
    }
    const block = separateBlocks(runtime, product);
    operations += 2 * m * n * k;
    units += block.units;
    scratchBytes = Math.max(scratchBytes, block.scratchBytes);
    blocks.push(block);
  }
  const grain = Math.max(1, Math.round((grainOperations * units) / operations));
  launchGroup(runtime, "gemmGroup", blocks, { grain, scratchBytes });
}
