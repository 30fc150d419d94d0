// Wrong arguments: errors of the right class name the operation, the operand and the numbers.

import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import * as exported from "../../src/ops/index.js";
import { elements } from "./elements.js";
import { layers } from "./layers.js";

const wrong = { ...elements, ...layers };

describe("wrong arguments", () => {
  const list = Object.entries(wrong).flatMap(([name, each]) =>
    each.map((one, i) => [name, i, ...one] as const),
  );
  test.each(list)("of %s (%i)", (_, __, run, kind, message) => {
    nm.tidy(() => {
      expect(run).toThrow(kind);
      expect(run).toThrow(message);
    });
  });

  // These take any tensor: the first test is theirs.
  const anything =
    /^(neg|abs|sign|sqrt|rsqrt|exp|expm1|log|log1p|log2|log10|sin|cos|tanh|erf|sigmoid|silu|softplus|relu|leakyRelu|square|reciprocal|floor|ceil|round|trunc|logicalNot|is\w+|clone|alias|nonzero|unique)$/;
  test("are tried of every operation or of one that shares its checks", () => {
    const shared: Record<string, string> = {
      ...{
        sub: "add",
        mul: "add",
        div: "add",
        minimum: "add",
        maximum: "add",
        floorDivide: "add",
        remainder: "add",
      },
      ...{ equal: "less", notEqual: "less", lessEqual: "less", greater: "less", greaterEqual: "less" },
      ...{
        bitwiseOr: "bitwiseAnd",
        bitwiseXor: "bitwiseAnd",
        shiftLeft: "bitwiseAnd",
        shiftRight: "bitwiseAnd",
      },
      ...{ logicalOr: "logicalAnd", logicalXor: "logicalAnd", prod: "sum", min: "max", argmax: "argmin" },
      ...{
        cumprod: "cumsum",
        broadcastTo: "expand",
        sub_: "add_",
        mul_: "add_",
        clip_: "clip",
        avgPool2d: "avgPool1d",
      },
      ...{ maxPool1dWithIndices: "maxPool2dWithIndices", adaptiveAvgPool1d: "adaptiveAvgPool2d" },
      ...{ adaptiveMaxPool1d: "adaptiveAvgPool2d", adaptiveMaxPool2d: "adaptiveAvgPool2d" },
    };
    const untried = Object.keys(exported).filter(
      (name) => !(wrong[name] || wrong[shared[name]] || anything.test(name)),
    );
    expect(untried).toEqual([]);
  });
});
