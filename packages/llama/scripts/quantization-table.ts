// What few bits cost models/tiny, by format and method, on text that neither training nor calibration has seen: perplexity, and KL
// divergence from the float32 model. From the repository:
//
//   npx tsx --conditions=@nomoat/source packages/llama/scripts/quantization-table.ts [methods | formats | FORMAT ...] [--tables]
//
// Calibrated on training documents of its corpus, measured on the held-out ones (examples/pretrain). Results are gathered in
// docs/quantization.json; --tables writes the tables of docs/quantization.md and of quant's README from it, and measures only what is named.
//
// "min/max" is round-to-nearest as papers have it, over each group's full range; "nearest" is what quantize() does, which for int4
// formats searches each scale. int3_… are 3-bit codes in 4-bit fields, to show where fewer bits lead; their sizes are as if packed.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { init, noGrad, shutdown, type Tensor, tensor, tidy } from "@nomoat/core";
import {
  type BlockFormat,
  collectStatistics,
  type FormatName,
  formatByName,
  formats,
  type Grid,
  PredictionComparison,
  quantizeModel,
} from "@nomoat/quant";
import { type CorpusDocument, loadCorpus } from "../../../examples/pretrain/src/corpus.js";
import { batchTensors } from "../src/data/batches.js";
import { awqMappings, type LlamaForCausalLM, loadLlama, perplexity } from "../src/index.js";
import { textWindows } from "../src/perplexity.js";

const folder = "models/tiny";
const store = "docs/quantization.json";
const pages = ["docs/quantization.md", "packages/quant/README.md"];
const compared = [
  "q4_0",
  "q4_1",
  "int4_g64",
  "int4_asym_g64",
  "int4_g128",
  "int4_asym_g128",
  "int3_asym_g64",
];
const methods = ["min/max", "nearest", "hqq", "gptq", "awq"] as const;
type Method = (typeof methods)[number];

interface Row {
  readonly format: string;
  readonly method: Method;
  readonly bytes: number;
  readonly bitsPerWeight: number;
  readonly perplexity: number;
  /** Of the float32 model's mean loss, and its standard error. */
  readonly difference: number;
  readonly standardError: number;
  readonly divergence: number;
  readonly agreement: number;
  /** Mean loss less that of plain round-to-nearest at the same bits, and the standard error of that, token by token. */
  readonly overPlain: { readonly difference: number; readonly standardError: number } | null;
}

interface Results {
  calibrationTokens: number;
  tokens: number;
  perplexity: number;
  parameters: number;
  rows: Row[];
}

/** The beginnings of documents, taken evenly from all. */
function sample(documents: readonly CorpusDocument[], count: number, characters: number): string {
  const step = Math.max(1, documents.length / count);
  const chosen = documents.filter((_, i) => Math.floor(i / step) !== Math.floor((i - 1) / step));
  return chosen.map(({ text }) => text.slice(0, characters)).join("\n\n");
}

/** An integer format with plain rounding over the full range, and `bits` bits of its codes in use. */
function plain(base: BlockFormat, bits: number): BlockFormat {
  const { grid } = base;
  if (!grid) throw new Error(`${base.name} has no whole numbers for codes`);
  const symmetric = grid.offsets === "none";
  const most = symmetric ? 2 ** (bits - 1) - 1 : 2 ** bits - 1;
  const least = symmetric ? -most : 0;
  const code = (x: number, { scale, offset }: Grid) =>
    scale === 0 ? 0 : Math.max(least, Math.min(most, Math.round((x - offset) / scale)));
  return {
    ...base,
    name: base.name.replace("int4", `int${bits}`),
    kernelEncodes: false,
    grid: { ...grid, least, most },
    quantizeBlock(values, from, count, parts, block, columns) {
      const group = values.subarray(from, from + count);
      const low = group.reduce((a, b) => Math.min(a, b), 0);
      const high = group.reduce((a, b) => Math.max(a, b), 0);
      const scale = symmetric ? Math.max(-low, high) / most : (high - low) / most;
      const line = grid.nearest({ scale, offset: symmetric ? 0 : low });
      const codes = new Int16Array(values.length);
      for (let i = from; i < from + count; i++) codes[i] = code(values[i], line);
      grid.write(parts, block, line, codes, from, count, columns);
    },
  };
}

