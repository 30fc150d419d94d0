// What each public operation costs beside its arithmetic: microseconds of a call, its result's disposal included, on operands of a few
// elements, and how many kernels it launches. An operation made of k others costs k launches. Of operations that differentiate also the
// time of a recorded call with its backward. Every function that the package exports stands here or among those left out: one that is
// forgotten ends the run. From the repository, in about a minute:
//
//   npx tsx --conditions=@nomoat/source packages/core/scripts/overhead.ts [--grad] [--above=2] [--unit=25] [PART OF A NAME ...]
//
// A bundle of the sources (`npx esbuild --bundle --platform=node --format=esm --conditions=@nomoat/source`) runs on any Node.

import { KernelModule } from "../src/backend/wasm/launch.js";
import type { Tensor } from "../src/index.js";
import * as core from "../src/index.js";

/** By name. */
const all = { ...core };

const given = process.argv.slice(2);
const option = (name: string) => given.find((argument) => argument.startsWith(name))?.slice(name.length);
const above = Number(option("--above=") ?? 0);
/** Milliseconds of one case in all. */
const turn = Number(option("--unit=") ?? 25);
const withGradients = given.includes("--grad");
const wanted = given.filter((argument) => !argument.startsWith("--"));

await core.init({ backend: "wasm", threads: 1 });
core.manualSeed(1);

const a = core.uniform([4, 4], 0.1, 0.9);
const b = core.uniform([4, 4], 0.1, 0.9);
const v = core.uniform([8], 0.1, 0.9);
const v4 = core.uniform([4], 0.1, 0.9);
const turned = core.transpose(core.uniform([4, 4], 0.1, 0.9));
const ints = core.tensor([3, 1, 2, 0], { dtype: "int32" });
const ints2 = core.tensor([[3, 1, 2, 0]], { dtype: "int32" });
const grid = core.tensor([5, 3, 7, 1, 2, 8, 4, 6], { dtype: "int32" });
const bools = core.greater(a, 0.5);
const positive = core.uniform([4, 4], 0.1, 0.9);
const image = core.randn([1, 2, 6, 6]);
const signal = core.randn([1, 2, 8]);
const kernel2 = core.randn([3, 2, 3, 3]);
const kernel1 = core.randn([3, 2, 3]);
const heads = core.randn([1, 2, 4, 4]);
const angles = core.randn([4, 2]);
const batch = core.randn([2, 4, 4]);
const half = core.cast(a, "float16");
const same = core.randn([4, 4]);

const everywhere = core.tensor(
  [
    [3, 1, 2, 0],
    [0, 1, 2, 3],
    [3, 2, 1, 0],
    [1, 0, 3, 2],
  ],
  { dtype: "int32" },
);
const typed = new Float32Array(16);

type Result = Tensor | readonly Tensor[] | Record<string, Tensor>;
type Case = readonly [name: string, run: (x: Tensor) => Result, x?: Tensor];

/** Over all elements, and along an axis. */
const reductions = [
  "sum",
  "prod",
  "max",
  "min",
  "mean",
  "variance",
  "std",
  "logsumexp",
  "argmax",
  "argmin",
  "any",
  "all",
] as const;

