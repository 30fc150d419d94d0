// Inputs of peers' tasks: the same bits as this library's own entries get.

import { uniformWords } from "../inputs.js";
import type { ProductTask } from "./protocol.js";

export interface Stored {
  readonly values: Float32Array;
  readonly shape: number[];
}

export interface InputPair {
  readonly a: Stored;
  readonly b: Stored;
}

/** The operands as they are stored: transposed ones with their axes swapped. */
export function productInputs({ m, n, k, batch, transposes, seeds }: ProductTask): InputPair {
  const shape = (rows: number, columns: number, transposed: boolean): number[] => [
    ...(batch > 1 ? [batch] : []),
    ...(transposed ? [columns, rows] : [rows, columns]),
  ];
  return {
    a: { values: uniformWords(seeds[0], batch * m * k), shape: shape(m, k, transposes[0] === "T") },
    b: { values: uniformWords(seeds[1], batch * k * n), shape: shape(k, n, transposes[1] === "T") },
  };
}
