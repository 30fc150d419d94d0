// The LLaMA decoder with its output layer: building it from named tensors, running it, its loss.

import {
  type BackendName,
  checkpoint,
  crossEntropy,
  FormatError,
  type Generator,
  gather,
  linearCrossEntropy,
  ShapeError,
  type Tensor,
  tensor,
  tidy,
  weightedCrossEntropy,
  weightedLinearCrossEntropy,
  zeros,
} from "@nomoat/core";
import { Embedding, Linear, type LinearBase, Module, normal, RMSNorm } from "@nomoat/core/nn";
import { LlamaAttention, LlamaBlock, LlamaMLP, type PassState } from "./block.js";
import type { KVCache } from "./cache.js";
import type { LlamaConfig } from "./config.js";
import { replayable } from "./generators.js";
import { RotaryTables } from "./rotary.js";

/** Embedding, blocks and final norm: everything below the output layer. */
export class LlamaModel extends Module {
  readonly embed_tokens: Embedding;
  readonly layers: LlamaBlock[];
  readonly norm: RMSNorm;

  constructor(embedding: Embedding, layers: LlamaBlock[], norm: RMSNorm) {
    super();
    this.embed_tokens = embedding;
    this.layers = layers;
    this.norm = norm;
  }

  override forward(): never {
    throw new ShapeError("LlamaModel is run through LlamaForCausalLM");
  }
}

export interface HiddenOptions {
  /** Positions read before; the new ones are appended. */
  cache?: KVCache | null;
  /** Keep only each block's input for backward and compute the rest again: less memory, a third more time. */
  gradientCheckpointing?: boolean;
}

/** Names and shapes of all tensors of a model of this configuration; the output layer is left out where it is tied. */
export function llamaShapes(config: LlamaConfig): Map<string, number[]> {
  const { hiddenSize: hidden, intermediateSize: inner, headDim } = config;
  const queries = config.numHeads * headDim;
  const keys = config.numKeyValueHeads * headDim;
  const shapes = new Map<string, number[]>([["model.embed_tokens.weight", [config.vocabSize, hidden]]]);
  const linear = (name: string, outFeatures: number, inFeatures: number, bias: boolean): void => {
    shapes.set(`${name}.weight`, [outFeatures, inFeatures]);
    if (bias) shapes.set(`${name}.bias`, [outFeatures]);
  };
  for (let i = 0; i < config.numLayers; i++) {
    const block = `model.layers.${i}`;
    shapes.set(`${block}.input_layernorm.weight`, [hidden]);
    linear(`${block}.self_attn.q_proj`, queries, hidden, config.attentionBias);
    linear(`${block}.self_attn.k_proj`, keys, hidden, config.attentionBias);
    linear(`${block}.self_attn.v_proj`, keys, hidden, config.attentionBias);
    linear(`${block}.self_attn.o_proj`, hidden, queries, config.attentionBias);
    shapes.set(`${block}.post_attention_layernorm.weight`, [hidden]);
    linear(`${block}.mlp.gate_proj`, inner, hidden, config.mlpBias);
    linear(`${block}.mlp.up_proj`, inner, hidden, config.mlpBias);
    linear(`${block}.mlp.down_proj`, hidden, inner, config.mlpBias);
  }
  shapes.set("model.norm.weight", [hidden]);
  if (!config.tieWordEmbeddings) shapes.set("lm_head.weight", [config.vocabSize, hidden]);
  return shapes;
}

/** Tensors in a file that a model may lack without loss: buffers that older versions of Transformers wrote. */
const ignorable = /(?:^|\.)rotary_emb\.inv_freq$/;

/** Faults that a message lists; it counts the others. */
const mostFaults = 8;

/**
 * @param nameOf - what the file calls a tensor
 * @throws {FormatError} listing missing, unexpected and misshapen tensors of a model of this configuration
 */
export function checkShapes(
  config: LlamaConfig,
  given: ReadonlyMap<string, readonly number[]>,
  file: string,
  nameOf: (name: string) => string = (name) => name,
): void {
  const shapes = llamaShapes(config);
  const faults: string[] = [];
  for (const [name, shape] of shapes) {
    const found = given.get(name);
    if (!found) faults.push(`missing "${nameOf(name)}" [${shape.join(", ")}]`);
    else if (found.join() !== shape.join()) {
      faults.push(`"${nameOf(name)}" is [${found.join(", ")}], expected [${shape.join(", ")}]`);
    }
  }
  for (const name of given.keys()) {
    const tied = config.tieWordEmbeddings && name === "lm_head.weight";
    if (!shapes.has(name) && !ignorable.test(name) && !tied)
      faults.push(`unexpected ${JSON.stringify(nameOf(name))}`);
  }
  if (faults.length === 0) return;
  const more = faults.length > mostFaults ? `; and ${faults.length - mostFaults} more` : "";
  const listed = faults.slice(0, mostFaults).join("; ");
  throw new FormatError(`tensors do not fit the model's configuration: ${listed}${more}`, { file });
}

