// The README: its code runs as it stands, and its table of operations is complete.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import ts from "typescript";
import { afterAll, expect, test, vi } from "vitest";
import * as gpu from "../src/backend/gpu/index.js";
import * as core from "../src/index.js";
import * as safetensors from "../src/io/safetensors.js";
import * as nn from "../src/nn/index.js";
import * as operations from "../src/ops/index.js";
import * as optim from "../src/optim/index.js";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const blocks = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]);
const packages: Record<string, object> = {
  "@nomoat/core": core,
  "@nomoat/core/nn": nn,
  "@nomoat/core/optim": optim,
  "@nomoat/core/safetensors": safetensors,
  "@nomoat/core/gpu": gpu,
};

const folder = mkdtempSync(join(tmpdir(), "nomoat-readme-"));
afterAll(() => rmSync(folder, { recursive: true }));

test.each(blocks.map((block) => [block.slice(0, block.indexOf("\n")), block]))(
  "the code runs: %s",
  async (_, block) => {
    const printed = vi.spyOn(console, "log").mockImplementation(() => {});
    try {
      const source = block.replaceAll(
        '"weights.safetensors"',
        JSON.stringify(join(folder, "weights.safetensors")),
      );
      const { outputText } = ts.transpileModule(source, {
        compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
      });
      // Imports become constants.
      const body = outputText.replace(/import (\{[^}]*\}) from ("[^"]*");/g, "const $1 = packages[$2];");
      const AsyncFunction = (async () => {}).constructor as new (
        ...args: string[]
      ) => (arg: unknown) => Promise<void>;
      await new AsyncFunction("packages", body)(packages);
      if (block.includes("memoryStats")) expect(printed.mock.calls.at(-1)).toEqual([3]);
      if (block.includes("schedule")) {
        const losses = printed.mock.calls.map(([, loss]) => loss as number);
        expect(losses.at(-1)).toBeLessThan(losses[0] / 2);
      }
      if (block.includes("saveSafetensors")) expect(readdirSync(folder)).toEqual(["weights.safetensors"]);
    } finally {
      printed.mockRestore();
      await core.init({ backend: "wasm" });
    }
  },
);

test("every operation is in the table, and marked where it is a method", () => {
  const table = readme.slice(readme.indexOf("## Operations"), readme.indexOf("dtypes are float32"));
  const methods = new Set<string>();
  for (
    let level: object = core.Tensor.prototype;
    level !== Object.prototype;
    level = Object.getPrototypeOf(level)
  )
    for (const name of Object.getOwnPropertyNames(level)) methods.add(name);
  const wrong = Object.keys(operations).filter((name) => {
    const marked = table.includes(`*\`${name}\`*`);
    return !table.includes(`\`${name}\``) || (name !== "alias" && marked !== methods.has(name));
  });
  expect(wrong).toEqual([]);
});
