// The points on which libraries differ, as NumPy and PyTorch decide them (tools/golden/semantics.py), on every backend: values,
// exact dtypes, the signs of zeros, and gradients where PyTorch has an opinion.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { type Subject, subjects } from "../support/backends.js";
import { expectClose, rounding } from "../support/numbers.js";

interface Fixture {
  shape: number[];
  /** "float" is the backend's own. */
  dtype: nm.DType | "float";
  data: (number | string)[];
}

interface Case {
  op: string;
  arguments: unknown[];
  inputs: Fixture[];
  output: Fixture;
  dy?: Fixture;
  gradients?: Fixture[];
}

const file = new URL("../fixtures/semantics.json", import.meta.url);
const { cases, promotion } = JSON.parse(readFileSync(file, "utf8")) as {
  cases: Case[];
  promotion: [nm.DType, nm.DType, nm.DType][];
};

type Operation = (...list: unknown[]) => nm.Tensor;
const operations = nm as unknown as Record<string, Operation>;

const numbersOf = (fixture: Fixture): Float64Array => Float64Array.from(fixture.data, Number);

function make(fixture: Fixture, subject: Subject, requiresGrad = false): nm.Tensor {
  const float = fixture.dtype === "float";
  return nm.tensor(numbersOf(fixture), {
    device: subject.device,
    dtype: float ? subject.dtype : (fixture.dtype as nm.DType),
    shape: fixture.shape,
    requiresGrad: float && requiresGrad,
  });
}

/** JSON has no NaN and no infinities, and no number of that name is an option. */
const read = (value: unknown): unknown =>
  value === "NaN" || value === "Infinity" || value === "-Infinity" ? Number(value) : value;

function run({ op, arguments: given }: Case, inputs: nm.Tensor[]): nm.Tensor {
  const [name, field] = op.split(".");
  if (name === "einsum") return nm.einsum(given[0] as string, inputs[0], ...inputs.slice(1));
  if (name === "slice") return nm.slice(inputs[0], ...(given as nm.Range[]));
  if (name === "index") {
    const indices = given.map((one) => (typeof one === "string" ? inputs[Number(one.slice(1)) + 1] : one));
    return nm.index(inputs[0], ...(indices as nm.Index[]));
  }
  if (name === "crossEntropy" && (given[0] as { weight?: string }).weight)
    return nm.crossEntropy(inputs[0], inputs[1], { ...(given[0] as object), weight: inputs[2] });
  const parameters = given.map(read);
  const result = operations[name](...(name === "meshgrid" ? [inputs] : inputs), ...parameters);
  return field ? (result as unknown as Record<string, nm.Tensor>)[field] : result;
}

/** Operations whose zeros have a sign worth keeping. (sign keeps that of −0, where NumPy and PyTorch give 0.) */
const signed = new Set(["floor", "ceil", "round", "trunc", "neg", "abs", "sqrt", "cast", "pow"]);

describe.each(subjects)("$name decides as NumPy and PyTorch do", (subject) => {
  test.each(cases.map((each, i) => [i, each.op, JSON.stringify(each.arguments), each] as const))(
    "%i %s %s",
    (_, __, ___, each) => {
      nm.tidy(() => {
        const inputs = each.inputs.map((input) => make(input, subject, each.gradients !== undefined));
        const output = run(each, inputs);
        expect(output.shape).toEqual(each.output.shape);
        expect(output.dtype).toBe(each.output.dtype === "float" ? subject.dtype : each.output.dtype);
        const expected = numbersOf(each.output);
        const actual = output.dataSync();
        // 16-bit results are sums and products of exact operands, rounded once: they agree to the last bit.
        const exact = output.dtype.endsWith("float16");
        expectClose(
          actual,
          expected,
          exact ? 0 : rounding[output.dtype === "float64" ? "float64" : "float32"],
        );
        if (signed.has(each.op)) {
          expected.forEach((value, i) => {
            if (value === 0) expect(Object.is(Number(actual[i]), value), `zero at ${i}`).toBe(true);
          });
        }
        if (!each.dy || !each.gradients) return;
        if (output.requiresGrad) output.backward(make(each.dy, subject));
        inputs
          .filter((input) => input.requiresGrad)
          .forEach((input, i) => {
            const gradient = input.grad?.dataSync() ?? new Float64Array(input.size);
            expectClose(gradient, numbersOf(each.gradients![i]), rounding[subject.dtype], `gradient ${i}`);
          });
      });
    },
  );
});

test("dtypes promote as in the array API standard, mixed kinds as in PyTorch", () => {
  for (const [a, b, expected] of promotion) expect(nm.promote(a, b), `${a} with ${b}`).toBe(expected);
});