/** The first argument may ask for a gradient; where the second is missing, it is `a`. */
const cases: readonly Case[] = [
  ...(
    [
      "neg",
      "abs",
      "sign",
      "sqrt",
      "rsqrt",
      "exp",
      "expm1",
      "log",
      "log1p",
      "log2",
      "log10",
      "sin",
      "cos",
      "tanh",
      "erf",
      "sigmoid",
      "silu",
      "softplus",
      "relu",
      "square",
      "reciprocal",
      "floor",
      "ceil",
      "round",
      "trunc",
      "logicalNot",
      "isnan",
      "isinf",
      "isfinite",
      "gelu",
      "leakyRelu",
      "clone",
      "zerosLike",
      "onesLike",
      ...reductions,
      "norm",
      "softmax",
      "logSoftmax",
      "transpose",
      "flatten",
      "squeeze",
      "flip",
      "tril",
      "triu",
      "sort",
      "argsort",
      "unique",
      "nonzero",
      "dropout",
    ] as const
  ).map((name): Case => [name, all[name] as (x: Tensor) => Result]),
  ...([...reductions, "cumsum", "cumprod"] as const).flatMap((name): Case[] => [
    [`${name}, last axis`, (x) => (all[name] as (x: Tensor, axis: number) => Tensor)(x, 1)],
    [`${name}, first axis`, (x) => (all[name] as (x: Tensor, axis: number) => Tensor)(x, 0)],
  ]),
  ...(
    [
      "add",
      "sub",
      "mul",
      "div",
      "pow",
      "minimum",
      "maximum",
      "floorDivide",
      "remainder",
      "equal",
      "notEqual",
      "less",
      "lessEqual",
      "greater",
      "greaterEqual",
      "logicalAnd",
      "logicalOr",
      "logicalXor",
    ] as const
  ).map((name): Case => [name, (x) => all[name](x, b)]),
  ...(["bitwiseAnd", "bitwiseOr", "bitwiseXor", "shiftLeft", "shiftRight"] as const).map(
    (name): Case => [name, (x) => all[name](x, grid), grid],
  ),
  ["bitwiseNot", (x) => core.bitwiseNot(x), grid],
  ["add, number", (x) => core.add(x, 2)],
  ["mul, number", (x) => core.mul(x, 2)],
  ["less, number", (x) => core.less(x, 2)],
  ["add, row", (x) => core.add(x, v4)],
  ["add, transposed", (x) => core.add(x, turned)],
  ["add, float16", (x) => core.add(x, half), half],
  ["clone, transposed", (x) => core.clone(x), turned],
  ["where", (x) => core.where(bools, x, b)],
  ["where, number", (x) => core.where(bools, x, 0)],
  ["clip", (x) => core.clip(x, 0.2, 0.8)],
  ["cast, int32", (x) => core.cast(x, "int32")],
  ["cast, float16", (x) => core.cast(x, "float16")],
  ["cast, same", (x) => core.cast(x, "float32")],
  ["add_", (x) => void core.add_(x, b) ?? [], same],
  ["sub_", (x) => void core.sub_(x, b) ?? [], same],
  ["mul_", (x) => void core.mul_(x, 1) ?? [], same],
  ["div_", (x) => void core.div_(x, 1) ?? [], same],
  ["clip_", (x) => void core.clip_(x, 0, 1) ?? [], same],
  ["fill_", (x) => void core.fill_(x, 0.5) ?? [], same],
  ["copyFrom", (x) => void x.copyFrom(b) ?? [], same],
  ["softmax, first axis", (x) => core.softmax(x, 0)],
  ["matmul", (x) => core.matmul(x, b)],
  ["matmul, transposed", (x) => core.matmul(x, turned)],
  ["matmul, batches", (x) => core.matmul(x, batch), batch],
  ["matmul, vector", (x) => core.matmul(x, v4)],
  ["bmm", (x) => core.bmm(x, batch), batch],
  ["dot", (x) => core.dot(x, v), v],
  ["outer", (x) => core.outer(x, v), v],
  ["linear", (x) => core.linear(x, b, v4)],
  ["linear, no bias", (x) => core.linear(x, b)],
  ["einsum, product", (x) => core.einsum("ij,jk->ik", x, b)],
  ["einsum, trace", (x) => core.einsum("ii->", x)],
  ["einsum, batches", (x) => core.einsum("bij,bjk->bik", x, batch), batch],
  ["layerNorm", (x) => core.layerNorm(x, v4, v4)],
  ["rmsNorm", (x) => core.rmsNorm(x, v4)],
  ["groupNorm", (x) => core.groupNorm(x, 2), batch],
  ["swiglu", (x) => core.swiglu(x, b)],
  ["rope", (x) => core.rope(x, angles, angles), heads],
  [
    "scaledDotProductAttention",
    (x) => core.scaledDotProductAttention(x, heads, heads, { causal: true }),
    heads,
  ],
  ["embedding", (x) => core.embedding(x, ints)],
  ["gather", (x) => core.gather(x, ints)],
  ["scatterAdd", (x) => core.scatterAdd(4, ints, x)],
  ["take", (x) => core.take(x, ints, 1)],
  ["take, first axis", (x) => core.take(x, ints, 0)],
  ["takeAlongAxis", (x) => core.takeAlongAxis(x, ints2, 1)],
  ["scatter", (x) => core.scatter(x, everywhere, b, 1)],
  ["scatter, add", (x) => core.scatter(x, everywhere, b, 1, { mode: "add" })],
  ["oneHot", (x) => core.oneHot(x, 4), ints],
  ["index, slice", (x) => core.index(x, [1, 3])],
  ["index, integers", (x) => core.index(x, ints)],
  ["index, mask", (x) => core.index(x, bools)],
  ["slice", (x) => core.slice(x, [1, 3], [0, 2])],
  ["at", (x) => x.at(1)],
  ["concat", (x) => core.concat([x, b])],
  ["concat, last axis", (x) => core.concat([x, b], 1)],
  ["stack", (x) => core.stack([x, b])],
  ["stack, last axis", (x) => core.stack([x, b], -1)],
  ["split", (x) => core.split(x, 2)],
  ["chunk", (x) => core.chunk(x, 2)],
  ["pad", (x) => core.pad(x, [[1, 1]])],
  ["pad, value", (x) => core.pad(x, [[1, 1]], 2)],
  ["pad, reflect", (x) => core.pad(x, [[1, 1]], "reflect")],
  ["roll", (x) => core.roll(x, 1, 0)],
  ["roll, last axis", (x) => core.roll(x, 1, 1)],
  ["repeat", (x) => core.repeat(x, 2, 0)],
  ["tile", (x) => core.tile(x, 2)],
  ["reshape", (x) => core.reshape(x, [2, 8])],
  ["view", (x) => core.view(x, [2, 8])],
  ["permute", (x) => core.permute(x, [1, 0])],
  ["alias", (x) => core.alias(x)],
  ["expand", (x) => core.expand(x, [4, 4, 4])],
  ["broadcastTo", (x) => core.broadcastTo(x, [4, 4, 4])],
  ["unsqueeze", (x) => core.unsqueeze(x, 0)],
  ["unfold", (x) => core.unfold(x, 1, 2)],
  ["moveaxis", (x) => core.moveaxis(x, 0, 1)],
  ["unbind", (x) => core.unbind(x)],
  ["meshgrid", (x) => core.meshgrid([x, x]), v4],
  ["diag", (x) => core.diag(x), v4],
  ["diagonal", (x) => core.diagonal(x)],
  ["trace", (x) => core.trace(x)],
  ["isclose", (x) => core.isclose(x, b)],
  ["allclose", (x) => void core.allclose(x, b) ?? []],
  ["topk", (x) => core.topk(x, 2)],
  ["crossEntropy", (x) => core.crossEntropy(x, ints)],
  ["weightedCrossEntropy", (x) => core.weightedCrossEntropy(x, ints, v4)],
  ["linearCrossEntropy", (x) => core.linearCrossEntropy(x, b, ints)],
  ["weightedLinearCrossEntropy", (x) => core.weightedLinearCrossEntropy(x, b, ints, v4)],
  ["mse", (x) => core.mse(x, b)],
  ["bceWithLogits", (x) => core.bceWithLogits(x, positive)],
  ["klDivergence", (x) => core.klDivergence(x, positive)],
  ["conv1d", (x) => core.conv1d(x, kernel1), signal],
  ["conv2d", (x) => core.conv2d(x, kernel2), image],
  ["maxPool1d", (x) => core.maxPool1d(x, 2), signal],
  ["maxPool1dWithIndices", (x) => core.maxPool1dWithIndices(x, 2), signal],
  ["avgPool1d", (x) => core.avgPool1d(x, 2), signal],
  ["maxPool2d", (x) => core.maxPool2d(x, 2), image],
  ["maxPool2dWithIndices", (x) => core.maxPool2dWithIndices(x, 2), image],
  ["avgPool2d", (x) => core.avgPool2d(x, 2), image],
  ["adaptiveAvgPool1d", (x) => core.adaptiveAvgPool1d(x, 2), signal],
  ["adaptiveAvgPool2d", (x) => core.adaptiveAvgPool2d(x, 2), image],
  ["adaptiveMaxPool1d", (x) => core.adaptiveMaxPool1d(x, 2), signal],
  ["adaptiveMaxPool2d", (x) => core.adaptiveMaxPool2d(x, 2), image],
  ["zeros", () => core.zeros([4, 4])],
  ["ones", () => core.ones([4, 4])],
  ["full", () => core.full([4, 4], 3)],
  ["fullLike", (x) => core.fullLike(x, 3)],
  ["eye", () => core.eye(4)],
  ["arange", () => core.arange(16)],
  ["linspace", () => core.linspace(0, 1, 16)],
  ["tensor", () => core.tensor([1, 2, 3, 4])],
  ["tensor, typed array", () => core.tensor(typed)],
  ["fromBuffer", () => core.fromBuffer(typed.buffer)],
  ["toBuffer", (x) => void core.toBuffer(x) ?? []],
  ["dataSync", (x) => void x.dataSync() ?? []],
  ["rand", () => core.rand([4, 4])],
  ["randn", () => core.randn([4, 4])],
  ["uniform", () => core.uniform([4, 4], 0, 1)],
  ["randint", () => core.randint(0, 4, [4, 4])],
  ["bernoulli", () => core.bernoulli([4, 4])],
  ["permutation", () => core.permutation(8)],
  ["multinomial", (x) => core.multinomial(x, 2), v],
];

