// Several calls of one kernel in one launch: a table of argument blocks, whose units are counted through, one block after the other.
// gemm-group.ts and adamw.ts have kernels that run so. Multiplies nothing.

import { address, int } from "./abi";

/** Bytes from one argument block of a table to the next: all integers, and the first eight floats (abi.ts). */
const BLOCK_BYTES: usize = 448;
/** Where a block keeps the number of its units: the last integer, which no kernel that is run so uses. */
const UNITS: i32 = 95;

/**
 * Runs `kernel` on those of its units, counted through all blocks of a table, that lie within begin … end − 1. Integers: address of the
 * table (a multiple of 8), number of blocks. Scratch: the most that a block needs.
 */
// @ts-ignore: decorator
@inline
export function runGroup(
  args: usize, begin: i32, end: i32, scratch: usize, kernel: (args: usize, begin: i32, end: i32, scratch: usize) => void,
): void {
  let block = address(args, 0);
  const count = int(args, 1);
  let first = 0;
  for (let i = 0; i < count && first < end; i++) {
    const units = int(block, UNITS);
    const from = max(begin - first, 0), to = min(end - first, units);
    if (from < to) kernel(block, from, to, scratch);
    first += units;
    block += BLOCK_BYTES;
  }
}
