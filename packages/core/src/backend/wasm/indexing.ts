// Rows by index on the wasm kernels: gather and scatterAdd.

import { bytesPerElement } from "../../dtype.js";
import { ShapeError } from "../../errors.js";
import { contiguousStrides, isContiguous } from "../../layout.js";
import { sizeOf } from "../../shape.js";
import type { Operand } from "../types.js";
import { arithmeticSuffix, withContiguous } from "./elementwise.js";
import type { WasmRuntime } from "./runtime.js";
import { rowGrain } from "./strided.js";

/** Columns of one unit of scatterAdd. */
const columnsPerUnit = 64;

/** Runs `fn` with an operand whose rows (all but the first axis) are contiguous, and the stride between them. */
function withContiguousRows(
  runtime: WasmRuntime,
  x: Operand,
  fn: (x: Operand, rowStride: number) => void,
): void {
  const row = { shape: x.shape.slice(1), strides: x.strides.slice(1), offset: 0 };
  if (isContiguous(row)) fn(x, x.strides[0]);
  else withContiguous(runtime, x, (copied) => fn(copied, contiguousStrides(x.shape)[0]));
}

function checkIndices(operation: string, runtime: WasmRuntime, indices: Operand, limit: number): void {
  const start = runtime.address(indices) / 4;
  const count = sizeOf(indices.shape);
  const all = runtime.views.i32();
  for (let i = 0; i < count; i++) {
    const index = all[start + i];
    if (index < 0 || index >= limit) {
      throw new ShapeError(`${operation}: index ${index} at position ${i} is outside 0 … ${limit - 1}`);
    }
  }
}

export function gather(runtime: WasmRuntime, x: Operand, indices: Operand, out: Operand): void {
  withContiguous(runtime, indices, (list) => {
    checkIndices("gather", runtime, list, x.shape[0]);
    if (sizeOf(out.shape) === 0) return;
    withContiguousRows(runtime, x, (table, rowStride) => {
      const bytes = bytesPerElement(x.dtype);
      const rowBytes = sizeOf(x.shape.slice(1)) * bytes;
      runtime.core.launch(
        "gather",
        sizeOf(indices.shape),
        [rowBytes, runtime.address(table), rowStride * bytes, runtime.address(list), runtime.address(out)],
        undefined,
        { grain: rowGrain(rowBytes + 64, 65536) },
      );
    });
  });
}

export function scatterAdd(runtime: WasmRuntime, source: Operand, indices: Operand, out: Operand): void {
  const count = sizeOf(indices.shape);
  if (count === 0 || (sizeOf(out.shape) === 0 && out.shape[0] > 0)) return;
  const suffix = arithmeticSuffix("scatterAdd", out.dtype);
  withContiguous(runtime, indices, (list) =>
    withContiguous(runtime, source, (rows) => {
      checkIndices("scatterAdd", runtime, list, out.shape[0]);
      const columns = sizeOf(out.shape.slice(1));
      runtime.core.launch(
        `scatterAdd${suffix}`,
        Math.ceil(columns / columnsPerUnit),
        [count, columns, columnsPerUnit, runtime.address(rows), runtime.address(list), runtime.address(out)],
        undefined,
        { grain: rowGrain(count * Math.min(columns, columnsPerUnit), 16384) },
      );
    }),
  );
}
