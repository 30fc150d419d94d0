// Every operation on every backend: values, gradients, gradients of gradients, layouts, leaks.

import { describe, expect, test } from "vitest";
import { rules } from "../../src/autograd/rules.js";
import * as exported from "../../src/ops/index.js";
import { subjects } from "../support/backends.js";
import { checkOp } from "../support/check-op.js";
import { allCases as cases, operationOf } from "./cases/index.js";

/** Gradient rules that a case ran through. */
const checked = new Set<string>();

describe.each(subjects)("$name", (subject) => {
  test.each(cases.map((each) => [each.name, each] as const))("%s", (_, each) => {
    for (const operation of checkOp(each, subject)) checked.add(operation);
  });
});

describe("nothing goes untested", () => {
  test("every exported operation has a case", () => {
    const names = new Set(cases.map(operationOf));
    const missing = Object.keys(exported).filter((name) => !names.has(name));
    expect(missing).toEqual([]);
  });

  // logicalNot gives bool, which has no gradient.
  const elsewhere = new Set(["logicalNot"]);
  test("every gradient rule was checked", () => {
    const missing = Object.keys(rules).filter((name) => !checked.has(name) && !elsewhere.has(name));
    expect(missing).toEqual([]);
  });
});
