// How much memory fine-tuning will take, worked out from shapes before anything is run. What a pass keeps and what is alive at its
// fullest moments follows the operations of model/block.ts and their gradient rules, in float32.

import { ArgumentError, bytesPerElement } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import { Linear } from "@nomoat/core/nn";
import { type LoraConfig, LoraLinear, resolveLoraConfig, resolveTargets } from "@nomoat/lora";
import { type AdapterCost, adapterCosts } from "./adapter-memory.js";
import type { LlamaConfig } from "./model/config.js";
import type { LlamaForCausalLM } from "./model/model.js";
import { requireLlama } from "./options.js";

export interface MemoryEstimateOptions {
  /** As in `finetune` (default false). */
  gradientCheckpointing?: boolean;
  /** As in `finetune` (default 1): with more, gradients outlast each batch's pass. */
  gradientAccumulationSteps?: number;
  /** What keeps the moments (default "AdamW"); `finetune` takes AdamW. */
  optimizer?: "AdamW" | "AdamW8bit";
  /** LoRA-FA: `freezeA` was called on the adapter, and the optimizer has what is trained alone (default false). */
  freezeA?: boolean;
  /** Numbers that another optimizer keeps for each trained one, in the place of `optimizer`'s. */
  optimizerSlots?: number;
}

/** Bytes at the fullest moment of a training step after the first. */
export interface MemoryEstimate {
  /** The model's weights, packed ones as they are, and its tables of positions. */
  readonly weights: number;
  /** The adapter's tensors, frozen ones too. */
  readonly adapter: number;
  /** What the optimizer keeps. */
  readonly optimizer: number;
  /** What the pass holds at that moment besides gradients of the adapter's matrices. */
  readonly activations: number;
  /** Gradients of the adapter's matrices at that moment; all of them, when they outlast the activations. */
  readonly gradients: number;
  /** The sum: what `memoryStats().backend.peak` will be above what was in use before the model was made. */
  readonly peak: number;
}

const projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;
type Projection = (typeof projections)[number];
type Costs = Partial<Record<Projection, AdapterCost>>;

/** While one part of a block's backward runs: float32 numbers for each position, and in all. */
interface BackwardMoment {
  /** Of what the block saved, what is gone. */
  readonly gone: number;
  readonly goneFixed: number;
  /** Temporaries. */
  readonly made: number;
  readonly madeFixed: number;
  /** Whose gradients are there. */
  readonly done: readonly Projection[];
}

