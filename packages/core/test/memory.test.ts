// Ownership: scopes, keep, dispose, the net of the garbage collector, two copies of the library.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { freeCollected } from "../../../vitest.setup.js";
import { createWasmBackend } from "../src/backend/wasm/backend.js";
import * as nm from "../src/index.js";
import { runtime } from "../src/runtime.js";
import { backends } from "./support/backends.js";
import { expectNoLeak } from "./support/numbers.js";

beforeAll(() => nm.init({ backend: "reference" }));

const stats = () => {
  const { tensors, storages, bytes } = nm.memoryStats();
  return { tensors, storages, bytes };
};

describe("tidy", () => {
  test("frees what was made inside and not returned", () => {
    expectNoLeak("tidy", () => {
      const kept = nm.tidy(() => {
        const a = nm.ones([100]);
        return nm.add(nm.mul(a, 2), 1);
      });
      expect(kept.dataSync()[99]).toBe(3);
      kept.dispose();
    });
  });

  test("finds results in arrays, objects, Maps and Sets, to any depth, and around cycles", () => {
    const make = () => nm.ones([2]);
    const [list, object, map, set, cycle] = nm.tidy(() => {
      const round: { t: nm.Tensor; self?: unknown } = { t: make() };
      round.self = round;
      return [[[make()]], { a: { b: make() } }, new Map([["x", make()]]), new Set([make()]), round] as const;
    });
    const found = [list[0][0], object.a.b, map.get("x")!, [...set][0], cycle.t];
    expect(found.map((t) => t.disposed)).toEqual([false, false, false, false, false]);
    for (const t of found) t.dispose();
  });

  test("passes results to the scope around it", () => {
    let inner: nm.Tensor | undefined;
    nm.tidy(() => {
      inner = nm.tidy(() => nm.ones([1]));
      expect(inner.disposed).toBe(false);
    });
    expect(inner!.disposed).toBe(true);
  });

  test("frees on errors too, and gives the error on", () => {
    expectNoLeak("error", () =>
      expect(() =>
        nm.tidy(() => {
          nm.ones([5]);
          throw new Error("from inside");
        }),
      ).toThrow("from inside"),
    );
    expectNoLeak("failing operation", () =>
      expect(() => nm.tidy(() => nm.matmul(nm.ones([2, 3]), nm.ones([2, 3])))).toThrow(nm.ShapeError),
    );
  });

  test("refuses a promise, and frees what the function made", () => {
    expectNoLeak("promise", () =>
      expect(() => nm.tidy(async () => void nm.ones([3]))).toThrow(/tidy: the function returned a promise/),
    );
  });

  test("leaves kept tensors, gradients and those made outside alone", () => {
    const outside = nm.ones([2], { requiresGrad: true });
    const inside = nm.tidy(() => {
      const t = nm.keep(nm.zeros([1]));
      nm.sum(nm.mul(outside, outside)).backward();
      return { get: () => t };
    });
    expect(inside.get().disposed).toBe(false);
    expect(outside.grad!.dataSync()).toEqual(Float32Array.of(2, 2));
    inside.get().dispose();
    outside.dispose();
  });
});

describe("dispose", () => {
  test("is idempotent, frees the gradient too, and Symbol.dispose does the same", () => {
    expectNoLeak("dispose", () => {
      const x = nm.ones([3], { requiresGrad: true });
      nm.tidy(() => nm.sum(x).backward());
      const { grad } = x;
      x.dispose();
      x.dispose();
      expect([x.disposed, grad!.disposed]).toEqual([true, true]);
      {
        using y = nm.ones([3]);
        expect(y.disposed).toBe(false);
      }
    });
  });

  test("views share the memory and hold it as long as one of them lives", () => {
    const before = stats();
    const x = nm.tensor([[1, 2, 3, 4]]);
    const views = [x.slice(0), x.transpose(), x.expand(5, 1, 4), x.reshape(2, 2), x.detach()];
    expect(stats().storages).toBe(before.storages + 1);
    x.dispose();
    expect(views[3].toArray()).toEqual([
      [1, 2],
      [3, 4],
    ]);
    for (const view of views) view.dispose();
    expect(stats()).toEqual(before);
  });

  test.each([
    ["add", (x: nm.Tensor) => x.add(1)],
    ["add", (x: nm.Tensor) => nm.add(1, x)],
    ["matmul", (x: nm.Tensor) => x.matmul(x)],
    ["softmax", (x: nm.Tensor) => x.softmax()],
    ["sum", (x: nm.Tensor) => x.sum()],
    ["reshape", (x: nm.Tensor) => x.reshape(-1)],
    ["transpose", (x: nm.Tensor) => x.transpose()],
    ["slice", (x: nm.Tensor) => x.slice(0)],
    ["expand", (x: nm.Tensor) => x.expand(2, 2, 2)],
    ["gather", (x: nm.Tensor) => nm.gather(x, nm.tensor([0], { dtype: "int32" }))],
    ["concat", (x: nm.Tensor) => nm.concat([nm.ones([2, 2]), x])],
    ["copyFrom", (x: nm.Tensor) => x.copyFrom(Float32Array.of(1, 2, 3, 4))],
    ["dataSync", (x: nm.Tensor) => x.dataSync()],
    ["detach", (x: nm.Tensor) => x.detach()],
    ["to", (x: nm.Tensor) => x.to("wasm")],
    ["backward", (x: nm.Tensor) => x.backward()],
  ])("a disposed tensor in %s is a DisposedError that names operation and shape", (name, use) => {
    nm.tidy(() => {
      const x = nm.ones([2, 2]);
      x.dispose();
      expect(() => use(x)).toThrow(nm.DisposedError);
      expect(() => use(x)).toThrow(`${name}: a tensor of shape [2, 2] was used after it was disposed`);
    });
  });

  test("data() of a disposed tensor rejects", async () => {
    const x = nm.ones([2]);
    x.dispose();
    await expect(x.data()).rejects.toThrow(nm.DisposedError);
    expect(String(x)).toBe("Tensor(disposed, shape=[2])");
  });
});

