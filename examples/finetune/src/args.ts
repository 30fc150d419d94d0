/** The command line: what can be asked for, and its checks that need no file. */
import { fileURLToPath } from "node:url";
import { type GpuMode, gpuModes } from "@nomoat/core/gpu";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { UserError } from "./errors.js";

/** How the base's linear layers are stored; `none` leaves them in float32. */
const FORMATS = ["nf4", "q4_0", "q8_0", "int8", "none"] as const;
export type Format = (typeof FORMATS)[number];

/** Where tensors are computed. */
const BACKENDS = ["wasm", "gpu"] as const;

export interface Arguments {
  /** Hugging Face folder of the base model. */
  model: string;
  /** The user's own text or records; undefined for the text that the example brings. */
  data: string | undefined;
  steps: number;
  rank: number;
  alpha: number;
  learningRate: number;
  /** Sequences a step. */
  batch: number;
  /** Tokens of a sequence; undefined for the default, or less where the model ends before. */
  length: number | undefined;
  format: Format;
  /** Held-out tokens that are measured at most. */
  heldOutTokens: number;
  /** Folder for the adapter, the loss curve and the figures. */
  out: string;
  backend: (typeof BACKENDS)[number];
  /** How gpu.js computes; undefined for the best mode that runs here, or another backend. */
  mode: GpuMode | undefined;
  threads: number | undefined;
  seed: number;
  /** Undefined for the default ones. */
  prompts: string[] | undefined;
}

/** The model that this repository brings. */
export const EMBEDDED_MODEL = fileURLToPath(new URL("../../../models/tiny", import.meta.url));

/** Chosen by measuring; the README of this example has the figures. */
export const DEFAULTS = {
  steps: 150,
  rank: 16,
  learningRate: 4e-3,
  batch: 8,
  length: 256,
  /** So that measuring stays short beside training. */
  heldOutTokens: 20_000,
  seed: 1,
} as const;

function integer(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < least || value > most) {
      throw new InvalidArgumentError(`It must be an integer from ${least} to ${most}.`);
    }
    return value;
  };
}

function positive(most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !(value > 0 && value <= most)) {
      throw new InvalidArgumentError(`It must be a number above 0, at most ${most}.`);
    }
    return value;
  };
}

function nonEmpty(text: string): string {
  if (text === "") throw new InvalidArgumentError("It must not be empty.");
  return text;
}

const collect = (text: string, before: string[] | undefined): string[] => [...(before ?? []), nonEmpty(text)];

function createCommand(): Command {
  const most = Number.MAX_SAFE_INTEGER;
  return new Command("npm start --")
    .description("Fine-tunes a small LLaMA on 4-bit weights with LoRA, and shows what that changed.")
    .addOption(
      new Option("--model <folder>", "Hugging Face folder of the base model")
        .default(EMBEDDED_MODEL, "models/tiny of this repository")
        .argParser(nonEmpty),
    )
    .addOption(
      new Option("--data <file>", "text (.txt) or records (.jsonl) (default: Moby-Dick)").argParser(nonEmpty),
    )
    .option("--steps <n>", "updates of the adapter", integer(1, 1e9), DEFAULTS.steps)
    .option("--rank <n>", "rank of the adapter", integer(1, 4096), DEFAULTS.rank)
    .option("--alpha <x>", "scale of the adapter, divided by its rank (default: 2 · rank)", positive(1e6))
    .option("--learning-rate <x>", "highest learning rate", positive(1), DEFAULTS.learningRate)
    .option("--batch <n>", "sequences a step", integer(1, 4096), DEFAULTS.batch)
    .option(
      "--length <n>",
      `tokens a sequence (default: ${DEFAULTS.length}, or what the model reads)`,
      integer(8, 1e6),
    )
    .addOption(
      new Option("--format <name>", "how the base's weights are stored").choices(FORMATS).default("nf4"),
    )
    .option(
      "--held-out-tokens <n>",
      "tokens of the held-out part that are measured at most",
      integer(2, most),
      DEFAULTS.heldOutTokens,
    )
    .addOption(
      new Option("--out <folder>", "where the adapter, the loss curve and the figures go")
        .default("out/finetune")
        .argParser(nonEmpty),
    )
    .addOption(new Option("--backend <name>", "where tensors are computed").choices(BACKENDS).default("wasm"))
    .addOption(
      new Option(
        "--mode <name>",
        "how gpu.js computes, with --backend gpu (default: the best that runs here)",
      ).choices(gpuModes),
    )
    .option("--threads <n>", "threads of the wasm backend (default: the cores there are)", integer(1, 256))
    .option("--seed <n>", "seed of everything random", integer(0, most), DEFAULTS.seed)
    .option("--prompt <text>", "what to continue before and after; can be repeated", collect)
    .helpOption("--help", "show this and end")
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
}

/**
 * Reads the command line (without node and the program).
 *
 * @returns null when only help was asked for, which is written to stdout
 * @throws {UserError} for what cannot be understood
 */
export function readArguments(argv: readonly string[]): Arguments | null {
  const command = createCommand();
  try {
    command.parse(argv as string[], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return null;
    throw new UserError(`${error.message.replace(/^error: /, "")}; --help lists the options`);
  }
  const { prompt, alpha, rank, ...rest } = command.opts();
  if (rest.backend === "gpu" && rest.threads !== undefined)
    throw new UserError("--threads is for --backend wasm: gpu.js has no threads of ours");
  if (rest.backend !== "gpu" && rest.mode !== undefined) throw new UserError("--mode is for --backend gpu");
  return { ...rest, rank, alpha: alpha ?? 2 * rank, prompts: prompt } as Arguments;
}
