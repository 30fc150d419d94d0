// What gpu.js does to those who do not know it, each as a test: the backend must not pass it on.

import { execFileSync } from "node:child_process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { GPU } from "gpu.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { gpuBackend } from "../../src/backend/gpu/index.js";
import { type GpuLibrary, loadLibrary, start } from "../../src/backend/gpu/library.js";
import * as nm from "../../src/index.js";
import { values } from "../support/numbers.js";
import { edges, expectEdges } from "./edges.js";

describe.each(["webasm", "cpu"] as const)("%s", (mode) => {
  beforeAll(async () => {
    nm.shutdown();
    await nm.init({ backend: "gpu", mode });
  });
  afterAll(nm.shutdown);

  test("loops run past 1,000 turns", async () => {
    // The product adds eight terms a turn.
    const n = 10_000;
    const a = nm.ones([1, n]);
    const b = nm.tensor(Float32Array.from({ length: n }, (_, i) => i % 3));
    const expected = Array.from({ length: n }, (_, i) => i % 3).reduce((x, y) => x + y, 0);
    expect((await nm.matmul(a, nm.reshape(b, [n, 1])).data())[0]).toBe(expected);
    expect((await nm.sum(b).data())[0]).toBe(expected);
    expect((await nm.cumsum(b, 0).data())[n - 1]).toBe(expected);
    expect((await nm.argmax(nm.where(nm.equal(nm.arange(n), 4321), 9, b)).data())[0]).toBe(4321);
    const ids = nm.cast(nm.mul(b, 1), "int32");
    expect(Array.from(await nm.scatterAdd(3, ids, nm.ones([n])).data())).toEqual([3334, 3333, 3333]);
  });

  test("tanh of large arguments is ±1, and NaN stays NaN", async () => {
    const x = nm.tensor([-1e30, -1000, -50, 50, 1000, 1e30, Number.NaN]);
    expect(Array.from(await nm.tanh(x).data())).toEqual([-1, -1, -1, 1, 1, 1, Number.NaN]);
  });

  test("integers beyond 24 bits stay exact on the host, and are refused where they would lose bits", async () => {
    const big = nm.tensor([2 ** 24 + 1, -(2 ** 31), 2 ** 31 - 1], { dtype: "int32" });
    expect(Array.from(await nm.add(big, 0).data())).toEqual([2 ** 24 + 1, -(2 ** 31), 2 ** 31 - 1]);
    expect(Array.from(nm.bitwiseAnd(big, 255).dataSync())).toEqual([1, 0, 255]);
    expect(() => nm.cast(big, "float32")).toThrow(/16777217 does not fit the device/);
  });

  test("packed bytes keep all their bits", async () => {
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
    const packed = nm.tensor(bytes);
    const table = nm.tensor(Float32Array.from(bytes));
    expect(Array.from(await nm.gather(table, packed).data())).toEqual(Array.from(bytes));
    expect(Array.from(await nm.cast(packed, "float32").data())).toEqual(Array.from(bytes));
    const signed = nm.tensor(new Int8Array(bytes.buffer));
    expect(Array.from(await nm.cast(signed, "float32").data())).toEqual(
      Array.from(new Int8Array(bytes.buffer)),
    );
  });

  test("a second run of a kernel leaves the first result alone", async () => {
    const results = [1, 2, 3].map((value) => nm.exp(nm.mul(nm.tensor([value, 0]), 1)));
    const read = await Promise.all(results.map((result) => result.data()));
    expect(read.map(([first]) => first)).toEqual([1, 2, 3].map((value) => Math.fround(Math.exp(value))));
  });

  test("a read sees the values of its time, whatever is written afterwards", async () => {
    const x = nm.mul(nm.tensor([1, 2, 3]), 2);
    const before = x.data();
    x.copyFrom(nm.tensor([7, 8, 9]));
    expect(Array.from(await before)).toEqual([2, 4, 6]);
    expect(Array.from(await x.data())).toEqual([7, 8, 9]);
  });

  test("what the host wrote is uploaded once, however often it is used", async () => {
    const backend = gpuBackend();
    const x = nm.tensor(values(1000, 1, (next) => next()));
    const before = backend.memory().used;
    nm.exp(x).dispose();
    const once = backend.memory().used;
    for (let i = 0; i < 5; i++) nm.exp(x).dispose();
    expect(once - before).toBe(4000);
    expect(backend.memory().used).toBe(once);
    x.dispose();
    expect(backend.memory().used).toBe(before);
  });

  test("outputs as wide as a large vocabulary", async () => {
    const classes = 128_256;
    const logits = nm.add(nm.zeros([2, classes]), nm.tensor([[1], [2]]));
    logits.copyFrom(nm.where(nm.equal(nm.arange(classes), 100_000), 20, logits));
    const loss = nm.crossEntropy(logits, nm.tensor([100_000, 5], { dtype: "int32" }), { reduction: "none" });
    const rest = (classes - 1) * Math.exp(1 - 20);
    const [hit, missed] = await loss.data();
    expect(hit).toBeCloseTo(Math.log1p(rest), 4);
    expect(missed).toBeCloseTo(18 + Math.log1p((classes - 1) * Math.exp(2 - 20)), 4);
    expect(Array.from(await nm.argmax(logits, -1).data())).toEqual([100_000, 100_000]);
  });

  test("kernels are cached by source and size, and the cache is bounded", async () => {
    const backend = gpuBackend();
    const x = nm.tensor([1, 2, 3]);
    nm.sin(x).dispose();
    const { compiled } = backend.kernels;
    for (let i = 0; i < 20; i++) nm.sin(x).dispose();
    expect(backend.kernels.compiled).toBe(compiled);
    for (let i = 1; i <= 600; i++) nm.tidy(() => void nm.sin(nm.tensor(new Float32Array(i))));
    expect(backend.kernels.cached).toBeLessThanOrEqual(512);
    expect((await nm.sin(x).data())[1]).toBeCloseTo(Math.sin(2), 6);
  });

  test("positions beyond float32's integers are exact", async () => {
    // 2²⁴ + 1 is no float32: an index that went through one would miss its row.
    const rows = 2 ** 12 + 1;
    const width = 2 ** 12;
    const x = nm.full([rows, width], 1);
    x.slice([rows - 1]).copyFrom(
      nm.tensor(Float32Array.from({ length: width }, (_, i) => i)).reshape([1, width]),
    );
    const last = nm.gather(x, nm.tensor([rows - 1], { dtype: "int32" }));
    expect(Array.from(await last.slice(null, [0, 4]).data())).toEqual([0, 1, 2, 3]);
    expect((await nm.slice(x, rows - 1, [width - 1]).data())[0]).toBe(width - 1);
  });

  test("normal numbers are kept, denormals kept or flushed to zero, NaN stays NaN", async () => {
    expectEdges(await edges(), mode);
  });

  test("what the device computed is not read at once", () => {
    expect(() => nm.exp(nm.tensor([1])).dataSync()).toThrow(
      new nm.BackendError(
        "the gpu backend reads what it computed asynchronously: use await data(), and tensor(values) to move it to another backend",
      ),
    );
    expect(Array.from(nm.tensor([1, 2]).dataSync())).toEqual([1, 2]);
  });

  test("1,000 steps of training leave no storage on the device, and no kernel beside those of the first", async () => {
    const backend = gpuBackend();
    const w = nm.keep(
      nm.tensor(
        values(12, 3, (next) => next() - 0.5),
        { shape: [4, 3], requiresGrad: true },
      ),
    );
    const held = () => {
      const { tensors, storages, bytes, backend: device } = nm.memoryStats();
      return { tensors, storages, bytes, device: device.used, ...backend.kernels };
    };
    let early = held();
    let loss = 0;
    for (let step = 0; step < 1000; step++) {
      const value = nm.tidy(() => {
        const x = nm.tensor(
          values(8, step, (next) => next()),
          { shape: [2, 4] },
        );
        const result = nm.crossEntropy(nm.tanh(nm.matmul(x, w)), nm.tensor([0, 2], { dtype: "int32" }));
        result.backward();
        nm.noGrad(() => w.copyFrom(nm.sub(w, nm.mul(w.grad!, 0.1))));
        w.zeroGrad();
        return result.detach();
      });
      loss = (await value.data())[0];
      value.dispose();
      if (step === 9) early = held();
    }
    expect(Number.isFinite(loss)).toBe(true);
    expect(held()).toEqual(early);
    w.dispose();
  });
});

