/** The program runs, on a model of random weights, and its adapter loads. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { loadLlama } from "@nomoat/llama";
import { loadAdapter } from "@nomoat/lora";
import { afterAll, beforeAll, expect, it } from "vitest";
import { writeTinyModel } from "../../finetune/test/tiny-model.js";

let folder: string;
let modelFolder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "nomoat-quickstart-"));
  modelFolder = join(folder, "model");
  mkdirSync(modelFolder);
  await writeTinyModel(modelFolder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("learns from the notes and saves what it has learnt", async () => {
  const program = fileURLToPath(new URL("../src/main.ts", import.meta.url));
  const loader = pathToFileURL(fileURLToPath(import.meta.resolve("tsx"))).href;
  const seeded = new URL("../../../scripts/seeded-randomness.mjs", import.meta.url).href;
  const imports = [`--import=${loader}`, `--import=${seeded}`];
  const args = ["--conditions=@nomoat/source", ...imports, program, modelFolder];
  const output = execFileSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
  expect(output).toMatch(/^14 layers in \d+ bytes$/m);
  const losses = Array.from(output.matchAll(/^step \d+: loss ([\d.]+)$/gm), (match) => Number(match[1]));
  expect(losses.length).toBe(30);
  expect(losses[29]).toBeLessThan(losses[0]);

  expect(readdirSync(join(folder, "my-adapter")).sort()).toEqual([
    "adapter_config.json",
    "adapter_model.safetensors",
  ]);
  const { model } = await loadLlama(modelFolder);
  const adapter = await loadAdapter(model, join(folder, "my-adapter"));
  expect(adapter.layers.size).toBe(14);
});