/** Exported functions that compute nothing on tensors themselves. */
const leftOut = new Set([
  "activeBackend",
  "init",
  "shutdown",
  "withBackend",
  "anomalyMode",
  "grad",
  "gradientsOf",
  "valueAndGrad",
  "checkpoint",
  "defineFunction",
  "gradcheck",
  "enableGrad",
  "noGrad",
  "bytesPerElement",
  "isFloat",
  "promote",
  "keep",
  "memoryStats",
  "resetPeakMemory",
  "tidy",
  "defaultGenerator",
  "Generator",
  "manualSeed",
  "Tensor",
]);
const names = new Set(cases.map(([name]) => name.split(",")[0]));
const forgotten = Object.entries(core).filter(
  ([name, value]) =>
    typeof value === "function" && !name.endsWith("Error") && !leftOut.has(name) && !names.has(name),
);
if (forgotten.length > 0) throw new Error(`no case for ${forgotten.map(([name]) => name).join(", ")}`);

let launches = 0;
const launch = KernelModule.prototype.launch;

function free(result: Result): void {
  if (result instanceof core.Tensor) result.dispose();
  else for (const tensor of Object.values(result)) (tensor as Tensor).dispose();
}

const chosen = cases.filter(([name]) => wanted.length === 0 || wanted.some((part) => name.includes(part)));
const runs = chosen.map(([name, run, x = a]) => {
  const steps: { kind: string; once: () => void }[] = [{ kind: "", once: () => free(run(x)) }];
  if (withGradients && core.isFloat(x.dtype) && !name.includes("_")) {
    const leaf = core.keep(x.clone());
    leaf.requiresGrad = true;
    let out: Result;
    try {
      out = run(leaf);
    } catch {
      out = [];
    }
    if (out instanceof core.Tensor && out.requiresGrad) {
      const dy = core.onesLike(out);
      steps.push({
        kind: "grad",
        once: () => {
          const y = run(leaf) as Tensor;
          y.backward(dy);
          y.dispose();
          leaf.zeroGrad();
        },
      });
    }
    free(out);
  }
  return { name, steps, best: steps.map(() => Number.POSITIVE_INFINITY), launches: 0 };
});

