// float32 products of the gemm suite as peers are asked for them.

import { hash } from "../../inputs.js";
import { checkOf, describeProduct, type Product, prepareProduct } from "../../suites/gemm.js";
import type { PeerCase } from "./case.js";

export function productCases(products: readonly Product[]): PeerCase[] {
  return products.map((product) => {
    const { m, n, k, batch, transposes } = product;
    const { places, compare } = checkOf(product);
    return {
      ...describeProduct(product),
      kind: "gemm",
      prepare: () => prepareProduct(product),
      task: () => ({ kind: "gemm", m, n, k, batch, transposes, seeds: [hash("a"), hash("b")] }),
      places,
      check: compare,
    };
  });
}
