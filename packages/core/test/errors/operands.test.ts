// Disposed operands and operands of two backends: every operation names itself, and leaves nothing behind.

import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { allCases, operationOf } from "../conformance/cases/index.js";
import { leafOf, type OpCase } from "../support/check-op.js";
import { expectNoLeak } from "../support/numbers.js";

/** Cases that do more than call their operation: what is disposed reaches something else first. */
const detours = new Set([
  "move there and back",
  "klDivergence",
  "klDivergence, a zero target",
  "index by a mask",
  "crossEntropy, weighted",
  "weightedLinearCrossEntropy",
  "weightedCrossEntropy, some ignored",
]);
const plain = allCases.filter(
  (each) => each.inputs.length > 0 && !detours.has(each.name) && !/^(\w+_|view)\b/.test(each.name),
);

function inputsOf(each: OpCase, device: nm.BackendName = "wasm"): nm.Tensor[] {
  return each.inputs.map((input) => leafOf(input, "contiguous", { device, dtype: "float32" }, false));
}

describe("every operation", () => {
  test.each(plain.map((each) => [each.name, each] as const))(
    "names itself for wrong operands: %s",
    (_, each) => {
      const name = operationOf(each);
      expectNoLeak(each.name, () =>
        each.inputs.forEach((input, i) => {
          nm.tidy(() => {
            const inputs = inputsOf(each);
            inputs[i].dispose();
            const run = () => each.fn(...inputs);
            expect(run, `operand ${i} disposed`).toThrow(nm.DisposedError);
            expect(run).toThrow(
              `${name}: a tensor of shape [${input.shape.join(", ")}] was used after it was disposed`,
            );
            if (each.inputs.length === 1) return;
            const mixed = inputsOf(each);
            mixed[i] = inputsOf(each, "reference")[i];
            const runMixed = () => each.fn(...mixed);
            expect(runMixed, `operand ${i} elsewhere`).toThrow(nm.BackendError);
            expect(runMixed).toThrow(
              new RegExp(`^${name}: tensors live on different backends .*move one with to\\(`),
            );
          });
        }),
      );
    },
  );
});
