// How this package's own programs are started in processes of their own: built ones as they are, sources through tsx.

import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** What Node needs to run this package's sources, where this process has it from elsewhere (a test runner). */
function sourceLoader(): string[] {
  if (process.execArgv.some((one) => /^tsx$|\/tsx\/dist\//.test(one))) return [];
  const loader = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  return ["--conditions", "@nomoat/source", "--import", loader];
}

/**
 * Node's arguments for a program of this package.
 *
 * @param built - its name in dist, without extension
 * @param source - its place in src, without extension
 */
export function programArguments(built: string, source: string): string[] {
  const here = fileURLToPath(import.meta.url);
  return here.endsWith(".ts")
    ? [...process.execArgv, ...sourceLoader(), join(dirname(here), `${source}.ts`)]
    : [...process.execArgv, join(dirname(here), `${built}.js`)];
}