/** float32 numbers: `…Fixed` in all, the others for each position of the batch. */
interface BlockSizes {
  /** Kept for backward. */
  readonly saved: number;
  readonly fixed: number;
  /** The most that a forward pass holds of the block at once. */
  readonly forward: number;
  readonly forwardFixed: number;
  /** Likewise without gradients. */
  readonly forwardWithoutGradients: number;
  /** The fullest moments of its backward. */
  readonly backward: readonly BackwardMoment[];
  /** Whether the output has a gradient. */
  readonly live: boolean;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** @param live - whether the block's input has a gradient */
function blockSizes(config: LlamaConfig, costs: Costs, live: boolean): BlockSizes {
  const { hiddenSize: h, intermediateSize: inner, numHeads, headDim } = config;
  const q = numHeads * headDim;
  const k = config.numKeyValueHeads * headDim;
  const all = Object.values(costs);
  const some = (...names: Projection[]) => names.some((name) => costs[name] !== undefined);
  /** Whether layers keep an input that nothing makes again. */
  const input = (again: boolean, ...names: Projection[]) =>
    !again && names.some((name) => costs[name]?.input === true);
  // Norms keep input and factor, attention its inputs, output and the logarithms of its sums, swiglu its inputs. Outputs of norms and
  // swiglu are made again. Frozen linear layers keep nothing, and where nothing has a gradient yet, nor do the others.
  const attends = live || some("q_proj", "k_proj", "v_proj");
  const second = attends || some("o_proj");
  const gates = second || some("gate_proj", "up_proj");
  const own = (names: readonly Projection[], hasGradient: boolean) =>
    sum(names.map((name) => (costs[name]?.saved ?? 0) + (hasGradient ? (costs[name]?.savedLive ?? 0) : 0)));
  const attention =
    (live ? h + 1 : 0) +
    (input(live, "q_proj", "k_proj", "v_proj") ? h : 0) +
    (attends ? 2 * q + 2 * k + numHeads : input(false, "o_proj") ? q : 0) +
    own(["q_proj", "k_proj", "v_proj"], live) +
    own(["o_proj"], attends);
  const wide =
    (second ? h + 1 : 0) +
    (input(second, "gate_proj", "up_proj") ? h : 0) +
    own(["gate_proj", "up_proj"], second);
  const down = own(["down_proj"], gates);
  const feedForward = wide + (gates ? 2 * inner : 0) + (input(gates, "down_proj") ? inner : 0) + down;
  const saved = attention + feedForward;
  const made = (names: readonly Projection[], hasGradient: boolean) =>
    Math.max(
      0,
      ...names.map((name) => (costs[name]?.made ?? 0) + (hasGradient ? 0 : (costs[name]?.savedLive ?? 0))),
    );
  const notKept = (kept: boolean, numbers: number) => (kept ? 0 : numbers);
  // While o_proj, gate_proj and up_proj, and down_proj run: what was kept, and what lives until the end of its half of the block.
  const first = q + k + h + notKept(attends, 2 * q + 2 * k) + 2 * h + made(["o_proj"], attends);
  const middle =
    attention +
    wide +
    2 * h +
    notKept(second, 2 * h) +
    inner +
    Math.max(made(["gate_proj"], second), inner + made(["up_proj"], second));
  const last =
    attention +
    feedForward +
    2 * h +
    notKept(second, 2 * h) +
    notKept(input(gates, "down_proj"), inner) +
    notKept(gates, 2 * inner) +
    made(["down_proj"], gates);
  const attentionAlone = 2 * h + 3 * q + 3 * k + numHeads + h + made(projections, false);
  const fixedOf = (names: readonly Projection[]) => sum(names.map((name) => costs[name]?.fixed ?? 0));
  /** While the gradients of `layers` are made, those of `before` being done. */
  const backward = (
    layers: readonly Projection[],
    before: readonly Projection[],
    gone: number,
    made: number,
  ): BackwardMoment => ({
    gone,
    goneFixed: fixedOf(before),
    made: made + Math.max(...layers.map((name) => costs[name]?.backward ?? 0)),
    madeFixed: Math.max(...layers.map((name) => costs[name]?.backwardFixed ?? 0)),
    done: [...before, ...layers],
  });
  return {
    saved,
    fixed: sum(all.map((cost) => cost.fixed)),
    forward: Math.max(attention + first, middle, last),
    forwardFixed: Math.max(0, ...all.map((cost) => cost.madeFixed)),
    forwardWithoutGradients: h + Math.max(attentionAlone, 3 * h + 3 * inner + made(projections, false)),
    backward: [
      // down_proj, and swiglu's gradients: with the block's own gradient all that the feed-forward part has at once.
      backward(["down_proj"], [], 0, h + (gates ? 2 * inner : 0)),
      { gone: down, goneFixed: 0, made: h + (gates ? 3 * inner : 0), madeFixed: 0, done: ["down_proj"] },
      backward(["gate_proj", "up_proj"], ["down_proj"], gates ? 2 * inner : 0, 2 * h + 2 * inner),
      backward(["o_proj"], ["down_proj", "gate_proj", "up_proj"], feedForward, 2 * h + q),
      backward(
        ["q_proj", "k_proj", "v_proj"],
        ["down_proj", "gate_proj", "up_proj", "o_proj"],
        feedForward + (attends ? q + numHeads : 0),
        2 * h + q + 2 * k,
      ),
    ],
    live: second || gates || some("down_proj"),
  };
}

/** What the adapted projections of each block cost. */
function costsByBlock(model: LlamaForCausalLM, layers: ReadonlyMap<string, AdapterCost>): Costs[] {
  const blocks: Costs[] = model.model.layers.map(() => ({}));
  for (const [name, cost] of layers) {
    const [, index, projection] = /^model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)$/.exec(name) ?? [];
    if (index === undefined || !projections.includes(projection as Projection))
      throw new ArgumentError(`estimateMemory: adapters on ${name} are not covered`);
    blocks[Number(index)][projection as Projection] = cost;
  }
  return blocks;
}

/** Below so many numbers AdamW8bit keeps float32 moments; above, codes and a scale for each block of them. */
const smallest8bit = 4096;
const block8bit = 256;

/** What an optimizer keeps for a matrix of `size` numbers. */
function optimizerBytes(size: number, { optimizer, optimizerSlots }: MemoryEstimateOptions): number {
  if (optimizerSlots !== undefined) return 4 * size * optimizerSlots;
  if (optimizer !== "AdamW8bit" || size < smallest8bit) return 8 * size;
  return 2 * (size + 4 * Math.ceil(size / block8bit));
}

/**
 * Predicts the memory of fine-tuning an adapter on `model`, on the wasm backend. The adapter need not exist;
 * nothing is run or changed. Small blocks are rounded up by the allocator, which is not counted.
 *
 * @param model - without adapters, its projections and output layer dense or quantized
 * @param config - of the adapter to be, of any kind, on the blocks' projections
 * @param batch - rows of a batch
 * @param length - tokens of a row
 * @throws {ArgumentError} for trained biases, tokens and modules, other targets, an adapted output layer, or sizes out of range
 */
