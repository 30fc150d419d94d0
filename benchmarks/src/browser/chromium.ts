// An installed Chromium, driven by playwright-core.

import { existsSync } from "node:fs";
import type { Browser } from "playwright-core";
import { BenchError } from "../model.js";

const usual = [
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe",
];

/** Nothing that reaches out, nothing that asks. */
const flags = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The path of an installed Chromium: CHROMIUM, else where they usually are; null for none. */
export function chromiumPath(): string | null {
  const named = process.env.CHROMIUM;
  if (named) return existsSync(named) ? named : null;
  return usual.find((path) => existsSync(path)) ?? null;
}

/** A busy machine starts a browser and a page in more than the half minute that Playwright waits. */
export const startMilliseconds = 600_000;

/** @throws {BenchError} when there is no Chromium, or nothing to drive it with */
export async function launchChromium(path = chromiumPath()): Promise<Browser> {
  if (!path) throw new BenchError("no Chromium is installed (CHROMIUM names one)");
  const playwright = await import("playwright-core").catch(() => {
    throw new BenchError("driving a browser needs the package playwright-core: npm install playwright-core");
  });
  try {
    return await playwright.chromium.launch({
      executablePath: path,
      args: flags,
      timeout: startMilliseconds,
    });
  } catch (error) {
    throw new BenchError(`cannot start ${path}: ${(error as Error).message.split("\n")[0]}`);
  }
}
