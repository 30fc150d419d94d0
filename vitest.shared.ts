/**
 * The Vitest settings that all packages share. Tests run from sources: the private export
 * condition `@nomoat/source` leads from one package to another's `src`, so nothing needs building
 * but the wasm kernels, which the global set-up brings up to date. vitest.setup.ts makes
 * runs repeatable.
 */
import { fileURLToPath } from "node:url";
import { defaultClientConditions, defaultServerConditions } from "vite";
import { defineProject } from "vitest/config";

const conditions = ["@nomoat/source"];

/** Whether `npm run fuzz` runs this, for as long as it takes. */
const fuzz = process.env.NOMOAT_FUZZ_SEEDS !== undefined;

/** For what hangs alone: a busy machine may take a hundred times as long as an idle one. */
const patience = 600_000;

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));

export function project(name: string) {
  return defineProject({
    resolve: { conditions: [...conditions, ...defaultClientConditions] },
    ssr: { resolve: { conditions: [...conditions, ...defaultServerConditions] } },
    test: {
      name,
      include: ["test/**/*.test.ts", "src/**/*.test.ts"],
      environment: "node",
      globalSetup: [path("./scripts/vitest-setup.mjs")],
      setupFiles: [path("./vitest.setup.ts"), ...(fuzz ? [path("./vitest.fuzz.ts")] : [])],
      testTimeout: fuzz ? 0 : patience,
      hookTimeout: patience,
    },
  });
}
