// Several matrix products in one launch: a table of argument blocks of `gemm`, whose units are counted through.

import { address, int } from "./abi";
import { gemm } from "./gemm";
import { BLOCK_BYTES, UNITS } from "./group";

/**
 * C = alpha · A·B + beta · C for each block of the table; no C overlaps another. Units are those of the blocks, one block after the
 * other. Integers: address of the table (a multiple of 8), number of blocks. Scratch: the most that a block needs.
 */
export function gemmGroup(args: usize, begin: i32, end: i32, scratch: usize): void {
  let block = address(args, 0);
  const count = int(args, 1);
  let first = 0;
  for (let i = 0; i < count && first < end; i++) {
    const units = int(block, UNITS);
    const from = max(begin - first, 0), to = min(end - first, units);
    if (from < to) gemm(block, from, to, scratch);
    first += units;
    block += BLOCK_BYTES;
  }
}
