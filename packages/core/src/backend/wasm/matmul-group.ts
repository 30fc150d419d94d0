// Several small matrix products in one launch: the argument blocks of all of them in a table in memory.

import type { MatmulProduct } from "../types.js";
import { type BlockLaunch, describe, grainOperations, scale, separateBlocks } from "./matmul.js";
import type { WasmRuntime } from "./runtime.js";

// As in assembly/gemm-group.ts and assembly/abi.ts.
const blockBytes = 400;
const unitsAt = 95;
const floatsAt = 48;

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
    const block = separateBlocks(product);
    operations += 2 * m * n * k;
    units += block.units;
    scratchBytes = Math.max(scratchBytes, block.scratchBytes);
    blocks.push(block);
  }
  if (blocks.length === 0) return;
  const table = runtime.allocator.allocateUncounted(blockBytes * blocks.length);
  try {
    const ints = runtime.views.i32();
    const floats = runtime.views.f64();
    blocks.forEach((block, i) => {
      const at = table + i * blockBytes;
      ints.set(block.ints, at / 4);
      ints[at / 4 + unitsAt] = block.units;
      floats.set(block.floats, at / 8 + floatsAt);
    });
    const grain = Math.max(1, Math.round((grainOperations * units) / operations));
    runtime.core.launch("gemmGroup", units, [table, blocks.length], [], { grain, scratchBytes });
  } finally {
    runtime.allocator.freeUncounted(table);
  }
}
