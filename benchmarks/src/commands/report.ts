// `nomoat-bench report` and `nomoat-bench readme`: pictures and tables made from result files.

import { mkdir, readdir, readFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import type { Command } from "commander";
import { BenchError } from "../model.js";
import { rowsOf } from "../present.js";
import { barCharts, rooflineChart, sizeChart, threadChart } from "../report/charts.js";
import { htmlReport } from "../report/html.js";
import { readmeCharts, readmeSection, replaceSection } from "../report/readme.js";
import { readRuns, writeText } from "../results/files.js";
import type { Run } from "../results/schema.js";

/** The charts of all runs by file name. */
function drawings(runs: readonly Run[]): Map<string, string> {
  const files = new Map<string, string>();
  runs.forEach((run, i) => {
    const rows = rowsOf(run).filter((row) => row.summary);
    const prefix = runs.length > 1 ? `${i + 1}-` : "";
    const single = { roofline: rooflineChart(run, rows), sizes: sizeChart(rows), threads: threadChart(rows) };
    for (const [name, chart] of Object.entries(single)) if (chart) files.set(`${prefix}${name}.svg`, chart);
    barCharts(rows).forEach((chart, bar) => {
      files.set(`${prefix}peers-${bar + 1}.svg`, chart);
    });
  });
  return files;
}

async function report(files: string[], flags: { out: string; svg?: string }): Promise<void> {
  const runs = await readRuns(files);
  if (runs.length === 0) throw new BenchError("the files hold no runs");
  await writeText(flags.out, htmlReport(runs));
  if (flags.svg) {
    await mkdir(flags.svg, { recursive: true });
    for (const [name, chart] of drawings(runs)) await writeText(join(flags.svg, name), `${chart}\n`);
  }
}

/** Result files of a folder, by name; the files themselves where files are given. */
async function expand(paths: readonly string[]): Promise<string[]> {
  const lists = await Promise.all(
    paths.map(async (path) => {
      if (path.endsWith(".json")) return [path];
      try {
        const names = await readdir(path);
        return names
          .filter((name) => name.endsWith(".json"))
          .sort()
          .map((name) => join(path, name));
      } catch (error) {
        throw new BenchError(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code ?? error})`);
      }
    }),
  );
  return lists.flat();
}

/** The text of a file, or null where there is none. */
async function existing(path: string): Promise<string | null> {
  return readFile(path, "utf8").catch(() => null);
}

async function readme(
  paths: string[],
  flags: { readme: string; charts: string; check?: boolean },
): Promise<void> {
  const runs = await readRuns(await expand(paths));
  const charts = readmeCharts(runs);
  const text = await readFile(flags.readme, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw new BenchError(`${flags.readme}: cannot be read (${error.code ?? error})`);
  });
  const links = [...charts].map(([name, { title }]) => ({
    path: relative(dirname(flags.readme), join(flags.charts, name)).replaceAll("\\", "/"),
    title,
  }));
  const files = new Map([...charts].map(([name, { svg }]) => [join(flags.charts, name), svg]));
  files.set(flags.readme, replaceSection(text, readmeSection(runs, links), flags.readme));
  if (!flags.check && charts.size > 0) await mkdir(flags.charts, { recursive: true });
  for (const [path, wanted] of files) {
    if ((await existing(path)) === wanted) continue;
    if (flags.check) throw new BenchError(`${path}: does not say what the results say`);
    await writeText(path, wanted);
  }
}

export function addReport(program: Command): void {
  program
    .command("report")
    .description("an HTML page with charts and tables that sort; nothing is loaded from anywhere")
    .argument("<files...>", "result files")
    .option("--out <file>", "where to write", "benchmarks.html")
    .option("--svg <folder>", "write each chart as an SVG too")
    .action(report);
  program
    .command("readme")
    .description("write the performance tables and charts of a README from result files")
    .argument("[paths...]", "result files, or folders of them", ["benchmarks/results"])
    .option("--readme <file>", "the file with the markers", "README.md")
    .option("--charts <folder>", "where its charts are written", "benchmarks/results/charts")
    .option("--check", "write nothing; exit code 1 when the table is not that of the results")
    .action(readme);
}
