// How much memory fine-tuning will take, worked out from shapes before anything is run. What a pass keeps and what is alive at its
// fullest moments follows the operations of model/block.ts and their gradient rules, in float32.

import { ArgumentError, bytesPerElement } from "@nomoat/core";
import { Linear } from "@nomoat/core/nn";
import { type LoraConfig, resolveLoraConfig, resolveTargets, type Target } from "@nomoat/lora";
import type { LlamaConfig } from "./model/config.js";
import type { LlamaForCausalLM } from "./model/model.js";

export interface MemoryEstimateOptions {
  /** As in `finetune` (default false). */
  gradientCheckpointing?: boolean;
  /** As in `finetune` (default 1): with more, gradients outlast each batch's pass. */
  gradientAccumulationSteps?: number;
  /** What keeps the moments (default "AdamW"); `finetune` takes AdamW. */
  optimizer?: "AdamW" | "AdamW8bit";
  /** Numbers that another optimizer keeps for each trained one, in the place of `optimizer`'s. */
  optimizerSlots?: number;
}

/** Bytes at the fullest moment of a training step after the first. */
export interface MemoryEstimate {
  /** The model's weights, packed ones as they are, and its tables of positions. */
  readonly weights: number;
  /** The adapter's matrices. */
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
type Ranks = Partial<Record<Projection, number>>;

/** float32 numbers for each position of the batch. */
interface BlockSizes {
  /** Kept for backward. */
  readonly saved: number;
  /** All that a forward pass makes, alive until its scope ends. */
  readonly made: number;
  /** Likewise without gradients. */
  readonly madeWithoutGradients: number;
  /** Temporaries of the feed-forward part's backward, beyond what was saved. */
  readonly backward: number;
}

function blockSizes(config: LlamaConfig, ranks: Ranks): BlockSizes {
  const { hiddenSize: h, intermediateSize: inner, numHeads, headDim } = config;
  const q = numHeads * headDim;
  const k = config.numKeyValueHeads * headDim;
  const has = (...names: Projection[]) => names.some((name) => ranks[name] !== undefined);
  const products = Object.values(ranks).reduce((sum, r) => sum + r, 0);
  // Norms keep input and factor, attention its inputs, output and the logarithms of its sums, swiglu its inputs; low-rank updates their
  // input and the product with A. Frozen linear layers keep nothing.
  const norms = 2 * (h + 1);
  const attention = 2 * q + 2 * k + numHeads;
  const inputs = (has("q_proj", "k_proj", "v_proj") ? h : 0) + (has("gate_proj", "up_proj") ? h : 0);
  const gated = has("down_proj") ? inner : 0;
  const saved = norms + attention + 2 * inner + inputs + gated + products;
  // Beside those, projections before rotation, and the outputs of both halves.
  const made = norms + attention + q + k + 2 * h + 3 * inner + 2 * h + products;
  return {
    saved,
    made,
    madeWithoutGradients: made - products - numHeads - 2,
    backward: h + (gated > 0 ? 2 : 3) * inner,
  };
}

/** Ranks of the adapted projections of each block. */
function ranksByBlock(model: LlamaForCausalLM, targets: readonly Target[]): Ranks[] {
  const blocks: Ranks[] = model.model.layers.map(() => ({}));
  for (const { name, r } of targets) {
    const [, index, projection] = /^model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)$/.exec(name) ?? [];
    if (index === undefined || !projections.includes(projection as Projection))
      throw new ArgumentError(`estimateMemory: adapters on ${name} are not covered`);
    blocks[Number(index)][projection as Projection] = r;
  }
  return blocks;
}

