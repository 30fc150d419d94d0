// Forward and backward through a gated MLP with low-rank adapters: the lora suite's case, on values that peers read from a file.

import { type Tensor, tidy } from "@nomoat/core";
import { compareArrays } from "../../accuracy.js";
import { uniformValues } from "../../inputs.js";
import type { Accuracy } from "../../model.js";
import { worst } from "../../reference.js";
import { lora, modelOf, pass, type Shape } from "../../suites/lora.js";
import { activate, type Case, type Sweep, seeded } from "../../suites/suite.js";
import type { LoraMlpTask } from "../protocol.js";
import { type Values, writeTensors } from "../stored.js";
import { once, type PeerCase, temporaryFile } from "./case.js";

/** float32 against float32: sums of up to 2048 products, in another order. */
const tolerance = 5e-5;

const values = (x: Tensor): Float32Array => Float32Array.from(x.dataSync() as ArrayLike<number>);

/** Values of all tensors of the task, and what ours makes of them. */
async function make(shape: Shape): Promise<{ task: LoraMlpTask; wanted: Float32Array[] }> {
  await activate("wasm", 1);
  const { rows, inFeatures, outFeatures, rank } = shape;
  const model = modelOf(shape);
  const stored = new Map<string, Values>();
  const x = seeded("x", [rows, inFeatures], -1, 1);
  const dy = seeded("dy", [rows, inFeatures]);
  try {
    const keep = (name: string, tensor: Tensor): void => {
      stored.set(name, { values: values(tensor), shape: tensor.shape });
    };
    keep("x", x);
    keep("dy", dy);
    const trained = model.parameters().filter((one) => one.requiresGrad);
    const projections = ["gate", "up", "down"];
    trained.forEach((one, i) => {
      const name = `${projections[Math.floor(i / 2)]}.${one.shape[0] === rank ? "A" : "B"}`;
      keep(name, one);
    });
    for (const name of projections) {
      const size = name === "down" ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
      stored.set(`${name}.weight`, {
        values: uniformValues(name, inFeatures * outFeatures, -0.05, 0.05),
        shape: size,
      });
    }
    const wanted = tidy(() => pass(model, x, dy).map(values));
    const file = await temporaryFile(`lora-mlp-${rows}x${inFeatures}x${outFeatures}.bin`);
    return { task: { kind: "lora-mlp", stored: await writeTensors(file, stored) }, wanted };
  } finally {
    model.dispose();
    x.dispose();
    dy.dispose();
  }
}

function compare(result: ArrayLike<number>, wanted: readonly Float32Array[]): Accuracy {
  let at = 0;
  const all = Float32Array.from(result);
  const parts = wanted.map((one) => {
    const part = compareArrays(all.subarray(at, at + one.length), one, tolerance);
    at += one.length;
    return part;
  });
  return worst(parts);
}

/** The dense MLP blocks of a sweep. */
export function loraMlpCases(sweep: Sweep): PeerCase[] {
  const wanted = ({ parameters: { kind, format } }: Case): boolean => kind === "mlp" && format === "none";
  return lora
    .cases(sweep)
    .filter(wanted)
    .map((one) => {
      const made = once(() => make(one.parameters as unknown as Shape));
      return {
        ...one,
        kind: "lora-mlp",
        task: async () => (await made()).task,
        check: async (result) => compare(result, (await made()).wanted),
      };
    });
}
