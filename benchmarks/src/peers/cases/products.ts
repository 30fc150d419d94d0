// float32 products of the gemm suite as peers are asked for them.

import { compareProduct } from "../../accuracy.js";
import { hash, uniformValues } from "../../inputs.js";
import {
  describeProduct,
  layoutOf,
  type Product,
  prepareProduct,
  productTolerance,
} from "../../suites/gemm.js";
import type { PeerCase } from "./case.js";

export function productCases(products: readonly Product[]): PeerCase[] {
  return products.map((product) => {
    const { m, n, k, batch, transposes } = product;
    return {
      ...describeProduct(product),
      kind: "gemm",
      prepare: () => prepareProduct(product),
      task: () => ({ kind: "gemm", m, n, k, batch, transposes, seeds: [hash("a"), hash("b")] }),
      check(values) {
        const [a, b] = [layoutOf(m, k, transposes[0] === "T"), layoutOf(k, n, transposes[1] === "T")];
        return compareProduct(
          values,
          { values: uniformValues("a", batch * m * k), batch: m * k, row: a.row, column: a.column },
          { values: uniformValues("b", batch * k * n), batch: k * n, row: b.row, column: b.column },
          product,
          productTolerance,
        );
      },
    };
  });
}
