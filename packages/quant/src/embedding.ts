// QuantizedEmbedding: a table of vectors whose rows are packed, and decoded when they are looked up.

import { ArgumentError, gather, noGrad, type Tensor, tidy } from "@nomoat/core";
import { use } from "@nomoat/core/extend";
import { Module } from "@nomoat/core/nn";
import type { BlockFormat } from "./formats/format.js";
import { packedBuffers } from "./linear.js";
import { dequantizeParts, type QuantizedTensor, requirePacked } from "./quantized-tensor.js";

/** @throws {ArgumentError} naming `tensor` for a format whose rows cannot be decoded one by one */
export function requireRows(format: BlockFormat, tensor: string): void {
  if (!format.rowWise) {
    throw new ArgumentError(
      `${tensor}: ${format.name} has blocks that cross rows, which cannot be looked up; use int8, int4_g64, q8_0, q6_K, ...`,
    );
  }
}

/**
 * The rows of a packed weight [rows, columns] at `indices`, outside the graph.
 *
 * @param indices - int32 [...], on the weight's backend
 * @returns float32 [..., columns]
 * @throws {ShapeError} naming the index that is not within 0 … rows−1
 * @throws {ArgumentError} for a format whose blocks cross rows
 */
export function dequantizeRows(w: QuantizedTensor, indices: Tensor): Tensor {
  requirePacked("dequantizeRows", w);
  use("dequantizeRows", indices);
  requireRows(w.format, "dequantizeRows");
  const [rows, columns] = w.shape;
  const parts = w.partList("dequantizeRows");
  return noGrad(() =>
    tidy(() => {
      const flat = indices.reshape(-1);
      // Of a row-wise format every part is as many equal pieces as there are rows.
      const picked = parts.map((part) => gather(part.reshape(rows, part.size / rows), flat));
      return dequantizeParts(w.format, [flat.size, columns], picked).reshape(...indices.shape, columns);
    }),
  );
}

/** int32 indices [...] → the rows of a packed table, float32 [..., embeddingDim]. The table gets no gradient. */
export class QuantizedEmbedding extends Module {
  static override get brand(): string {
    return "@nomoat/quant/QuantizedEmbedding";
  }

  /** The packed table; disposed with the module. */
  readonly quantized: QuantizedTensor;
  protected override readonly buffers: ReadonlySet<string>;

  /**
   * Takes over `quantized`. Its packed arrays are buffers, named as those of `QuantizedLinear`.
   * @throws {ArgumentError} for a format whose blocks cross rows
   */
  constructor(quantized: QuantizedTensor) {
    super();
    requireRows(quantized.format, "QuantizedEmbedding");
    this.quantized = quantized;
    this.buffers = packedBuffers(this, quantized);
  }

  override forward(indices: Tensor): Tensor {
    return dequantizeRows(this.quantized, indices);
  }

  override dispose(): void {
    super.dispose();
    this.quantized.dispose();
  }
}
