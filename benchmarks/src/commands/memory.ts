// `nomoat-bench memory`: the most that a training step holds, beside PyTorch.

import { shutdown } from "@nomoat/core";
import { type Command, Option } from "commander";
import { ownMemory, pytorchMemory, withProgram } from "../memory/measure.js";
import { stepsOf } from "../memory/steps.js";
import { removeFiles } from "../peers/cases/case.js";
import { reasonOf } from "../titles.js";
import { integerList, nameList } from "./options.js";

interface MemoryFlags {
  threads: number[];
  steps: number[];
  python: string[];
  peers: boolean;
}

const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

export function addMemory(program: Command): void {
  program
    .command("memory")
    .description(
      "the most memory that LoRA training steps take, beside PyTorch's, each in a process of its own",
    )
    .argument("[models...]", "models of the train-step suite (default: 110M)")
    .addOption(
      new Option("--threads <list>", "thread counts").argParser(integerList).default([1, 2], "1 and 2"),
    )
    .addOption(new Option("--steps <number>", "training steps").argParser(integerList).default([6], "6"))
    .option("--no-peers", "this library alone")
    .addOption(
      new Option("--python <list>", "commands for PyTorch; the first that has it is used")
        .argParser(nameList)
        .default(["python3", "/usr/bin/python3"], "python3, /usr/bin/python3"),
    )
    .action(async (given: string[], { threads, steps: [steps], python, peers }: MemoryFlags) => {
      const models = given.length > 0 ? given : ["110M"];
      for (const model of models) stepsOf(model);
      try {
        await withProgram(async (file) => {
          for (const model of models) {
            const pytorch = pytorchMemory(model, python);
            for (const count of threads) {
              const own = await ownMemory(file, model, count, steps);
              const title = `${stepsOf(model).name}, ${count} thread${count === 1 ? "" : "s"}, Node ${process.versions.node}`;
              const wasm = `wasm memory ${megabytes(own.reserved)}, at most ${megabytes(own.peak)} of it in use`;
              let line = `${title}: process ${megabytes(own.process)} (${wasm})`;
              if (peers) {
                const other = await pytorch(count, steps).catch((error) => ({
                  failure: reasonOf(error),
                }));
                line +=
                  "failure" in other
                    ? `; PyTorch ${other.failure}`
                    : `; PyTorch ${other.version}: ${megabytes(other.process)}; ` +
                      `${((100 * own.process) / other.process).toFixed(1)} % of it`;
              }
              process.stdout.write(`${line}\n`);
            }
          }
        });
      } finally {
        await removeFiles();
        await shutdown();
      }
    });
}
