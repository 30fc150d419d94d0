// Arguments of the wrong type, for every public function: none ends in an error of the language itself.

import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";

/** What no function takes in most places. */
const junk: readonly unknown[] = [
  undefined,
  null,
  "x",
  {},
  Number.NaN,
  -1,
  [],
  true,
  3,
  [1, 2, 3, 4, 5],
  [null],
];

/** For other packages, whose code is checked by the compiler alone; they get valid values. */
const internal = new Set([
  ...[
    "allocate",
    "commonBackend",
    "empty",
    "operand",
    "bytesPerElement",
    "isFloat",
    "promote",
    "wasmRuntime",
  ],
  ...["groupedMatmul", "groupedWeightGradients", "defineFunction"],
]);
/** Taken as they are, or with effects on everything else. */
const others = new Set(["init", "shutdown", "activeBackend", "memoryStats", "resetPeakMemory"]);

const functions = Object.entries(nm).filter(
  (entry): entry is [string, (...parameters: unknown[]) => unknown] =>
    typeof entry[1] === "function" &&
    /^[a-z]/.test(entry[0]) &&
    !internal.has(entry[0]) &&
    !others.has(entry[0]),
);

describe("wrong types", () => {
  test("are tried of every function", () => {
    expect(functions.length).toBeGreaterThan(150);
  });

  test.each(functions)("of %s", async (name, run) => {
    const before = nm.memoryStats().tensors;
    const t = nm.ones([2, 3]);
    const i = nm.tensor([0, 1], { dtype: "int32" });
    const own = (error: unknown, parameters: readonly unknown[]) => {
      if (error instanceof nm.NomoatError) return;
      const shown = parameters.map((value) =>
        value === t ? "t" : value === i ? "i" : (JSON.stringify(value) ?? String(value)),
      );
      throw new Error(`${name}(${shown.join(", ")}) threw ${String(error)}`);
    };
    for (const wrong of junk) {
      const calls = [
        [wrong],
        [wrong, t],
        ...[
          [t, wrong],
          [t, t, wrong],
          [t, i, wrong],
          [t, 1, wrong],
          [t, wrong, wrong],
          [t, t, t, wrong],
        ],
        ...[[[t, wrong]], [[t], wrong], [[t], [wrong]], [[2], wrong], [[2], 1, wrong]],
        [() => nm.ones([]), wrong],
      ];
      for (const parameters of calls) {
        const made: unknown[] = [];
        try {
          nm.tidy(() => {
            made.push(run(...parameters));
          });
        } catch (error) {
          own(error, parameters);
        }
        for (const each of made) {
          if (each instanceof Promise) await each.then(undefined, (error) => own(error, parameters));
        }
      }
    }
    t.dispose();
    i.dispose();
    expect(nm.memoryStats().tensors, "tensors left behind").toBe(before);
  });
});
