// Where a device pays: square products by size, inputs in its memory, and the result read back, as an application would that
// goes on with it on the host. The same on every backend, so that the sizes at which one overtakes another can be told.

import { matmul, type Tensor } from "@nomoat/core";
import type { Prepared } from "../model.js";
import { checkOf } from "./gemm.js";
import { arithmetic, type Suite, seeded, sizesOf } from "./suite.js";

function prepare(size: number): Prepared {
  const [a, b] = [seeded("a", [size, size]), seeded("b", [size, size])];
  const call = async (): Promise<ArrayLike<number>> => {
    const product: Tensor = matmul(a, b);
    try {
      return (await product.data()) as ArrayLike<number>;
    } finally {
      product.dispose();
    }
  };
  const check = checkOf({ label: "square", m: size, n: size, k: size, batch: 1, transposes: "NN" });
  return {
    run: call,
    verify: async () => check.compareWhole(await call()),
    dispose() {
      a.dispose();
      b.dispose();
    },
  };
}

export const crossover: Suite = {
  name: "crossover",
  about:
    "square products by size with the result read back, on every backend that is asked for: where a GPU pays",
  cases: (sweep) =>
    sizesOf(sweep, {
      quick: [64, 128, 256],
      standard: [32, 64, 128, 256, 512, 1024],
      long: [32, 64, 128, 256, 512, 1024, 2048],
    }).map((size) => ({
      suite: "crossover",
      name: `product and its values ${size}x${size}`,
      parameters: { size },
      work: arithmetic(2 * size ** 3, 12 * size ** 2),
      prepare: () => prepare(size),
    })),
};
