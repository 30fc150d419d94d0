// Several calls of one kernel in one launch: a table of argument blocks, whose units are counted through, one block after the other.
// gemm-group.ts and adamw.ts walk over such tables. Multiplies nothing.

/** Bytes from one argument block of a table to the next: all integers, and the first eight floats (abi.ts). */
export const BLOCK_BYTES: usize = 448;
/** Where a block keeps the number of its units: the last integer, which no kernel that is run so uses. */
export const UNITS: i32 = 95;