/** What is tried for a format, plain rounding to nearest first. */
function trials(name: string, all: boolean): (readonly [Method, BlockFormat])[] {
  const rest = all ? (["hqq", "gptq", "awq"] as const) : [];
  if (name.startsWith("int3")) {
    const format = plain(formatByName(name.replace("int3", "int4")), 3);
    return [["min/max", format], ...rest.map((method) => [method, format] as const)];
  }
  const format = formatByName(name);
  const unsearched = all && name.startsWith("int4") ? [["min/max", plain(format, 4)] as const] : [];
  return [...unsearched, ["nearest", format], ...rest.map((method) => [method, format] as const)];
}

function meanAndError(a: Float32Array, b: Float32Array): { difference: number; standardError: number } {
  const differences = a.map((loss, i) => loss - b[i]);
  const mean = differences.reduce((sum, each) => sum + each, 0) / a.length;
  const squares = differences.reduce((sum, each) => sum + (each - mean) ** 2, 0);
  return { difference: mean, standardError: Math.sqrt(squares / (a.length - 1) / a.length) };
}

async function measure(names: readonly string[], all: boolean): Promise<void> {
  await init({ backend: "wasm" });
  const corpus = loadCorpus();
  const { model: reference, tokenizer } = await loadLlama(folder);
  const only = (name: string) => name !== "lm_head";
  const statistics = all
    ? await collectStatistics(
        reference,
        () => perplexity({ model: reference, tokenizer, text: sample(corpus.trainDocuments, 64, 4000) }),
        only,
      )
    : undefined;
  const text = sample(corpus.heldOutDocuments, 26, 8000);
  const { rows, batch } = await textWindows("table", { model: reference, tokenizer, text });
  const run = async (
    model: LlamaForCausalLM,
    each: (logits: Tensor, targets: Int32Array, index: number) => Promise<void>,
  ) => {
    model.eval();
    for (let start = 0; start < rows.length; start += batch) {
      const { logits, targets } = noGrad(() =>
        tidy(() => {
          const { ids, labels } = batchTensors(rows.slice(start, start + batch), model);
          const length = labels.shape[1];
          const flat = labels.dataSync() as Int32Array;
          const next = flat.map((_, i) => ((i + 1) % length === 0 ? -100 : flat[i + 1]));
          return { logits: model.forward(ids), targets: next };
        }),
      );
      await each(logits, targets, start / batch);
      logits.dispose();
    }
  };
  // The float32 model's logits are the same for all: 270 MB.
  const expected: Float32Array[] = [];
  await run(reference, async (logits) => {
    expected.push(Float32Array.from(logits.dataSync() as Float32Array));
  });
  reference.dispose();

  for (const name of names) {
    let base: Float32Array | null = null;
    for (const [method, format] of trials(name, all)) {
      const { model } = await loadLlama(folder);
      const { total } = quantizeModel(model, {
        ...{ format, statistics, method: method === "min/max" ? "nearest" : method },
        mappings: method === "awq" ? awqMappings(model) : undefined,
      });
      const comparison = new PredictionComparison();
      await run(model, async (logits, targets, index) => {
        const theirs = tensor(expected[index], { shape: [...logits.shape] });
        await comparison.add(logits, theirs, targets);
        theirs.dispose();
      });
      model.dispose();
      const found = comparison.result;
      // A 3-bit code would take three quarters of the field that it is kept in.
      const bytes = total.bytes - (name.startsWith("int3") ? total.parameters / 8 : 0);
      const row: Row = {
        ...{ format: name, method, bytes, bitsPerWeight: (8 * bytes) / total.parameters },
        perplexity: found.perplexity,
        difference: Math.log(found.perplexity / found.referencePerplexity),
        standardError: found.standardError,
        ...{ divergence: found.divergence, agreement: found.agreement },
        overPlain: base && meanAndError(comparison.losses, base),
      };
      base ??= comparison.losses;
      console.log(JSON.stringify(row));
      const { tokens, referencePerplexity } = found;
      keep(row, { tokens, perplexity: referencePerplexity, parameters: total.parameters }, statistics);
    }
  }
  await shutdown();
}

