// docs/operations.md: every expression for nomoat runs, and gives what PyTorch's beside it gave (tools/golden/operations.py), on every
// backend that this process has.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import * as nn from "../src/nn/index.js";
import * as optim from "../src/optim/index.js";
import { type Subject, subjects } from "./support/backends.js";
import { expectClose } from "./support/numbers.js";

type Nested = number | string | Nested[];
const page = readFileSync(new URL("../../../docs/operations.md", import.meta.url), "utf8");
const results = JSON.parse(
  readFileSync(new URL("fixtures/operations.json", import.meta.url), "utf8"),
) as Record<string, Nested | { shape: number[] }>;

/** PyTorch's expression and ours of each row, NumPy's between them or not. */
const rows = Array.from(
  page.matchAll(/^\| `(.+?)` \| (?:(?:`.+?` )?\| )?`(.+)` \|$/gm),
  ([, theirs, ours]) => [ours, theirs] as const,
);

/** What the page's beginning says, and what its last table needs besides. */
function variables({ device, dtype }: Subject): Record<string, unknown> {
  const float = (values: nm.NestedValues) => nm.tensor(values, { device, dtype });
  const whole = (values: nm.NestedValues) => nm.tensor(values, { device, dtype: "int32" });
  const counting = (first: number, ...shape: number[]) =>
    nm.arange(first, first + shape.reduce((a, b) => a * b), 1, { device, dtype }).reshape(shape);
  const x = float([
    [1, -2, 3],
    [4, 5, -6],
  ]);
  const model = nn.Linear.create(3, 4, { device, dtype });
  return {
    x,
    y: float([
      [0.5, 1, 2],
      [-1, 2, 3],
    ]),
    v: float([1, 2, 3]),
    m: float([
      [2, 1, 0],
      [1, 3, 1],
      [0, 1, 4],
    ]),
    z: float([1, Number.NaN, Number.POSITIVE_INFINITY, -2]),
    mask: x.greater(0),
    b: counting(0, 2, 2, 3),
    c: counting(0, 2, 3, 2),
    image: counting(-16, 1, 2, 4, 4),
    ids: whole([2, 0]),
    i: whole([
      [0, 2, 1],
      [2, 0, 0],
    ]),
    q: counting(0, 1, 2, 3, 4),
    w: nm.ones([3], { device, dtype, requiresGrad: true }),
    model,
    optimizer: new optim.SGD(model.parameters()),
  };
}

const scope: Record<string, unknown> = { ...nm, ...nn, ...optim };

describe.each(subjects)("$name", (subject) => {
  test.each(rows)("%s", (ours, theirs) => {
    nm.withBackend(subject.device, () =>
      nm.tidy(() => {
        const names = { ...scope, ...variables(subject) };
        const value: unknown = new Function(...Object.keys(names), `return ${ours}`)(...Object.values(names));
        const expected = results[theirs];
        if (expected !== undefined && expected !== null) {
          const actual = value instanceof nm.Tensor ? value.toArray() : (value as Nested);
          if (typeof expected === "object" && "shape" in expected)
            expect((value as nm.Tensor).shape).toEqual(expected.shape);
          else {
            const [mine, other] = [actual, expected].map((each) => [each].flat(9).map(Number));
            const scale = Math.max(1, ...other.filter(Number.isFinite).map(Math.abs));
            expectClose(mine, other, scale * (subject.dtype === "float64" ? 1e-12 : 2e-6));
            if (value instanceof nm.Tensor) expect(value.shape).toEqual(shapeOf(expected));
          }
        }
        for (const held of [names.model, names.optimizer]) (held as nn.Linear).dispose();
      }),
    );
  });
});

function shapeOf(value: Nested): number[] {
  return Array.isArray(value) ? [value.length, ...(value.length > 0 ? shapeOf(value[0]) : [])] : [];
}

test("the page has rows, and a result for each that PyTorch computes", () => {
  expect(rows.length).toBeGreaterThan(160);
  const theirs = new Set(rows.map(([, expression]) => expression));
  expect(Object.keys(results).filter((expression) => !theirs.has(expression))).toEqual([]);
  const three = page.matchAll(/^\| `(.+?)` \| (?:`.+?` )?\| `.+` \|$/gm);
  expect(Array.from(three, ([, each]) => each).filter((each) => !(each in results))).toEqual([]);
});
