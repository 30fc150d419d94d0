// What a second thread gives: products of 4096 × 4096 weights with one thread and with two, in turns in one process, beside what the
// machine's second processor gives itself for integer dot products in registers, and for reading about as many bytes as a weight has.
// Figures are those of the fastest call: where others use the machine too, a smaller weight (--out=512) has shorter calls, of which more are
// undisturbed. From the repository, in about half a minute:
//
//   npx tsx --conditions=@nomoat/source packages/quant/scripts/threads.ts [--rounds=16] [--out=4096] [PART OF A NAME ...]

import { init, noGrad, randn, shutdown, zeros } from "@nomoat/core";
import { operand, wasmRuntime } from "@nomoat/core/extend";
import { dotChains, dotRounds, peakKernels, streamUnit } from "../../../benchmarks/src/measure/emitter.js";
import { type FormatName, type QuantizedMatmulOptions, quantize, quantizedMatmul } from "../src/index.js";

const size = 4096;
const given = process.argv.slice(2);
const option = (name: string) => given.find((argument) => argument.startsWith(name))?.slice(name.length);
const rounds = Number(option("--rounds=") ?? 16);
const outFeatures = Number(option("--out=") ?? size);
const wanted = given.filter((argument) => !argument.startsWith("--"));
/** Milliseconds for one case in one round. */
const turn = 60;

interface Case {
  readonly name: string;
  readonly run: () => void;
  /** Bytes that a call goes through at least. */
  readonly bytes: number;
  /** Operations of a call; 0 where there are none. */
  readonly operations: number;
  /** Milliseconds of the fastest call with one thread and with two. */
  readonly best: [number, number];
}

await init({ backend: "wasm", threads: 1 });
const probe = zeros([16]);
const runtime = wasmRuntime(probe);
if (!runtime) throw new Error("the wasm backend does not run here");
const machine = runtime.registerKernels("@nomoat/bench", peakKernels());
const cases: Case[] = [];

function add(name: string, bytes: number, operations: number, run: () => void): void {
  if (wanted.length > 0 && !name.startsWith("machine") && !wanted.some((part) => name.includes(part))) return;
  cases.push({ name, bytes, operations, run, best: [Infinity, Infinity] });
}

function addProducts(
  format: FormatName,
  name: string,
  products: [rows: number, QuantizedMatmulOptions][],
): void {
  const weight = randn([outFeatures, size]);
  const packed = quantize(weight, { format, measure: false });
  weight.dispose();
  for (const [rows, options] of products) {
    const x = randn([rows, size]);
    const call = () => noGrad(() => quantizedMatmul(x, packed, options)).dispose();
    const kind = options.activationScale ? ", static int8" : options.activations === "int8" ? ", int8" : "";
    add(
      `${name}, ${rows} ${rows === 1 ? "row" : "rows"}${kind}`,
      packed.bytes,
      2 * rows * size * outFeatures,
      call,
    );
  }
}

const rounded: QuantizedMatmulOptions = { activations: "int8" };
const units = 64;
add(
  "machine: dot products in registers",
  0,
  units * dotChains * dotRounds * (runtime.relaxed ? 32 : 16),
  () => machine.launch("dot", units, [0x01010101], [], { grain: 8, scratchBytes: 64 }),
);
for (const megabytes of [1, 8, 16]) {
  const pages = (megabytes << 20) / streamUnit;
  const place = runtime.address(operand(zeros([megabytes << 18])));
  add(`machine: reading ${megabytes} MiB`, megabytes << 20, 0, () =>
    machine.launch("read", pages, [place], [], { grain: pages / 16, scratchBytes: 64 }),
  );
}
addProducts("int4_g64", "int4", [
  [1, rounded],
  [128, rounded],
  [1, {}],
  [128, {}],
]);
addProducts("int8", "int8", [
  [1, rounded],
  [128, { activations: "int8", activationScale: 1 / 32 }],
]);
addProducts("nf4", "nf4", [
  [1, rounded],
  [1, {}],
]);
addProducts("q4_0", "q4_0", [
  [1, rounded],
  [1, {}],
]);

for (let round = 0; round < rounds; round++) {
  for (const threads of [1, 2] as const) {
    runtime.setThreads(threads);
    runtime.waitForWorkers();
    for (const { run, best } of cases) {
      const end = performance.now() + turn;
      for (let calls = 0; calls < 3 || performance.now() < end; calls++) {
        const start = performance.now();
        run();
        best[threads - 1] = Math.min(best[threads - 1], performance.now() - start);
      }
    }
  }
}

console.log(
  `Node ${process.versions.node}, ${runtime.relaxed ? "relaxed" : "baseline"} SIMD, best of ${rounds} turns`,
);
console.log("                                        1 thread, ms  2 threads, ms  ratio   GOP/s or GB/s");
for (const { name, bytes, operations, best } of cases) {
  const [one, two] = best;
  const rates = best.map((ms) => ((operations || bytes) / ms / 1e6).toFixed(1)).join(" → ");
  console.log(
    [
      name.padEnd(40),
      one.toFixed(3).padStart(12),
      two.toFixed(3).padStart(14),
      (one / two).toFixed(2).padStart(6),
      "  ",
      rates,
    ].join(" "),
  );
}
shutdown();
