// Arguments of the wrong type, for every public function, method and layer: none ends in an error of the language itself.

import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import * as nn from "../../src/nn/index.js";
import * as optim from "../../src/optim/index.js";

type Callable = (...parameters: unknown[]) => unknown;

/** What no function takes in most places. */
const junk: readonly unknown[] = [
  undefined,
  null,
  "x",
  {},
  Number.NaN,
  -1,
  [],
  true,
  3,
  [1, 2, 3, 4, 5],
  [null],
];

/** For other packages, whose code is checked by the compiler alone; they get valid values. */
const internal = new Set(["defineFunction", "dropoutMask"]);
/** Taken as they are, or with effects on everything else. */
const others = new Set(["init", "shutdown", "activeBackend", "memoryStats", "resetPeakMemory"]);

const functionsOf = (module: object): [string, Callable][] =>
  Object.entries(module).filter(
    (entry): entry is [string, Callable] =>
      typeof entry[1] === "function" &&
      /^[a-z]/.test(entry[0]) &&
      !internal.has(entry[0]) &&
      !others.has(entry[0]),
  );

/** Methods of a class and of those that it extends, and how to call them on a new object. */
function methodsOf(kind: { prototype: object; name: string }, make: () => object): [string, Callable][] {
  const found = new Map<string, Callable>();
  for (let level = kind.prototype; level !== Object.prototype; level = Object.getPrototypeOf(level)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(level))) {
      if (typeof value !== "function" || /^(constructor|attach|use)$/.test(name) || found.has(name)) continue;
      found.set(name, (...parameters) => (value as Callable).apply(make(), parameters));
    }
  }
  return Array.from(found, ([name, run]) => [`${kind.name}.${name}`, run]);
}

/** Constructors and `create` of a module's classes. */
const makersOf = (module: object): [string, Callable][] =>
  Object.entries(module).flatMap(([name, kind]) => {
    if (!/^[A-Z]/.test(name) || /^(Module|LinearBase)$/.test(name)) return [];
    const makers: [string, Callable][] = [[`new ${name}`, (...parameters) => new kind(...parameters)]];
    if (kind.create) makers.push([`${name}.create`, (...parameters) => kind.create(...parameters)]);
    return makers;
  });

const linear = () => nn.Linear.create(3, 2);
const tried: [string, Callable][] = [
  ...functionsOf(nm),
  ...functionsOf(nn),
  ...functionsOf(optim),
  ...methodsOf(nm.Tensor, () => nm.ones([2, 3])),
  ...methodsOf(nn.Linear, linear),
  ...makersOf(nn),
  ...makersOf(optim),
];

/** Has no say in what is returned or thrown: modules' tensors are kept, so that no scope disposes them. */
function disposeKept(value: unknown): void {
  if (value instanceof nn.Module) value.dispose();
}

describe("wrong types", () => {
  test("are tried of every function", () => {
    expect(tried.length).toBeGreaterThan(300);
  });

  // Modules and `keep` make what no scope disposes.
  const scoped = new Set(functionsOf(nm).map(([name]) => name));
  scoped.delete("keep");

  test.each(tried)("of %s", async (name, run) => {
    const before = nm.memoryStats().tensors;
    const t = nm.ones([2, 3]);
    const i = nm.tensor([0, 1], { dtype: "int32" });
    const own = (error: unknown, parameters: readonly unknown[]) => {
      if (error instanceof nm.NomoatError) return;
      const shown = parameters.map((value) =>
        value === t ? "t" : value === i ? "i" : (JSON.stringify(value) ?? String(value)),
      );
      throw new Error(`${name}(${shown.join(", ")}) threw ${String(error)}`);
    };
    for (const wrong of junk) {
      const calls = [
        ...[[wrong], [wrong, wrong], [wrong, t], [4, wrong], [4, 4, wrong], [0, 1, wrong]],
        ...[
          [t, wrong],
          [t, t, wrong],
          [t, i, wrong],
          [t, 1, wrong],
          [t, wrong, wrong],
          [t, t, t, wrong],
        ],
        ...[[[t, wrong]], [[t], wrong], [[t], [wrong]], [[2], wrong], [[2], 1, wrong]],
        [() => nm.ones([]), wrong],
      ];
      for (const parameters of calls) {
        const made: unknown[] = [];
        try {
          nm.tidy(() => {
            made.push(run(...parameters));
          });
        } catch (error) {
          own(error, parameters);
        }
        for (const each of made) {
          disposeKept(each);
          if (each instanceof Promise) await each.then(undefined, (error) => own(error, parameters));
        }
      }
    }
    t.dispose();
    i.dispose();
    if (scoped.has(name)) expect(nm.memoryStats().tensors, "tensors left behind").toBe(before);
  });
});
