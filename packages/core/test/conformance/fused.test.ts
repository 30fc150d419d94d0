// Laws of fused and of linear operations: kernels equal their compositions; adjoints; random expressions.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { withReferenceOperations } from "../../src/ops/fused.js";
import { backends, on, oracle, type Subject, wasm } from "../support/backends.js";
import { recordedOperations } from "../support/check-op.js";
import { expectClose, expectNoLeak, random } from "../support/numbers.js";
import { matmulCases, neuralCases } from "./cases/neural.js";
import { indexingCases, reduceCases, viewCases } from "./cases/structure.js";

/** A kernel sums in another order than the composition, over rows of at most a few hundred: a few times √n·ε of float32. */
const kernelTolerance = 1e-5;

const fill = (shape: number[], seed: number, requiresGrad = true) => {
  const next = random(seed);
  const size = shape.reduce((a, b) => a * b, 1);
  const data = Float32Array.from({ length: size }, () => 3 * next() - 1.5);
  return nm.tensor(data, { ...on(wasm), shape, requiresGrad });
};

const fused: Record<string, (shape: number[]) => { inputs: nm.Tensor[]; run: () => nm.Tensor }> = {
  softmax: (shape) => {
    const x = fill(shape, 1);
    return { inputs: [x], run: () => nm.softmax(x) };
  },
  logSoftmax: (shape) => {
    const x = fill(shape, 1);
    return { inputs: [x], run: () => nm.logSoftmax(x) };
  },
  mean: (shape) => {
    const x = fill(shape, 1);
    return { inputs: [x], run: () => nm.mean(x, shape.length === 2 ? undefined : [1, 2], true) };
  },
  variance: (shape) => {
    const x = fill(shape, 1);
    return { inputs: [x], run: () => nm.variance(x, -1, false, 0) };
  },
  std: (shape) => {
    const x = fill(shape, 1);
    return { inputs: [x], run: () => nm.std(x, -1, true) };
  },
  norm: (shape) => {
    const x = fill(shape, 1);
    return { inputs: [x], run: () => nm.norm(x, 2, [-1, -2]) };
  },
  logsumexp: (shape) => {
    const x = fill(shape, 1);
    return { inputs: [x], run: () => nm.logsumexp(x, -1) };
  },
  rmsNorm: (shape) => {
    const [x, w] = [fill(shape, 1), fill(shape.slice(-1), 2)];
    return { inputs: [x, w], run: () => nm.rmsNorm(x, w) };
  },
  layerNorm: (shape) => {
    const [x, w, b] = [fill(shape, 1), fill(shape.slice(-1), 2), fill(shape.slice(-1), 3)];
    return { inputs: [x, w, b], run: () => nm.layerNorm(x, w, b) };
  },
  swiglu: (shape) => {
    const [gate, up] = [fill(shape, 1), fill(shape, 2)];
    return { inputs: [gate, up], run: () => nm.swiglu(gate, up) };
  },
  rope: ([b, h, t, d]) => {
    // As models do it: heads taken out of a projection by a view.
    const x = fill([b, t, h, d], 1);
    const [cos, sin] = [fill([t, d / 2], 2, false), fill([t, d / 2], 3, false)];
    return { inputs: [x], run: () => nm.rope(nm.transpose(x, 1, 2), cos, sin) };
  },
  attention: ([b, h, t, d]) => {
    const [q, k, v] = [fill([b, t, h, d], 1), fill([b, t + 3, h / 2, d], 2), fill([b, t + 3, h / 2, d], 3)];
    const heads = (x: nm.Tensor) => nm.transpose(x, 1, 2);
    const run = () => nm.scaledDotProductAttention(heads(q), heads(k), heads(v), { causal: true });
    return { inputs: [q, k, v], run };
  },
  "attention under a mask": ([b, h, t, d]) => {
    const [q, k, v] = [1, 2, 3].map((seed) => fill([b, h, t, d], seed));
    const mask = nm.where(nm.greater(fill([b, 1, t, t], 4, false), 0.7), -1e31, fill([h, 1, t], 5, false));
    return { inputs: [q, k, v], run: () => nm.scaledDotProductAttention(q, k, v, { mask }) };
  },
  crossEntropy: ([rows, classes]) => {
    const x = fill([rows, classes], 1);
    const targets = nm.tensor(
      Array.from({ length: rows }, (_, i) => (i % 5 === 4 ? -100 : (i * 7) % classes)),
      { device: "wasm", dtype: "int32" },
    );
    return { inputs: [x], run: () => nm.crossEntropy(x, targets) };
  },
  linearCrossEntropy: ([rows, classes]) => {
    const [x, w] = [fill([rows, 33], 1), fill([classes, 33], 2)];
    const targets = nm.tensor(
      Array.from({ length: rows }, (_, i) => (i % 5 === 4 ? -100 : (i * 7) % classes)),
      { device: "wasm", dtype: "int32" },
    );
    return { inputs: [x, w], run: () => nm.linearCrossEntropy(x, w, targets) };
  },
};

