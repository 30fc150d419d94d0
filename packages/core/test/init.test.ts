// Which backend `init` starts, and when.

import { afterEach, expect, test } from "vitest";
import { wasmRuntime } from "../src/extend.js";
import { activeBackend, init, ones, shutdown } from "../src/index.js";

afterEach(() => shutdown());

test("who does not wait for init in Node gets its backend and its threads, and not a second one", async () => {
  const started = init({ threads: 3 });
  const before = ones([2]);
  expect(wasmRuntime(before)?.threads).toBe(3);
  await started;
  expect(activeBackend()).toBe(before.storage.backend);
  const sum = before.add(ones([2]));
  expect(sum.toArray()).toEqual([2, 2]);
});

test("init of a started backend changes its threads, and keeps its tensors", async () => {
  await init({ threads: 1 });
  const before = ones([2]);
  await init();
  expect(wasmRuntime(before)?.threads).toBe(1);
  await Promise.all([init({ threads: 2 }), init()]);
  expect(wasmRuntime(before)?.threads).toBe(2);
  expect(activeBackend()).toBe(before.storage.backend);
});
