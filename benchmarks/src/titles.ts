// How entries and errors are called.

import type { Entry } from "./model.js";

type Named = Pick<Entry, "suite" | "name" | "implementation" | "backend" | "threads">;

/** Names an entry for people. */
export function titleOf({ suite, name, implementation, backend, threads }: Named): string {
  const who = implementation.name === backend ? backend : `${implementation.name}/${backend}`;
  return `${suite} ${name} · ${who} · ${threads}T`;
}

/** What makes two results one case, whatever the version. */
export function keyOf({ suite, name, implementation, backend, threads }: Named): string {
  return [suite, name, implementation.name, backend, `${threads}T`].join(" · ");
}

/** The first line of an error's message. */
export function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return (message.split("\n").find((line) => line.trim()) ?? "failed without a message").trim().slice(0, 300);
}