const sizes: Record<string, number[][]> = {
  softmax: [
    [37, 65],
    [3, 1],
    [2, 3, 130],
  ],
  logSoftmax: [
    [37, 65],
    [3, 1],
    [2, 3, 130],
  ],
  mean: [
    [37, 65],
    [2, 3, 130],
  ],
  variance: [
    [37, 65],
    [2, 3, 1030],
  ],
  std: [
    [37, 65],
    [2, 3, 2],
  ],
  norm: [
    [37, 65],
    [2, 3, 130],
  ],
  logsumexp: [
    [37, 65],
    [3, 1],
    [2, 3, 1030],
  ],
  rmsNorm: [
    [37, 65],
    [2, 5, 128],
  ],
  layerNorm: [
    [37, 65],
    [2, 5, 128],
  ],
  swiglu: [
    [37, 65],
    [1, 3],
  ],
  rope: [
    [2, 4, 17, 16],
    [1, 2, 1, 2],
  ],
  attention: [
    [2, 4, 37, 16],
    [1, 2, 1, 8],
  ],
  "attention under a mask": [
    [2, 4, 37, 16],
    [1, 2, 1, 8],
  ],
  crossEntropy: [
    [37, 65],
    [3, 2],
  ],
  linearCrossEntropy: [[37, 65]],
};

const all = Object.entries(sizes).flatMap(([name, shapes]) => shapes.map((shape) => [name, shape] as const));

test.each(all)("the kernel of %s equals its composition at %j, values and gradients", (name, shape) => {
  nm.tidy(() => {
    const { inputs, run } = fused[name](shape);
    const once = () => {
      const output = run();
      const dy = fill([...output.shape], 9, false);
      const operations = recordedOperations(output);
      const gradients = nm.gradientsOf(output, inputs, { gradients: [dy] });
      return { operations, values: [output, ...gradients].map((t) => t.dataSync()) };
    };
    const kernel = once();
    const composed = withReferenceOperations(once);
    const [operation] = name.split(" ");
    expect(kernel.operations).toContain(operation);
    expect(composed.operations).not.toContain(operation);
    kernel.values.forEach((values, i) => {
      expectClose(values, composed.values[i], kernelTolerance, i === 0 ? "values" : `gradient ${i - 1}`);
    });
  });
});

test("linearCrossEntropy adds up over chunks of rows", () => {
  // At most 2^20 logits are held at once: two rows of these, so there are two chunks.
  const [rows, classes] = [3, 400_000];
  nm.tidy(() => {
    const [x, w] = [fill([rows, 2], 1), fill([classes, 2], 2)];
    const targets = nm.tensor([5, classes - 1, 7], { device: "wasm", dtype: "int32" });
    const once = () => {
      const mean = nm.linearCrossEntropy(x, w, targets);
      const each = nm.linearCrossEntropy(x, w, targets, { reduction: "none", labelSmoothing: 0.1 });
      const weighted = nm.sum(nm.mul(each, nm.tensor([0.5, -1, 2], { device: "wasm" })));
      return [mean, each, ...nm.gradientsOf(mean, [x, w]), ...nm.gradientsOf(weighted, [x, w])].map((t) =>
        t.dataSync(),
      );
    };
    const composed = withReferenceOperations(once);
    once().forEach((values, i) => {
      // Smoothing takes a mean over all 400,000 classes, in float32 and in another order.
      expectClose(values, composed[i], (i < 4 ? 1 : 4) * kernelTolerance);
    });
  });
});

describe.each(backends)("linear operations ($name)", (subject) => {
  const linear = [...viewCases, ...indexingCases, ...reduceCases, ...matmulCases, ...neuralCases].filter(
    ({ name }) =>
      /^(reshape|flatten|permute|transpose|expand|slice|clone|concat|stack|split|gather|embedding|scatterAdd|sum|mean|matmul|linear without|rope)\b/.test(
        name,
      ) && name !== "matmul with itself",
  );

  test.each(linear.map((each) => [each.name, each] as const))(
    "%s: ⟨A·x, y⟩ = ⟨x, Aᵀ·y⟩",
    (_, { fn, inputs }) => {
      expectNoLeak("adjoint", () =>
        nm.tidy(() => {
          // Linear in the first float input; the others are constants.
          const at = inputs.findIndex((input) => !input.dtype);
          const tensors = inputs.map((input, i) =>
            nm.tensor([...input.values], {
              ...on(subject, { requiresGrad: i === at }),
              dtype: input.dtype ?? subject.dtype,
              shape: input.shape,
            }),
          );
          const output = fn(...tensors);
          const y = nm.tensor(
            Float64Array.from({ length: output.size }, (_, i) => Math.cos(i * 1.3)),
            {
              ...on(subject),
              shape: output.shape,
            },
          );
          const [aty] = nm.gradientsOf(output, [tensors[at]], { gradients: [y] });
          // An affine part (the other parts of a concat) is taken off.
          const zero = tensors.map((t, i) => (i === at ? nm.zerosLike(t) : t));
          const left = nm.sum(nm.mul(nm.sub(output, fn(...zero)), y)).item();
          const right = nm.sum(nm.mul(tensors[at], aty)).item();
          expectClose([left], [right], subject.dtype === "float64" ? 1e-12 : 1e-5);
        }),
      );
    },
  );
});

