// What the backend's own ways cost: its matrix product beside the plainest kernel that gpu.js can be given, in mode webasm.

import { GPU } from "gpu.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { init, matmul, mul, randn, shutdown } from "../../src/index.js";
import { full } from "./cases.js";

beforeAll(() => init({ backend: "gpu", mode: "webasm" }));
afterAll(shutdown);

const [n, limit] = [1024, 1.2];

// A timing, so only `npm run test:gpu` has it.
test.runIf(full)(
  `a product of ${n}³ takes at most ${limit} times as long as gpu.js's plainest kernel`,
  async () => {
    const gpu = new GPU({ mode: "webasm" });
    const plain = gpu.createKernel(
      `function (a, b) {
      let sum = 0;
      for (let k = 0; k < this.constants.n; k++) { sum += a[this.thread.y][k] * b[k][this.thread.x]; }
      return sum;
    }`,
      { output: [n, n], constants: { n }, pipeline: true, immutable: true, precision: "single" },
    );
    const [a, b] = [mul(randn([n, n]), 1), mul(randn([n, n]), 1)];
    const rows = async (x: typeof a) => {
      const values = (await x.data()) as Float32Array;
      return Array.from({ length: n }, (_, i) => values.subarray(i * n, (i + 1) * n));
    };
    const [left, right] = [await rows(a), await rows(b)];
    const best = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    const time = (which: 0 | 1, fn: () => unknown): void => {
      const start = performance.now();
      fn();
      best[which] = Math.min(best[which], performance.now() - start);
    };
    for (let turn = 0; turn < 3; turn++) {
      time(0, () => plain(left as never, right as never));
      time(1, () => matmul(a, b).dispose());
    }
    await gpu.destroy();
    const speed = best.map((milliseconds) => ((2 * n ** 3) / milliseconds / 1e6).toFixed(2));
    console.log(`matmul ${n}³ on webasm: gpu.js ${speed[0]}, the backend ${speed[1]} GFLOP/s`);
    expect(best[1] / best[0]).toBeLessThan(limit);
  },
  // A busy machine needs minutes.
  1_800_000,
);
