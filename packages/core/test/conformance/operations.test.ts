// Every operation on every backend: values, gradients, gradients of gradients, layouts, leaks.

import { readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { OwnRule } from "../../src/autograd/rule.js";
import { rules } from "../../src/autograd/rules.js";
import { groupedMatmul } from "../../src/extend.js";
import * as nm from "../../src/index.js";
import * as ops from "../../src/ops/index.js";
import { subjects } from "../support/backends.js";
import { checkOp } from "../support/check-op.js";
import { allCases as cases, operationOf } from "./cases/index.js";

const exported = { ...ops, groupedMatmul };

/** The names of the rules that stand beside their operations. */
async function ownRules(): Promise<string[]> {
  const folder = new URL("../../src/ops/", import.meta.url);
  const modules = await Promise.all(readdirSync(folder).map((file) => import(new URL(file, folder).href)));
  return modules
    .flatMap((module) => Object.values<Partial<OwnRule<unknown>>>(module))
    .flatMap((value) => (typeof value?.backward === "function" && value.name ? [value.name] : []));
}

/** Gradient rules that a case ran through. */
const checked = new Set<string>();

describe.each(subjects)("$name", (subject) => {
  test.each(cases.map((each) => [each.name, each] as const))("%s", (_, each) => {
    for (const operation of checkOp(each, subject)) checked.add(operation);
  });
});

describe("nothing goes untested", () => {
  // allclose gives no tensor; isclose is all there is to it.
  const exportedNames = Object.keys(exported).filter((name) => name !== "allclose");
  test("every exported operation has a case", () => {
    const names = new Set(cases.map(operationOf));
    const missing = exportedNames.filter((name) => !names.has(name));
    expect(missing).toEqual([]);
  });

  // Positions, truth values and whole numbers; what is written in place is not recorded.
  const without =
    /^(is\w+|logical\w+|bitwise\w+|shift\w+|arg\w+|all|any|nonzero|oneHot|unique|(not)?equal|(less|greater)(Equal)?|\w+_)$/i;
  test("every other operation has its gradient checked", () => {
    const names = new Set(cases.filter(({ options }) => options.gradient ?? true).map(operationOf));
    const missing = exportedNames.filter((name) => !names.has(name) && !without.test(name));
    expect(missing).toEqual([]);
  });

  // Functions of functions have tests of their own (functional, autograd; checkpoint among the compositions, too).
  const others = new Set(
    `anomalyMode grad gradientsOf valueAndGrad checkpoint defineFunction gradcheck enableGrad noGrad activeBackend init shutdown
    withBackend arange eye fromBuffer full fullLike linspace ones onesLike rand randn tensor toBuffer uniform zeros
    zerosLike bytesPerElement isFloat promote keep memoryStats resetPeakMemory tidy defaultGenerator manualSeed bernoulli multinomial permutation randint`.split(
      /\s+/,
    ),
  );
  test("no function of tensors stands outside the operations", () => {
    const strange = Object.keys(nm).filter(
      (name) => /^[a-z]/.test(name) && !(name in exported) && !others.has(name),
    );
    expect(strange).toEqual([]);
  });

  test("every gradient rule was checked", async () => {
    const own = await ownRules();
    expect(own).toContain("softmax");
    const missing = [...Object.keys(rules), ...own].filter((name) => !checked.has(name));
    expect(missing).toEqual([]);
  });
});