function load(): Results {
  if (existsSync(store)) return JSON.parse(readFileSync(store, "utf8")) as Results;
  return { calibrationTokens: 0, tokens: 0, perplexity: 0, parameters: 0, rows: [] };
}

/** Into the file at once: a run of all takes long. */
function keep(row: Row, facts: Partial<Results>, statistics?: ReadonlyMap<string, { count: number }>): void {
  const results = Object.assign(load(), facts);
  const [first] = statistics?.values() ?? [];
  if (first) results.calibrationTokens = first.count;
  results.rows = results.rows.filter(({ format, method }) => format !== row.format || method !== row.method);
  // Where a row stands beside the methods it knows what it is better than.
  results.rows.push(row);
  const formatOrder = [...new Set([...compared, ...Object.keys(formats)])];
  const place = (each: Row) =>
    formatOrder.indexOf(each.format) * methods.length + methods.indexOf(each.method);
  results.rows.sort((a, b) => place(a) - place(b));
  writeFileSync(store, `${JSON.stringify(results, null, 2)}\n`);
}

const percent = (value: number, digits = 2) => `${(100 * value).toFixed(digits)} %`;
const signed = (value: number) => `${value < 0 ? "−" : "+"}${(100 * Math.abs(value)).toFixed(2)}`;

function writeTables(): void {
  const results = load();
  const shownNames: Partial<Record<Method, string>> = { hqq: "HQQ", gptq: "GPTQ", awq: "AWQ" };
  const methodRows = results.rows
    .filter(({ format }) => compared.includes(format))
    .map((row) => [
      ...[`\`${row.format}\``, row.bitsPerWeight.toFixed(2), shownNames[row.method] ?? row.method],
      ...[row.perplexity.toFixed(3), `${signed(row.difference)} ± ${(100 * row.standardError).toFixed(2)} %`],
      row.overPlain
        ? `${signed(row.overPlain.difference)} ± ${(100 * row.overPlain.standardError).toFixed(2)} %`
        : "–",
      ...[row.divergence.toFixed(5), percent(row.agreement, 1)],
    ]);
  const formatRows = results.rows
    .filter(({ format, method }) => method === "nearest" && format in formats)
    .sort((a, b) => a.bitsPerWeight - b.bitsPerWeight)
    .map((row) => [
      ...[`\`${row.format}\``, String(row.bytes), row.bitsPerWeight.toFixed(2), row.perplexity.toFixed(3)],
      ...[`${signed(row.difference)} ± ${(100 * row.standardError).toFixed(2)} %`, row.divergence.toFixed(5)],
    ]);
  const facts = `${results.parameters} weights, ${results.tokens} held-out tokens, calibrated on ${results.calibrationTokens} of the training text; float32: perplexity ${results.perplexity.toFixed(3)}`;
  const table = (head: string[], lines: string[][]) =>
    [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
  const head = ["perplexity", "mean loss above float32"];
  const tables: Record<string, string> = {
    facts: `${facts}.`,
    methods: table(
      ["format", "bits/weight", "method", ...head, "against plain rounding", "KL divergence", "same token"],
      methodRows,
    ),
    formats: table(["format", "bytes", "bits/weight", ...head, "KL divergence"], formatRows),
  };
  for (const page of pages) {
    let text = readFileSync(page, "utf8");
    for (const [name, body] of Object.entries(tables)) {
      const [begin, end] = [`<!-- quantization: ${name} -->`, `<!-- /${name} -->`];
      const [from, to] = [text.indexOf(begin), text.indexOf(end)];
      if (from >= 0 && to >= 0) text = `${text.slice(0, from)}${begin}\n\n${body}\n\n${text.slice(to)}`;
    }
    writeFileSync(page, text);
  }
}

const named = process.argv.slice(2).filter((name) => name !== "--tables");
if (named.includes("formats")) {
  const known = load()
    .rows.filter(({ method }) => method === "nearest")
    .map(({ format }) => format);
  // K-quants need rows of 256, which models/tiny has not.
  const rest = Object.keys(formats).filter((name) => !name.endsWith("_K") && !known.includes(name));
  await measure(rest as FormatName[], false);
} else if (named.length > 0) await measure(named[0] === "methods" ? compared : named, true);
if (process.argv.includes("--tables")) writeTables();
