// Running sums and products on the wasm kernels: lines are shared among the threads, each line is one thread's.

import { sizeOf } from "../../shape.js";
import type { Operand, ScanKind } from "../types.js";
import { arithmeticSuffix, kernelName, withContiguous } from "./elementwise.js";
import type { WasmRuntime } from "./runtime.js";
import { rowGrain } from "./strided.js";

/** Neighbouring lines that a unit of the kernel takes. */
const linesPerUnit = 4;

export function scan(runtime: WasmRuntime, kind: ScanKind, x: Operand, axis: number, out: Operand): void {
  if (sizeOf(out.shape) === 0) return;
  const length = x.shape[axis];
  const inner = sizeOf(x.shape.slice(axis + 1));
  const units = Math.ceil(inner / linesPerUnit);
  withContiguous(runtime, x, (source) => {
    runtime.core.launch(
      kernelName(arithmeticSuffix(kind, x.dtype) === "" ? "scan" : "scanInt", kind),
      sizeOf(x.shape.slice(0, axis)) * units,
      [length, inner, units, runtime.address(source), runtime.address(out)],
      undefined,
      { grain: rowGrain(length * Math.min(inner, linesPerUnit), 16384) },
    );
  });
}
