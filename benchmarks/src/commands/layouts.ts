// `nomoat-bench layouts`: a table of what strided and broadcast operands cost, as multiples of the contiguous call's time.

import { init, shutdown } from "@nomoat/core";
import type { Command } from "commander";
import { layoutNames, layoutRatios, operationNames } from "../measure/layouts.js";
import { BenchError } from "../model.js";
import { integerList } from "./options.js";

interface LayoutsFlags {
  sizes: number[];
  filter?: string;
}

async function layouts({ sizes, filter = "" }: LayoutsFlags): Promise<void> {
  const chosen = layoutNames.filter((name) => name.includes(filter));
  if (chosen.length === 0)
    throw new BenchError(`no layout has "${filter}" in its name: ${layoutNames.join(", ")}`);
  const wrong = sizes.find((size) => size % 16 !== 0);
  if (wrong !== undefined) throw new BenchError(`--sizes: ${wrong} is not a multiple of 16`);
  await init({ backend: "wasm", threads: 1 });
  try {
    for (const size of sizes) {
      process.stdout.write(
        `\n${size} x ${size}, float32, one thread: time by that on contiguous operands\n\n`,
      );
      process.stdout.write(
        `| | ${operationNames.join(" | ")} |\n|${"---|".repeat(operationNames.length + 1)}\n`,
      );
      for (const name of chosen) {
        const ratios = layoutRatios(name, size).map((ratio) => ratio.toFixed(1));
        process.stdout.write(`| ${name} | ${ratios.join(" | ")} |\n`);
      }
    }
  } finally {
    shutdown();
  }
}

export function addLayouts(program: Command): void {
  program
    .command("layouts")
    .description(
      "what strided and broadcast operands cost, as multiples of the time on contiguous ones (a Markdown table)",
    )
    .option("--sizes <list>", "sides of the square of elements, multiples of 16", integerList, [256, 2048])
    .option("--filter <text>", "only layouts whose name has this text")
    .action(layouts);
}
