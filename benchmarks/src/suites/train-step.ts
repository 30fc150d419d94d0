// Whole training steps of LLaMA-shaped models: loss, backward, clipping, AdamW. With LoRA on a dense and on a 4-bit base, and
// of all weights.

import { tensor, tidy } from "@nomoat/core";
import { AdamW, clipGradNorm } from "@nomoat/core/optim";
import { applyLora } from "@nomoat/lora";
import { quantizeModel } from "@nomoat/quant";
import { integerValues } from "../inputs.js";
import type { Prepared } from "../model.js";
import {
  hasReference,
  type ModelShape,
  modelCheck,
  modelOf,
  modelShapes,
  weightsOf,
} from "./llama-shapes.js";
import { type Case, items, type Suite } from "./suite.js";

type Mode = "lora" | "lora-nf4" | "full";

interface Shape {
  readonly model: ModelShape;
  readonly mode: Mode;
  readonly batch: number;
  readonly length: number;
}

const rank = 8;
/** Loss of a small batch in float32 against float64. */
const tolerance = 1e-5;

function prepare({ model: shape, mode, batch, length }: Shape): Prepared {
  const model = modelOf(shape);
  // Before anything is trained.
  const verify = hasReference(shape)
    ? modelCheck(model, shape, "loss", (one, few) => one.loss(few), tolerance)
    : null;
  if (mode === "lora-nf4") quantizeModel(model, { format: "nf4" });
  const adapter = mode === "full" ? null : applyLora(model, { r: rank, targetModules: "all-linear" });
  const trained = (adapter ?? model).parameters().filter((one) => one.requiresGrad);
  const optimizer = new AdamW(trained, { learningRate: 1e-4 });
  const ids = tensor(integerValues("ids", batch * length, shape.vocabSize), {
    dtype: "int32",
    shape: [batch, length],
  });
  model.train(true);
  return {
    run() {
      tidy(() => model.loss(ids).backward());
      clipGradNorm(trained, 1);
      optimizer.step();
      optimizer.zeroGrad();
    },
    ...(verify && { verify }),
    dispose() {
      optimizer.dispose();
      ids.dispose();
      model.dispose();
    },
  };
}

function caseOf(shape: Shape): Case {
  const { model, mode, batch, length } = shape;
  const { linear, all } = weightsOf(model);
  const tokens = batch * length;
  // Forward and dx, dW too where all is trained; causal attention sees half of the text, two products forward, five back.
  const products = (mode === "full" ? 6 : 4) * tokens * linear;
  const scores = 7 * tokens * length * model.hiddenSize * model.numLayers;
  const weightBytes = mode === "lora-nf4" ? 0.6 : 4;
  return {
    suite: "train-step",
    name: `${mode}${mode === "full" ? "" : ` r${rank}`} ${model.name} ${batch}x${length} tokens`,
    parameters: { model: model.name, mode, batch, length, rank: mode === "full" ? 0 : rank, weights: all },
    work: items(tokens, "tokens", products + scores, (mode === "full" ? 7 : 2) * all * weightBytes),
    prepare: () => prepare(shape),
  };
}

export const trainStep: Suite = {
  name: "train-step",
  about: "loss, backward, clipping and AdamW of LLaMA-shaped models: LoRA, LoRA on NF4, all weights",
  cases(sweep) {
    const { tiny } = modelShapes;
    const quick: Shape[] = (["lora", "lora-nf4", "full"] as const).map((mode) => ({
      ...{ model: tiny, mode, batch: 2, length: 64 },
    }));
    if (sweep.effort === "quick") return quick.map(caseOf);
    const stories = { model: modelShapes["15M"], batch: 4, length: 256 };
    const standard: Shape[] = [
      ...quick,
      { ...stories, mode: "lora" },
      { ...stories, mode: "lora-nf4" },
      { ...stories, mode: "full" },
    ];
    const large = { model: modelShapes["110M"], batch: 1, length: 256 };
    const long: Shape[] = [
      { ...large, mode: "lora" },
      { ...large, mode: "lora-nf4" },
    ];
    return [...standard, ...(sweep.effort === "long" ? long : [])].map(caseOf);
  },
};
