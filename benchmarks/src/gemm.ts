// How fast float32 matrix products are, as GFLOP/s and as a share of what this host multiplies and adds in registers:
//
//   node --conditions=@nomoat/source --import tsx benchmarks/src/gemm.ts [filter]
//
// Measures the kernels below the tensors, without autograd. Best of the repetitions, since machines are shared.

import { Bench } from "tinybench";
import type { Operand } from "../../packages/core/src/backend/types.js";
import { matmul } from "../../packages/core/src/backend/wasm/matmul.js";
import { type WasmBuffer, WasmRuntime } from "../../packages/core/src/backend/wasm/runtime.js";

interface Shape {
  name: string;
  m: number;
  n: number;
  k: number;
  batch?: number;
  /** Which of a and b are transposed in memory, for instance "NT": b is [n, k]. */
  transposes?: string[];
}

const all = ["NN", "NT", "TN", "TT"];
const shapes: Shape[] = [
  ...[8, 16, 32, 64, 128].map((n) => ({ name: `${n}`, m: n, n, k: n, transposes: ["NN", "NT"] })),
  ...[256, 512, 1024].map((n) => ({ name: `${n}`, m: n, n, k: n, transposes: all })),
  { name: "2048", m: 2048, n: 2048, k: 2048, transposes: ["NN"] },
  { name: "X·A", m: 512, n: 16, k: 2048, transposes: ["NN", "NT"] },
  { name: "U·B", m: 512, n: 2048, k: 16, transposes: ["NN", "NT"] },
  { name: "dA", m: 16, n: 2048, k: 512, transposes: ["TN"] },
  { name: "dB", m: 2048, n: 16, k: 512, transposes: ["TN"] },
  { name: "4 rows", m: 4, n: 4096, k: 4096, transposes: ["NN", "NT"] },
  { name: "16 rows", m: 16, n: 4096, k: 4096, transposes: ["NN", "NT"] },
  { name: "2 rows", m: 2, n: 4096, k: 4096, transposes: ["NN", "NT"] },
  { name: "GEMV", m: 1, n: 4096, k: 4096, transposes: ["NN", "NT"] },
  { name: "scores", m: 256, n: 256, k: 64, batch: 48, transposes: ["NT"] },
  { name: "values", m: 256, n: 64, k: 256, batch: 48, transposes: ["NN"] },
  { name: "batch 16", m: 16, n: 16, k: 16, batch: 1024, transposes: ["NN", "NT"] },
];

function operand(
  runtime: WasmRuntime,
  batch: number,
  rows: number,
  columns: number,
  transposed: boolean,
): Operand {
  const bytes = 4 * batch * rows * columns;
  const address = runtime.allocator.allocate(bytes);
  const values = runtime.views.f32().subarray(address / 4, (address + bytes) / 4);
  for (let i = 0; i < values.length; i++) values[i] = ((i * 2654435761) % 1000) / 1000 - 0.5;
  const strides = transposed ? [rows * columns, 1, rows] : [rows * columns, columns, 1];
  const buffer: WasmBuffer = { bytes, address };
  return { buffer, dtype: "float32", shape: [batch, rows, columns], strides, offset: 0 };
}

/** Best seconds of one call. */
function best(name: string, run: () => void): number {
  const bench = new Bench({ time: 250, warmupTime: 100, iterations: 5 });
  bench.add(name, run);
  bench.runSync();
  const { result } = bench.tasks[0];
  if (!result || !("latency" in result)) throw new Error(`${name} failed: ${JSON.stringify(result)}`);
  return result.latency.min / 1000;
}

function peakOf(runtime: WasmRuntime): number {
  const out = runtime.allocator.allocate(64);
  const units = 256;
  const grain = units / runtime.threads / 4;
  const seconds = best("peak", () => runtime.core.launch("peak", units, [out], [0.5], { grain }));
  runtime.allocator.free(out);
  return (units * 96_000) / seconds / 1e9;
}

const filter = process.argv[2] ?? "";
const runtimes = [1, 2].map((threads) => WasmRuntime.create({ threads }));
for (const runtime of runtimes) runtime.waitForWorkers();
const peaks = runtimes.map(peakOf);
const simd = runtimes[0].relaxed ? "relaxed" : "baseline";
console.log(
  `Node ${process.version}, ${simd} SIMD; in registers: ${peaks.map((p) => p.toFixed(1)).join(", ")} GFLOP/s`,
);
console.log("product                   1 thread        2 threads");
for (const { name, m, n, k, batch = 1, transposes = [] } of shapes) {
  for (const transpose of transposes) {
    const label = `${name} ${transpose}`;
    if (!label.includes(filter)) continue;
    const cells = runtimes.map((runtime, i) => {
      const a = operand(runtime, batch, m, k, transpose[0] === "T");
      const b = operand(runtime, batch, k, n, transpose[1] === "T");
      const out = operand(runtime, batch, m, n, false);
      const repeats = Math.max(1, Math.floor(2e5 / (batch * m * n * k)));
      const seconds = best(label, () => {
        for (let r = 0; r < repeats; r++) matmul(runtime, a, b, { alpha: 1, beta: 0 }, out);
      });
      for (const { buffer } of [a, b, out]) runtime.allocator.free((buffer as WasmBuffer).address);
      const rate = (2 * batch * m * n * k * repeats) / seconds / 1e9;
      return `${rate.toFixed(1).padStart(6)} ${((100 * rate) / peaks[i]).toFixed(0).padStart(4)} %`;
    });
    console.log(`${label.padEnd(20)} ${cells.join("    ")}`);
  }
}
for (const runtime of runtimes) runtime.shutdown();
