/**
 * A model in 4 bits learns from a few notes, and its adapter is saved where PEFT can read it.
 *
 *     npm start
 *     npm start -- FOLDER    # another model, in Hugging Face's format
 */
import { fileURLToPath } from "node:url";
import { finetune, generate, loadLlama } from "@nomoat/llama";
import { applyLora, saveAdapter } from "@nomoat/lora";
import { quantizeModel } from "@nomoat/quant";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const { model, tokenizer } = await loadLlama(process.argv[2] ?? here("../../../models/tiny"));

const report = quantizeModel(model, { format: "nf4" });
console.log(`${report.layers.length} layers in ${report.total.bytes} bytes`);

const adapter = applyLora(model, { r: 8, loraAlpha: 16, targetModules: "all-linear" });
await finetune({
  model,
  tokenizer,
  adapter,
  data: here("../notes.jsonl"),
  steps: 30,
  length: 64,
  learningRate: 5e-3,
  onStep: ({ step, loss }) => console.log(`step ${step}: loss ${loss.toFixed(3)}`),
});
await saveAdapter(adapter, "my-adapter");

for await (const text of generate({ model, tokenizer, prompt: "The keeper", maxNewTokens: 40 })) {
  process.stdout.write(text);
}
process.stdout.write("\n");
