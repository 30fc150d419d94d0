// The same bits for every number of threads: all cases of the conformance suite with chunks as small as they can be, so that even
// they are shared out, and larger operations with the chunks that they have.

import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { hasRelaxedSimd, unpackBuild } from "../../src/backend/wasm/builds.js";
import { builds } from "../../src/backend/wasm/generated/kernels.js";
import { KernelModule } from "../../src/backend/wasm/launch.js";
import { wasmRuntime } from "../../src/extend.js";
import * as nm from "../../src/index.js";
import { AdamW } from "../../src/optim/index.js";
import { allCases } from "../conformance/cases/index.js";
import { leafOf, type OpCase, weights } from "../support/check-op.js";
import { values } from "../support/numbers.js";

const threadCounts = [1, 2, 3, 8];
const launch = KernelModule.prototype.launch;
/** Kernels that were shared out. */
const shared = new Set<string>();
let smallest = true;

beforeAll(() => {
  vi.spyOn(KernelModule.prototype, "launch").mockImplementation(function (
    this: KernelModule,
    kernel,
    units,
    ints,
    floats,
    options,
  ) {
    const grain = smallest ? 1 : (options?.grain ?? units);
    if (units > grain) shared.add(kernel);
    launch.call(this, kernel, units, ints, floats, { ...options, grain });
  });
});
afterAll(async () => {
  vi.restoreAllMocks();
  nm.shutdown();
});

/** Output and gradients as bytes, in one string. */
function bits(tensors: readonly (nm.Tensor | null)[]): string {
  return tensors
    .map((t) => {
      const data = t?.dataSync();
      return data ? Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64") : "none";
    })
    .join();
}

function run({ fn, inputs, options }: OpCase): string {
  const differentiate = options.gradient ?? true;
  return nm.tidy(() => {
    const on = { device: "wasm", dtype: "float32" } as const;
    const leaves = inputs.map((input) => leafOf(input, "contiguous", on, differentiate));
    const output = fn(...leaves);
    if (output.requiresGrad) output.backward(nm.tensor(weights(output.size), { ...on, shape: output.shape }));
    return bits([output, ...leaves.map((leaf) => leaf.grad)]);
  });
}

async function withThreads<T>(threads: number, fn: () => T): Promise<T> {
  await nm.init({ backend: "wasm", threads });
  const runtime = wasmRuntime(nm.zeros([1]))!;
  expect(runtime.threads).toBe(threads);
  expect(runtime.waitForWorkers()).toBe(threads - 1);
  return fn();
}

test("every case of the conformance suite, in the smallest chunks", async () => {
  const all = () => allCases.map(run);
  const [alone, ...others] = [
    await withThreads(1, all),
    await withThreads(2, all),
    await withThreads(3, all),
    await withThreads(8, all),
  ];
  for (const [i, other] of others.entries()) {
    const differing = allCases.filter((_, k) => other[k] !== alone[k]).map(({ name }) => name);
    expect(differing, `${threadCounts[i + 1]} threads`).toEqual([]);
  }
});

