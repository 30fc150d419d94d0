// Adapters that PEFT made (tools/golden/lora_peft.py): read, run, differentiated, trained, merged, saved and combined as PEFT does it.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type BackendName, Generator, init, matmul, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { Conv2d, Embedding, Linear, Module } from "@nomoat/core/nn";
import { AdamW } from "@nomoat/core/optim";
import { loadSafetensors } from "@nomoat/core/safetensors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Adapter,
  addWeightedAdapter,
  applyEva,
  applyLora,
  type CombinationType,
  type CombineOptions,
  correctLoraFaGradients,
  freezeA,
  type LoraInit,
  loadAdapter,
  mergeAndUnload,
  orthogonalPenalty,
  RankAllocator,
  serializeAdapter,
} from "../src/index.js";
import { maxDifference } from "./model.js";

const at = (file: string) => fileURLToPath(new URL(`./fixtures/peft/${file}`, import.meta.url));
const json = (file: string) => JSON.parse(readFileSync(at(file), "utf8"));

const backends = [
  { device: "reference", dtype: "float64", tolerance: 1e-9, atTheEnd: 1e-8 },
  { device: "wasm", dtype: "float32", tolerance: 1e-4, atTheEnd: 1e-4 },
] as const;

type Place = { device: BackendName; dtype: "float32" | "float64" };
const exact: Place = { device: "reference", dtype: "float64" };

const cases = [
  "lora",
  "rslora-patterns",
  "dora",
  "lora-bias",
  "bias-all",
  "modules-to-save",
  "tokens",
  "exclude",
  "expression",
  "layers",
  "all-linear",
  "lora-fa",
  "ia3",
  "loha",
  "loha-effective",
  "lokr",
  "lokr-both",
  "vera",
  "adalora",
];

class Block extends Module {
  up: Linear;
  down: Linear;

  constructor(place: Place) {
    super();
    this.up = Linear.create(6, 8, { ...place, bias: true });
    this.down = Linear.create(8, 6, { ...place, bias: false });
  }

  override forward(x: Tensor): Tensor {
    return x.add(this.down.forward(this.up.forward(x).silu()));
  }
}

class Body extends Module {
  embed: Embedding;
  layers: Block[];
  conv: Conv2d;

  constructor(place: Place) {
    super();
    this.embed = Embedding.create(7, 6, place);
    this.layers = [new Block(place), new Block(place)];
    this.conv = Conv2d.create(4, 4, 3, { ...place, padding: 1 });
  }

  override forward(ids: Tensor): Tensor {
    const x = this.layers.reduce((h, layer) => layer.forward(h), this.embed.forward(ids));
    const image = x.reshape([x.shape[0], 4, 2, 3]);
    return x.add(this.conv.forward(image).reshape(x.shape));
  }
}

/** As `Net` of the script: token ids [rows, 4] → [rows, 4, 5]. */
class Net extends Module {
  model: Body;
  head: Linear;

  constructor(place: Place) {
    super();
    this.model = new Body(place);
    this.head = Linear.create(6, 5, { ...place, bias: true });
  }

  override forward(ids: Tensor): Tensor {
    return this.head.forward(this.model.forward(ids));
  }
}

async function load(place: Place) {
  const { tensors } = await loadSafetensors(at("base.safetensors"), place);
  const [dy, target] = ["dy", "target"].map((name) => tensors.get(name) as Tensor);
  tensors.delete("dy");
  tensors.delete("target");
  const model = new Net(place);
  model.loadStateDict(tensors);
  const ids = tensor([0, 3, 6, 3, 1, 1, 5, 2], { shape: [2, 4], dtype: "int32", device: place.device });
  return { model, ids, dy, target };
}

const expectedOf = async (name: string, place: Place) =>
  (await loadSafetensors(at(`${name}/expected.safetensors`), place)).tensors;

const refuse = { onWarning: (message: string) => expect.fail(message) };

/** Largest difference, as a share of the largest value. */
const relative = (actual: Tensor, expected: Tensor) => {
  expect(actual.shape).toEqual(expected.shape);
  const largest = Math.max(...Array.from(expected.dataSync(), (value) => Math.abs(Number(value))), 1e-30);
  return maxDifference(actual, expected) / largest;
};

