// What merging an adapter into a quantized base keeps of it, and what the remedies give: perplexities and the report's figures. From the
// repository, with the adapter that `npm start` writes (out/finetune/adapter):
//
//   npx tsx --conditions=@nomoat/source packages/llama/scripts/merge-table.ts MODEL ADAPTER CALIBRATION.txt TEXT.txt [--weight=1] [FORMAT ...]

import { readFileSync } from "node:fs";
import { init, shutdown } from "@nomoat/core";
import {
  denseMerge,
  layerInputs,
  loadAdapter,
  type MergeFidelity,
  type MergeQuantizer,
  mergeAndUnload,
  mergeReport,
} from "@nomoat/lora";
import { type FormatName, quantizeModel } from "@nomoat/quant";
import {
  compensatedMerge,
  type LlamaForCausalLM,
  loadLlama,
  perplexity,
  type Tokenizer,
} from "../src/index.js";

const isWeight = (argument: string) => argument.startsWith("--weight=");
const [folder, adapterFolder, calibration, evaluation, ...given] = process.argv
  .slice(2)
  .filter((argument) => !isWeight(argument));
/** Factor of the whole update: small ones stand for adapters that were trained shortly. */
const weight = Number(process.argv.find(isWeight)?.slice("--weight=".length) ?? 1);
if (!evaluation) {
  console.error(
    "merge-table: give the folders of a model and an adapter, a calibration text and another text",
  );
  process.exit(2);
}
const formats = (given.length > 0 ? given : ["nf4", "int4_asym_g64", "int8"]) as FormatName[];
const mostCharacters = 60_000;
const read = (path: string) => readFileSync(path, "utf8").slice(0, mostCharacters);

async function measure(model: LlamaForCausalLM, tokenizer: Tokenizer): Promise<string> {
  return (await perplexity({ model, tokenizer, text: read(evaluation) })).perplexity.toFixed(2);
}

const figures = ({ kept, normKept, cosine, relativeError, outputSqnr, updateSqnr }: MergeFidelity) =>
  [
    ...[kept, normKept, cosine, relativeError].map((value) => value.toFixed(2)),
    ...[outputSqnr, updateSqnr].map((value) => value?.toFixed(1) ?? "–"),
  ].join(" | ");

await init({ backend: "wasm" });
console.log("| base | adapter | perplexity | kept | norm kept | cosine | error | output dB | update dB |");
console.log("|---|---|---|---|---|---|---|---|---|");
for (const format of formats) {
  const integers = /^int[48]/.test(format) ? format : "int4_asym_g64";
  const ways: [
    string,
    ((inputs: Awaited<ReturnType<typeof layerInputs>>) => MergeQuantizer | undefined) | null,
  ][] = [
    ["none", null],
    ["apart", null],
    ["merged, rounded to nearest", () => undefined],
    [
      `merged, compensated (${integers})`,
      (inputs) => compensatedMerge(inputs, { format: integers as FormatName }),
    ],
    ["merged into float16", () => denseMerge("float16")],
  ];
  for (const [way, quantizer] of ways) {
    const { model, tokenizer } = await loadLlama(folder);
    quantizeModel(model, { format });
    let row = "– | – | – | – | – | –";
    if (way !== "none") {
      const adapter = await loadAdapter(model, adapterFolder);
      adapter.weight = weight;
      if (quantizer) {
        const inputs = await layerInputs(model, () =>
          perplexity({ model, tokenizer, text: read(calibration) }),
        );
        const quantize = quantizer(inputs);
        const options = quantize ? { quantize } : {};
        row = figures(mergeReport(adapter, { ...options, inputs }).total);
        mergeAndUnload(model, { ...options, onWarning: (message) => console.error(`${format}: ${message}`) });
      }
    }
    console.log(`| ${format} | ${way} | ${await measure(model, tokenizer)} | ${row} |`);
    model.dispose();
  }
}
await shutdown();
