// Chromium with its software rasteriser, showing the production bundle of a page.

import { existsSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { type Browser, chromium, type Page as Tab } from "playwright-core";

const executable = [
  process.env.CHROMIUM,
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
].find((path) => path && existsSync(path));

/** True where a Chromium is installed. */
export const installed = executable !== undefined;

if (!installed) {
  console.warn(
    "gpu: no Chromium is installed, so WebGL and WebGPU are not tested (set CHROMIUM to its path)",
  );
}

const flags = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader",
  "--enable-unsafe-webgpu",
  "--enable-features=Vulkan",
  "--use-webgpu-adapter=swiftshader",
];

/** The page as an application would ship it: one minified file. */
async function bundle(entry: URL): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(entry)],
    alias: { vitest: fileURLToPath(new URL("./page/expect.ts", import.meta.url)) },
    conditions: ["@nomoat/source"],
    bundle: true,
    minify: true,
    keepNames: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    external: ["node:*"],
    write: false,
    logLevel: "silent",
  });
  return outputFiles[0].text;
}

/** Pages below /isolated/ may share memory between threads, others may not. */
function serve(script: string): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.url?.startsWith("/isolated")) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    const asked = request.url?.endsWith("main.js");
    response.setHeader("Content-Type", asked ? "text/javascript" : "text/html; charset=utf-8");
    response.end(
      asked ? script : '<!doctype html><title>nomoat</title><script type="module" src="main.js"></script>',
    );
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

export class Chromium {
  readonly #browser: Browser;
  readonly #server: Server;

  private constructor(browser: Browser, server: Server) {
    this.#browser = browser;
    this.#server = server;
  }

  /** Shows the page whose module is `entry`; it puts its functions into `globalThis.page`. */
  static async start(entry: URL): Promise<Chromium> {
    const server = await serve(await bundle(entry));
    return new Chromium(await chromium.launch({ executablePath: executable, args: flags }), server);
  }

  async open(path: string): Promise<Tab> {
    const tab = await this.#browser.newPage();
    await tab.goto(`http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${path}`);
    await tab.waitForFunction(() => "page" in globalThis);
    return tab;
  }

  async stop(): Promise<void> {
    await this.#browser.close();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

type Call = (...values: never[]) => unknown;

/** Calls a function of the page in `tab`. */
export function call<P extends { [name in keyof P]: Call }, K extends keyof P & string>(
  tab: Tab,
  name: K,
  ...args: Parameters<P[K]>
): Promise<Awaited<ReturnType<P[K]>>> {
  return tab.evaluate(
    ([key, values]) =>
      (globalThis as never as { page: Record<string, (...v: unknown[]) => never> }).page[key](...values),
    [name, args] as [string, unknown[]],
  );
}
