// DoRA of an embedding, LoHa and LoKr of convolutions against PyTorch (tools/golden/lora_layers.py).

import { readFileSync } from "node:fs";
import { init, noGrad, type Tensor, tensor } from "@nomoat/core";
import { Conv2d, Embedding, Module } from "@nomoat/core/nn";
import { beforeAll, describe, expect, it } from "vitest";
import {
  applyLora,
  type LoraConfig,
  loadAdapter,
  mergeAndUnload,
  peftPrefix,
  serializeAdapter,
} from "../src/index.js";
import { maxDifference, reference64, snapshot } from "./model.js";

interface Stored {
  shape: number[];
  dtype: "float64" | "int32";
  data: number[];
}

interface Case {
  name: string;
  config: Partial<LoraConfig>;
  weight: Stored;
  x: Stored;
  factors: Record<string, Stored>;
  merged: Stored;
  y: Stored;
  dy: Stored;
  gradients: Record<string, Stored>;
}

const golden = JSON.parse(readFileSync(new URL("./fixtures/layers.json", import.meta.url), "utf8"));
const cases: Case[] = golden.cases;
const place = ({ shape, data, dtype }: Stored): Tensor =>
  tensor(data, { shape, device: reference64.device, dtype });

/** Files hold float32. */
const float32 = 1e-4;

beforeAll(() => init({ backend: "reference" }));

class One extends Module {
  layer: Embedding | Conv2d;

  constructor({ weight, x }: Case) {
    super();
    const table = place(weight);
    this.layer = x.dtype === "int32" ? new Embedding(table) : new Conv2d(table, null, golden.conv);
  }

  override forward(x: Tensor): Tensor {
    return this.layer.forward(x);
  }
}

const close = (actual: Tensor, expected: Stored, tolerance = 1e-11) => {
  expect(actual.shape).toEqual(expected.shape);
  expect(maxDifference(actual, place(expected))).toBeLessThan(tolerance);
};

describe.each(cases.map((each) => [each.name, each] as const))("%s", (_, given) => {
  const adapted = () => {
    const model = new One(given);
    const adapter = applyLora(model, { ...given.config, loraAlpha: golden.alpha, targetModules: ["layer"] });
    return { model, adapter };
  };
  const filled = () => {
    const { model, adapter } = adapted();
    const own = adapter.stateDict();
    const names = [...own.keys()].map((key) => key.slice(`${peftPrefix}layer.`.length));
    expect(names.sort()).toEqual(Object.keys(given.factors).sort());
    noGrad(() => {
      for (const [name, values] of Object.entries(given.factors))
        own.get(`${peftPrefix}layer.${name}`)!.copyFrom(place(values));
    });
    return { model, adapter };
  };

  it("begins as the identity", () => {
    const { model } = adapted();
    const x = place(given.x);
    expect(maxDifference(model.forward(x), new One(given).forward(x))).toBeLessThan(1e-12);
  });

  it("has PyTorch's output, gradients and merged weight", () => {
    const { model, adapter } = filled();
    const y = model.forward(place(given.x));
    close(y, given.y);
    y.mul(place(given.dy)).sum().backward();
    for (const [key, parameter] of adapter.stateDict())
      close(parameter.grad as Tensor, given.gradients[key.slice(`${peftPrefix}layer.`.length)]);
    mergeAndUnload(model);
    close(model.layer.weight, given.merged);
  });

  it("goes to files and back, and off without a trace", async () => {
    const { model, adapter } = filled();
    const files = await serializeAdapter(adapter);
    const other = new One(given);
    const base = snapshot(other);
    const loaded = await loadAdapter(other, files);
    close(other.forward(place(given.x)), given.y, float32);
    expect(await serializeAdapter(loaded)).toEqual(files);
    loaded.merge();
    close(other.forward(place(given.x)), given.y, float32);
    loaded.unmerge();
    loaded.remove();
    expect(snapshot(other)).toEqual(base);
    model.dispose();
  });
});
