/** Which errors are the user's to mend, and how they are told in one line. */
import { NomoatError } from "@nomoat/core";

/** What the user asked for cannot be done: a wrong flag, an unusable file, too little text. */
export class UserError extends Error {}

/** Node's errors about files carry the system call that failed; those of a programming mistake do not. */
function isFileError(error: Error): boolean {
  return "syscall" in error && typeof (error as NodeJS.ErrnoException).code === "string";
}

/** Long lists of faults (a model whose tensors all have another shape) are cut here. */
const LONGEST_LINE = 400;

/**
 * The one line that tells an error which the user can mend; null for any other, which is a bug of the program and
 * keeps its stack.
 */
export function explain(error: unknown): string | null {
  if (!(error instanceof Error)) return null;
  if (!(error instanceof UserError || error instanceof NomoatError || isFileError(error))) return null;
  const line = error.message.replace(/\s+/g, " ").trim();
  return line.length > LONGEST_LINE ? `${line.slice(0, LONGEST_LINE)} …` : line;
}
