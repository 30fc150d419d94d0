// The backends in browsers: the production bundle of a small page, in Debian's Chromium with its software rasteriser and in Debian's
// Firefox. What is not installed is skipped (`apt-get install chromium firefox-esr`, or CHROMIUM and FIREFOX with their paths).

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { layoutNames } from "../support/check-op.js";
import { type BrowserName, BrowserRun, call as callIn, installed, type Tab } from "./browsers.js";
import { full } from "./cases.js";
import { expectEdges } from "./edges.js";
import type { Page } from "./page/main.js";

const entry = new URL("./page/main.ts", import.meta.url);
const call = <K extends keyof Page>(tab: Tab, name: K, ...args: Parameters<Page[K]>) =>
  callIn<Page, K>(tab, name, ...args);

describe.each(["chromium", "firefox"] as const)("the wasm backend in %s", (name: BrowserName) => {
  const here = installed(name);
  let browser: BrowserRun;
  beforeAll(async () => {
    if (here) browser = await BrowserRun.start(name, entry);
  });
  afterAll(() => browser?.stop());

  test.skipIf(!here)("has threads in an isolated page and its worker, and none in another", async () => {
    for (const isolated of [true, false]) {
      const tab = await browser.open(isolated ? "/isolated/" : "/");
      const expected = { isolated, threads: isolated ? 2 : 1, sum: 256 ** 3 };
      expect(await call(tab, "wasm", 2)).toEqual(expected);
      expect(await call(tab, "wasmInWorker", 2)).toEqual(expected);
      await tab.close();
    }
  });

  test.skipIf(!here || name !== "firefox")(
    "gpu.js computes beside it, in whatever mode is there",
    async () => {
      const tab = await browser.open("/");
      expect(["webgpu", "webgl2", "webgl", "webasm"]).toContain(await call(tab, "start"));
      expect(await call(tab, "check", 0, 2, ["sliced"])).toEqual([]);
      await tab.close();
    },
  );
});

const chromium = installed("chromium");

describe.skipIf(!chromium)("the gpu backend in chromium", () => {
  let browser: BrowserRun;
  beforeAll(async () => {
    browser = await BrowserRun.start("chromium", entry);
  });
  afterAll(() => browser?.stop());

  const wanted = process.env.GPU_MODES?.split(",") ?? ["webgl2", "webgpu", ...(full ? ["webgl"] : [])];
  const modes = (["webgl2", "webgpu", "webgl"] as const).filter((mode) => wanted.includes(mode));
  describe.each(modes)("%s", (mode) => {
    let tab: Tab;
    beforeAll(async () => {
      tab = await browser.open("/isolated/");
      expect(await call(tab, "start", mode)).toBe(mode);
    });
    afterAll(() => tab?.close());

    test("large arguments, long loops, wide outputs, infinities, positions past 24 bits", async () => {
      const found = await call(tab, "specials");
      expect(found.tanh).toEqual([-1, -1, -1, 0, 1, 1, 1]);
      expect(found.sigmoid).toEqual([0, 0, expect.closeTo(0, 20), 0.5, 1, 1, 1]);
      expect(found.loop).toEqual([10_000]);
      expect(found.wide).toEqual([128_256, 256_512]);
      expect(found.infinity).toEqual([0, 1]);
      const ends = [5_592_409, 5_592_410].flatMap((at) =>
        [0, 1, 2].map((row) => (row * 5_592_411 + at) % 1024),
      );
      expect(found.positions).toEqual(mode === "webgl" ? undefined : ends);
    });

    test("normal numbers are kept, denormals kept or flushed to zero, NaN stays NaN", async () => {
      expectEdges(await call(tab, "edges"), mode);
    });

    // Hundreds of megabytes, which a software rasteriser takes half a minute for.
    test.runIf(full)(
      "a product with a vocabulary of 128,256 beyond one texture or buffer",
      async () => {
        if (mode === "webgl") {
          await expect(call(tab, "vocabulary")).rejects.toThrow(/mode webgl addresses up to 2²⁴ elements/);
          return;
        }
        const { tiles, values, greatest, sums } = await call(tab, "vocabulary");
        if (mode === "webgl2") expect(tiles).toBeGreaterThan(1);
        const row = (i: number, from: number, count: number) =>
          Array.from({ length: count }, (_, j) => i + (from + j) / 1024);
        expect(values).toEqual([...[0, 523, 524].flatMap((i) => row(i, 30_974, 4)), ...row(524, 128_254, 2)]);
        expect(greatest).toEqual([128_255]);
        expect(sums).toEqual(
          [0, 523, 524].map((i) => 4 * i + (128_252 + 128_253 + 128_254 + 128_255) / 1024),
        );
      },
      900_000,
    );

    test(full ? "every operation in every layout" : "every operation", async () => {
      const count = (await call(tab, "caseNames")).length;
      const faults: string[] = [];
      for (let at = 0; at < count; at += 10) {
        faults.push(...(await call(tab, "check", at, at + 10, full ? layoutNames : ["sliced"])));
      }
      expect(faults).toEqual([]);
    }, 1_200_000);

    test("training leaves nothing on the device", async () => {
      const { first, last, loss } = await call(tab, "train", full ? 1000 : 200);
      expect(first.resources).toBeGreaterThan(0);
      expect(last).toEqual(first);
      expect(loss).toBeGreaterThan(0);
      expect(await call(tab, "heldByKernels")).toEqual([1, 0]);
    });
  });

  test.each(modes)("%s: arrays of more than one texture or buffer", async (mode) => {
    const tab = await browser.open("/isolated/");
    const last = 2 ** 16 + 2;
    expect(await call(tab, "tiles", mode)).toEqual([
      2 * last,
      2 * (4 * 2 ** 14 - 2),
      2 * (1 + 40_000 + 2 ** 16),
    ]);
    await tab.close();
  });

  test.each(modes)("%s: a lost device ends reads with a BackendError, and init works again", async (mode) => {
    const tab = await browser.open("/isolated/");
    await call(tab, "start", mode);
    const { pending, later, again } = await call(tab, "lose");
    expect(pending).toMatch(/^BackendError: .*was lost; call init\(\) again/);
    expect(later).toMatch(/^BackendError: .*was lost; call init\(\) again/);
    expect(again).toEqual([3, 6]);
    await tab.close();
  });
});
