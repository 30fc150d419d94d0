// Chromium (with its software rasteriser) and Firefox as Debian has them, showing the production bundle of a page. Tests that need
// one are skipped where it is not installed, and a line says so.

import { existsSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, launch, type Page as Tab } from "puppeteer-core";
import { build, defaultClientConditions, type Rollup } from "vite";

export type { Tab };

export type BrowserName = "chromium" | "firefox";

const places: Readonly<Record<BrowserName, readonly (string | undefined)[]>> = {
  chromium: [
    process.env.CHROMIUM,
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
  ],
  firefox: [process.env.FIREFOX, "/usr/bin/firefox-esr", "/usr/bin/firefox"],
};

const executableOf = (name: BrowserName) => places[name].find((path) => path && existsSync(path));

/** True where the browser is installed; says once what is skipped otherwise. */
export function installed(name: BrowserName): boolean {
  if (executableOf(name)) return true;
  console.warn(
    `SKIPPED: no ${name} is installed, so nothing is tested in it (apt-get install ${
      name === "firefox" ? "firefox-esr" : name
    }, or set ${name.toUpperCase()} to its path)`,
  );
  return false;
}

const chromiumFlags = [
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

/** The page as an application would ship it: files by path, minified. The entry is `main.js`. */
async function bundle(entry: URL): Promise<Map<string, string | Uint8Array>> {
  const plain = { entryFileNames: "[name].js", chunkFileNames: "[name]-[hash].js" };
  const result = (await build({
    configFile: false,
    logLevel: "error",
    root: fileURLToPath(new URL(".", entry)),
    base: "./",
    resolve: {
      alias: { vitest: fileURLToPath(new URL("./page/expect.ts", import.meta.url)) },
      conditions: ["@nomoat/source", ...defaultClientConditions],
    },
    worker: { format: "es" },
    build: {
      write: false,
      target: "es2022",
      modulePreload: false,
      rollupOptions: { input: { main: fileURLToPath(entry) }, output: plain },
    },
  })) as Rollup.RollupOutput | Rollup.RollupOutput[];
  const files = [result].flat().flatMap(({ output }) => output);
  return new Map(files.map((file) => [file.fileName, file.type === "chunk" ? file.code : file.source]));
}

const contentTypes: Readonly<Record<string, string>> = {
  ".js": "text/javascript",
  ".wasm": "application/wasm",
  "": "text/html; charset=utf-8",
};

/** Pages below /isolated/ may share memory between threads, others may not. */
function serve(files: ReadonlyMap<string, string | Uint8Array>): Promise<Server> {
  const html = '<!doctype html><title>nomoat</title><script type="module" src="main.js"></script>';
  const server = createServer((request, response) => {
    const path = request.url ?? "/";
    if (path.startsWith("/isolated/")) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    const name = path.replace(/^\/(isolated\/)?/, "");
    const body = name === "" ? html : files.get(name);
    response.statusCode = body === undefined ? 404 : 200;
    response.setHeader("Content-Type", contentTypes[extname(name)] ?? "application/octet-stream");
    response.end(body ?? "");
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

export class BrowserRun {
  readonly #browser: Browser;
  readonly #server: Server;

  private constructor(browser: Browser, server: Server) {
    this.#browser = browser;
    this.#server = server;
  }

  /**
   * Serves the page whose module is `entry`, a file main.ts; it puts its functions into `globalThis.page`.
   *
   * @param files - what the page may fetch besides, by path
   */
  static async start(
    name: BrowserName,
    entry: URL,
    files: ReadonlyMap<string, Uint8Array> = new Map(),
  ): Promise<BrowserRun> {
    const server = await serve(new Map([...(await bundle(entry)), ...files]));
    const browser = await launch({
      browser: name === "firefox" ? "firefox" : "chrome",
      executablePath: executableOf(name),
      headless: true,
      args: name === "chromium" ? chromiumFlags : [],
      // Vitest's limits are the only ones: a busy machine starts a browser for longer than Puppeteer waits.
      timeout: 0,
      protocolTimeout: 0,
    });
    return new BrowserRun(browser, server);
  }

  async open(path: "/" | "/isolated/"): Promise<Tab> {
    const tab = await this.#browser.newPage();
    // As in the browser's start.
    tab.setDefaultTimeout(0);
    tab.setDefaultNavigationTimeout(0);
    tab.on("pageerror", (error) => console.error(`page: ${String(error)}`));
    await tab.goto(`http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${path}`);
    await tab.waitForFunction(() => "page" in globalThis);
    return tab;
  }

  async stop(): Promise<void> {
    await this.#browser.close();
    this.#server.closeAllConnections();
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
    (key: string, values: unknown[]) =>
      (globalThis as never as { page: Record<string, (...v: unknown[]) => never> }).page[key](...values),
    name,
    args as unknown[],
  );
}
