// The README's code runs as it stands there.

import { readFileSync } from "node:fs";
import * as core from "@nomoat/core";
import * as nn from "@nomoat/core/nn";
import { afterEach, describe, expect, it, vi } from "vitest";
import * as gguf from "../src/gguf/index.js";
import * as quant from "../src/index.js";

const packages: Record<string, unknown> = {
  "@nomoat/core": core,
  "@nomoat/core/nn": nn,
  "@nomoat/quant": quant,
  "@nomoat/quant/gguf": gguf,
};
const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const blocks = Array.from(readme.matchAll(/^```ts\n(.*?)^```/gms), ([, code]) => code);

/** Runs ES module text whose imports are all from `packages`. */
async function run(code: string): Promise<void> {
  const body = code.replace(
    /^import (\{[^}]*\}) from ("[^"]*");$/gm,
    (_, names, name) => `const ${names} = packages[${name}];`,
  );
  await new Function("packages", `return (async () => {\n${body}\n})();`)(packages);
}

describe("README", () => {
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  afterEach(() => log.mockClear());

  it("quantizes a weight", async () => {
    await run(blocks[0]);
    expect(log.mock.calls[0][0]).toBe("QuantizedTensor(nf4 [64, 128], 4232 bytes)");
    expect(log.mock.calls[1][0]).toBeGreaterThan(19);
    expect(log.mock.calls[1][0]).toBeLessThan(22);
  });

  it("quantizes a model", async () => {
    await run(blocks[1]);
    expect(log.mock.calls[1][0]).toMatch(/down +q8_0/);
  });

  it("quantizes to a budget, embeddings and output layer too, and reports what became of the predictions", async () => {
    await run(blocks[2]);
    const table = String(log.mock.calls[0][0]);
    expect(table).toMatch(/embed_tokens +q8_0/);
    expect(table).toMatch(/lm_head +q8_0/);
    expect(table).not.toMatch(/^gate/m);
    expect(table).toMatch(/KL divergence [\d.]+ nats a token/);
    const [total, svg] = log.mock.calls[1] as [{ bitsPerWeight: number }, string];
    expect(total.bitsPerWeight).toBeLessThanOrEqual(6);
    expect(svg).toMatch(/^<svg[\s\S]*<\/svg>\n$/);
  });

  it("quantizes by a calibrated method", async () => {
    await run(blocks[3]);
    expect(log.mock.calls[0][0]).toMatch(/down +int4_asym_g64/);
  });

  it("folds AWQ's scales into the model", async () => {
    await run(blocks[4]);
  });

  it("quantizes with calibrated activations", async () => {
    await run(blocks[5]);
  });

  it("writes and reads GGUF", async () => {
    await run(blocks[6]);
    expect(log.mock.calls[0][0]).toMatchObject({ shape: [8, 64], type: "Q8_0" });
  });

  it("lists the formats there are, with their bits", () => {
    const [described] = readme.split("<!-- quantization:");
    const rows = Array.from(described.matchAll(/^\| (`\w+`(?:, `\w+`)*) \| ([\d., ]+)( \+)? \|/gm));
    const listed = rows.flatMap(([, names, bits, more]) =>
      names.split(", ").map((name, i) => [name.slice(1, -1), more ? undefined : Number(bits.split(", ")[i])]),
    );
    expect(listed.map(([name]) => name).sort()).toEqual(Object.keys(quant.formats).sort());
    for (const [name, bits] of listed) {
      if (bits === undefined) continue;
      const format = quant.formats[name as keyof typeof quant.formats];
      expect((format.bytesPerBlock * 8) / format.blockSize, String(name)).toBeCloseTo(bits as number, 1.9);
    }
  });
});
