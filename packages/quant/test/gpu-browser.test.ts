// Every format decodes in the shader languages of browsers too: Chromium on its software rasteriser.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BrowserRun, call, installed, type Tab } from "../../core/test/gpu/browsers.js";
import type { Page } from "./gpu-page/main.js";
import { allNames } from "./helpers.js";

/** `npm run test:gpu` runs all modes. */
const full = (import.meta as { env?: { MODE?: string } }).env?.MODE === "full";
const modes = full ? (["webgl2", "webgpu", "webgl"] as const) : (["webgl2"] as const);
/** Two where time is short: one of parts, one of records. */
const names = full ? allNames : allNames.filter((name) => /^(int4_asym_g128|q4_K)$/.test(name));

describe.skipIf(!installed("chromium"))("in Chromium", () => {
  let browser: BrowserRun;
  beforeAll(async () => {
    browser = await BrowserRun.start("chromium", new URL("./gpu-page/main.ts", import.meta.url));
  });
  afterAll(() => browser.stop());

  describe.each(modes)("%s", (mode) => {
    let tab: Tab;
    beforeAll(async () => {
      tab = await browser.open("/isolated/");
      await call<Page, "start">(tab, "start", mode);
    });
    afterAll(() => tab?.close());

    it.each(names)("%s gives what wasm gives", async (name) => {
      const { dense, products } = await call<Page, "errors">(tab, "errors", name);
      expect(dense).toBeLessThan(1e-6);
      expect(products).toBeLessThan(4e-6);
    });
  });
});
