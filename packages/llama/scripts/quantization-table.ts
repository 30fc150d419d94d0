// What 4 bits cost a model, by format and method, on text that neither training nor calibration has seen: perplexity, and KL
// divergence from the float32 model. From the repository:
//
//   npx tsx --conditions=@nomoat/source packages/llama/scripts/quantization-table.ts [FORMAT ...]
//
// for models/tiny: calibrated on training documents of its corpus, measured on held-out ones (examples/pretrain). "min/max" is plain
// rounding to nearest over each group's full range; "nearest" is what quantize() does, which for int4 formats searches each scale.

import { init, shutdown } from "@nomoat/core";
import {
  type BlockFormat,
  collectStatistics,
  type FormatName,
  formatByName,
  quantizeModel,
} from "@nomoat/quant";
import { type CorpusDocument, loadCorpus } from "../../../examples/pretrain/src/corpus.js";
import { comparePredictions, loadLlama, perplexity } from "../src/index.js";

const folder = "models/tiny";
const formats = (
  process.argv.length > 2 ? process.argv.slice(2) : ["q4_0", "q4_1", "int4_asym_g64"]
) as FormatName[];

/** The beginnings of documents, taken evenly from all. */
function sample(documents: readonly CorpusDocument[], count: number, characters: number): string {
  const step = Math.max(1, documents.length / count);
  const chosen = documents.filter((_, i) => Math.floor(i / step) !== Math.floor((i - 1) / step));
  return chosen.map(({ text }) => text.slice(0, characters)).join("\n\n");
}

/** An int4 format without its search of scales. */
function minMax(name: FormatName): BlockFormat | null {
  const format = formatByName(name);
  const { grid } = format;
  if (!name.startsWith("int4") || !grid) return null;
  return {
    ...format,
    kernelEncodes: false,
    quantizeBlock(values, from, count, parts, block, columns) {
      const group = values.subarray(from, from + count);
      const low = group.reduce((a, b) => Math.min(a, b), 0);
      const high = group.reduce((a, b) => Math.max(a, b), 0);
      const symmetric = grid.offsets === "none";
      const scale = symmetric ? Math.max(-low, high) / grid.most : (high - low) / (grid.most - grid.least);
      const line = grid.nearest({ scale, offset: symmetric ? 0 : low });
      const codes = new Int16Array(values.length);
      for (let i = from; i < from + count; i++) {
        const code = line.scale === 0 ? 0 : Math.round((values[i] - line.offset) / line.scale);
        codes[i] = Math.max(grid.least, Math.min(grid.most, code));
      }
      grid.write(parts, block, line, codes, from, count, columns);
    },
  };
}

await init({ backend: "wasm" });
const corpus = loadCorpus();
const calibration = sample(corpus.trainDocuments, 32, 4000);
const text = sample(corpus.heldOutDocuments, 26, 8000);
const { model: reference, tokenizer } = await loadLlama(folder);
const statistics = await collectStatistics(
  reference,
  () => perplexity({ model: reference, tokenizer, text: calibration }),
  (name) => name !== "lm_head",
);
const base = await perplexity({ model: reference, tokenizer, text });
console.log(`${base.tokens} held-out tokens; float32: ${base.perplexity.toFixed(3)}\n`);
console.log("| format | bits/weight | method | perplexity | above float32 | KL divergence | same token |");
console.log("|---|---|---|---|---|---|---|");
for (const name of formats) {
  const plain = minMax(name);
  const trials = [
    ...(plain ? [["min/max", plain, "nearest"] as const] : []),
    ...(["nearest", "hqq", "gptq", "awq"] as const).map((method) => [method, name, method] as const),
  ];
  for (const [shown, format, method] of trials) {
    const { model } = await loadLlama(folder);
    const { total } = quantizeModel(model, { format, method, statistics });
    const found = await comparePredictions({ model, reference, tokenizer, text });
    const cells = [
      ...[`\`${name}\``, ((8 * total.bytes) / total.parameters).toFixed(2), shown],
      ...[found.perplexity.toFixed(3), `${(100 * (found.perplexity / base.perplexity - 1)).toFixed(2)} %`],
      ...[found.divergence.toFixed(5), `${(100 * found.agreement).toFixed(1)} %`],
    ];
    console.log(`| ${cells.join(" | ")} |`);
    model.dispose();
  }
}
reference.dispose();
await shutdown();
