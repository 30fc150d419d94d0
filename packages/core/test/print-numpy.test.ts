// Tensors as text beside NumPy's own output (tools/golden/numpy_printing.py).

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type DType, tensor, tidy } from "../src/index.js";

interface Case {
  dtype: DType;
  shape: number[];
  /** Absent for `scale` · 0, 1, 2 … */
  data?: (number | string)[];
  scale?: number;
  text: string;
}

const file = new URL("./fixtures/printing.json", import.meta.url);
const { cases } = JSON.parse(readFileSync(file, "utf8")) as { cases: Case[] };

test.each(cases.map((each, i) => [i, each.dtype, `[${each.shape}]`, each] as const))(
  "%i %s %s",
  (_, __, ___, { dtype, shape, data, scale, text }) => {
    const size = shape.reduce((product, extent) => product * extent, 1);
    const values = data
      ? Float64Array.from(data, Number)
      : Float64Array.from({ length: size }, (_, i) => i * scale!);
    const shown = tidy(() => String(tensor(values, { device: "reference", dtype, shape })));
    expect(shown).toBe(`Tensor(${text}, shape=[${shape.join(", ")}], ${dtype})`);
  },
);
