// float32 matrix products: square ones in all four transposes, the shapes of low-rank updates, a few rows against a large
// matrix, and batches as attention has them.

import { bytesPerElement, matmul, tidy, zeros } from "@nomoat/core";
import { type ProductCheck, productCheck } from "../accuracy.js";
import { uniformValues } from "../inputs.js";
import type { Prepared } from "../model.js";
import {
  arithmetic,
  type Case,
  dtypesOf,
  type FloatDtype,
  type Suite,
  type Sweep,
  seeded,
  stored,
  suffixOf,
  valuesOf,
} from "./suite.js";

/** One product; "NT" means that b is stored as [n, k]. */
export interface Product {
  readonly label: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch: number;
  readonly transposes: string;
  /** How b is stored, as weights are; float32 where nothing is said. */
  readonly dtype?: FloatDtype;
}

/** Rounding errors of a sum of k products grow like √k at worst 2⁻²⁴ each; k is at most 4096 here. */
const productTolerance = 1e-5;

const allTransposes = ["NN", "NT", "TN", "TT"];

type Shape = readonly [
  label: string,
  m: number,
  n: number,
  k: number,
  transposes: readonly string[],
  batch?: number,
];

const shapes: readonly Shape[] = [
  ["X·A", 512, 16, 2048, ["NN", "NT"]],
  ["U·B", 512, 2048, 16, ["NN", "NT"]],
  ["dA", 16, 2048, 512, ["TN"]],
  ["dB", 2048, 16, 512, ["TN"]],
  ["1 row", 1, 4096, 4096, ["NN", "NT"]],
  ["2 rows", 2, 4096, 4096, ["NN", "NT"]],
  ["4 rows", 4, 4096, 4096, ["NN", "NT"]],
  ["16 rows", 16, 4096, 4096, ["NN", "NT"]],
  ["scores", 256, 256, 64, ["NT"], 48],
  ["values", 256, 64, 256, ["NN"], 48],
  ["small batch", 16, 16, 16, ["NN", "NT"], 1024],
  ["batch", 32, 32, 32, ["NN"], 64],
  ["batch", 8, 8, 8, ["NN"], 512],
  ["heads", 128, 128, 64, ["NN"], 96],
];

function square(size: number, transposes: readonly string[]): Product[] {
  return transposes.map((pair) => ({
    label: "square",
    m: size,
    n: size,
    k: size,
    batch: 1,
    transposes: pair,
  }));
}

/** The products of a sweep. */
export function products(sweep: Sweep): Product[] {
  if (sweep.sizes) return sweep.sizes.flatMap((size) => square(size, allTransposes));
  if (sweep.effort === "quick") return [512, 1024].flatMap((size) => square(size, allTransposes));
  return [
    ...[16, 32, 64, 128].flatMap((size) => square(size, ["NN", "NT"])),
    ...[256, 512, 1024].flatMap((size) => square(size, allTransposes)),
    ...square(2048, sweep.effort === "long" ? allTransposes : ["NN"]),
    ...shapes.flatMap(([label, m, n, k, transposes, batch = 1]) =>
      transposes.map((pair) => ({ label, m, n, k, batch, transposes: pair })),
    ),
  ];
}

/** The strides of a [rows, columns] operand as it is stored. */
function layoutOf(
  rows: number,
  columns: number,
  transposed: boolean,
): { shape: number[]; row: number; column: number } {
  return transposed
    ? { shape: [columns, rows], row: 1, column: rows }
    : { shape: [rows, columns], row: columns, column: 1 };
}

/** Names a product; equal for all implementations. */
export function nameOf({ label, m, n, k, batch, transposes, dtype = "float32" }: Product): string {
  const size = `${batch > 1 ? `${batch}x` : ""}${m}x${n}x${k}`;
  return `${label === "square" ? "" : `${label} `}${size} ${transposes}${suffixOf(dtype)}`;
}

/** What a product is, without who computes it. */
export function describeProduct(product: Product): Omit<Case, "prepare"> {
  const { label, m, n, k, batch, transposes, dtype } = product;
  const bytes = bytesPerElement(dtype ?? "float32");
  return {
    suite: "gemm",
    name: nameOf(product),
    parameters: { label, m, n, k, batch, transposes, ...(dtype && { dtype }) },
    work: arithmetic(2 * batch * m * n * k, batch * (4 * m * k + bytes * k * n + 4 * m * n)),
  };
}

/**
 * How the product of the seeded inputs is checked; the reference is the same for everybody.
 *
 * @param b - its values, where they were rounded
 */
export function checkOf(product: Product, b?: ArrayLike<number>): ProductCheck {
  const { m, n, k, batch, transposes } = product;
  const [left, right] = [layoutOf(m, k, transposes[0] === "T"), layoutOf(k, n, transposes[1] === "T")];
  return productCheck(`gemm ${nameOf(product)}`, product, productTolerance, () => [
    { values: uniformValues("a", batch * m * k), batch: m * k, row: left.row, column: left.column },
    { values: b ?? uniformValues("b", batch * k * n), batch: k * n, row: right.row, column: right.column },
  ]);
}

/** Inputs and output on the active backend. */
export function prepareProduct(product: Product): Prepared {
  const { m, n, k, batch, transposes } = product;
  const batched = (shape: number[]): number[] => (batch > 1 ? [batch, ...shape] : shape);
  const [left, right] = [layoutOf(m, k, transposes[0] === "T"), layoutOf(k, n, transposes[1] === "T")];
  const a = seeded("a", batched(left.shape));
  const b = stored(seeded("b", batched(right.shape)), product.dtype ?? "float32");
  const turned = { transA: transposes[0] === "T", transB: transposes[1] === "T" };
  if (product.dtype) {
    // Operands of two dtypes have no result of theirs to write to.
    return {
      run: () => matmul(a, b, turned).dispose(),
      verify: () => tidy(() => checkOf(product, valuesOf(b)).compareWhole(valuesOf(matmul(a, b, turned)))),
      dispose() {
        for (const x of [a, b]) x.dispose();
      },
    };
  }
  const out = zeros(batched([m, n]));
  const options = { ...turned, out };
  return {
    run() {
      matmul(a, b, options);
    },
    verify: () => checkOf(product).compareWhole(valuesOf(out)),
    dispose() {
      for (const x of [a, b, out]) x.dispose();
    },
  };
}

export const gemm: Suite = {
  name: "gemm",
  about: "float32 matrix products, all four transposes, low-rank shapes, few rows, batches",
  cases: (sweep) =>
    dtypesOf(sweep, ["float32"])
      .flatMap((dtype) =>
        products(sweep).map((product) => (dtype === "float32" ? product : { ...product, dtype })),
      )
      .map((product) => ({ ...describeProduct(product), prepare: () => prepareProduct(product) })),
};
