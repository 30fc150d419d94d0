// Fine-tuning on 4-bit weights on the gpu backend: the same losses as on the wasm backend, and nothing left on the device.

import { readdirSync, readFileSync } from "node:fs";
import { type BackendName, Generator, init, shutdown } from "@nomoat/core";
import { gpuBackend } from "@nomoat/core/gpu";
import { applyLora } from "@nomoat/lora";
import { quantizeModelAsync } from "@nomoat/quant";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BrowserRun, call, installed } from "../../core/test/gpu/browsers.js";
import { nodeModes } from "../../core/test/gpu/node-modes.js";
import { finetune, perplexity } from "../src/index.js";
import type { Page } from "./gpu-page/main.js";
import { byteTokenizer, byteTokenizerFiles, tinyModel } from "./support.js";

const tokenizer = byteTokenizer();
const data = Array.from({ length: 6 }, (_, i) => `${"Call me Ishmael. ".slice(i)}Some years ago ${i * i}.`);

async function train(device: BackendName) {
  const model = tinyModel({ device });
  await quantizeModelAsync(model, { format: "nf4" });
  const adapter = applyLora(model, { r: 2, loraAlpha: 4, targetModules: "all-linear" }, "default", {
    generator: new Generator(9),
  });
  const before = await perplexity({ model, tokenizer, text: data[0] });
  const { losses } = await finetune({
    ...{ model, tokenizer, adapter, data, steps: 4, batchSize: 1, length: 32, learningRate: 0.02 },
    gradientCheckpointing: true,
  });
  model.dispose();
  return { losses, before: before.loss };
}

describe.each(nodeModes)("finetune on the gpu backend, %s", (mode) => {
  afterAll(shutdown);

  it("gives the wasm backend's losses", async () => {
    await init({ backend: "wasm", threads: 1 });
    const expected = await train("wasm");
    await init({ backend: "gpu", mode });
    const actual = await train("gpu");
    expect(Math.abs(actual.before - expected.before)).toBeLessThan(1e-3);
    expect(actual.losses).toHaveLength(4);
    actual.losses.forEach((loss, i) => {
      expect(Math.abs(loss - expected.losses[i])).toBeLessThan(1e-3);
    });
    await gpuBackend().finish();
    expect(gpuBackend().memory().used).toBe(0);
  });
});

/** `vitest run --mode full` runs all that a browser can. */
const full = (import.meta as { env?: { MODE?: string } }).env?.MODE === "full";
const modes = full ? (["webgl2", "webgpu"] as const) : (["webgl2"] as const);

/** The embedded model's files, as a page fetches them. */
function embeddedModel(): Map<string, Uint8Array> {
  const folder = new URL("../../../models/tiny/", import.meta.url);
  return new Map(
    readdirSync(folder).map((name) => [`model/${name}`, readFileSync(new URL(name, folder))] as const),
  );
}

describe.skipIf(!installed("chromium"))("10 steps in Chromium give the wasm backend's losses", () => {
  let browser: BrowserRun;
  beforeAll(async () => {
    browser = await BrowserRun.start(
      "chromium",
      new URL("./gpu-page/main.ts", import.meta.url),
      embeddedModel(),
    );
  });
  afterAll(() => browser.stop());

  function check({ expected, actual, left }: Awaited<ReturnType<Page["tiny"]>>) {
    expect(actual).toHaveLength(10);
    actual.forEach((loss, i) => {
      expect(Math.abs(loss - expected[i])).toBeLessThan(1e-3);
    });
    expect(left).toBe(0);
  }

  it.each(modes)("a tiny model on %s", async (mode) => {
    const tab = await browser.open("/isolated/");
    const result = await call<Page, "tiny">(tab, "tiny", mode, 10, byteTokenizerFiles());
    check(result);
    expect(result.actual[9]).toBeLessThan(result.actual[0]);
  });

  // Minutes of a software rasteriser.
  it.runIf(full).each(modes)(
    "the embedded model on %s",
    async (mode) => {
      const tab = await browser.open("/isolated/");
      check(await call<Page, "fetched">(tab, "fetched", mode, 10));
    },
    1_200_000,
  );
});
