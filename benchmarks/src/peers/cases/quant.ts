// Products with integer weights, by this library's formats and by those that others have.

import { noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { quantize, quantizedMatmul } from "@nomoat/quant";
import { compareProduct } from "../../accuracy.js";
import { hash, randomWords } from "../../inputs.js";
import type { Accuracy, Prepared } from "../../model.js";
import { arithmetic, valuesOf } from "../../suites/suite.js";
import type { QuantTaskFormat } from "../protocol.js";
import type { PeerCase } from "./case.js";

/** Codes as the tasks have them: high bits of seeded words, less half their range. */
function codes(seed: string, count: number, bits: number): Float32Array {
  const next = randomWords(hash(seed));
  return Float32Array.from({ length: count }, () => (next() >>> (32 - bits)) - 2 ** (bits - 1));
}

const titles: Readonly<Record<QuantTaskFormat, string>> = {
  int4: "4-bit weights",
  "int4-int8": "4-bit weights, int8 activations",
  int8: "int8 weights and activations",
};

/** Ours for each format; integer formats of others are not ours byte by byte, but of the same size and use. */
const ours = {
  int4: { format: "q4_0", activations: "float32", bits: 4.5, tolerance: 1e-5 },
  "int4-int8": { format: "q4_0", activations: "int8", bits: 4.5, tolerance: 2e-2 },
  int8: { format: "int8", activations: "int8", bits: 8, tolerance: 2e-2 },
} as const;

export function quantCases(size: number, rowCounts: readonly number[]): PeerCase[] {
  return (["int4", "int4-int8", "int8"] as const).flatMap((format) =>
    rowCounts.map((rows): PeerCase => {
      const { bits, activations, tolerance } = ours[format];
      const scale = format === "int8" ? 1 : 1 / 16;
      const x = (): Float32Array => codes("x", rows * size, 8).map((code) => code * scale);
      const w = (): Float32Array =>
        codes("w", size * size, format === "int8" ? 8 : 4).map((code) => code * scale);
      const compare = (values: ArrayLike<number>, weights: ArrayLike<number>): Accuracy =>
        compareProduct(
          values,
          { values: x(), batch: 0, row: size, column: 1 },
          { values: weights, batch: 0, row: 1, column: size },
          { m: rows, n: size, k: size },
          tolerance,
        );
      return {
        suite: "quant",
        name: `${rows} ${rows === 1 ? "row" : "rows"} ${titles[format]} ${size}x${size}`,
        parameters: { rows, size, format },
        work: arithmetic(2 * rows * size * size, (bits / 8) * size * size + 8 * rows * size, activations),
        kind: "quant",
        task: () => ({ kind: "quant", size, rows, format, seeds: [hash("x"), hash("w")] }),
        check: (values) => compare(values, w()),
        prepare: () => prepareOurs(format, size, rows, x(), w(), compare),
      };
    }),
  );
}

function prepareOurs(
  format: QuantTaskFormat,
  size: number,
  rows: number,
  xValues: Float32Array,
  wValues: Float32Array,
  compare: (values: ArrayLike<number>, weights: ArrayLike<number>) => Accuracy,
): Prepared {
  const { format: name, activations } = ours[format];
  const x = tensor(xValues, { shape: [rows, size] });
  const dense = tensor(wValues, { shape: [size, size] });
  const w = quantize(dense, { format: name, measure: false });
  dense.dispose();
  const call = (): Tensor => noGrad(() => quantizedMatmul(x, w, { activations }));
  return {
    run: () => call().dispose(),
    // Our formats' own rounding of the weights is the quant suite's matter.
    verify: () => tidy(() => compare(valuesOf(call()), valuesOf(w.dequantize()))),
    dispose() {
      x.dispose();
      w.dispose();
    },
  };
}