describe("modes", () => {
  afterAll(nm.shutdown);

  test("a mode that cannot run here says what it needs", async () => {
    nm.shutdown();
    await expect(nm.init({ backend: "gpu", mode: "webgl2" })).rejects.toThrow(
      /cannot run in mode webgl2: it needs a browser with WebGL 2/,
    );
    await expect(nm.init({ backend: "gpu", mode: "metal" as never })).rejects.toThrow(/unknown mode "metal"/);
    await expect(nm.init({ backend: "wasm", mode: "cpu" })).rejects.toThrow(/mode is for the gpu backend/);
    await expect(nm.init({ backend: "gpu", threads: 2 })).rejects.toThrow(/threads is for the wasm backend/);
    expect(() => nm.tensor([1], { device: "gpu" })).toThrow(/await init\(\{ backend: "gpu" \}\)/);
  });

  test("without a mode, the best that truly runs, and its name", async () => {
    nm.shutdown();
    await nm.init({ backend: "gpu" });
    // No WebGL and no WebGPU in plain Node.
    expect(["webgpu", "headlessgl", "webasm"]).toContain(gpuBackend().mode);
    await expect(nm.init({ backend: "gpu", mode: "cpu" })).rejects.toThrow(/call shutdown\(\) before/);
  });

  test("a library that runs another mode than asked for is found out", async () => {
    class Pretender extends GPU {
      constructor() {
        super({ mode: "cpu" });
      }
    }
    const library = { ...(await loadLibrary()), GPU: Pretender } as unknown as GpuLibrary;
    await expect(start(library, "webasm")).rejects.toThrow(/gpu\.js ran cpu in its place/);
  });

  test("without the package init says what to install", () => {
    const hooks =
      'export const resolve = (name, context, next) => { if (name === "gpu.js") throw new Error("no such package"); return next(name, context); };';
    const entry = new URL("../../src/index.ts", import.meta.url).href;
    const program = `
      import { register } from "node:module";
      register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(hooks)}`)});
      const { init } = await import(${JSON.stringify(entry)});
      await init({ backend: "gpu" }).catch((error) => console.log(\`\${error.name}: \${error.message}\`));
    `;
    const loader = pathToFileURL(fileURLToPath(import.meta.resolve("tsx"))).href;
    const node = ["--conditions=@nomoat/source", `--import=${loader}`, "--input-type=module", "-e", program];
    expect(execFileSync(process.execPath, node, { encoding: "utf8" }).trim()).toBe(
      "BackendError: the gpu backend needs the package gpu.js: npm install gpu.js@2",
    );
  });

  test("init works again after shutdown", async () => {
    nm.shutdown();
    await nm.init({ backend: "gpu", mode: "cpu" });
    expect(gpuBackend().mode).toBe("cpu");
    nm.shutdown();
    await nm.init({ backend: "gpu", mode: "webasm" });
    expect((await nm.add(nm.tensor([1]), 1).data())[0]).toBe(2);
  });
});
