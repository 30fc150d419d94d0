/**
 * The Vitest settings that all packages share. Tests run from sources: the private export
 * condition `@nomoat/source` leads from one package to another's `src`, so nothing needs building
 * but the wasm kernels, which the global set-up brings up to date.
 */
import { fileURLToPath } from "node:url";
import { defaultClientConditions, defaultServerConditions } from "vite";
import { defineProject } from "vitest/config";

const conditions = ["@nomoat/source"];

export function project(name: string) {
  return defineProject({
    resolve: { conditions: [...conditions, ...defaultClientConditions] },
    ssr: { resolve: { conditions: [...conditions, ...defaultServerConditions] } },
    test: {
      name,
      include: ["test/**/*.test.ts", "src/**/*.test.ts"],
      environment: "node",
      globalSetup: [fileURLToPath(new URL("./scripts/vitest-setup.mjs", import.meta.url))],
      testTimeout: 180_000,
      hookTimeout: 180_000,
    },
  });
}
