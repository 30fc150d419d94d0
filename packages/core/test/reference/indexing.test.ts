// The plain backend's gather and scatterAdd, and its memory.

import { describe, expect, test } from "vitest";
import { createReferenceBackend } from "../../src/backend/reference/index.js";
import type { Operand } from "../../src/backend/types.js";
import { BackendError, OutOfMemoryError, ShapeError } from "../../src/errors.js";
import { backend, operand, valuesOf } from "./operands.js";

describe("gather and scatterAdd", () => {
  test("gather takes rows, of any dtype", () => {
    const table = operand("float16", [3, 2], [0, 1, 2, 3, 4, 5]);
    const out = operand("float16", [2, 1, 2]);
    backend.gather(table, operand("int32", [2, 1], [2, 0]), out);
    const back = operand("float32", [2, 1, 2]);
    backend.cast(out, back);
    expect(valuesOf(back)).toEqual([4, 5, 0, 1]);
  });

  test.each([3, -1])("index %d of 3 rows is refused", (index) => {
    const table = operand("float32", [3, 2], [0, 1, 2, 3, 4, 5]);
    const out = operand("float32", [1, 2]);
    expect(() => backend.gather(table, operand("int32", [1], [index]), out)).toThrow(ShapeError);
    expect(() => backend.gather(table, operand("int32", [1], [index]), out)).toThrow(`${index}`);
  });

  test("scatterAdd is gather's adjoint: ⟨gather x, y⟩ = ⟨x, scatterAdd y⟩", () => {
    const indices = operand("int32", [4], [1, 0, 1, 1]);
    const x = operand("float64", [2, 2], [1, 2, 3, 4]);
    const y = operand("float64", [4, 2], [1, 2, 3, 4, 5, 6, 7, 8]);
    const gathered = operand("float64", [4, 2]);
    const scattered = operand("float64", [2, 2], [0, 0, 0, 0]);
    backend.gather(x, indices, gathered);
    backend.scatterAdd(y, indices, scattered);
    expect(valuesOf(scattered)).toEqual([3, 4, 13, 16]);
    const dot = (a: Operand, b: Operand) => valuesOf(a).reduce((sum, v, i) => sum + v * valuesOf(b)[i], 0);
    expect(dot(gathered, y)).toBe(dot(x, scattered));
  });
});

describe("memory", () => {
  test("counts what is handed out and the peak", () => {
    const own = createReferenceBackend();
    const first = own.alloc(100);
    const second = own.alloc(28);
    own.free(first);
    expect(own.memory()).toEqual({ used: 28, peak: 128, reserved: 28 });
    own.resetPeak();
    expect(own.memory().peak).toBe(28);
    own.free(second);
    expect(own.memory().used).toBe(0);
    expect(() => own.free(second)).toThrow(BackendError);
  });

  test("too much memory is an OutOfMemoryError, and all stays usable", () => {
    const own = createReferenceBackend();
    const buffer = own.alloc(8);
    expect(() => own.alloc(2 ** 52)).toThrow(OutOfMemoryError);
    own.write(buffer, 4, new Uint8Array([1, 2]));
    expect(own.readSync?.(buffer, 3, 4)).toEqual(new Uint8Array([0, 1, 2, 0]));
  });

  test("window is live", () => {
    const x = operand("float32", [2], [1, 2]);
    const window = backend.window({ ...x, shape: [1], offset: 1 }) as Float32Array;
    window[0] = 5;
    expect(valuesOf(x)).toEqual([1, 5]);
  });
});
