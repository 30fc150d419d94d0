// nn.MultiheadAttention beside PyTorch's (tools/golden/layers.py): outputs and all gradients.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import * as nn from "../src/nn/index.js";
import { on, type Subject, subjects } from "./support/backends.js";
import { expectClose, expectNoLeak, rounding } from "./support/numbers.js";

interface Fixture {
  shape: number[];
  dtype: "float64" | "bool";
  data: number[];
}

interface Run {
  name: string;
  heads: number;
  causal: boolean;
  mask: Fixture | null;
  inputs: { x: Fixture; memory?: Fixture };
  parameters: Record<string, Fixture>;
  output: Fixture;
  dy: Fixture;
  inputGradients: Record<string, Fixture>;
  gradients: Record<string, Fixture>;
}

const file = new URL("./fixtures/layers.json", import.meta.url);
const { multiheadAttention: runs } = JSON.parse(readFileSync(file, "utf8")) as { multiheadAttention: Run[] };

function make({ shape, dtype, data }: Fixture, subject: Subject, requiresGrad = false): nm.Tensor {
  return nm.tensor(data, {
    ...on(subject),
    ...(dtype === "bool" ? { dtype } : {}),
    shape,
    requiresGrad,
  });
}

describe.each(subjects)("MultiheadAttention equals PyTorch's ($name)", (subject) => {
  test.each(runs.map((run) => [run.name, run] as const))("%s", (_, run) => {
    expectNoLeak(run.name, () => {
      const width = run.inputs.x.shape[2];
      const layer = nn.MultiheadAttention.create(width, run.heads, {
        ...on(subject),
        bias: "q_proj.bias" in run.parameters,
      });
      nm.tidy(() => {
        const state = Object.entries(run.parameters).map(([name, t]) => [name, make(t, subject)] as const);
        layer.loadStateDict(new Map(state));
        const inputs = Object.entries(run.inputs).map(([name, t]) => [name, make(t, subject, true)] as const);
        const { x, memory } = Object.fromEntries(inputs);
        const mask = run.mask ? make(run.mask, subject) : undefined;
        const y = layer.forward(x, { memory, causal: run.causal, mask });
        expect(y.shape).toEqual(run.output.shape);
        const near = (actual: nm.Tensor, expected: Fixture, label: string) =>
          expectClose(actual.dataSync(), expected.data, 2 * rounding[subject.dtype], label);
        near(y, run.output, "output");
        y.backward(make(run.dy, subject));
        for (const [name, t] of inputs) near(t.grad!, run.inputGradients[name], name);
        for (const [name, t] of layer.namedParameters()) near(t.grad!, run.gradients[name], name);
      });
      layer.dispose();
    });
  });
});
