// Values that NumPy computed (tools/golden/numpy_semantics.py), on every backend.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { type Subject, subjects } from "../support/backends.js";
import { expectClose, rounding } from "../support/numbers.js";

interface Fixture {
  shape: number[];
  dtype: "float64" | "int32" | "bool";
  data: (number | string)[];
}

interface Case {
  op: string;
  // biome-ignore lint/suspicious/noExplicitAny: checked by what the operations make of them
  arguments: any[];
  inputs: Fixture[];
  output: Fixture;
}

const file = new URL("../fixtures/numpy.json", import.meta.url);
const { cases } = JSON.parse(readFileSync(file, "utf8")) as { cases: Case[] };

/** Every operation by its name. */
const operations = { ...nm } as unknown as Record<string, (...list: unknown[]) => nm.Tensor>;

function make({ shape, dtype, data }: Fixture, subject: Subject): nm.Tensor {
  return nm.tensor(data.map(Number), {
    device: subject.device,
    dtype: dtype === "float64" ? subject.dtype : dtype,
    shape,
  });
}

function run({ op, arguments: given, inputs }: Case, subject: Subject): nm.Tensor {
  const [x, ...others] = inputs.map((input) => make(input, subject));
  if (op === "einsum") return nm.einsum(given[0], x, ...others);
  if (op === "index") {
    // "t0" stands for the first of the other tensors.
    const indices = given.map((item) => (typeof item === "string" ? others[Number(item.slice(1))] : item));
    return nm.index(x, ...indices);
  }
  if (op.startsWith("unique.")) return nm.unique(x)[op.slice(7) as keyof nm.UniqueResult];
  const numbers = given.map((item) => (typeof item === "string" ? Number(item) : item));
  return operations[op](x, ...others, ...numbers);
}

describe.each(subjects)("$name", (subject) => {
  test.each(cases.map((each, i) => [`${i} ${each.op} ${JSON.stringify(each.arguments)}`, each] as const))(
    "%s",
    (_, each) => {
      nm.tidy(() => {
        const y = run(each, subject);
        expect(y.shape).toEqual(each.output.shape);
        expect(nm.isFloat(y.dtype)).toBe(each.output.dtype === "float64");
        expectClose(y.dataSync(), each.output.data.map(Number), rounding[subject.dtype]);
      });
    },
  );
});
