// Perplexity of a model at 4 bits, by method: round-to-nearest, HQQ, GPTQ and AWQ on the same format. From the repository:
//
//   npx tsx --conditions=@nomoat/source packages/llama/scripts/quantization-table.ts FOLDER CALIBRATION.txt TEXT.txt [FORMAT ...]

import { readFileSync } from "node:fs";
import { init, shutdown } from "@nomoat/core";
import { collectStatistics, type FormatName, quantizeModel } from "@nomoat/quant";
import { type LlamaForCausalLM, loadLlama, perplexity, type Tokenizer } from "../src/index.js";

const [folder, calibration, evaluation, ...given] = process.argv.slice(2);
if (!evaluation) {
  console.error("quantization-table: give a model's folder, a calibration text and another text");
  process.exit(2);
}
const formats = (given.length > 0 ? given : ["int4_asym_g64", "int4_g64", "int4_g128"]) as FormatName[];
const mostCharacters = 60_000;
const read = (path: string) => readFileSync(path, "utf8").slice(0, mostCharacters);

async function measure(model: LlamaForCausalLM, tokenizer: Tokenizer): Promise<number> {
  return (await perplexity({ model, tokenizer, text: read(evaluation) })).perplexity;
}

await init({ backend: "wasm" });
const { model, tokenizer } = await loadLlama(folder);
const statistics = await collectStatistics(
  model,
  () => perplexity({ model, tokenizer, text: read(calibration) }),
  (name) => name !== "lm_head",
);
const base = await measure(model, tokenizer);
model.dispose();
console.log(`| format | method | bits/weight | perplexity | above float32 |\n|---|---|---|---|---|`);
console.log(`| float32 | – | 32.00 | ${base.toFixed(3)} | – |`);
for (const format of formats) {
  for (const method of ["nearest", "hqq", "gptq", "awq"] as const) {
    const loaded = await loadLlama(folder);
    const { total } = quantizeModel(loaded.model, { format, method, statistics });
    const value = await measure(loaded.model, tokenizer);
    const bits = ((8 * total.bytes) / total.parameters).toFixed(2);
    const above = (100 * (value / base - 1)).toFixed(2);
    console.log(`| \`${format}\` | ${method} | ${bits} | ${value.toFixed(3)} | ${above} % |`);
    loaded.model.dispose();
  }
}
await shutdown();
