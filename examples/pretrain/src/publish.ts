/**
 * Writes the last checkpoint of `train.ts` as a Hugging Face folder with a card: `models/tiny` at the root of the repository.
 *
 *     tsx src/publish.ts [folder]
 */
import { copyFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Tensor } from "@nomoat/core";
import { loadSafetensors } from "@nomoat/core/safetensors";
import { generate, LlamaForCausalLM, loadLlama, perplexity, saveLlama } from "@nomoat/llama";
import { CACHE_FOLDER, RUN_FOLDER } from "./cache.js";
import { config } from "./model-config.js";
import type { PreparedMeta } from "./prepare.js";

/** What the checkpoint's metadata says of the run. */
interface Run {
  /** Steps taken. */
  step: string;
  /** Training time. */
  seconds: string;
  /** Tokens of one step. */
  tokensPerStep: string;
  /** The command's arguments, seed included. */
  command: string;
  node: string;
}

const prompts = [
  "The people of the United States",
  "And the Lord said unto",
  "The climate is",
  "My fellow citizens,",
];

async function exportCheckpoint(folder: string): Promise<Run> {
  const { tensors, metadata } = await loadSafetensors(join(RUN_FOLDER, "checkpoint.safetensors"));
  const prefix = "parameter.";
  const weights = new Map<string, Tensor>();
  for (const [name, tensor] of tensors) {
    if (name.startsWith(prefix)) weights.set(name.slice(prefix.length), tensor);
    else tensor.dispose();
  }
  const model = LlamaForCausalLM.fromTensors(config, weights);
  mkdirSync(folder, { recursive: true });
  await saveLlama(model, folder, { dtype: "float16" });
  model.dispose();
  for (const name of ["tokenizer.json", "tokenizer_config.json"])
    copyFileSync(join(CACHE_FOLDER, name), join(folder, name));
  return metadata as unknown as Run;
}

function heldOutIds(length: number): Int32Array {
  const bytes = readFileSync(join(CACHE_FOLDER, "held-out.u16"));
  const ids = Int32Array.from(new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2));
  return ids.subarray(0, ids.length - (ids.length % length));
}

/** Measures the folder as it is read back, float16 weights and all, and describes it. */
async function describe(folder: string, run: Run): Promise<string> {
  const meta: PreparedMeta = JSON.parse(readFileSync(join(CACHE_FOLDER, "meta.json"), "utf8"));
  const { model, tokenizer } = await loadLlama(folder);
  const length = config.maxPositionEmbeddings;
  const measured = await perplexity({ model, tokenizer, ids: heldOutIds(length), length });
  const bitsPerByte = measured.loss / Math.LN2 / meta.heldOut.bytesPerToken;
  const samples: string[] = [];
  for (const prompt of prompts) {
    let text = prompt;
    for await (const piece of generate({ model, tokenizer, prompt, maxNewTokens: 60 })) text += piece;
    samples.push(`> **${prompt}**${text.slice(prompt.length).replace(/\s+/g, " ")}`);
  }
  const parameters = model.parameters().reduce((sum, tensor) => sum + tensor.size, 0);
  const steps = Number(run.step);
  const tokens = steps * Number(run.tokensPerStep);
  const bytes = statSync(join(folder, "model.safetensors")).size;
  model.dispose();
  return `# nomoat tiny base

A LLaMA of ${(parameters / 1e6).toFixed(2)} million parameters (${config.numLayers} layers, ${config.hiddenSize} wide, ${config.numHeads} heads
on ${config.numKeyValueHeads} key-value heads, context ${length}) with a byte-level BPE vocabulary of ${config.vocabSize},
trained from nothing by nomoat itself, in TypeScript, on this text:

| package | text | documents | bytes | licence |
|---|---|---|---|---|
${meta.sources.map((source) => `| \`${source.package}\` ${source.version} | ${source.description} | ${source.documents} | ${source.bytes} | ${source.licence} |`).join("\n")}

It has never seen Moby-Dick, which \`npm start\` fine-tunes it on. It writes English words and phrases in the manner of its
sources; it knows nothing and is fit for examples and tests only.

| | |
|---|---|
| command | \`${run.command}\` (in \`examples/pretrain\`; the run was stopped and resumed) |
| steps, tokens | ${steps} steps of ${run.tokensPerStep} tokens, ${(tokens / 1e6).toFixed(2)} million tokens, ${(tokens / meta.train.tokens).toFixed(2)} passes over the text |
| time | ${(Number(run.seconds) / 60).toFixed(0)} minutes of training on 2 shared cores, Node ${run.node} |
| held-out loss | ${measured.loss.toFixed(4)} nats a token over ${measured.tokens} tokens |
| held-out perplexity | ${measured.perplexity.toFixed(2)} a token, ${bitsPerByte.toFixed(3)} bits a byte |
| weights | \`model.safetensors\`, float16, ${bytes} bytes |

Greedy continuations:

${samples.join("\n\n")}

\`training-log.jsonl\` is the log of the run. Made by \`examples/pretrain\`; MIT, like the repository.
`;
}

/** Publishes the last checkpoint to `folder` and prints its card. */
export async function publish(folder: string): Promise<void> {
  const run = await exportCheckpoint(folder);
  const card = await describe(folder, run);
  writeFileSync(join(folder, "README.md"), card);
  copyFileSync(join(RUN_FOLDER, "log.jsonl"), join(folder, "training-log.jsonl"));
  console.log(card);
}

await publish(process.argv[2] ?? fileURLToPath(new URL("../../../models/tiny", import.meta.url)));
