// A peer in a page of Chromium: the requests that a process reads from stdin are calls of a function of the page.

import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { launchChromium } from "../browser/chromium.js";
import { pagesFolder } from "../browser/pages.js";
import { type FileServer, serve } from "../browser/server.js";
import { BenchError } from "../model.js";
import { type Answer, deadlineMilliseconds, type PeerHost, type Request } from "./protocol.js";

interface Shared {
  readonly browser: Browser;
  readonly server: FileServer;
}

let shared: Promise<Shared> | null = null;

/** One browser and one server for all peers. */
function open(): Promise<Shared> {
  shared ??= (async () => {
    const browser = await launchChromium();
    return { browser, server: await serve(await pagesFolder()) };
  })();
  return shared;
}

/** Ends the browser, if one was started. */
export async function closeBrowser(): Promise<void> {
  const opened = await shared?.catch(() => null);
  shared = null;
  await opened?.browser.close();
  await opened?.server.close();
}

export class BrowserHost implements PeerHost {
  readonly #page: Page;
  readonly #server: FileServer;
  #crashed: BenchError | null = null;

  private constructor(page: Page, server: FileServer) {
    this.#page = page;
    this.#server = server;
    page.on("crash", () => {
      this.#crashed = new BenchError("its page crashed");
    });
  }

  /** @param folder - of the peer's packages */
  static async start(folder: string): Promise<BrowserHost> {
    const { browser, server } = await open();
    const packages = server.share(join(folder, "node_modules"));
    const page = await browser.newPage();
    const address = `${server.address}peers.html?packages=${encodeURIComponent(packages)}`;
    await page.goto(address, { timeout: deadlineMilliseconds });
    await page.waitForFunction(() => "answer" in globalThis, undefined, { timeout: deadlineMilliseconds });
    return new BrowserHost(page, server);
  }

  async ask(request: Request): Promise<Answer> {
    if (this.#crashed) throw this.#crashed;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.#crashed = new BenchError(`gave no answer within ${deadlineMilliseconds / 1000} s`);
        reject(this.#crashed);
      }, deadlineMilliseconds);
    });
    try {
      const given = this.#addressed(request);
      const asked = this.#page.evaluate(
        (one) => (globalThis as unknown as { answer(request: unknown): Promise<unknown> }).answer(one),
        given as unknown,
      ) as Promise<Answer>;
      const answer = await Promise.race([asked, late]);
      if (answer.error) throw new BenchError(answer.error);
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The request with files by their addresses. */
  #addressed(request: Request): Request {
    if (request.do !== "prepare") return request;
    const { task } = request;
    if (task.kind === "generate")
      return { ...request, task: { ...task, file: this.#server.share(task.file) } };
    if (task.kind !== "lora-mlp") return request;
    const stored = { ...task.stored, file: this.#server.share(task.stored.file) };
    return { ...request, task: { ...task, stored } };
  }

  get ended(): boolean {
    return this.#crashed !== null;
  }

  close(): void {
    this.#page.close().catch(() => undefined);
  }
}
