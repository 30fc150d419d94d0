// The page: the server hands out what it should and nothing else, and in an installed Chromium the page measures.

import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { chromiumPath, launchChromium } from "../src/browser/chromium.js";
import { pagesFolder } from "../src/browser/pages.js";
import { type FileServer, serve } from "../src/browser/server.js";
import { main } from "../src/cli.js";
import { browserOf } from "../src/page/machine.js";
import { parseResultFile } from "../src/results/schema.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nomoat-bench-browser-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("the server", () => {
  let server: FileServer;
  beforeAll(async () => {
    await mkdir(join(folder, "site"));
    await writeFile(join(folder, "site/index.html"), "the page");
    await writeFile(join(folder, "secret.txt"), "secret");
    await writeFile(join(folder, "model.gguf"), "model");
    server = await serve(join(folder, "site"));
  });
  afterAll(() => server.close());

  /** Status and text; the path is sent as it is, which fetch would not do. */
  function ask(path: string): Promise<{ status: number; text: string; headers: Record<string, unknown> }> {
    return new Promise((resolve, reject) => {
      const { port } = new URL(server.address);
      get({ host: "127.0.0.1", port, path }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => {
          text += part;
        });
        response.on("end", () => resolve({ status: response.statusCode!, text, headers: response.headers }));
      }).on("error", reject);
    });
  }

  test("gives files with the headers of cross-origin isolation", async () => {
    const { status, text, headers } = await ask("/");
    expect([status, text]).toEqual([200, "the page"]);
    expect(headers["cross-origin-opener-policy"]).toBe("same-origin");
    expect(headers["cross-origin-embedder-policy"]).toBe("require-corp");
  });

  test("gives nothing from outside of its folder, but what is shared", async () => {
    for (const path of ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/none", "/shared/9"]) {
      expect((await ask(path)).status).toBe(404);
    }
    const address = server.share(join(folder, "model.gguf"));
    expect((await ask(address)).text).toBe("model");
    expect(server.share(join(folder, "model.gguf"))).toBe(address);
    expect((await ask(`${server.share(join(folder, "site"))}/../secret.txt`)).status).toBe(404);
  });

  test("says when the port is taken", async () => {
    const port = Number(new URL(server.address).port);
    await expect(serve(folder, port)).rejects.toThrow(`cannot serve on port ${port} (EADDRINUSE)`);
  });
});

test("browsers are told apart by what they call themselves", () => {
  const chrome =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.1 Safari/537.36";
  expect(browserOf(chrome)).toBe("Chrome 140.0.1");
  expect(browserOf("Mozilla/5.0 (X11; Linux) Gecko/20100101 Firefox/153.0")).toBe("Firefox 153.0");
  expect(browserOf(`${chrome} Edg/141.0`)).toBe("Edge 141.0");
  expect(browserOf("Mozilla/5.0 (Macintosh) Version/26.1 Safari/605.1")).toBe("Safari 26.1");
  expect(browserOf("")).toBe("a browser");
});

const installed = chromiumPath() !== null;
if (!installed)
  console.warn("bench: no Chromium is installed, so the page is not tested (set CHROMIUM to its path)");

describe.skipIf(!installed)("in Chromium", () => {
  test("the command drives the page, which measures and gives the same file", async () => {
    let out = "";
    const stdout = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
      out += text;
      return true;
    });
    const stderr = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const path = join(folder, "page.json");
    try {
      const sweep = ["--sizes", "16", "--threads", "1,2", "--filter", "NN", "--label", "a page"];
      await main(["browser", "gemm", "--run", ...sweep, "--out", path]);
    } finally {
      stdout.mockRestore();
      stderr.mockRestore();
    }
    expect(out).toContain("16x16x16 NN");
    const [run] = parseResultFile(await readFile(path, "utf8"), path).runs;
    expect(run.label).toBe("a page");
    expect(run.machine.runtime).toMatch(/^Chrom/);
    expect(run.machine.load).toBeNull();
    expect(run.results.map(({ threads }) => threads)).toEqual([1, 2]);
    for (const { failure, rounds, accuracy } of run.results) {
      expect(failure).toBeNull();
      expect(rounds.length).toBeGreaterThanOrEqual(2);
      expect(accuracy!.compared).toBe(256);
    }
  });

  test("the page offers its results as a file, and says what is wrong", async () => {
    const server = await serve(await pagesFolder());
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      // The test's own limit is the only one: a busy machine measures for longer than Playwright waits.
      page.setDefaultTimeout(0);
      const reached: string[] = [];
      page.on("request", (request) => reached.push(new URL(request.url()).origin));
      await page.goto(`${server.address}?suites=gemm&sizes=16&threads=1&filter=no+such+case&run`);
      await page.waitForFunction(() => "nomoatError" in globalThis);
      expect(await page.locator("#state").textContent()).toBe("no case is left: loosen the filter");
      await page.locator('input[name="filter"]').fill("16x16x16 NN");
      await page.locator("form button").first().click();
      await page.waitForFunction(() => "nomoatResult" in globalThis);
      const [file] = await Promise.all([page.waitForEvent("download"), page.locator("#download").click()]);
      const text = await readFile(await file.path(), "utf8");
      expect(parseResultFile(text, "download").runs[0].results).toHaveLength(1);
      expect(await page.locator("#results tbody tr").count()).toBe(1);
      // Nothing is asked of anybody else.
      expect(new Set(reached.filter((one) => one !== "null"))).toEqual(
        new Set([new URL(server.address).origin]),
      );
    } finally {
      await browser.close();
      await server.close();
    }
  });
});
