// The README's program runs as it stands.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as core from "@nomoat/core";
import * as nn from "@nomoat/core/nn";
import * as optim from "@nomoat/core/optim";
import ts from "typescript";
import { expect, it } from "vitest";
import * as lora from "../src/index.js";

const packages: Record<string, object> = {
  "@nomoat/core": core,
  "@nomoat/core/nn": nn,
  "@nomoat/core/optim": optim,
  "@nomoat/lora": lora,
};

it("the README's code runs", async () => {
  await core.init({ backend: "reference" });
  const text = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const blocks = [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]);
  expect(blocks.length).toBeGreaterThan(0);
  const folder = mkdtempSync(join(tmpdir(), "nomoat-readme-"));
  try {
    // Imports become constants, files go to a folder of their own.
    const source = blocks.join("\n").replaceAll('"my-adapter"', JSON.stringify(join(folder, "my-adapter")));
    const { ESNext } = ts.ModuleKind;
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: { module: ESNext, target: ts.ScriptTarget.ES2022 },
    });
    const body = outputText.replace(/import (\{[^}]*\}) from ("[^"]*");/g, "const $1 = packages[$2];");
    const AsyncFunction = (async () => {}).constructor as new (
      ...args: string[]
    ) => (arg: unknown) => Promise<void>;
    await new AsyncFunction("packages", body)(packages);
    expect(readdirSync(join(folder, "my-adapter"))).toHaveLength(2);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
