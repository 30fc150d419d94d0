// The shape of the embedded base model: small enough to live in the repository (4.2 MB in float16), with everything that
// larger ones of its family have: grouped key-value heads, a tied output layer, rotary positions.

import type { LlamaConfig } from "@nomoat/llama";
import { BOS_ID, EOS_ID } from "./bpe.js";

export const config: LlamaConfig = {
  vocabSize: 2048,
  hiddenSize: 160,
  intermediateSize: 448,
  numLayers: 6,
  numHeads: 4,
  numKeyValueHeads: 2,
  headDim: 40,
  maxPositionEmbeddings: 256,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  ropeScaling: null,
  tieWordEmbeddings: true,
  attentionBias: false,
  mlpBias: false,
  bosTokenId: BOS_ID,
  eosTokenIds: [EOS_ID],
};