export class LlamaForCausalLM extends Module {
  readonly config: LlamaConfig;
  readonly model: LlamaModel;
  /** The output layer; its weight is the embedding's where they are tied. */
  lm_head: LinearBase;
  readonly #rotary: RotaryTables;

  private constructor(config: LlamaConfig, model: LlamaModel, head: LinearBase) {
    super();
    this.config = config;
    this.model = model;
    this.lm_head = head;
    this.#rotary = new RotaryTables(config);
  }

  /**
   * A model out of tensors by Hugging Face's names, which it takes over.
   * @throws {FormatError} listing every missing, unexpected and misshapen tensor; none is taken then
   */
  static fromTensors(
    config: LlamaConfig,
    tensors: ReadonlyMap<string, Tensor>,
    file = "model.safetensors",
  ): LlamaForCausalLM {
    checkShapes(config, new Map(Array.from(tensors, ([name, { shape }]) => [name, shape])), file);
    const take = (name: string): Tensor => tensors.get(name)!;
    const norm = (name: string): RMSNorm => new RMSNorm(take(`${name}.weight`), config.rmsNormEps);
    const linear = (name: string): Linear =>
      new Linear(take(`${name}.weight`), tensors.get(`${name}.bias`) ?? null);
    const layers = Array.from({ length: config.numLayers }, (_, i) => {
      const block = `model.layers.${i}`;
      const attention = new LlamaAttention(config, i, {
        q_proj: linear(`${block}.self_attn.q_proj`),
        k_proj: linear(`${block}.self_attn.k_proj`),
        v_proj: linear(`${block}.self_attn.v_proj`),
        o_proj: linear(`${block}.self_attn.o_proj`),
      });
      const mlp = new LlamaMLP({
        gate_proj: linear(`${block}.mlp.gate_proj`),
        up_proj: linear(`${block}.mlp.up_proj`),
        down_proj: linear(`${block}.mlp.down_proj`),
      });
      return new LlamaBlock(
        [norm(`${block}.input_layernorm`), norm(`${block}.post_attention_layernorm`)],
        attention,
        mlp,
      );
    });
    const embedding = new Embedding(take("model.embed_tokens.weight"));
    const head = config.tieWordEmbeddings ? new Linear(embedding.weight) : linear("lm_head");
    return new LlamaForCausalLM(config, new LlamaModel(embedding, layers, norm("model.norm")), head);
  }

  /**
   * A model with fresh weights: normal with standard deviation 0.02, those that write to the residual stream divided by
   * √(2 · layers) (Radford et al. 2019), norms 1, biases 0.
   */
  static create(
    config: LlamaConfig,
    options: { generator?: Generator; device?: BackendName } = {},
  ): LlamaForCausalLM {
    const tensors = new Map<string, Tensor>();
    const residual = 0.02 / Math.sqrt(2 * config.numLayers);
    for (const [name, shape] of llamaShapes(config)) {
      const value = name.endsWith("norm.weight") ? 1 : 0;
      const std = /(?:o_proj|down_proj)\.weight$/.test(name) ? residual : 0.02;
      const constant = shape.length === 1;
      tensors.set(
        name,
        constant ? tensor(new Float32Array(shape[0]).fill(value), options) : normal(shape, std, options),
      );
    }
    return LlamaForCausalLM.fromTensors(config, tensors);
  }

  /** What it is in a line: `LlamaForCausalLM: 5 layers of 64, 512 tokens, 260032 weights`, packed or not. */
  override toString(): string {
    const { numLayers, hiddenSize, vocabSize } = this.config;
    let weights = 0;
    for (const shape of llamaShapes(this.config).values()) weights += shape.reduce((a, b) => a * b, 1);
    return `LlamaForCausalLM: ${numLayers} layers of ${hiddenSize}, ${vocabSize} tokens, ${weights} weights`;
  }

