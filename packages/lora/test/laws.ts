// What holds for every kind of adapter in any configuration, as one check for tests on several bases.

import { concat, Generator, memoryStats, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { Conv2d, Module } from "@nomoat/core/nn";
import { AdamW } from "@nomoat/core/optim";
import fc from "fast-check";
import { expect } from "vitest";
import {
  type Adapter,
  applyLora,
  type LoraConfig,
  loadAdapter,
  type MergeOptions,
  serializeAdapter,
  setActiveAdapters,
  withAdapterRows,
} from "../src/index.js";
import { maxDifference, type Place, randomize, TinyModel } from "./model.js";

/** A language model and a convolution that takes its output as a picture. */
export class Net extends Module {
  readonly text: TinyModel;
  readonly conv: Conv2d;

  constructor(seed: number, place: Place) {
    super();
    this.text = new TinyModel({ seed, depth: 1, ...place });
    this.conv = Conv2d.create(1, 1, 3, { padding: 1, ...place, generator: new Generator(seed) });
  }

  /** int32 ids [rows, 4] → [rows, 1, 4, 11]. */
  override forward(ids: Tensor): Tensor {
    return tidy(() => this.conv.forward(this.text.forward(ids).unsqueeze(1)));
  }
}

const linear = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"];
const some = (names: readonly string[]) => fc.subarray([...names], { minLength: 1 });
const kept = fc.record({
  fanInFanOut: fc.boolean(),
  taskType: fc.constantFrom(null, "CAUSAL_LM"),
  baseModelNameOrPath: fc.option(fc.string()),
});
const rank = fc.integer({ min: 1, max: 4 });
const even = fc.constantFrom(2, 4);
const alpha = fc.constantFrom(3, 5, 7);
const lora = (targets: readonly string[], r = rank) =>
  fc.record({
    r,
    loraAlpha: alpha,
    targetModules: targets.length > 0 ? some(targets) : fc.constant([]),
    useRslora: fc.boolean(),
    loraDropout: fc.constantFrom(0, 0.3),
    rankPattern: fc.option(
      r.map((value) => ({ q_proj: value, "layers\\.0\\.mlp\\.up_proj": value })),
      { nil: {} },
    ),
    alphaPattern: fc.option(
      alpha.map((value) => ({ "(v|down)_proj": value + 1 })),
      { nil: {} },
    ),
  });
const also = <T extends object>(config: fc.Arbitrary<Partial<LoraConfig>>, more: T) =>
  fc.tuple(config, kept).map(([own, extra]): Partial<LoraConfig> => ({ ...own, ...extra, ...more }));
const other = (targets: readonly string[], more: Partial<LoraConfig>) =>
  also(fc.record({ r: rank, loraAlpha: alpha, targetModules: some(targets) }), more);

/** Kinds of adapters, their configurations, and whether they begin with nothing, to the bit. */
export const kinds: readonly [name: string, config: fc.Arbitrary<Partial<LoraConfig>>, exact: boolean][] = [
  ["LoRA", also(lora([...linear, "embed_tokens", "conv"]), {}), true],
  [
    "LoRA of everything",
    also(lora(linear), { targetModules: "all-linear", excludeModules: ["o_proj"] }),
    true,
  ],
  ["gaussian", also(lora([...linear, "conv"]), { initLoraWeights: "gaussian" }), true],
  ["orthogonal", also(lora(linear, even), { initLoraWeights: "orthogonal" }), false],
  ["LoRA of other layers", also(lora([]), { targetModules: ["embed_tokens", "conv"] }), true],
  ["DoRA", also(lora([...linear, "embed_tokens", "conv"]), { useDora: true }), false],
  ["DoRA of other layers", also(lora([]), { targetModules: ["embed_tokens", "conv"], useDora: true }), false],
  ["loraBias", also(lora(["q_proj", "k_proj", "conv"]), { loraBias: true }), true],
  ["PiSSA", also(lora(linear), { initLoraWeights: "pissa" }), false],
  ["OLoRA", also(lora(linear), { initLoraWeights: "olora" }), false],
  ["tokens", also(lora([...linear, "conv"]), { trainableTokenIndices: [0, 4] }), true],
  ["modules to save", also(lora(linear), { modulesToSave: ["lm_head", "conv"] }), true],
  ["biases of layers", also(lora([...linear, "conv"]), { bias: "lora_only" }), true],
  ["all biases", also(lora(linear), { bias: "all" }), true],
  [
    "(IA)³",
    other([...linear, "conv"], { peftType: "IA3", feedforwardModules: ["up_proj", "k_proj"] }).map(
      ({ r: _, loraAlpha: __, ...own }) => own,
    ),
    true,
  ],
  [
    "(IA)³ of pictures",
    other(["conv"], { peftType: "IA3", feedforwardModules: ["conv"] }).map(
      ({ r: _, loraAlpha: __, ...own }) => own,
    ),
    true,
  ],
  ["LoHa", other([...linear, "conv"], { peftType: "LOHA" }), true],
  ["LoHa around cores", other(["conv"], { peftType: "LOHA", useEffectiveConv2d: true }), true],
  ["LoKr", other([...linear, "conv"], { peftType: "LOKR" }), true],
  ["LoKr of both", other(linear, { peftType: "LOKR", decomposeBoth: true, decomposeFactor: 3 }), true],
  ["VeRA", other(linear, { peftType: "VERA", dInitial: 0.4 }).map(({ loraAlpha: _, ...own }) => own), true],
  ["AdaLoRA", other(linear, { peftType: "ADALORA", initR: 3, totalStep: 10 }), true],
];

/** A base that adapters go to. */
export interface Base {
  readonly make: (seed: number) => Module & { forward(ids: Tensor): Tensor };
  readonly place: Place;
  /** How far what is equal but for rounding may be apart. */
  readonly tolerance: number;
  /** How the merge that changes no output is made; by default as the base does it. */
  readonly merge?: MergeOptions;
  /** dtype of the files. */
  readonly file: "float64" | "float32";
}

/** Bytes of a state. */
const bytesOf = (state: ReadonlyMap<string, Tensor>) =>
  new Map([...state].map(([name, value]) => [name, Array.from(value.dataSync() as ArrayLike<number>)]));

/** Checks every law on a fresh base. */
export async function checkLaws(
  { make, place, tolerance, merge = {}, file }: Base,
  config: Partial<LoraConfig>,
  seed: number,
  exact: boolean,
): Promise<void> {
  const start = memoryStats().tensors;
  const ids = tensor([1, 4, 9, 0, 7, 3, 3, 10], { shape: [2, 4], dtype: "int32", device: place.device });
  const models = [0, 1, 2].map(() => make(1 + (seed % 3)));
  const [model, second, third] = models;
  const held: Tensor[] = [ids];
  const out = (of = model): Tensor => {
    of.eval();
    const y = noGrad(() => of.forward(ids));
    held.push(y);
    return y;
  };
  /** The largest difference, of values that are about 1 or as large as they are. */
  const far = (a: Tensor, b: Tensor) =>
    maxDifference(a, b) / Array.from(b.dataSync(), Number).reduce((x, y) => Math.max(x, Math.abs(y)), 1);
  const same = (a: Tensor, b: Tensor, factor = 1) =>
    expect(far(a, b)).toBeLessThanOrEqual(factor * tolerance);
  const apply = (of: Module, name = "default"): Adapter =>
    applyLora(of, config, name, { generator: new Generator(7) });

  // The base's own tensors, wherever they go.
  const base = new Map(model.stateDict());
  const bytes = bytesOf(base);
  const before = out();

  // A fresh adapter is the identity.
  const adapter = apply(model);
  if (exact) expect(far(out(), before)).toBe(0);
  else same(out(), before);

  // Training changes the adapter, all of it, and nothing of the base.
  model.train();
  const optimizer = new AdamW(adapter.parameters(), { learningRate: 0.05, weightDecay: 0.1 });
  const parameters = () => bytesOf(new Map(adapter.namedParameters()));
  const untrained = parameters();
  for (let step = 0; step < 3; step++) {
    tidy(() => model.forward(ids).square().sum().backward());
    optimizer.step();
    optimizer.zeroGrad();
  }
  optimizer.dispose();
  for (const [name, values] of parameters()) expect(values, name).not.toEqual(untrained.get(name));
  expect(bytesOf(base)).toEqual(bytes);

  // From here on with values that are far from any beginning.
  randomize(adapter.parameters(), seed, config.peftType === "LOHA" ? 1.5 : 0.6);
  const trained = out();
  expect(far(trained, before)).toBeGreaterThan(3 * tolerance);
  expect(adapter.withDisabled(() => far(out(), before))).toBe(0);

  // Save, load, save: the same bytes, and the same outputs.
  const files = await serializeAdapter(adapter, { dtype: file });
  const loaded = await loadAdapter(second, files, "default", {
    onWarning: (message) => expect.fail(message),
  });
  same(out(second), trained);
  expect([...(await serializeAdapter(loaded, { dtype: file }))]).toEqual([...files]);

  // The order of adapters does not matter.
  const plain = { r: 2, loraAlpha: 6, targetModules: ["v_proj", "down_proj"] };
  const others = [model, third].map((each) => applyLora(each, plain, "other"));
  for (const each of others) randomize(each.parameters(), 3);
  const last = apply(third);
  last.loadStateDict(adapter.stateDict());
  const both = out();
  expect(far(both, trained)).toBeGreaterThan(3 * tolerance);
  same(both, out(third));

  // A batch of mixed rows is that of separate batches.
  if (!adapter.replacesParts) {
    for (const rows of [
      ["other", "default"],
      ["default", null],
    ]) {
      const mixed = withAdapterRows(model, rows, () => out());
      const alone = rows.map((name, row) => {
        setActiveAdapters(model, name === null ? [] : [name]);
        return out().slice([row, row + 1]);
      });
      setActiveAdapters(model, ["default", "other"]);
      const together = concat(alone, 0);
      same(mixed, together);
      held.push(...alone, together);
      expect(far(mixed, both)).toBeGreaterThan(3 * tolerance);
    }
  }

  // Merged equals unmerged; unmerging gives the same outputs and bytes, to the bit.
  const mergeable = [...adapter.branches()].every(
    ([at, branch]) => branch.mergeObstacle(adapter.layers.get(at)?.slots.original as Module) === null,
  );
  if (mergeable) {
    adapter.merge(merge);
    expect(adapter.merged).toBe(true);
    same(out(), both, merge.quantize ? 10 : 1);
    // As the base itself does it, quantized again where it is quantized.
    adapter.unmerge();
    adapter.merge({ onWarning: () => {} });
    others[0].merge({ onWarning: () => {} });
    adapter.unmerge();
    others[0].unmerge();
    expect(far(out(), both)).toBe(0);
    expect(bytesOf(base)).toEqual(bytes);
  } else expect(config.loraBias).toBe(true);

  // Off without a trace.
  others[0].remove();
  adapter.remove();
  expect(new Set(model.stateDict().values())).toEqual(new Set(base.values()));
  expect(bytesOf(model.stateDict())).toEqual(bytes);
  expect(far(out(), before)).toBe(0);
  for (const each of models) each.dispose();
  for (const each of held) each.dispose();
  expect(memoryStats().tensors).toBe(start);
}
