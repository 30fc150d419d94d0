// The backends in a browser: the production bundle of a small page, in Chromium with its software rasteriser. Skipped where no
// Chromium is installed (`apt-get install chromium`, or CHROMIUM with its path).

import type { Page as Tab } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { layoutNames } from "../support/check-op.js";
import { full } from "./cases.js";
import { Chromium, call as callIn, installed } from "./chromium.js";
import type { Page } from "./page/main.js";

describe.skipIf(!installed)("in Chromium", () => {
  let chromium: Chromium;

  beforeAll(async () => {
    chromium = await Chromium.start(new URL("./page/main.ts", import.meta.url));
  }, 120_000);

  afterAll(() => chromium?.stop());

  const open = (path: string) => chromium.open(path);
  const call = <K extends keyof Page>(tab: Tab, name: K, ...args: Parameters<Page[K]>) =>
    callIn<Page, K>(tab, name, ...args);

  const modes = ["webgl2", "webgpu", ...(full ? ["webgl" as const] : [])] as const;
  describe.each(modes)("%s", (mode) => {
    let tab: Tab;
    beforeAll(async () => {
      tab = await open("/isolated/");
      expect(await call(tab, "start", mode)).toBe(mode);
    }, 120_000);
    afterAll(() => tab?.close());

    test("large arguments, long loops, wide outputs, infinities, positions past 24 bits", async () => {
      const found = await call(tab, "specials");
      expect(found.tanh).toEqual([-1, -1, -1, 0, 1, 1, 1]);
      expect(found.sigmoid).toEqual([0, 0, expect.closeTo(0, 20), 0.5, 1, 1, 1]);
      expect(found.loop).toEqual([5000]);
      expect(found.wide).toEqual([128_256, 256_512]);
      expect(found.infinity).toEqual([0, 1]);
      if (mode !== "webgl") expect(found.positions).toEqual([0, 1, 2, 3]);
    }, 120_000);

    test(full ? "every operation" : "every sixth operation", async () => {
      const count = (await call(tab, "caseNames")).length;
      const faults: string[] = [];
      // The rasteriser is slow: all cases in all layouts take minutes a mode.
      const step = full ? 1 : 6;
      for (let at = 0; at < count; at += step) {
        faults.push(...(await call(tab, "check", at, at + 1, full ? layoutNames : ["sliced"])));
      }
      expect(faults).toEqual([]);
    }, 600_000);

    test("training leaves nothing on the device", async () => {
      const { first, last, loss } = await call(tab, "train", 60);
      expect(last).toBe(first);
      expect(loss).toBeGreaterThan(0);
    }, 120_000);
  });

  test("a lost device ends reads with a BackendError, and init works again", async () => {
    const tab = await open("/isolated/");
    await call(tab, "start", "webgpu");
    const { error, again } = await call(tab, "lose");
    expect(error).toMatch(/^BackendError: .*lost/);
    expect(again).toEqual([3, 6]);
    await tab.close();
  }, 120_000);

  test("the wasm backend has threads in an isolated page, and none in another", async () => {
    const isolated = await open("/isolated/");
    expect(await call(isolated, "wasm", 2)).toEqual({ isolated: true, threads: 2, sum: 256 ** 3 });
    const plain = await open("/");
    expect(await call(plain, "wasm", 2)).toEqual({ isolated: false, threads: 1, sum: 256 ** 3 });
    await Promise.all([isolated.close(), plain.close()]);
  }, 120_000);
});
