// Several matrix products in one launch: a table of argument blocks of `gemm`, whose units are counted through.

import { gemm } from "./gemm";
import { runGroup } from "./group";

/** C = alpha · A·B + beta · C for each block of the table; no C overlaps another. Arguments: see runGroup. */
export function gemmGroup(args: usize, begin: i32, end: i32, scratch: usize): void {
  runGroup(args, begin, end, scratch, gemm);
}
