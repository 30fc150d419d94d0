// The README's program runs as it stands, on a tiny model in the place of models/tiny.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as lora from "@nomoat/lora";
import * as quant from "@nomoat/quant";
import ts from "typescript";
import { expect, it, vi } from "vitest";
import * as llama from "../src/index.js";
import { byteTokenizerFiles, tinyModel } from "./support.js";

const packages: Record<string, object> = {
  "@nomoat/llama": llama,
  "@nomoat/lora": lora,
  "@nomoat/quant": quant,
};

it("the README's code runs", async () => {
  const text = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const blocks = [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]);
  expect(blocks.length).toBeGreaterThan(0);
  const folder = mkdtempSync(join(tmpdir(), "nomoat-readme-"));
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  const write = vi.spyOn(process.stdout, "write").mockImplementation(() => true);
  try {
    const config = { hiddenSize: 64, intermediateSize: 64, headDim: 16 };
    const model = tinyModel({ device: "wasm", config });
    const tiny = join(folder, "models/tiny");
    await llama.saveLlama(model, tiny);
    model.dispose();
    const files = byteTokenizerFiles();
    writeFileSync(join(tiny, "tokenizer.json"), JSON.stringify(files.json));
    writeFileSync(join(tiny, "tokenizer_config.json"), JSON.stringify(files.config));
    const lines = Array.from({ length: 20 }, (_, i) => JSON.stringify({ text: `Call me Ishmael ${i}.` }));
    writeFileSync(join(folder, "notes.jsonl"), lines.join("\n"));

    // Imports become constants, files go to a folder of their own, each block has a scope of its own.
    const names =
      /"(models\/tiny|notes\.jsonl|checkpoints|my-adapter|ada-adapter|tiny-nf4|tiny-q8_0\.gguf|adapter\.gguf)"/g;
    const body = blocks
      .map((block) => {
        const source = block.replace(names, (_, name: string) => JSON.stringify(join(folder, name)));
        const { outputText } = ts.transpileModule(source, {
          compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
        });
        return `{\n${outputText.replace(/import (\{[^}]*\}) from ("[^"]*");/g, "const $1 = packages[$2];")}\n}`;
      })
      .join("\n");
    const AsyncFunction = (async () => {}).constructor as new (
      ...args: string[]
    ) => (arg: unknown) => Promise<void>;
    await new AsyncFunction("packages", body)(packages);
    expect(log.mock.calls.filter(([step]) => Number.isInteger(step))).toHaveLength(20);
    expect(write.mock.calls.length).toBeGreaterThan(0);
    expect(existsSync(join(folder, "my-adapter", "adapter_model.safetensors"))).toBe(true);
    expect(existsSync(join(folder, "checkpoints", "checkpoint.safetensors"))).toBe(true);
  } finally {
    log.mockRestore();
    write.mockRestore();
    rmSync(folder, { recursive: true });
  }
});