test("the garbage collector frees and counts tensors that nobody disposed", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const before = nm.memoryStats();
  (() => {
    for (let i = 0; i < 10; i++) nm.exp(nm.ones([1000], { requiresGrad: true }));
  })();
  expect(nm.memoryStats().tensors).toBe(before.tensors + 20);
  const deadline = Date.now() + 60_000;
  while (nm.memoryStats().tensors > before.tensors && Date.now() < deadline) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 5));
    freeCollected();
  }
  // Others' leaks may go on the way, so "at most" and "at least".
  const after = nm.memoryStats();
  expect(after.tensors).toBeLessThanOrEqual(before.tensors);
  expect(after.storages).toBeLessThanOrEqual(before.storages);
  expect(after.leaked).toBeGreaterThanOrEqual(before.leaked + 20);
});

test.each(backends)("memoryStats counts bytes asked for, and the backend's own ($name)", ({ device }) => {
  nm.withBackend(device, () => {
    const before = nm.memoryStats();
    const x = nm.zeros([1000]);
    const during = nm.memoryStats();
    expect(during.bytes - before.bytes).toBe(4000);
    expect(during.backend.name).toBe(device);
    expect(during.backend.used - before.backend.used).toBeGreaterThanOrEqual(4000);
    nm.resetPeakMemory();
    x.dispose();
    expect(nm.memoryStats().backend.peak).toBeGreaterThanOrEqual(during.backend.used);
    expect(nm.memoryStats().backend.used).toBe(before.backend.used);
  });
});

test.each(backends)(
  "running out of memory is a named error that leaves everything usable ($name)",
  ({ device }) => {
    const x = nm.ones([4], { device });
    const { storages } = stats();
    for (const make of [nm.zeros, nm.rand, nm.randn]) {
      let error: unknown;
      try {
        make([2 ** 38], { device });
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(nm.OutOfMemoryError);
      expect((error as nm.OutOfMemoryError).wanted).toBe(2 ** 40);
    }
    expect(stats().storages).toBe(storages);
    expect(nm.tidy(() => nm.sum(x).item())).toBe(4);
    x.dispose();
  },
);

test("running out of memory in the middle of a training step can be recovered from", async () => {
  nm.shutdown();
  runtime.backends.set("wasm", createWasmBackend({ threads: 2, maximumBytes: 24 << 20 }));
  try {
    const weight = nm.full([256, 256], 1 / 256, { device: "wasm", requiresGrad: true });
    const before = stats();
    const step = (rows: number) =>
      nm.tidy(() => {
        const x = nm.ones([rows, 256], { device: "wasm" });
        let y = x;
        for (let i = 0; i < 6; i++) y = nm.tanh(nm.matmul(y, weight));
        nm.sum(y).backward();
        return [nm.mean(y).item(), ...weight.grad!.slice(0, [0, 2]).dataSync()];
      });
    const expected = step(100);
    weight.zeroGrad();
    // So many rows fit into memory one, two, three ... times: it runs out in forward and in backward.
    let failures = 0;
    for (let rows = 1000; rows <= 24_000; rows += 500) {
      try {
        step(rows);
      } catch (error) {
        expect(error).toBeInstanceOf(nm.OutOfMemoryError);
        failures++;
        const { wanted, used } = error as nm.OutOfMemoryError;
        expect(wanted).toBeGreaterThan(0);
        expect(used).toBeGreaterThan(0);
      }
      weight.zeroGrad();
      expect(stats()).toEqual(before);
    }
    expect(failures).toBeGreaterThan(10);
    expect(step(100)).toEqual(expected);
    weight.zeroGrad();
    weight.dispose();
  } finally {
    nm.shutdown();
    await nm.init({ backend: "reference" });
  }
});

describe("two copies of the library in one process", () => {
  test("share tensors, graphs, scopes, modes and counters", async () => {
    vi.resetModules();
    const other: typeof nm = await import("../src/index.js");
    expect(other.Tensor).not.toBe(nm.Tensor);
    expectNoLeak("two copies", () => {
      const w = nm.tensor(
        [
          [1, 2],
          [3, 4],
        ],
        { requiresGrad: true },
      );
      expect(w).toBeInstanceOf(other.Tensor);
      expect(other.memoryStats()).toEqual(nm.memoryStats());
      nm.tidy(() => {
        // Every second operation from the other copy, in one graph.
        const x = other.tensor([[1, -1]], { device: "reference" });
        const loss = nm.sum(other.exp(nm.tanh(other.matmul(x, w))));
        loss.backward();
      });
      const mixed = Array.from(w.grad!.dataSync());
      w.zeroGrad();
      nm.tidy(() => nm.sum(nm.exp(nm.tanh(nm.matmul(nm.tensor([[1, -1]]), w)))).backward());
      expect(mixed).toEqual(Array.from(w.grad!.dataSync()));
      expect(nm.tidy(() => other.noGrad(() => nm.exp(w).requiresGrad))).toBe(false);
      // A checkpoint of one copy inside a grad of the other.
      const inner = (t: nm.Tensor) => nm.sum(other.checkpoint((u) => other.mul(u, w), t));
      const dt = nm.tidy(() => nm.grad(inner)(nm.ones([2, 2]))[0]);
      expect(dt.toArray()).toEqual([
        [1, 2],
        [3, 4],
      ]);
      dt.dispose();
      w.dispose();
    });
  });
});
