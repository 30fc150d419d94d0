// LLaMA-shaped models with random weights: what a model of that size costs, whatever it has learnt.

import { type BackendName, Generator, type Tensor, tensor, tidy, withBackend } from "@nomoat/core";
import { type LlamaConfig, LlamaForCausalLM, llamaShapes } from "@nomoat/llama";
import { compareArrays } from "../accuracy.js";
import { integerValues } from "../inputs.js";
import type { Accuracy } from "../model.js";
import { toReference } from "../reference.js";

export interface ModelShape {
  readonly name: string;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKeyValueHeads: number;
  readonly vocabSize: number;
}

const tiny: ModelShape = {
  name: "tiny",
  hiddenSize: 64,
  intermediateSize: 192,
  numLayers: 5,
  numHeads: 8,
  numKeyValueHeads: 4,
  vocabSize: 512,
};

/** The shapes by name: about that of stories260K, that of stories15M, and two of about 91 and 110 million parameters. */
export const modelShapes = {
  tiny,
  "15M": {
    ...{ ...tiny, name: "15M", hiddenSize: 288, intermediateSize: 768, numLayers: 6 },
    ...{ numHeads: 6, numKeyValueHeads: 6, vocabSize: 32000 },
  },
  "91M": {
    ...{ ...tiny, name: "91M", hiddenSize: 768, intermediateSize: 2048, numLayers: 9 },
    ...{ numHeads: 12, numKeyValueHeads: 12, vocabSize: 32000 },
  },
  "110M": {
    ...{ ...tiny, name: "110M", hiddenSize: 768, intermediateSize: 2048, numLayers: 12 },
    ...{ numHeads: 12, numKeyValueHeads: 12, vocabSize: 32000 },
  },
} as const satisfies Record<string, ModelShape>;

export function configOf(shape: ModelShape): LlamaConfig {
  const { name: _, ...sizes } = shape;
  return {
    ...sizes,
    headDim: shape.hiddenSize / shape.numHeads,
    maxPositionEmbeddings: 2048,
    rmsNormEps: 1e-5,
    ropeTheta: 10000,
    ropeScaling: null,
    tieWordEmbeddings: true,
    attentionBias: false,
    mlpBias: false,
    bosTokenId: 1,
    eosTokenIds: [],
  };
}

/** A model with seeded weights on the active backend. */
export function modelOf(shape: ModelShape): LlamaForCausalLM {
  return LlamaForCausalLM.create(configOf(shape), { generator: new Generator(7) });
}

/** Weights in linear layers (the output layer among them, the embedding not), and all weights. */
export function weightsOf(shape: ModelShape): { linear: number; all: number } {
  let all = 0;
  let linear = 0;
  for (const [, size] of llamaShapes(configOf(shape))) {
    const count = size.reduce((product, extent) => product * extent, 1);
    all += count;
    // The tied embedding serves as output layer.
    if (size.length === 2) linear += count;
  }
  return { linear, all };
}

/** Weights of the largest model that the float64 reference computes in seconds. */
const mostReferenceWeights = 2e7;

/** Whether `compareModel` is quick enough. */
export function hasReference(shape: ModelShape): boolean {
  return weightsOf(shape).all <= mostReferenceWeights;
}

/**
 * Compares what `compute` makes of the model and 8 tokens with the same weights in float64.
 *
 * @param model - float32, not quantized
 */
export function compareModel(
  model: LlamaForCausalLM,
  shape: ModelShape,
  compute: (model: LlamaForCausalLM, ids: Tensor) => Tensor,
  tolerance: number,
): Accuracy {
  const values = integerValues("few", 8, shape.vocabSize);
  const resultOf = (one: LlamaForCausalLM, device: BackendName): ArrayLike<number> =>
    tidy(() => {
      const ids = tensor(values, { dtype: "int32", shape: [1, 8], device });
      return Array.from(compute(one, ids).dataSync() as ArrayLike<number>);
    });
  const state = [...model.stateDict()].filter(([name]) => name !== "lm_head.weight");
  return withBackend("reference", () => {
    const weights = new Map(state.map(([name, one]) => [name, toReference(one)]));
    const twin = LlamaForCausalLM.fromTensors(configOf(shape), weights);
    try {
      const { device } = model.model.embed_tokens.weight;
      return compareArrays(resultOf(model, device), resultOf(twin, "reference"), tolerance);
    } finally {
      twin.dispose();
    }
  });
}