/** Steps of an expression over [3, 3] matrices; smooth everywhere, and tame enough for finite differences. */
const steps: Record<string, (x: nm.Tensor, y: nm.Tensor) => nm.Tensor> = {
  tanh: (x) => nm.tanh(x),
  sin: (x) => nm.sin(x),
  sigmoid: (x) => nm.sigmoid(x),
  "exp of tanh": (x) => nm.exp(nm.tanh(x)),
  silu: (x) => nm.silu(x),
  gelu: (x) => nm.gelu(x),
  softplus: (x) => nm.softplus(x),
  add: (x, y) => nm.add(x, y),
  "sub, transposed": (x, y) => nm.sub(nm.transpose(x), y),
  "mul by a row": (x, y) => nm.mul(x, nm.slice(y, 1)),
  "div by 2 + y²": (x, y) => nm.div(x, nm.add(nm.square(y), 2)),
  matmul: (x, y) => nm.mul(nm.matmul(x, y), 0.3),
  "matmul, transposed": (x, y) => nm.matmul(x, y, { transA: true, transB: true, alpha: 0.3 }),
  "sum kept": (x) => nm.mul(nm.sum(x, 1, true), nm.tanh(x)),
  "centre on the mean": (x) => nm.sub(x, nm.mean(x, 0)),
  softmax: (x) => nm.softmax(x, 0),
  logSoftmax: (x) => nm.logSoftmax(x),
  rmsNorm: (x, y) => nm.rmsNorm(x, nm.slice(y, 0), 0.5),
  layerNorm: (x, y) => nm.layerNorm(x, nm.slice(y, 0), null, 0.5),
  swiglu: (x, y) => nm.swiglu(x, y),
  flip: (x) => nm.slice(x, [null, null, -1]),
  "concat and cut": (x, y) => nm.slice(nm.concat([x, y], 1), null, [2, 5]),
  "gather rows": (x) => nm.gather(x, nm.tensor([2, 0, 2], { dtype: "int32", device: x.device })),
  "repeat a row": (x) => nm.mul(nm.expand(nm.slice(x, [0, 1]), [3, 3]), 0.5),
};

const programs = fc.array(fc.tuple(fc.constantFrom(...Object.keys(steps)), fc.nat(), fc.nat()), {
  minLength: 1,
  maxLength: 7,
});

/** Each step takes two earlier values, the inputs among them. */
function evaluate(
  program: readonly (readonly [string, number, number])[],
  inputs: readonly nm.Tensor[],
): nm.Tensor {
  return nm.tidy(() => {
    const made = [...inputs];
    for (const [name, i, j] of program) made.push(steps[name](made[i % made.length], made[j % made.length]));
    return made.at(-1)!;
  });
}

const matrices = (options: nm.CreationOptions) =>
  [4, 5].map((seed) => {
    const next = random(seed);
    const data = Float32Array.from({ length: 9 }, () => 2 * next() - 1);
    return nm.tensor(Float64Array.from(data), { ...options, shape: [3, 3], requiresGrad: true });
  });

describe("random compositions of operations", () => {
  test("have the gradients of finite differences", () => {
    fc.assert(
      fc.property(programs, (program) => {
        expectNoLeak("composition", () =>
          nm.tidy(() => {
            nm.gradcheck((...inputs) => evaluate(program, inputs), matrices(on(oracle)));
          }),
        );
      }),
      { numRuns: 60 },
    );
  });

  test("have on wasm the values and gradients of the oracle", () => {
    const run = (subject: Subject, program: Parameters<typeof evaluate>[0]) =>
      nm.tidy(() => {
        const inputs = matrices(on(subject));
        const output = evaluate(program, inputs);
        const loss = nm.sum(nm.mul(output, output));
        return [output, ...nm.gradientsOf(loss, inputs)].map((t) => Array.from(t.dataSync()));
      });
    fc.assert(
      fc.property(programs, (program) => {
        const expected = run(oracle, program);
        expectNoLeak("composition", () => run(wasm, program)).forEach((values, i) => {
          // Up to seven steps, each of which may multiply the rounding of the one before by a few.
          expectClose(values, expected[i], 1e-4);
        });
      }),
      { numRuns: 200 },
    );
  });
});