export function estimateMemory(
  model: LlamaForCausalLM,
  config: Partial<LoraConfig>,
  batch: number,
  length: number,
  options: MemoryEstimateOptions = {},
): MemoryEstimate {
  requireLlama("estimateMemory", model);
  requireOptions("estimateMemory", options);
  const { gradientCheckpointing = false, gradientAccumulationSteps = 1, optimizerSlots = 2 } = options;
  const { optimizer: kind = "AdamW", freezeA = false } = options;
  if (kind !== "AdamW" && kind !== "AdamW8bit")
    throw new ArgumentError(`estimateMemory: optimizer must be "AdamW" or "AdamW8bit", not "${kind}"`);
  const complete = resolveLoraConfig(config);
  for (const [name, value, least] of [
    ["batch", batch, 1],
    ["length", length, 2],
    ["gradientAccumulationSteps", gradientAccumulationSteps, 1],
    ["optimizerSlots", optimizerSlots, 0],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < least)
      throw new ArgumentError(`estimateMemory: ${name} must be an integer, at least ${least}, not ${value}`);
  }
  const head = model.lm_head;
  if (head instanceof LoraLinear)
    throw new ArgumentError("estimateMemory: an adapted output layer is not covered");
  const { layers, shared } = adapterCosts(resolveTargets(model, complete), complete, freezeA);
  const costs = costsByBlock(model, layers);
  const blocks: BlockSizes[] = [];
  for (const of of costs) blocks.push(blockSizes(model.config, of, blocks.at(-1)?.live ?? false));
  const trained = costs.map((of) => sum(Object.values(of).flatMap((cost) => cost.trained)));
  const parameters = sum(trained);
  /** Gradients of earlier batches are there in every pass but the first. */
  const held = gradientAccumulationSteps > 1 ? parameters : 0;

  const positions = batch * length;
  const { hiddenSize: h, vocabSize, headDim } = model.config;
  const counted = (length - 1) / length;
  /** Of the pass, in bytes, with `gradients` numbers. */
  let most = { activations: 0, gradients: 0, sum: 0 };
  const moment = (perPosition: number, fixed: number, gradients = 0) => {
    const activations = 4 * (positions * perPosition + fixed);
    const bytes = 4 * Math.max(gradients, held);
    if (activations + bytes > most.sum) most = { activations, gradients: bytes, sum: activations + bytes };
  };
  const depth = blocks.length;
  const before = (count: number) => blocks.slice(0, count);
  const kept = (count: number) =>
    gradientCheckpointing ? count * h : sum(before(count).map((block) => block.saved));
  const fixed = (count: number) =>
    gradientCheckpointing ? 0 : sum(before(count).map((block) => block.fixed));
  for (const [i, block] of blocks.entries()) {
    const alive = gradientCheckpointing ? block.forwardWithoutGradients : block.forward;
    moment(kept(i) + alive, fixed(i + 1) + block.forwardFixed);
  }
  // The loss, and the gradient of the last hidden states: from a chunk of logits, or from all of them where the layer is not one product.
  const dense = head instanceof Linear && !head.bias;
  const chunk = Math.min(positions * counted, Math.max(96, Math.floor(2 ** 20 / vocabSize)));
  const logits = dense ? (chunk * vocabSize) / positions + counted * h : 2 * counted * vocabSize;
  moment(kept(depth) + 2 * h + counted * h + 5 + logits, fixed(depth));
  // Backward, block by block: gradients of the adapter take the place of what was kept.
  let gradients = 0;
  for (let i = depth - 1; i >= 0; i--) {
    const again = gradientCheckpointing ? blocks[i] : { saved: 0, fixed: 0 };
    // A checkpoint's block runs forward again first.
    if (gradientCheckpointing)
      moment(kept(i + 1) + h + blocks[i].forward, blocks[i].fixed + blocks[i].forwardFixed, gradients);
    for (const { gone, goneFixed, made, madeFixed, done } of blocks[i].backward)
      moment(
        kept(i + 1) + again.saved - gone + made,
        fixed(i + 1) + again.fixed - goneFixed + madeFixed,
        gradients + sum(done.flatMap((name) => costs[i][name]?.trained ?? [])),
      );
    gradients += trained[i];
  }
  moment(0, 0, gradients);

  const weights =
    4 * length * headDim +
    sum(uniqueTensors(model).map((tensor) => tensor.size * bytesPerElement(tensor.dtype)));
  const each = costs.flatMap((of) => Object.values(of));
  const adapter = 4 * (parameters + shared + sum(each.map((cost) => cost.frozen)));
  const optimizer = sum(each.flatMap((cost) => cost.trained).map((size) => optimizerBytes(size, options)));
  return {
    weights,
    adapter,
    optimizer,
    activations: most.activations,
    gradients: most.gradients,
    peak: weights + adapter + optimizer + most.sum,
  };
}

/** The model's tensors, tied ones once. */
function uniqueTensors(model: LlamaForCausalLM) {
  return [...new Set(model.stateDict().values())];
}