const under = (tensors: ReadonlyMap<string, Tensor>, prefix: string): [key: string, value: Tensor][] =>
  [...tensors].flatMap(([key, value]) =>
    key.startsWith(prefix) ? [[key.slice(prefix.length), value] as [string, Tensor]] : [],
  );

describe.each(backends)("PEFT's adapters on $device", ({ device, dtype, tolerance, atTheEnd }) => {
  const place = { device, dtype };
  beforeAll(() => init({ backend: device }));
  afterAll(() => init({ backend: "reference" }));

  describe.each(cases)("%s", (name) => {
    it("has PEFT's output, gradients and merged weights", async () => {
      const { model, ids, dy } = await load(place);
      const expected = await expectedOf(name, place);
      const adapter = await loadAdapter(model, at(name), "default", refuse);
      const out = model.forward(ids);
      expect(relative(out, expected.get("out") as Tensor)).toBeLessThan(tolerance);
      out.mul(dy).sum().backward();
      const gradients = under(expected, "gradient.");
      expect(gradients.map(([key]) => key).sort()).toEqual([...adapter.stateDict().keys()].sort());
      for (const [key, parameter] of adapter.stateDict()) {
        const gradient = expected.get(`gradient.${key}`) as Tensor;
        expect(relative(parameter.grad as Tensor, gradient), key).toBeLessThan(tolerance);
      }
      mergeAndUnload(model);
      const merged = under(expected, "merged.");
      expect(merged.length).toBeGreaterThan(0);
      const state = model.stateDict();
      for (const [key, value] of merged)
        expect(relative(state.get(key) as Tensor, value), key).toBeLessThan(tolerance);
      // What PEFT leaves as it was, we do.
      const { model: fresh } = await load(place);
      for (const [key, value] of fresh.stateDict())
        if (!expected.has(`merged.${key}`)) expect(maxDifference(state.get(key) as Tensor, value)).toBe(0);
      expect(relative(model.forward(ids), expected.get("out") as Tensor)).toBeLessThan(tolerance);
      model.dispose();
    });

    it("is saved as PEFT saves it", async () => {
      const { model } = await load(place);
      const adapter = await loadAdapter(model, at(name), "default", refuse);
      const files = await serializeAdapter(adapter, { dtype });
      const config = JSON.parse(new TextDecoder().decode(files.get("adapter_config.json")));
      const theirs = json(`${name}/adapter_config.json`);
      expect(theirs).toMatchObject(config);
      const nothing = [null, false, 0, "{}"];
      for (const [field, value] of Object.entries(theirs))
        if (!(field in config))
          expect(nothing, field).toContain(
            typeof value === "object" && value !== null ? JSON.stringify(value) : value,
          );
      const [own, other] = [
        await loadSafetensors(files.get("adapter_model.safetensors") as Uint8Array, place),
        await loadSafetensors(at(`${name}/adapter_model.safetensors`), place),
      ];
      expect([...own.tensors.keys()].sort()).toEqual([...other.tensors.keys()].sort());
      for (const [key, value] of other.tensors)
        expect(maxDifference(own.tensors.get(key) as Tensor, value), key).toBe(0);
      model.dispose();
    });

    it("is trained as PEFT trains it, 40 steps", async () => {
      const { model, ids, target } = await load(place);
      const expected = await expectedOf(name, place);
      const adapter = await loadAdapter(model, at(name), "default", refuse);
      const isFa = name === "lora-fa";
      const allocator = name === "adalora" ? new RankAllocator(adapter) : null;
      if (isFa) freezeA(adapter);
      const optimizer = new AdamW(adapter.trainableParameters(), {
        learningRate: 0.01,
        ...(isFa ? { weightDecay: 0, epsilon: 1e-30 } : { weightDecay: 0.01, epsilon: 1e-8 }),
      });
      const losses = Array.from({ length: 40 }, (_, step) =>
        tidy(() => {
          let loss = model.forward(ids).sub(target).square().mean();
          if (allocator) loss = loss.add(orthogonalPenalty(adapter));
          loss.backward();
          if (isFa) correctLoraFaGradients(adapter);
          optimizer.step();
          allocator?.update(step);
          optimizer.zeroGrad();
          return loss.item();
        }),
      );
      const theirs = expected.get("losses") as Tensor;
      expect(relative(tensor(losses, { ...place }), theirs)).toBeLessThan(tolerance);
      expect(losses[39]).toBeLessThan(0.8 * losses[0]);
      const state = adapter.savedStateDict();
      const finals = under(expected, "final.");
      expect(finals.length).toBe(under(expected, "gradient.").length);
      for (const [key, value] of finals)
        expect(relative(state.get(key) as Tensor, value), key).toBeLessThan(atTheEnd);
      if (allocator) {
        const pattern = json("adalora/rank_pattern.json");
        const kept = Object.fromEntries(
          Object.entries(pattern).map(([key, mask]) => [key.replace("base_model.model.", ""), mask]),
        );
        expect(adapter.config.rankMasks).toEqual(kept);
      }
      optimizer.dispose();
      model.dispose();
    });
  });
});

