// Multi-head attention (Vaswani et al., arXiv:1706.03762) as a layer of four linear ones.

import { describe, requireOptions, requireProbability, use } from "../arguments.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { scaledDotProductAttention } from "../ops/attention.js";
import { permute, reshape } from "../ops/view.js";
import type { Generator } from "../random.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { Linear, LinearBase, type LinearOptions, linearGroup } from "./linear.js";
import { Module } from "./module.js";

export interface MultiheadAttentionArguments {
  /** Where keys and values come from (default: x itself), [batch, keys, embedDim]. */
  memory?: Tensor;
  /** Position i sees positions up to i only, aligned to the end of the keys (default false). */
  causal?: boolean;
  /** Bool (true where seen) or additive, broadcast to [batch, heads, queries, keys]. */
  mask?: Tensor;
}

export interface MultiheadAttentionOptions extends LinearOptions {
  /** Probability with which each weight of a position is dropped in training (default 0). */
  dropout?: number;
}

function checkNumbers(width: number, numHeads: number, dropout: number): void {
  if (!(Number.isInteger(numHeads) && numHeads > 0) || width % numHeads !== 0)
    throw new ArgumentError(`MultiheadAttention: ${width} features do not divide into ${numHeads} heads`);
  requireProbability("MultiheadAttention", "dropout", dropout);
}

/** The projections are linear layers of their own, by Hugging Face's names, so that they can be quantized and adapted. */
export class MultiheadAttention extends Module {
  static override get brand(): string {
    return "@nomoat/core/MultiheadAttention";
  }

  readonly numHeads: number;
  readonly q_proj: LinearBase;
  readonly k_proj: LinearBase;
  readonly v_proj: LinearBase;
  readonly out_proj: LinearBase;
  /** Probability with which each weight of a position is dropped in training. */
  readonly dropout: number;
  readonly generator: Generator | undefined;

  constructor(
    numHeads: number,
    projections: { q: LinearBase; k: LinearBase; v: LinearBase; out: LinearBase },
    dropout = 0,
    generator?: Generator,
  ) {
    super();
    requireOptions("MultiheadAttention", projections);
    for (const name of ["q", "k", "v", "out"] as const) {
      if (!(projections[name] instanceof LinearBase))
        throw new ArgumentError(
          `MultiheadAttention: ${name} must be a linear layer, not ${describe(projections[name])}`,
        );
    }
    checkNumbers(projections.q.outFeatures, numHeads, dropout);
    this.numHeads = numHeads;
    this.dropout = dropout;
    this.generator = generator;
    this.q_proj = projections.q;
    this.k_proj = projections.k;
    this.v_proj = projections.v;
    this.out_proj = projections.out;
  }

  /** `options.generator` makes the weights; dropout draws from the one that `manualSeed` seeds. */
  static create(
    embedDim: number,
    numHeads: number,
    options: MultiheadAttentionOptions = {},
  ): MultiheadAttention {
    requireOptions("MultiheadAttention", options);
    const { dropout = 0, ...linear } = options;
    checkNumbers(embedDim, numHeads, dropout);
    const make = () => Linear.create(embedDim, embedDim, linear);
    return new MultiheadAttention(numHeads, { q: make(), k: make(), v: make(), out: make() }, dropout);
  }

  /** x [batch, queries, embedDim] → the same shape. */
  override forward(x: Tensor, options: MultiheadAttentionArguments = {}): Tensor {
    requireOptions("MultiheadAttention", options, ["memory", "causal", "mask"]);
    const { memory = x, causal, mask } = options;
    for (const [name, t] of [
      ["x", x],
      ["memory", memory],
    ] as const) {
      use("MultiheadAttention", t);
      if (t.rank !== 3)
        throw new ShapeError(
          `MultiheadAttention: ${name} must be [batch, length, embedDim], not ${formatShape(t.shape)}`,
        );
    }
    return tidy(() => {
      // [batch, length, width] → [batch, heads, length, headDim]
      const heads = (t: Tensor) => {
        const [batch, length, width] = t.shape;
        return permute(reshape(t, [batch, length, this.numHeads, width / this.numHeads]), [0, 2, 1, 3]);
      };
      const { q_proj, k_proj, v_proj } = this;
      const [q, k, v] =
        memory === x
          ? linearGroup(x, [q_proj, k_proj, v_proj])
          : [q_proj.forward(x), ...linearGroup(memory, [k_proj, v_proj])];
      const seen = scaledDotProductAttention(heads(q), heads(k), heads(v), {
        causal,
        mask,
        dropoutP: this.training ? this.dropout : 0,
        generator: this.generator,
      });
      const [batch, , length] = seen.shape;
      const width = seen.shape[1] * seen.shape[3];
      return this.out_proj.forward(reshape(permute(seen, [0, 2, 1, 3]), [batch, length, width]));
    });
  }
}
