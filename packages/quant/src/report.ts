// What quantization costs and saves, layer by layer.

import { ArgumentError, Tensor } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import { Linear, type Module, requireModule } from "@nomoat/core/nn";
import { QuantizedEmbedding } from "./embedding.js";
import { sizeOf, type WeightShape } from "./formats/format.js";
import { QuantizedLinear } from "./linear.js";
import type { PredictionError } from "./predictions.js";
import { type QuantizeOptions, quantize } from "./quantize.js";
import { errorOf, type QuantizationError, QuantizedTensor } from "./quantized-tensor.js";
import { reportChart } from "./report-chart.js";

export interface LayerReport {
  readonly name: string;
  /** Name of the format; "float32" and so on for layers that are not quantized. */
  readonly format: string;
  readonly shape: WeightShape;
  readonly bytes: number;
  /** Error against the original weight; null when it is not known. */
  readonly error: QuantizationError | null;
}

/** One line a layer, their sum, and what became of the predictions where that was measured. `toString` is a table. */
export class QuantizationReport {
  readonly layers: readonly LayerReport[];
  /** Of the whole model on a text; null when it was not measured. */
  readonly predictions: PredictionError | null;

  constructor(layers: readonly LayerReport[], predictions: PredictionError | null = null) {
    this.layers = layers;
    this.predictions = predictions;
  }

  /** All layers as one; the error covers those where it is known. */
  get total(): LayerReport & { readonly parameters: number } {
    const known = this.layers.filter((layer) => layer.error);
    const sum = (value: (layer: LayerReport) => number, layers = this.layers) =>
      layers.reduce((total, layer) => total + value(layer), 0);
    const names = new Set(this.layers.map((layer) => layer.format));
    const parameters = sum((layer) => sizeOf(layer.shape));
    return {
      name: "total",
      format: names.size === 1 ? [...names][0] : "mixed",
      shape: [1, parameters],
      bytes: sum((layer) => layer.bytes),
      parameters,
      error:
        known.length === 0
          ? null
          : errorOf(
              sum((layer) => layer.error?.signal ?? 0, known),
              sum((layer) => layer.error?.noise ?? 0, known),
              Math.max(...known.map((layer) => layer.error?.max ?? 0)),
              sum((layer) => sizeOf(layer.shape), known),
            ),
    };
  }

  /** Plain data, for JSON. */
  toJSON(): { layers: readonly object[]; total: object; predictions: PredictionError | null } {
    return { layers: this.layers.map(plain), total: plain(this.total), predictions: this.predictions };
  }

  /** An SVG bar chart: signal-to-noise ratio by layer, with format and bits per weight; below it the predictions' figures. */
  toSVG(): string {
    const below = this.predictions ? describePredictions(this.predictions) : null;
    return reportChart(this.layers, bitsPerWeight, below);
  }

