// Several calls of one kernel in one launch: the argument blocks of all of them in a table in memory (assembly/group.ts).

import type { WasmRuntime } from "./runtime.js";

// As in assembly/group.ts and assembly/abi.ts.
const blockBytes = 448;
const unitsAt = 95;
const floatsAt = 48;

/** Arguments of one call. */
export interface GroupBlock {
  readonly ints: readonly number[];
  readonly floats: readonly number[];
  readonly units: number;
}

/** Runs the kernel `name` of core, whose arguments are a table and its length, on the units of all blocks. */
export function launchGroup(
  runtime: WasmRuntime,
  name: string,
  blocks: readonly GroupBlock[],
  options: { grain: number; scratchBytes?: number },
): void {
  if (blocks.length === 0) return;
  const table = runtime.allocator.allocateUncounted(blockBytes * blocks.length);
  try {
    const ints = runtime.views.i32();
    const floats = runtime.views.f64();
    let units = 0;
    blocks.forEach((block, i) => {
      const at = table + i * blockBytes;
      ints.set(block.ints, at / 4);
      ints[at / 4 + unitsAt] = block.units;
      floats.set(block.floats, at / 8 + floatsAt);
      units += block.units;
    });
    runtime.core.launch(name, units, [table, blocks.length], [], options);
  } finally {
    runtime.allocator.freeUncounted(table);
  }
}
