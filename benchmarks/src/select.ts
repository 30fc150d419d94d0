// Which entries names and options select; the same on the command line and in a page.

import { BenchError, type Entry } from "./model.js";
import { backendNames, nomoatEntry, type Suite, type Sweep } from "./suites/suite.js";
import { titleOf } from "./titles.js";

export interface Selection {
  readonly sweep: Sweep;
  readonly threads: readonly number[];
  readonly backends: readonly string[];
  /** What must stand in a title; text, or /a regular expression/. */
  readonly filter: string | null;
}

/** What stands in a case's title; text without case, or /a regular expression/. */
export function filterOf(text: string | null): (entry: Entry) => boolean {
  if (!text) return () => true;
  const expression = /^\/(.+)\/$/.exec(text);
  if (!expression) return (entry) => titleOf(entry).toLowerCase().includes(text.toLowerCase());
  let pattern: RegExp;
  try {
    pattern = new RegExp(expression[1], "i");
  } catch (error) {
    throw new BenchError(`--filter: ${(error as Error).message}`);
  }
  return (entry) => pattern.test(titleOf(entry));
}

/** @throws {BenchError} listing the known suites */
export function suitesByName(known: readonly Suite[], names: readonly string[]): Suite[] {
  return names.map((name) => {
    const found = known.find((suite) => suite.name === name);
    if (found) return found;
    throw new BenchError(
      `unknown suite "${name}" (known: ${known.map((suite) => suite.name).join(", ")}, peers, all, anchors)`,
    );
  });
}

/** Names a backend, and for gpu.js the mode: "wasm", "gpu", "gpu:webgl2". @throws {BenchError} for another */
export function checkBackend(name: string): void {
  if (backendNames.some((known) => name === known || (known === "gpu" && /^gpu:\w+$/.test(name)))) return;
  throw new BenchError(`unknown backend "${name}" (known: ${backendNames.join(", ")}, gpu:MODE)`);
}

/** This library's entries of the suites' cases. */
export function selectEntries(chosen: readonly Suite[], selection: Selection, version: string): Entry[] {
  const { sweep, threads, backends, filter } = selection;
  for (const name of backends) checkBackend(name);
  const cases = chosen.flatMap((suite) => suite.cases(sweep));
  const entries = cases.flatMap((one) =>
    backends.flatMap((backend) =>
      // Only wasm has threads.
      (backend === "wasm" ? threads : [1]).map((count) => nomoatEntry(one, backend, count, version)),
    ),
  );
  return entries.filter(filterOf(filter));
}
