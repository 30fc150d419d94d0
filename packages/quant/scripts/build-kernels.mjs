// Compiles quant's AssemblyScript kernels: `node scripts/build-kernels.mjs` in this package.
// Their static data starts behind core's, in the same memory.

import { buildKernels } from "../../../scripts/build-kernels.mjs";

await buildKernels("quant", { memoryBase: 65536 });
