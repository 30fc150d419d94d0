/** What the reader sees at the end: the table of figures, and texts side by side. */
import Table from "cli-table3";
import type { Format } from "./args.js";

export interface Figures {
  /** Held-out perplexities, of the same tokens. */
  perplexity: { float32: number; quantized: number | null; adapted: number };
  /** Tokens that the held-out perplexities are over. */
  heldOutTokens: number;
  /** Bytes of all of the model's weights. */
  modelBytes: { float32: number; quantized: number | null };
  /** Bytes of those linear layers that are quantized; null when none is. */
  linearBytes: { float32: number; quantized: number } | null;
  /** Bytes of adapter_model.safetensors. */
  adapterBytes: number;
  adapterParameters: number;
  /** Highest resident memory of the process. */
  peakMemoryBytes: number;
  /** Of the training. */
  tokensPerSecond: number;
  trainingSeconds: number;
  steps: number;
}

/** Bytes in units of 1000: `1.23 MB`. */
export function formatBytes(bytes: number): string {
  for (const [unit, size] of [
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ] as const) {
    if (bytes >= size) return `${(bytes / size).toFixed(2)} ${unit}`;
  }
  return `${bytes} bytes`;
}

/** How much `value` differs from `base`: `+1.2 %`. */
function formatChange(value: number, base: number): string {
  const percent = 100 * (value / base - 1);
  return `${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(1)} %`;
}

/** A whole number with its thousands marked. */
export const formatCount = (value: number): string => Math.round(value).toLocaleString("en-US");

/** Without colours, so that it reads the same in a log. */
const plain = { head: [], border: [] };

/** The figures, one row for each of the three models, and the costs below. */
export function formatFigures(figures: Figures, format: Format): string {
  const { perplexity, modelBytes, linearBytes } = figures;
  const models = new Table({
    head: ["", "held-out perplexity", "change", "linear layers", "all weights"],
    colAligns: ["left", "right", "right", "right", "right"],
    style: plain,
  });
  models.push([
    "base, float32",
    perplexity.float32.toFixed(2),
    "",
    linearBytes ? formatBytes(linearBytes.float32) : "",
    formatBytes(modelBytes.float32),
  ]);
  if (perplexity.quantized !== null) {
    models.push([
      `base, ${format}`,
      perplexity.quantized.toFixed(2),
      formatChange(perplexity.quantized, perplexity.float32),
      formatBytes(linearBytes?.quantized ?? 0),
      formatBytes(modelBytes.quantized ?? 0),
    ]);
  }
  models.push([
    "adapted",
    perplexity.adapted.toFixed(2),
    formatChange(perplexity.adapted, perplexity.quantized ?? perplexity.float32),
    "",
    `+ ${formatBytes(figures.adapterBytes)}`,
  ]);
  const costs = new Table({ style: plain, colAligns: ["left", "right"] });
  costs.push(
    ["held-out tokens", formatCount(figures.heldOutTokens)],
    ["adapter", `${formatCount(figures.adapterParameters)} parameters, ${formatBytes(figures.adapterBytes)}`],
    ["training", `${formatCount(figures.steps)} steps in ${figures.trainingSeconds.toFixed(1)} s`],
    ["speed", `${formatCount(figures.tokensPerSecond)} tokens/s`],
    ["peak memory", formatBytes(figures.peakMemoryBytes)],
  );
  return `${models.toString()}\n${costs.toString()}`;
}

export interface Sample {
  prompt: string;
  /** How it was drawn: `greedy`, or `temperature 0.8, seed 1`. */
  how: string;
  before: string;
  after: string;
}

/** Characters that would move the cursor or change colours are shown as spaces. */
const printable = (text: string): string => text.replace(/(?!\n)\p{Cc}/gu, " ").trim();

/** Texts before and after, side by side. */
export function formatSamples(samples: readonly Sample[], width: number): string {
  const column = Math.max(24, Math.floor((Math.min(width, 120) - 3) / 2));
  const table = new Table({
    head: ["before", "after"],
    colWidths: [column, column],
    wordWrap: true,
    style: plain,
  });
  for (const { prompt, how, before, after } of samples) {
    table.push([{ colSpan: 2, content: `“${printable(prompt)}”, ${how}` }]);
    table.push([printable(before), printable(after)]);
  }
  return table.toString();
}
