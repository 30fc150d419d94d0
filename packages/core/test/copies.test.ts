// Two copies of the library in one process, as when an application loads the ES modules and a dependency the CommonJS build.

import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { expect, test } from "vitest";
import * as nm from "../src/index.js";
import { ones, Tensor, tidy } from "../src/index.js";
import * as nn from "../src/nn/index.js";

/** Another copy of what `contents` imports from, as CommonJS beside ES modules is. */
async function copyOf(contents: string): Promise<unknown> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: fileURLToPath(new URL("..", import.meta.url)) },
    ...{ bundle: true, format: "iife", globalName: "copy", platform: "node", minify: true, write: false },
  });
  return new Function(`${outputFiles[0].text}; return copy;`)();
}

test("modules and tensors of another copy are told by their classes, and walked through", async () => {
  const contents = 'export * from "./src/nn/index.ts"; export { ones } from "./src/index.ts";';
  const copy = (await copyOf(contents)) as typeof nn & { ones: typeof ones };
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

test("errors of another copy are told by their classes", async () => {
  const copy = (await copyOf('export * from "./src/index.ts";')) as typeof nm;
  const thrown = (call: () => unknown): unknown => {
    try {
      return call();
    } catch (error) {
      return error;
    }
  };
  const theirs = thrown(() => copy.matmul(ones([2, 3]), ones([2, 3]))) as Error;
  expect(copy.ShapeError).not.toBe(nm.ShapeError);
  expect(theirs).toBeInstanceOf(copy.ShapeError);
  expect(theirs).toBeInstanceOf(nm.ShapeError);
  expect(theirs).toBeInstanceOf(nm.NomoatError);
  expect(theirs).not.toBeInstanceOf(nm.ArgumentError);
  expect(String(theirs)).toMatch(/^ShapeError: matmul: /);

  class Own extends nm.ShapeError {}
  expect(new Own("mine")).toBeInstanceOf(copy.ShapeError);
  expect(theirs).not.toBeInstanceOf(Own);
  class Foreign extends Error {
    static readonly kind = "ShapeError";
  }
  for (const other of [new Foreign(), new Error("x"), { kind: "ShapeError" }, null, undefined, "ShapeError"])
    expect(other).not.toBeInstanceOf(nm.ShapeError);
});
