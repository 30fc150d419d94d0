// Products with a quantized weight and their gradients, for tests that compare backends; without Vitest, so that pages can run it.

import { type Tensor, tensor } from "@nomoat/core";
import { formatByName } from "../src/formats/index.js";
import { quantize, quantizedMatmul } from "../src/index.js";
import { bell, relativeError, rowMultiple } from "./helpers.js";

/** Rows of 96, so that blocks of 64 cross rows, or two blocks of a K-quant. */
export const shapeFor = (name: string): [number, number] => (rowMultiple(name) === 256 ? [6, 512] : [70, 96]);

/** The last count goes through the unpacked weight. */
const rowCounts = [1, 3, 9];

interface Outcome {
  dense: ArrayLike<number>;
  outputs: ArrayLike<number>[];
  gradients: ArrayLike<number>[];
}

export async function compute(device: "wasm" | "gpu", name: string): Promise<Outcome> {
  const shape = shapeFor(name);
  const weight = tensor(bell(shape[0] * shape[1], 1), { shape, device });
  const w = quantize(weight, { format: formatByName(name) });
  const dense = w.dequantize();
  const outcome: Outcome = { dense: await dense.data(), outputs: [], gradients: [] };
  for (const rows of rowCounts) {
    const x = tensor(bell(rows * shape[1], 2), { shape: [rows, shape[1]], device, requiresGrad: true });
    const y = quantizedMatmul(x, w);
    y.backward(tensor(bell(rows * shape[0], 3), { shape: [rows, shape[0]], device }));
    outcome.outputs.push(await y.data());
    outcome.gradients.push(await (x.grad as Tensor).data());
    for (const each of [x, y]) each.dispose();
  }
  for (const each of [weight, w, dense]) each.dispose();
  return outcome;
}

/** The largest relative errors of the gpu backend against wasm: of the weight unpacked, and of products and gradients. */
export async function gpuErrors(name: string): Promise<{ dense: number; products: number }> {
  const [expected, actual] = [await compute("wasm", name), await compute("gpu", name)];
  const errors = rowCounts.flatMap((_, i) => [
    relativeError(actual.outputs[i], expected.outputs[i]),
    relativeError(actual.gradients[i], expected.gradients[i]),
  ]);
  return { dense: relativeError(actual.dense, expected.dense), products: Math.max(...errors) };
}
