// Runs once before Vitest's tests: brings the generated wasm kernels up to date.

import { buildAllKernels } from "./build-kernels.mjs";

export default async function setup() {
  await buildAllKernels({ quiet: true });
}
