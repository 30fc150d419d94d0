// Training steps of LLaMA-shaped models with low-rank adapters: the train-step suite's cases, on the same weights.

import { type Tensor, tensor, tidy } from "@nomoat/core";
import { AdamW, clipGradNorm } from "@nomoat/core/optim";
import { applyLora } from "@nomoat/lora";
import { compareArrays } from "../../accuracy.js";
import { integerValues } from "../../inputs.js";
import { configOf, type ModelShape, modelOf, modelShapes } from "../../suites/llama-shapes.js";
import { activate, type Sweep } from "../../suites/suite.js";
import { trainStep } from "../../suites/train-step.js";
import type { TrainTask } from "../protocol.js";
import { writeTensors } from "../stored.js";
import { once, type PeerCase, temporaryFile } from "./case.js";

const learningRate = 1e-4;
const losses = 2;
/** Losses of about 10, of a float32 model against another, the second one after a step. */
const tolerance = 1e-4;

interface Shape {
  readonly model: ModelShape;
  readonly batch: number;
  readonly length: number;
  readonly rank: number;
}

/** Writes the weights, and computes the first losses. */
async function make({
  model: shape,
  batch,
  length,
  rank,
}: Shape): Promise<{ task: TrainTask; wanted: number[] }> {
  await activate("wasm", 1);
  const model = modelOf(shape);
  // The output layer is the embedding. Names are those of before the adapters.
  const state = [...model.stateDict()].filter(([name]) => name !== "lm_head.weight");
  const adapter = applyLora(model, { r: rank, targetModules: "all-linear" });
  const trained = adapter.parameters().filter((one) => one.requiresGrad);
  const optimizer = new AdamW(trained, { learningRate });
  const values = integerValues("ids", batch * length, shape.vocabSize);
  const ids = tensor(values, { dtype: "int32", shape: [batch, length] });
  try {
    const tensors = [...state, ...adapterTensors(adapter.stateDict())];
    const file = await temporaryFile(`${shape.name}-r${rank}.bin`);
    const stored = await writeTensors(
      file,
      tensors.map(([name, one]) => [
        name,
        { values: Float32Array.from(one.dataSync() as ArrayLike<number>), shape: one.shape },
      ]),
    );
    model.train(true);
    const wanted: number[] = [];
    for (let i = 0; i < losses; i++) {
      tidy(() => {
        const loss = model.loss(ids);
        wanted.push(loss.item());
        loss.backward();
      });
      clipGradNorm(trained, 1);
      optimizer.step();
      optimizer.zeroGrad();
    }
    const config = configOf(shape);
    const task: TrainTask = {
      kind: "train-step",
      stored,
      heads: shape.numHeads,
      layers: shape.numLayers,
      epsilon: config.rmsNormEps,
      theta: config.ropeTheta,
      learningRate,
      ids: Array.from({ length: batch }, (_, row) =>
        Array.from(values.subarray(row * length, (row + 1) * length)),
      ),
      losses,
    };
    return { task, wanted };
  } finally {
    optimizer.dispose();
    ids.dispose();
    model.dispose();
  }
}

/** Adapter matrices as `LAYER.lora_A` and `LAYER.lora_B`. */
function adapterTensors(state: Iterable<readonly [string, Tensor]>): (readonly [string, Tensor])[] {
  return [...state].map(([name, one]) => {
    const [, layer, which] = /^(?:base_model\.model\.)?(.*)\.(lora_[AB])(?:\.\w+)?$/.exec(name)!;
    return [`${layer.replace(/\.weight$/, "")}.${which}`, one] as const;
  });
}

/** The steps with adapters on dense weights. */
export function trainCases(sweep: Sweep): PeerCase[] {
  return trainStep
    .cases({ ...sweep, effort: sweep.effort === "quick" ? "quick" : "long" })
    .filter(
      ({ parameters: { mode, model } }) => mode === "lora" && (sweep.effort === "quick" || model !== "tiny"),
    )
    .map((one) => {
      const { model, batch, length, rank } = one.parameters;
      const shape = modelShapes[model as keyof typeof modelShapes];
      const made = once(() =>
        make({ model: shape, batch: Number(batch), length: Number(length), rank: Number(rank) }),
      );
      return {
        ...one,
        kind: "train-step",
        task: async () => (await made()).task,
        check: async (result) => compareArrays(result, (await made()).wanted, tolerance),
      };
    });
}