  toString(): string {
    const head = ["layer", "format", "shape", "bits/weight", "bytes", "RMS error", "max error", "SQNR dB"];
    const lines = [...this.layers, this.total].map((layer) => {
      const { rms, max, sqnr } = layer.error ?? {};
      return [
        layer.name,
        layer.format,
        layer.name === "total" ? `${sizeOf(layer.shape)}` : layer.shape.join("×"),
        bitsPerWeight(layer).toFixed(2),
        String(layer.bytes),
        rms?.toExponential(2) ?? "–",
        max?.toExponential(2) ?? "–",
        sqnr?.toFixed(1) ?? "–",
      ];
    });
    const widths = head.map((title, i) => Math.max(title.length, ...lines.map((line) => line[i].length)));
    const format = (cells: string[]) =>
      cells
        .map((cell, i) => (i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
        .join("  ")
        .trimEnd();
    const rule = widths.map((width) => "─".repeat(width)).join("  ");
    const body = lines.map(format);
    const table = [format(head), rule, ...body.slice(0, -1), rule, ...body.slice(-1)];
    return [...table, ...(this.predictions ? ["", describePredictions(this.predictions)] : [])].join("\n");
  }
}

function bitsPerWeight(layer: LayerReport): number {
  const size = sizeOf(layer.shape);
  return size === 0 ? 0 : (layer.bytes * 8) / size;
}

function describePredictions(found: PredictionError): string {
  const { tokens, perplexity, referencePerplexity, standardError, divergence, agreement } = found;
  const change = 100 * (perplexity / referencePerplexity - 1);
  return [
    `perplexity ${perplexity.toFixed(3)} (reference ${referencePerplexity.toFixed(3)}, ${change < 0 ? "" : "+"}${change.toFixed(2)} ± ${(100 * standardError).toFixed(2)} %)`,
    `KL divergence ${divergence.toPrecision(3)} nats a token`,
    `same likeliest token at ${(100 * agreement).toFixed(1)} % of ${tokens}`,
  ].join("; ");
}

function plain(layer: LayerReport): object {
  const { name, format, shape, bytes, error } = layer;
  const { rms = null, max = null, sqnr = null } = error ?? {};
  return { name, format, shape, bytes, bitsPerWeight: bitsPerWeight(layer), rms, max, sqnr };
}

function ofQuantized(name: string, w: QuantizedTensor): LayerReport {
  return { name, format: w.format.name, shape: w.shape, bytes: w.bytes, error: w.error };
}

export interface QuantizationReportOptions {
  /** What to try on float layers. */
  readonly format?: QuantizeOptions["format"];
  /** What was measured on a text. */
  readonly predictions?: PredictionError;
}

/** @internal The lines of quantized layers; those that share a weight have one, under the first's name. */
export function reportLines(
  layers: Iterable<readonly [name: string, layer: QuantizedLinear | QuantizedEmbedding]>,
): LayerReport[] {
  const seen = new Set<QuantizedTensor>();
  const lines: LayerReport[] = [];
  for (const [name, { quantized }] of layers) {
    if (seen.has(quantized)) continue;
    seen.add(quantized);
    lines.push(ofQuantized(name, quantized));
  }
  return lines;
}

/** Quantizes for the measurement alone. */
function trial(name: string, weight: Tensor, options: Pick<QuantizeOptions, "format">): LayerReport {
  const quantized = quantize(weight, { ...options, name });
  quantized.dispose();
  return ofQuantized(name, quantized);
}

/**
 * RMS and largest error, signal-to-noise ratio, bits per weight and bytes: of the quantized layers of a model,
 * of a quantized tensor, or, given a `format`, of what quantizing a float tensor or the float linear layers of a model
 * would give (nothing is changed).
 *
 * With `predictions`, those of a {@link PredictionComparison} of the model with the one it was made of, the report holds
 * perplexity and KL divergence on a text as well.
 *
 * @throws {ArgumentError} for a float tensor without a format, or a model without layers to report on
 */
export function quantizationReport(
  target: Module | QuantizedTensor | Tensor,
  options: QuantizationReportOptions = {},
): QuantizationReport {
  requireOptions("quantizationReport", options);
  const { format, predictions } = options;
  if (target instanceof QuantizedTensor)
    return new QuantizationReport([ofQuantized("tensor", target)], predictions);
  if (target instanceof Tensor) {
    if (!format) throw new ArgumentError("quantizationReport: a float tensor needs a format");
    return new QuantizationReport([trial("tensor", target, { format })], predictions);
  }
  requireModule("quantizationReport", target);
  const modules = [...target.namedModules()].map(([name, module]) => [name || "model", module] as const);
  const quantized = modules.filter(
    (entry): entry is readonly [string, QuantizedLinear | QuantizedEmbedding] =>
      entry[1] instanceof QuantizedLinear || entry[1] instanceof QuantizedEmbedding,
  );
  const layers = reportLines(quantized);
  for (const [name, module] of modules) {
    if (module instanceof Linear && format) layers.push(trial(name, module.weight, { format }));
  }
  if (layers.length === 0) {
    throw new ArgumentError(
      "quantizationReport: the model has no quantized layers; give a format to measure float ones",
    );
  }
  return new QuantizationReport(layers, predictions);
}