  /** For `console.log` in Node, which would show pages of weights. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  /** Final hidden states [batch, length, hiddenSize] of token ids (int32 [batch, length]). */
  hidden(ids: Tensor, options: HiddenOptions = {}): Tensor {
    if (ids.rank !== 2)
      throw new ShapeError(`LlamaForCausalLM: ids must be [batch, length], not [${ids.shape.join(", ")}]`);
    const { cache = null, gradientCheckpointing = false } = options;
    return tidy(() => {
      let x = this.model.embed_tokens.forward(ids);
      const start = cache?.length ?? 0;
      const stateFor = (y: Tensor): PassState => ({ ...this.#rotary.at(start, ids.shape[1], y), cache });
      const state = stateFor(x);
      for (const block of this.model.layers) {
        // What is computed again in backward takes the tables anew: this pass's views of them are gone by then.
        x = gradientCheckpointing
          ? checkpoint(
              replayable(block, (y: Tensor) => block.forward(y, stateFor(y))),
              x,
            )
          : block.forward(x, state);
      }
      if (cache) cache.length = start + ids.shape[1];
      return this.model.norm.forward(x);
    });
  }

  /** Logits [batch, length, vocabSize] of token ids (int32 [batch, length]). */
  override forward(ids: Tensor, options: HiddenOptions = {}): Tensor {
    return tidy(() => this.lm_head.forward(this.hidden(ids, options)));
  }

  /**
   * Cross entropy of each position's prediction of the next token, over the positions that count, in nats.
   *
   * @param ids - int32 [batch, length]
   * @param labels - int32 [batch, length], as Hugging Face: not shifted, −100 where nothing is asked; default `ids`
   * @returns scalar: mean over the counted positions, or their sum
   */
  loss(
    ids: Tensor,
    labels: Tensor = ids,
    options: HiddenOptions & { reduction?: "mean" | "sum" } = {},
  ): Tensor {
    const { reduction = "mean" } = options;
    return tidy(() => {
      const { rows, targets } = nextTokenTargets(labels);
      const counted = this.#counted(ids, rows, options);
      const weight = productWeight(this.lm_head);
      if (weight) return linearCrossEntropy(counted, weight, targets, { reduction });
      return crossEntropy(this.lm_head.forward(counted), targets, { reduction });
    });
  }

  /**
   * As {@link loss}, for rows that belong to different trainings: their losses added up, each row with a factor of its own.
   *
   * @param factors - by rows of the batch
   * @returns total: scalar Σ factor · losses of the row; losses: float [counted positions], outside the graph; rows: of each of them
   */
  lossByRow(
    ids: Tensor,
    labels: Tensor,
    factors: readonly number[],
    options: HiddenOptions = {},
  ): { total: Tensor; losses: Tensor; rows: number[] } {
    const next = nextTokens(labels);
    const length = labels.shape[1];
    const rowOf = next.rows.map((position) => Math.floor(position / length));
    const { dtype } = this.model.norm.weight;
    const of = Float64Array.from(rowOf, (row) => factors[row]);
    const [total, losses] = tidy(() => {
      const { rows, targets } = placed(next, labels);
      const place = { dtype, device: labels.device };
      const each = zeros([rowOf.length], place);
      const counted = this.#counted(ids, rows, options);
      const weight = productWeight(this.lm_head);
      const factorsOf = tensor(of, place);
      const sum = weight
        ? weightedLinearCrossEntropy(counted, weight, targets, factorsOf, { losses: each })
        : weightedCrossEntropy(this.lm_head.forward(counted), targets, factorsOf, { losses: each });
      return [sum, each];
    });
    return { total, losses, rows: rowOf };
  }

  /** Final hidden states of some positions; those that nobody asks about never reach the output layer. */
  #counted(ids: Tensor, positions: Tensor, options: HiddenOptions): Tensor {
    return gather(this.hidden(ids, options).reshape(-1, this.config.hiddenSize), positions);
  }

  override dispose(): void {
    this.#rotary.dispose();
    super.dispose();
  }
}

/**
 * The weight of an output layer that multiplies by it and does nothing else, for a loss that never stores all logits; null for other
 * layers. Layers that stand in for a dense one may give theirs, in the graph, by a method of this name.
 */
function productWeight(head: LinearBase & { productWeight?(): Tensor }): Tensor | null {
  if (head instanceof Linear) return head.bias ? null : head.weight;
  return head.productWeight?.() ?? null;
}

/** Flat positions whose next label counts, and those labels. */
function nextTokens(labels: Tensor): { rows: number[]; targets: number[] } {
  const [batch, length] = labels.shape;
  const values = labels.dataSync();
  const rows: number[] = [];
  const targets: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t + 1 < length; t++) {
      const target = Number(values[b * length + t + 1]);
      if (target === -100) continue;
      rows.push(b * length + t);
      targets.push(target);
    }
  }
  return { rows, targets };
}

/** Both as int32, on the labels' backend. */
function placed(
  { rows, targets }: ReturnType<typeof nextTokens>,
  { device }: Tensor,
): { rows: Tensor; targets: Tensor } {
  const on = (values: number[]) => tensor(Int32Array.from(values), { dtype: "int32", device });
  return { rows: on(rows), targets: on(targets) };
}

/** Flat positions whose next label counts, and those labels (both int32, on the labels' backend). */
export function nextTokenTargets(labels: Tensor): { rows: Tensor; targets: Tensor } {
  return placed(nextTokens(labels), labels);
}
