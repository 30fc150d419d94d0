// float32 tensors in a file of their own, for peers: written here, read by the adapters in JavaScript.

import { readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import type { StoredTensors } from "./protocol.js";

export interface Values {
  readonly values: Float32Array;
  readonly shape: readonly number[];
}

/** Writes the tensors one after the other. */
export async function writeTensors(
  file: string,
  tensors: Iterable<readonly [name: string, tensor: Values]>,
): Promise<StoredTensors> {
  const table: Record<string, { offset: number; shape: readonly number[] }> = {};
  const handle = await open(file, "w");
  try {
    let offset = 0;
    for (const [name, { values, shape }] of tensors) {
      await handle.write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      table[name] = { offset, shape };
      offset += values.byteLength;
    }
  } finally {
    await handle.close();
  }
  return { file, tensors: table };
}

/** The tensors of a file by name. */
export function readTensors({ file, tensors }: StoredTensors): Map<string, Values> {
  const bytes = readFileSync(file);
  return new Map(
    Object.entries(tensors).map(([name, { offset, shape }]) => {
      const count = shape.reduce((product, extent) => product * extent, 1);
      const part = bytes.subarray(offset, offset + 4 * count);
      return [name, { values: new Float32Array(Uint8Array.from(part).buffer), shape }];
    }),
  );
}