/** Gives recorded numbers in the place of random ones. */
class GivenNumbers extends Generator {
  readonly #numbers: number[][];

  constructor(numbers: readonly number[][]) {
    super(0);
    this.#numbers = [...numbers];
  }

  #next(array: { length: number }): number[] {
    const numbers = this.#numbers.shift();
    expect(numbers?.length, "numbers drawn").toBe(array.length);
    return numbers as number[];
  }

  get left(): number {
    return this.#numbers.length;
  }

  override fillUniform(array: Float32Array | Float64Array, low = 0, high = 1): void {
    array.set(this.#next(array).map((u) => low + (high - low) * u));
  }

  override fillNormal(array: Float32Array | Float64Array, mean = 0, std = 1): void {
    array.set(this.#next(array).map((z) => mean + std * z));
  }

  override fillBernoulli(array: Uint8Array | Int32Array | Float32Array | Float64Array): void {
    array.set(this.#next(array));
  }
}

interface Stored {
  shape: number[];
  data: number[];
}
const place = ({ shape, data }: Stored) => tensor(data, { shape, ...exact });
const transposed = ({ shape: [rows, columns], data }: Stored) =>
  Array.from({ length: data.length }, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]);

interface Beginning {
  init: LoraInit;
  numbers: number[][];
  a: Stored;
  b: Stored;
  product: Stored;
  base: Stored;
}

describe("PEFT's beginnings", () => {
  beforeAll(() => init({ backend: "reference" }));
  const runs: Beginning[] = json("beginnings.json").runs;

  it.each(runs.map((run) => [String(run.init), run] as const))("%s", async (_, run) => {
    const { model } = await load(exact);
    const weight = model.model.layers[0].up.weight.clone();
    const config = { r: 2, loraAlpha: 5, targetModules: ["layers.0.up"], initLoraWeights: run.init };
    const { numbers } = run;
    // PEFT draws B's transpose.
    if (run.init === "orthogonal") numbers[2] = transposed({ shape: [1, 8], data: numbers[2] });
    const principal = /pissa|olora/.test(String(run.init));
    const generator = principal ? new Generator(1) : new GivenNumbers(numbers);
    const adapter = applyLora(model, config, "default", { generator });
    const [a, b] = adapter.parameters();
    const product = noGrad(() => matmul(b, a, { alpha: 2.5 }));
    // PEFT begins in float32, and its subspace iteration with other numbers.
    const tolerance = run.init === "pissa_niter_100" ? 1e-5 : 1e-6;
    expect(maxDifference(product, place(run.product))).toBeLessThan(tolerance);
    // The residual is what PEFT leaves in the base's place.
    const rest = noGrad(() => (principal ? weight.sub(product) : weight));
    expect(maxDifference(rest, place(run.base))).toBeLessThan(tolerance);
    if (!/pissa/.test(String(run.init))) {
      expect(maxDifference(a, place(run.a))).toBeLessThan(tolerance);
      expect(maxDifference(b, place(run.b))).toBeLessThan(tolerance);
    }
    if (generator instanceof GivenNumbers) expect(generator.left).toBe(0);
  });
});

interface Combined {
  type: CombinationType;
  adapters: string[];
  weights: number[];
  options: { density?: number; svd_rank?: number; majority_sign_method?: "total" | "frequency" };
  layers: Record<string, { r: number; scaling: number; a?: Stored; b?: Stored; product?: Stored }>;
  masks: Stored[];
}

describe("PEFT's combinations", () => {
  beforeAll(() => init({ backend: "reference" }));
  const runs: Combined[] = json("combinations.json").runs;

  it.each(runs.map((run) => [`${run.type} of ${run.adapters} ${JSON.stringify(run.options)}`, run] as const))(
    "%s",
    async (_, run) => {
      const { model } = await load(exact);
      const all = new Map<string, Adapter>();
      for (const name of ["a", "b", "wide"])
        all.set(name, await loadAdapter(model, at(`combine-${name}`), name, refuse));
      const { density, svd_rank: svdRank, majority_sign_method: majoritySignMethod } = run.options;
      // PEFT prunes an embedding's whole update as the table has it, entries first.
      const turned = ({ shape }: Stored) => run.type.endsWith("svd") && shape[0] === 7;
      const generator = new GivenNumbers(
        run.masks.map((mask) => (turned(mask) ? transposed(mask) : mask.data)),
      );
      const options: CombineOptions = {
        ...{ combinationType: run.type, generator },
        ...(density !== undefined && { density }),
        ...(svdRank !== undefined && { svdRank }),
        ...(majoritySignMethod !== undefined && { majoritySignMethod }),
      };
      const adapters = run.adapters.map((name) => all.get(name) as Adapter);
      // Where PEFT makes a whole update it counts the adapter's scaling once more.
      const scalings = adapters.map((adapter) => [...adapter.branches().values()][0].scaling);
      const weights = run.weights.map((weight, k) =>
        run.type.endsWith("svd") ? weight * scalings[k] : weight,
      );
      const sum = addWeightedAdapter(adapters, weights, "sum", options);
      expect(generator.left).toBe(0);
      const branches = sum.branches();
      expect([...branches.keys()].sort()).toEqual(Object.keys(run.layers).sort());
      for (const [layer, { r, scaling, a, b, product }] of Object.entries(run.layers)) {
        const branch = branches.get(layer);
        expect(branch).toMatchObject({ r, scaling });
        const [own, other] = [...(branch?.tensors().values() ?? [])];
        if (a && b) {
          // PEFT's weights are float32.
          expect(maxDifference(own, place(a))).toBeLessThan(1e-6);
          expect(maxDifference(other, place(b))).toBeLessThan(1e-6);
        } else {
          const whole = noGrad(() => matmul(other, own, { alpha: scaling }));
          expect(maxDifference(whole, place(product as Stored))).toBeLessThan(1e-5);
        }
      }
    },
  );
});

it("PEFT's EVA: the same ranks, scalings and directions", async () => {
  init({ backend: "reference" });
  const {
    ids,
    layers,
  }: { ids: number[][]; layers: Record<string, { r: number; scaling: number; a: Stored }> } =
    json("eva.json");
  const { model } = await load(exact);
  const batch = tensor(ids.flat(), { shape: [ids.length, 4], dtype: "int32", device: exact.device });
  const config = { r: 2, loraAlpha: 5, targetModules: ["up", "down"] };
  const adapter = applyEva(model, config, () => void model.forward(batch), { rho: 1.5 });
  const branches = adapter.branches();
  expect([...branches.keys()].sort()).toEqual(Object.keys(layers).sort());
  expect(new Set(Object.values(layers).map(({ r }) => r)).size).toBeGreaterThan(1);
  for (const [at, { r, scaling, a }] of Object.entries(layers)) {
    const branch = branches.get(at);
    expect(branch, at).toMatchObject({ r, scaling });
    const [own] = [...(branch?.tensors().values() ?? [])];
    // Directions have no sign; PEFT's settle to a cosine of 0.99 between batches.
    const cosines = noGrad(() => own.mul(place(a)).sum(1).abs());
    for (const cosine of cosines.dataSync()) expect(Number(cosine), at).toBeGreaterThan(1 - 1e-6);
  }
});