/** Numbers in each of the low-rank matrices of one block. */
function matricesOf(config: LlamaConfig, ranks: Ranks): number[] {
  const { hiddenSize: h, intermediateSize: inner, headDim } = config;
  const q = config.numHeads * headDim;
  const k = config.numKeyValueHeads * headDim;
  const sizes: Record<Projection, readonly [number, number]> = {
    q_proj: [h, q],
    k_proj: [h, k],
    v_proj: [h, k],
    o_proj: [q, h],
    gate_proj: [h, inner],
    up_proj: [h, inner],
    down_proj: [inner, h],
  };
  return projections.flatMap((name) => sizes[name].map((features) => (ranks[name] ?? 0) * features));
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
 * @param model - without adapters, its projections dense or quantized
 * @param config - of the adapter to be: plain or rank-stabilized LoRA on the blocks' projections
 * @param batch - rows of a batch
 * @param length - tokens of a row
 * @throws {ArgumentError} for another kind of adapter, other targets, an output layer that is quantized, or sizes out of range
 */
export function estimateMemory(
  model: LlamaForCausalLM,
  config: Partial<LoraConfig>,
  batch: number,
  length: number,
  options: MemoryEstimateOptions = {},
): MemoryEstimate {
  const { gradientCheckpointing = false, gradientAccumulationSteps = 1, optimizerSlots = 2 } = options;
  const { optimizer: kind = "AdamW" } = options;
  if (kind !== "AdamW" && kind !== "AdamW8bit")
    throw new ArgumentError(`estimateMemory: optimizer must be "AdamW" or "AdamW8bit", not "${kind}"`);
  const complete = resolveLoraConfig(config);
  const { peftType, useDora, bias, modulesToSave, loraBias } = complete;
  if (peftType !== "LORA" || useDora || loraBias || bias !== "none" || modulesToSave?.length)
    throw new ArgumentError(
      "estimateMemory: only LoRA without DoRA, trained biases and modules to save is covered",
    );
  for (const [name, value, least] of [
    ["batch", batch, 1],
    ["length", length, 2],
    ["gradientAccumulationSteps", gradientAccumulationSteps, 1],
    ["optimizerSlots", optimizerSlots, 0],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < least)
      throw new ArgumentError(`estimateMemory: ${name} must be an integer, at least ${least}, not ${value}`);
  }
  if (!(model.lm_head instanceof Linear) || model.lm_head.bias)
    throw new ArgumentError("estimateMemory: an output layer that is quantized or adapted is not covered");
  const ranks = ranksByBlock(model, resolveTargets(model, complete));
  const blocks = ranks.map((of) => blockSizes(model.config, of));
  const matrices = ranks.map((of) => matricesOf(model.config, of));
  const trained = matrices.map((sizes) => sizes.reduce((sum, size) => sum + size, 0));
  const parameters = trained.reduce((sum, count) => sum + count, 0);
  /** Gradients of earlier batches are there in every pass but the first. */
  const held = gradientAccumulationSteps > 1 ? parameters : 0;

  const positions = batch * length;
  const { hiddenSize: h, intermediateSize: inner, vocabSize, headDim } = model.config;
  const counted = (length - 1) / length;
  /** Of the pass, in bytes, with `gradients` numbers. */
  let most = { activations: 0, gradients: 0, sum: 0 };
  const moment = (perPosition: number, gradients = 0) => {
    const [activations, bytes] = [4 * positions * perPosition, 4 * Math.max(gradients, held)];
    if (activations + bytes > most.sum) most = { activations, gradients: bytes, sum: activations + bytes };
  };
  // The first block's input has no gradient, so its norm keeps nothing.
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const depth = blocks.length;
  const kept = (count: number) =>
    gradientCheckpointing ? count * h : sum(blocks.slice(0, count).map((block) => block.saved)) - h - 1;
  // The forward pass of the blocks: without checkpoints all that it makes lives until its end.
  if (gradientCheckpointing)
    for (const [i, block] of blocks.entries()) moment(i * h + h + block.madeWithoutGradients);
  else moment(sum(blocks.map((block) => block.made)) + 2 * h + 2);
  // The loss: a chunk of logits, the gradient of the last hidden states, and what those come from.
  const chunk = Math.min(positions * counted, Math.max(96, Math.floor(2 ** 20 / vocabSize)));
  moment(kept(depth) + 2 * h + 2 * counted * h + 5 + (chunk * vocabSize) / positions);
  // Backward, block by block: gradients of the adapter take the place of what was kept.
  let gradients = 0;
  for (let i = depth - 1; i >= 0; i--) {
    const again = gradientCheckpointing ? blocks[i].saved : 0;
    moment(kept(i + 1) + again + blocks[i].backward, gradients + (ranks[i].down_proj ?? 0) * (inner + h));
    gradients += trained[i];
  }
  moment(0, gradients);

  const weights =
    4 * length * headDim +
    sum(uniqueTensors(model).map((tensor) => tensor.size * bytesPerElement(tensor.dtype)));
  const adapter = 4 * parameters;
  const optimizer = matrices.flat().reduce((sum, size) => sum + optimizerBytes(size, options), 0);
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