const batchSize = 400;
function measure(once: () => void): number {
  const start = performance.now();
  for (let i = 0; i < batchSize; i++) once();
  return ((performance.now() - start) * 1000) / batchSize;
}

KernelModule.prototype.launch = function (...given) {
  launches++;
  return launch.apply(this, given);
};
for (const item of runs) {
  launches = 0;
  item.steps[0].once();
  item.launches = launches;
}
KernelModule.prototype.launch = launch;
// Everything once round first: in a program too, the places in the code that all operations share have seen many of them.
for (let round = 0; round < 2; round++)
  for (const { steps } of runs) for (const { once } of steps) measure(once);
for (let round = 0; round < 4; round++) {
  for (const item of runs) {
    item.steps.forEach(({ once }, i) => {
      const stop = performance.now() + turn / 4;
      do item.best[i] = Math.min(item.best[i], measure(once));
      while (performance.now() < stop);
    });
  }
}
for (const { name, best, launches } of runs) {
  if (best[0] < above && !(best[1] >= above)) continue;
  const gradient = best.length > 1 ? `  ${best[1].toFixed(2).padStart(6)} with backward` : "";
  console.log(`${name.padEnd(28)} ${best[0].toFixed(2).padStart(6)} µs  ${launches} launches${gradient}`);
}
await core.shutdown();
