// Products with integer weights, by this library's formats and by those that others have.

import { noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { quantize, quantizedMatmul } from "@nomoat/quant";
import { type ProductCheck, productCheck } from "../../accuracy.js";
import { codeValues, hash } from "../../inputs.js";
import type { Prepared } from "../../model.js";
import { arithmetic, valuesOf } from "../../suites/suite.js";
import type { QuantTaskFormat } from "../protocol.js";
import type { PeerCase } from "./case.js";

/** Codes as the tasks have them, less half their range, times `scale`. */
function codes(seed: string, count: number, bits: number, scale: number): Float32Array {
  const values = Float32Array.from(codeValues(hash(seed), count, bits));
  const half = 2 ** (bits - 1);
  for (let i = 0; i < count; i++) values[i] = (values[i] - half) * scale;
  return values;
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
      const x = (): Float32Array => codes("x", rows * size, 8, scale);
      const w = (): Float32Array => codes("w", size * size, format === "int8" ? 8 : 4, scale);
      // 4-bit weights are the same whatever the activations are rounded to.
      const checkOf = (name: string, weights: () => ArrayLike<number>): ProductCheck =>
        productCheck(
          `quant ${name} ${bits} ${rows} ${size}`,
          { m: rows, n: size, k: size },
          tolerance,
          () => [
            { values: x(), batch: 0, row: size, column: 1 },
            { values: weights(), batch: 0, row: 1, column: size },
          ],
        );
      const { places, compare } = checkOf("codes", w);
      return {
        suite: "quant",
        name: `${rows} ${rows === 1 ? "row" : "rows"} ${titles[format]} ${size}x${size}`,
        parameters: { rows, size, format },
        work: arithmetic(2 * rows * size * size, (bits / 8) * size * size + 8 * rows * size, activations),
        kind: "quant",
        task: () => ({ kind: "quant", size, rows, format, seeds: [hash("x"), hash("w")] }),
        places,
        check: compare,
        prepare: () => prepareOurs(format, size, rows, x(), w(), checkOf),
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
  checkOf: (name: string, weights: () => ArrayLike<number>) => ProductCheck,
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
    verify: () => tidy(() => checkOf("ours", () => valuesOf(w.dequantize())).compareWhole(valuesOf(call()))),
    dispose() {
      x.dispose();
      w.dispose();
    },
  };
}
