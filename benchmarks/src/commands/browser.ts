// `nomoat-bench browser`: the suites in a page. Serves it to this machine alone; drives a browser where that is asked for.

import type { Command } from "commander";
import { Option } from "commander";
import { launchChromium, startMilliseconds } from "../browser/chromium.js";
import { pagesFolder } from "../browser/pages.js";
import { type FileServer, serve } from "../browser/server.js";
import { BenchError } from "../model.js";
import { writeText } from "../results/files.js";
import { formatResults } from "../results/format.js";
import { parseResultFile } from "../results/schema.js";
import { checkBackend, suitesByName } from "../select.js";
import { portableSuites } from "../suites/portable.js";
import { effortOf, integerList, nameList } from "./options.js";
import { runText } from "./print.js";
import { defaultThreads } from "./run.js";

interface BrowserFlags {
  quick?: boolean;
  long?: boolean;
  filter?: string;
  sizes?: number[];
  threads?: number[];
  backends: string[];
  formats?: string[];
  dtypes?: string[];
  label: string;
  run?: boolean;
  browser?: string;
  port: number;
  out?: string;
}

function queryOf(suites: readonly string[], flags: BrowserFlags): URLSearchParams {
  const query = new URLSearchParams({ suites: suites.join(","), effort: effortOf(flags, "quick").name });
  const threads = flags.threads ?? (flags.run ? defaultThreads() : undefined);
  const lists = { threads, sizes: flags.sizes, formats: flags.formats, dtypes: flags.dtypes };
  for (const [name, list] of Object.entries(lists)) if (list) query.set(name, list.join(","));
  query.set("backends", flags.backends.join(","));
  if (flags.filter) query.set("filter", flags.filter);
  if (flags.label) query.set("label", flags.label);
  if (flags.run) query.set("run", "");
  return query;
}

/** Waits for the page's result; its progress goes to stderr. */
async function drive(address: string, path: string | undefined): Promise<string> {
  const browser = await launchChromium(path);
  try {
    const page = await browser.newPage();
    const crashed = new Promise<never>((_, reject) => {
      page.on("crash", () => reject(new BenchError("the page crashed")));
      browser.on("disconnected", () => reject(new BenchError("the browser ended")));
    });
    await page.goto(address, { timeout: startMilliseconds });
    let last = "";
    const watch = setInterval(async () => {
      const text = await page
        .locator("#state")
        .textContent()
        .catch(() => null);
      if (text && text !== last) process.stderr.write(`${text}\n`);
      last = text ?? last;
    }, 5000);
    try {
      const done = page.waitForFunction(
        () => {
          const { nomoatResult, nomoatError } = globalThis as { nomoatResult?: string; nomoatError?: string };
          return nomoatError ? { error: nomoatError } : nomoatResult ? { text: nomoatResult } : null;
        },
        undefined,
        { timeout: 0, polling: 200 },
      );
      const outcome = await (await Promise.race([done, crashed])).jsonValue();
      if (!outcome?.text) throw new BenchError(`the page says: ${outcome?.error}`);
      return outcome.text;
    } finally {
      clearInterval(watch);
    }
  } finally {
    await browser.close().catch(() => undefined);
  }
}

/** Serves until the process is told to end. */
async function wait(server: FileServer, query: URLSearchParams): Promise<void> {
  process.stdout.write(`${server.address}?${query}\nOpen it in a browser on this machine; Ctrl+C ends it.\n`);
  await new Promise<void>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, resolve);
  });
}

async function browser(names: string[], flags: BrowserFlags): Promise<void> {
  const known = portableSuites.map(({ name }) => name);
  const chosen = names.length === 0 ? ["gemm"] : names.includes("all") ? known : names;
  suitesByName(portableSuites, chosen);
  for (const name of flags.backends) checkBackend(name);
  if (flags.out && !flags.run) throw new BenchError("--out needs --run: otherwise the page has a button");
  const query = queryOf(chosen, flags);
  const server = await serve(await pagesFolder(), flags.port);
  try {
    if (!flags.run) return await wait(server, query);
    const text = await drive(`${server.address}?${query}`, flags.browser);
    const { runs } = parseResultFile(text, "the page's result");
    process.stdout.write(runText(runs[0]));
    if (flags.out) {
      await writeText(flags.out, formatResults(runs));
      process.stdout.write(`written: ${flags.out}\n`);
    }
    if (runs[0].results.some(({ failure }) => failure !== null)) process.exitCode = 1;
  } finally {
    await server.close();
  }
}

export function addBrowser(program: Command): void {
  program
    .command("browser")
    .description("the suites in a browser: serves the page on this machine, or drives an installed Chromium")
    .argument(
      "[suites...]",
      `of ${portableSuites.map(({ name }) => name).join(", ")}, or "all" (default: gemm)`,
    )
    .option("--run", "drive an installed Chromium and print what it measured")
    .option("--browser <path>", "which Chromium (default: CHROMIUM, or where it usually is)")
    .option("--quick", "about a minute (default)")
    .addOption(new Option("--long", "more sizes, rounds and samples"))
    .option("--filter <pattern>", "only cases whose title has this text, or matches /this/")
    .option("--sizes <list>", "sizes in place of the suite's own", integerList)
    .option("--threads <list>", "thread counts", integerList)
    .addOption(
      new Option("--backends <list>", "wasm, reference, gpu, or gpu:MODE")
        .argParser(nameList)
        .default(["wasm"], "wasm"),
    )
    .option("--formats <list>", "quantized formats in place of the suite's own", nameList)
    .option("--dtypes <list>", "how floats are stored (gemm: b; elementwise)", nameList)
    .option("--label <name>", "a name for this machine, kept in the file", "")
    .option("--port <number>", "where to serve (default: any free one)", (text) => integerList(text)[0], 0)
    .option("--out <file>", "write the result file (JSON), with --run")
    .action(browser);
}