describe("larger operations", () => {
  const random = (seed: number, ...shape: number[]) =>
    nm.tensor(
      values(
        shape.reduce((a, b) => a * b, 1),
        seed,
        (next) => next() * 2 - 1,
      ),
      { shape, device: "wasm", requiresGrad: true },
    );
  const labels = (count: number, classes: number) =>
    nm.tensor(
      Array.from({ length: count }, (_, i) => (i * 31) % classes),
      { dtype: "int32", device: "wasm" },
    );
  const operations: Record<string, () => [nm.Tensor, ...nm.Tensor[]]> = {
    "elementwise, strided and broadcast": () => {
      const [x, y] = [random(1, 300, 700), random(2, 700)];
      return [nm.exp(nm.mul(nm.add(x, y).transpose(), 0.5)).tanh(), x, y];
    },
    "sums and a variance": () => {
      const x = random(3, 900, 301);
      return [nm.add(nm.sum(x), nm.add(nm.sum(x, 0), nm.variance(x, 0))), x];
    },
    "softmax and logsumexp": () => {
      const x = random(4, 500, 333);
      return [nm.mul(nm.softmax(x), nm.logsumexp(x, 1, true)), x];
    },
    "norms and swiglu": () => {
      const [x, w] = [random(5, 400, 256), random(6, 256)];
      return [nm.swiglu(nm.rmsNorm(x, w), nm.layerNorm(x, w, w)), x, w];
    },
    "running sums": () => {
      const x = random(7, 300, 400);
      return [nm.add(nm.cumsum(x, 0), nm.cumsum(x, 1)), x];
    },
    "embedding and scatter": () => {
      const w = random(8, 500, 64);
      return [nm.embedding(w, labels(4000, 500)), w];
    },
    attention: () => {
      const [q, k, v] = [random(9, 2, 4, 150, 32), random(10, 2, 2, 170, 32), random(11, 2, 2, 170, 32)];
      return [nm.scaledDotProductAttention(q, k, v, { causal: true }), q, k, v];
    },
    "losses of a linear layer": () => {
      const [x, w] = [random(12, 80, 64), random(13, 3000, 64)];
      return [
        nm.linearCrossEntropy(x, w, labels(80, 3000), { reduction: "none", labelSmoothing: 0.1 }),
        x,
        w,
      ];
    },
    "products of stacks": () => {
      const [a, b] = [random(14, 6, 130, 70), random(15, 70, 200)];
      return [nm.matmul(a, b), a, b];
    },
    "few vectors by a matrix": () => {
      const [a, b] = [random(20, 2, 900), random(21, 900, 700)];
      return [nm.matmul(a, b), a, b];
    },
    "convolution and pooling": () => {
      const [x, w] = [random(16, 2, 8, 40, 40), random(17, 16, 8, 3, 3)];
      return [nm.maxPool2d(nm.conv2d(x, w, null, { padding: 1 }), 2), x, w];
    },
    "a convolution with packed weights, and a mean over windows": () => {
      const [x, w, b] = [random(22, 3, 40, 33, 31), random(23, 220, 40, 3, 3), random(24, 220)];
      return [nm.avgPool2d(nm.conv2d(x, w, b, { padding: 1, stride: 2 }), 3, { stride: 2 }), x, w, b];
    },
    "a convolution in groups, and one channel by channel": () => {
      const [x, w] = [random(25, 4, 24, 30, 29), random(26, 48, 6, 3, 3)];
      const each = random(27, 48, 1, 3, 3);
      const y = nm.conv2d(x, w, null, { padding: 1, groups: 4 });
      return [nm.conv2d(y, each, null, { padding: 1, stride: 2, groups: 48 }), x, w, each];
    },
    "a step of AdamW": () => {
      const p = random(18, 700, 300);
      nm.sum(nm.square(p)).backward();
      const optimizer = new AdamW([p]);
      optimizer.step();
      optimizer.dispose();
      p.zeroGrad();
      return [nm.mul(p, 1), p];
    },
  };

  /** Every function of one tensor and of two, of floats and of integers, on enough elements to be shared out. */
  function functions(): nm.Tensor[] {
    const size = 70_000;
    const x = nm.tensor(
      values(size, 1, (next) => 0.3 + next()),
      { device: "wasm" },
    );
    const y = nm.tensor(
      values(size, 2, (next) => next() * 4 - 2),
      { device: "wasm" },
    );
    const i = nm.tensor(
      values(size, 3, (next) => Math.floor(next() * 40 - 20)),
      { device: "wasm", dtype: "int32" },
    );
    const j = nm.tensor(
      values(size, 4, (next) => Math.floor(next() * 40 - 20)),
      { device: "wasm", dtype: "int32" },
    );
    const unary = [
      nm.neg,
      nm.abs,
      nm.sign,
      nm.sqrt,
      nm.rsqrt,
      nm.exp,
      nm.expm1,
      nm.log,
      nm.log1p,
      nm.sin,
      nm.cos,
      nm.tanh,
    ];
    const more = [
      nm.erf,
      nm.sigmoid,
      nm.silu,
      nm.softplus,
      nm.relu,
      nm.square,
      nm.reciprocal,
      nm.floor,
      nm.ceil,
    ];
    const integer = [nm.neg, nm.abs, nm.sign, nm.square, nm.logicalNot, nm.bitwiseNot];
    const binary = [nm.add, nm.sub, nm.mul, nm.minimum, nm.maximum, nm.floorDivide, nm.remainder];
    const bitwise = [nm.bitwiseAnd, nm.bitwiseOr, nm.bitwiseXor];
    const compare = [nm.equal, nm.notEqual, nm.less, nm.lessEqual, nm.greater, nm.greaterEqual];
    const reduce = [nm.sum, nm.prod, nm.max, nm.min];
    const planes = [nm.reshape(i, [250, 280]), nm.reshape(i, [7, 10_000]), nm.reshape(x, [2, 250, 140])];
    const rows = nm.tensor(
      Int32Array.from({ length: 250 }, (_, k) => (k * 7) % 50),
      { device: "wasm" },
    );
    return [
      ...[...unary, ...more].map((fn) => fn(x)),
      ...[nm.round(y), nm.gelu(y), nm.gelu(y, "tanh"), nm.logicalNot(y), nm.div(x, y), nm.pow(x, y)],
      ...integer.map((fn) => fn(i)),
      ...[...binary, ...compare].flatMap((fn) => [fn(x, y), fn(i, j)]),
      ...[...bitwise, ...compare].map((fn) => fn(i, 3)),
      ...[
        nm.shiftLeft(i, 2),
        nm.shiftRight(i, 2),
        nm.where(nm.greater(x, y), x, y),
        nm.where(nm.less(i, j), i, j),
      ],
      ...[nm.where(nm.greater(x, y), nm.cast(x, "bfloat16"), nm.cast(y, "bfloat16"))],
      ...reduce.flatMap((fn) => planes.flatMap((plane) => [fn(plane), fn(plane, 0), fn(plane, 1)])),
      ...planes.flatMap((plane) => [
        ...[nm.argmax(plane, 0), nm.argmax(plane, 1), nm.argmin(plane, 0), nm.argmin(plane, 1)],
        ...[nm.cumsum(plane, 0), nm.cumprod(plane, 1)],
      ]),
      ...[i, x].map((each) => nm.scatterAdd(50, rows, nm.reshape(each, [250, 280]))),
      nm.rand([70_000], { device: "wasm", generator: new nm.Generator(3) }),
    ];
  }

  test("every function of elements", async () => {
    smallest = true;
    const all = () => nm.tidy(() => functions().map((y) => bits([y])));
    const alone = await withThreads(1, all);
    for (const threads of threadCounts.slice(1)) {
      const other = await withThreads(threads, all);
      expect(
        other.flatMap((each, k) => (each === alone[k] ? [] : [k])),
        `${threads} threads`,
      ).toEqual([]);
    }
  });

  test("in the chunks that they have", async () => {
    smallest = false;
    const all = () =>
      Object.values(operations).map((make) =>
        nm.tidy(() => {
          const [output, ...leaves] = make();
          output.backward(nm.tensor(weights(output.size), { shape: output.shape, device: "wasm" }));
          return bits([output, ...leaves.map((leaf) => leaf.grad)]);
        }),
      );
    const alone = await withThreads(1, all);
    for (const threads of threadCounts.slice(1)) {
      const other = await withThreads(threads, all);
      const differing = Object.keys(operations).filter((_, i) => other[i] !== alone[i]);
      expect(differing, `${threads} threads`).toEqual([]);
    }
  });

  test("leave no kernel out", () => {
    const module = new WebAssembly.Module(unpackBuild(builds, hasRelaxedSimd()));
    const kernels = WebAssembly.Module.exports(module)
      .filter(({ kind }) => kind === "function")
      .map(({ name }) => name);
    // `peak` measures the machine, sumOf and maxOf are parts of kernels; no operation divides or raises integers by these kernels,
    // or takes their relu.
    const unused = /^(peak|sumOf|maxOf)$/;
    expect(kernels.filter((name) => !shared.has(name) && !unused.test(name))).toEqual([]);
  });
});
