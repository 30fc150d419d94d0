// Initial factors that look at the base's weight, or are orthogonal: PiSSA (Meng et al., arXiv:2404.02948), OLoRA (Büyükakyüz,
// arXiv:2406.01775), orthogonal (PEFT's "orthogonal"). Formulas as in PEFT's tuners/lora/layer.py.

import { ArgumentError, type Generator } from "@nomoat/core";
import type { LoraConfig, LoraInit } from "../config.js";
import {
  leadingColumns,
  lowRankSvd,
  type Matrix,
  matrix,
  multiply,
  qr,
  scaleColumns,
  svd,
  transposed,
  truncated,
} from "../linalg.js";

/** True for beginnings that are not zero and leave the base its residual. */
export function isPrincipal(init: LoraInit): boolean {
  return typeof init === "string" && (init.startsWith("pissa") || init === "olora");
}

/**
 * A [r, in] and B [out, r] of the principal part of `weight` [out, in]: scaling · B · A is the best approximation of rank r (PiSSA), or
 * B · A its leading part by QR (OLoRA).
 * @throws {ArgumentError} when r exceeds a side of the weight
 */
export function principalFactors(
  init: LoraInit,
  weight: Matrix,
  r: number,
  scaling: number,
  generator: Generator,
): { a: Matrix; b: Matrix } {
  const most = Math.min(weight.rows, weight.columns);
  if (r > most) throw new ArgumentError(`${init}: rank ${r} exceeds ${most}, the smaller side of the weight`);
  if (init === "olora") {
    const { q, r: upper } = qr(weight);
    const columns = weight.columns;
    return { a: matrix(r, columns, upper.data.slice(0, r * columns)), b: leadingColumns(q, r) };
  }
  const steps = /^pissa_niter_(\d+)$/.exec(String(init));
  const parts = steps
    ? lowRankSvd(weight, r, { iterations: Number(steps[1]), generator })
    : truncated(svd(weight), r);
  const roots = parts.s.map((value) => Math.sqrt(value / scaling));
  return { a: transposed(scaleColumns(parts.v, roots)), b: scaleColumns(parts.u, roots) };
}

/**
 * A [r, in] and B [out, r], random and not zero, with B · A = 0 up to rounding.
 * @throws {ArgumentError} for an odd rank
 */
export function orthogonalFactors(
  r: number,
  size: { inFeatures: number; outFeatures: number },
  generator: Generator,
): { a: Matrix; b: Matrix } {
  if (r % 2 !== 0) throw new ArgumentError(`orthogonal: the rank must be even, not ${r}`);
  const normal = (rows: number, columns: number, std = 1) => {
    const out = matrix(rows, columns);
    generator.fillNormal(out.data, 0, std);
    return out;
  };
  const { q } = qr(normal(r, r));
  const half = (first: number) =>
    matrix(
      r / 2,
      r,
      Float64Array.from(
        { length: (r * r) / 2 },
        (_, i) => q.data[(2 * Math.floor(i / r) + first) * r + (i % r)],
      ),
    );
  const a = transposed(multiply(normal(size.inFeatures, r / 2, 0.1), half(0)));
  const b = multiply(normal(size.outFeatures, r / 2, 0.1), half(1));
  return { a, b };
}

/**
 * The configuration of a saved adapter that began with principal factors: its update s·(B·A − B₀·A₀) is saved as one of twice the rank
 * with the same scaling, so that the base need not be changed to load it (PEFT's `path_initial_model_for_weight_conversion`).
 */
export function savedConfig(config: LoraConfig): LoraConfig {
  if (!isPrincipal(config.initLoraWeights)) return config;
  const times = (values: Readonly<Record<string, number>>, factor: number) =>
    Object.fromEntries(Object.entries(values).map(([key, value]) => [key, value * factor]));
  const alphas = config.useRslora ? Math.SQRT2 : 2;
  return {
    ...config,
    r: 2 * config.r,
    rankPattern: times(config.rankPattern, 2),
    loraAlpha: config.loraAlpha * alphas,
    alphaPattern: times(config.alphaPattern, alphas),
    initLoraWeights: true,
  };
}
