// LLaMA-shaped models with random weights: what a model of that size costs, whatever it has learnt.

import {
  activeBackend,
  type BackendName,
  full,
  noGrad,
  type Tensor,
  tensor,
  tidy,
  withBackend,
} from "@nomoat/core";
import { empty, operand } from "@nomoat/core/extend";
import { type LlamaConfig, LlamaForCausalLM, llamaShapes } from "@nomoat/llama";
import { compareArrays, sharedReference } from "../accuracy.js";
import { hash, integerValues, uniformValues } from "../inputs.js";
import type { Accuracy } from "../model.js";
import { toReference } from "../reference.js";
import { type FloatDtype, stored } from "./suite.js";

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

/** The shapes by name: about that of stories260K, that of stories15M, and three of so many million parameters. */
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
  "987M": {
    ...{ ...tiny, name: "987M", hiddenSize: 2048, intermediateSize: 5600, numLayers: 18 },
    ...{ numHeads: 16, numKeyValueHeads: 16, vocabSize: 32000 },
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

/** Weights are cut from a stretch of so many random values, each from a place of its own; a prime, so that rows differ. */
const stretch = 1_000_003;
const deviation = 0.02;

/** Seeded weights; a hundred million of them would otherwise take longer to draw than a step to compute. */
function fillWeights(values: Float32Array, name: string, source: Float32Array): void {
  let at = hash(name) % stretch;
  for (let done = 0; done < values.length; at = 0) {
    const part = source.subarray(at, Math.min(stretch, at + values.length - done));
    values.set(part, done);
    done += part.length;
  }
}

/** A tensor with seeded weights, written where they are to stand: an array beside it would count as the step's memory. */
function seededWeights(name: string, shape: readonly number[], source: Float32Array): Tensor {
  const backend = activeBackend();
  const one = empty(backend, "float32", shape);
  if (backend.window) fillWeights(backend.window(operand(one)) as Float32Array, name, source);
  else {
    const values = new Float32Array(one.size);
    fillWeights(values, name, source);
    backend.write(one.storage.buffer, 0, new Uint8Array(values.buffer));
  }
  return one;
}

/**
 * A model with seeded weights on the active backend: norms of one, all others uniform with a deviation of 0.02.
 *
 * @param dtype - of its matrices; in float32 a billion of them fill the memory that a wasm module has
 */
export function modelOf(shape: ModelShape, dtype: FloatDtype = "float32"): LlamaForCausalLM {
  const half = deviation * Math.sqrt(3);
  const source = uniformValues("weights", stretch, -half, half);
  const tensors = new Map<string, Tensor>();
  for (const [name, size] of llamaShapes(configOf(shape))) {
    tensors.set(name, size.length === 1 ? full(size, 1) : stored(seededWeights(name, size, source), dtype));
  }
  return LlamaForCausalLM.fromTensors(configOf(shape), tensors);
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

/** Whether `modelCheck` is quick enough. */
export function hasReference(shape: ModelShape): boolean {
  return weightsOf(shape).all <= mostReferenceWeights;
}

/**
 * What `compute` makes of the model and 8 tokens now, to be compared later with the same weights in float64: the first to compare
 * takes seconds.
 *
 * @param model - float32, as `modelOf` gives it
 * @param what - names what is computed
 */
export function modelCheck(
  model: LlamaForCausalLM,
  shape: ModelShape,
  what: string,
  compute: (model: LlamaForCausalLM, ids: Tensor) => Tensor,
  tolerance: number,
): () => Accuracy {
  const values = integerValues("few", 8, shape.vocabSize);
  const resultOf = (one: LlamaForCausalLM, device: BackendName): Float64Array =>
    tidy(() => {
      const ids = tensor(values, { dtype: "int32", shape: [1, 8], device });
      return noGrad(() => Float64Array.from(compute(one, ids).dataSync() as ArrayLike<number>));
    });
  const reference = (): Float64Array => {
    const fresh = modelOf(shape);
    const state = [...fresh.stateDict()].filter(([name]) => name !== "lm_head.weight");
    const twin = withBackend("reference", () =>
      LlamaForCausalLM.fromTensors(
        configOf(shape),
        new Map(state.map(([name, one]) => [name, toReference(one)])),
      ),
    );
    fresh.dispose();
    try {
      return withBackend("reference", () => resultOf(twin, "reference"));
    } finally {
      twin.dispose();
    }
  };
  const result = resultOf(model, model.model.embed_tokens.weight.device);
  return () => compareArrays(result, sharedReference(`model ${shape.name} ${what}`, reference), tolerance);
}
