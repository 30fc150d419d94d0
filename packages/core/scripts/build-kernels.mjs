// Compiles core's AssemblyScript kernels: `node scripts/build-kernels.mjs` in this package.

import { buildKernels } from "../../../scripts/build-kernels.mjs";

await buildKernels("core", { memoryBase: 1024 });
