// Two copies of the library in one process, as when an application loads the ES modules and a dependency the CommonJS build.

import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { ones, Tensor, tidy } from "../src/index.js";
import * as nn from "../src/nn/index.js";

test("modules and tensors of another copy are told by their classes, and walked through", async () => {
  const { outputFiles } = await build({
    stdin: {
      contents: 'export * from "./src/nn/index.ts"; export { ones } from "./src/index.ts";',
      resolveDir: fileURLToPath(new URL("..", import.meta.url)),
    },
    bundle: true,
    format: "iife",
    globalName: "copy",
    platform: "node",
    write: false,
  });
  const copy = new Function(`${outputFiles[0].text}; return copy;`)() as typeof nn & { ones: typeof ones };
  expect(copy.Linear).not.toBe(nn.Linear);

  class Own extends copy.Linear {}
  tidy(() => {
    const theirs = copy.Linear.create(2, 3);
    expect(theirs instanceof nn.Linear).toBe(true);
    expect(theirs instanceof nn.LinearBase).toBe(true);
    expect(theirs instanceof nn.Module).toBe(true);
    expect(theirs instanceof nn.Embedding).toBe(false);
    expect(theirs.weight instanceof Tensor).toBe(true);
    expect(Own.create(2, 2) instanceof nn.Linear).toBe(true);
    expect(theirs instanceof (Own as unknown as typeof nn.Linear)).toBe(false);
    expect(({ brand: "@nomoat/core/Module" } as unknown) instanceof nn.Module).toBe(false);

    const mixed = new nn.Sequential(
      theirs,
      nn.Linear.create(3, 1),
      new copy.Sequential(copy.Linear.create(1, 1)),
    );
    const names = Array.from(mixed.namedParameters(), ([name]) => name);
    expect(names).toEqual(["0.weight", "0.bias", "1.weight", "1.bias", "2.0.weight", "2.0.bias"]);
    expect(mixed.forward(ones([4, 2])).shape).toEqual([4, 1]);
    mixed.eval();
    expect(theirs.training).toBe(false);
    mixed.dispose();
  });
});
