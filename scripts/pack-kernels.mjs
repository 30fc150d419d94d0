// How compiled kernels are packed into a TypeScript file: both modules as one LZMA stream, the relaxed one last, since it differs
// in few places. packages/core/src/backend/wasm/builds.ts unpacks them.

import { compress } from "./lzma.mjs";

/** Two compiled modules as core's `PackedBuilds`. */
export function packKernels({ baseline, relaxed }) {
  const data = compress(Buffer.concat([baseline, relaxed])).toString("base64");
  return { baseline: baseline.length, relaxed: relaxed.length, data };
}
