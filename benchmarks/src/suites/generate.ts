// Text from LLaMA-shaped models: reading a prompt, and tokens one by one over the key-value cache.

import { generateTokens, type LlamaForCausalLM } from "@nomoat/llama";
import { type FormatName, formats, quantizeModel } from "@nomoat/quant";
import { integerValues } from "../inputs.js";
import { BenchError, type Prepared } from "../model.js";
import {
  hasReference,
  type ModelShape,
  modelCheck,
  modelOf,
  modelShapes,
  weightsOf,
} from "./llama-shapes.js";
import { type Case, items, type Suite, type Sweep } from "./suite.js";

export interface Shape {
  readonly model: ModelShape;
  /** A format, or "float32". */
  readonly format: string;
  readonly prompt: number;
  /** New tokens; 0 for reading the prompt alone. */
  readonly tokens: number;
}

/** Weights of a model that fits into a module's memory in float32, with room beside it. */
const mostFloatWeights = 5e8;

/** The output layer of quantized models is in q8_0, as llama.cpp has it; it is the embedding here. */
export function quantized(shape: Pick<Shape, "model" | "format">): LlamaForCausalLM {
  // Halves do for weights that are rounded to four or eight bits at once.
  const large = weightsOf(shape.model).all > mostFloatWeights;
  const model = modelOf(shape.model, large ? "float16" : "float32");
  model.train(false);
  if (shape.format !== "float32") {
    quantizeModel(model, {
      format: shape.format as FormatName,
      activations: "int8",
      outputLayer: true,
      perModule: [["lm_head", "q8_0"]],
    });
  }
  return model;
}

/** Logits through all layers in float32. */
const tolerance = 1e-4;

function prepare(shape: Shape): Prepared {
  const model = quantized(shape);
  const prompt = integerValues("prompt", shape.prompt, shape.model.vocabSize);
  // Whoever reads a prompt wants to know what comes next, and no logits but these.
  const wanted = Math.max(1, shape.tokens);
  const write = async (): Promise<void> => {
    const options = { model, prompt, maxNewTokens: wanted, temperature: 0 };
    let count = 0;
    for await (const _ of generateTokens(options)) count++;
    if (count !== wanted) throw new BenchError(`generate: ${count} tokens came`);
  };
  return {
    run: write,
    ...(shape.format === "float32" &&
      hasReference(shape.model) && {
        verify: () => modelCheck(model, shape.model, "logits", (one, ids) => one.forward(ids), tolerance)(),
      }),
    dispose() {
      model.dispose();
    },
  };
}

/** The case of a model, a format, and so many tokens. */
export function caseOf(shape: Shape): Case {
  const { model, format, prompt, tokens } = shape;
  const { linear, all } = weightsOf(model);
  const output = model.vocabSize * model.hiddenSize;
  const count = tokens === 0 ? prompt : tokens;
  const bits = format === "float32" ? 32 : format === "q8_0" || format === "int8" ? 8.5 : 4.5;
  const kind = tokens === 0 ? "read" : "write";
  const attention = 4 * model.hiddenSize * model.numLayers * (tokens === 0 ? prompt / 2 : prompt);
  return {
    suite: "generate",
    name: `${kind} ${model.name} ${format} ${tokens === 0 ? "" : `${tokens} after `}${prompt} tokens`,
    parameters: { kind, model: model.name, format, prompt, tokens, weights: all },
    // Written tokens read every weight again each.
    work: items(
      count,
      "tokens",
      // Of a prompt, the output layer sees the last token alone.
      count * (2 * (linear - output) + attention) + 2 * output * Math.max(1, tokens),
      (tokens === 0 ? 1 : tokens) * linear * (bits / 8),
    ),
    prepare: () => prepare(shape),
  };
}

/** Reading and writing as llama.cpp is measured. */
export function ggmlCases(name: keyof typeof modelShapes): Case[] {
  const shared = { model: modelShapes[name], format: "q4_0" };
  return [
    { ...shared, prompt: 512, tokens: 0 },
    { ...shared, prompt: 16, tokens: 32 },
  ].map(caseOf);
}

function formatsOf(sweep: Sweep): string[] {
  const wanted =
    sweep.formats ?? (sweep.effort === "quick" ? ["float32", "q4_0"] : ["float32", "q8_0", "q4_0", "nf4"]);
  for (const name of wanted) {
    if (name !== "float32" && !Object.hasOwn(formats, name)) {
      throw new BenchError(`unknown format "${name}" (known: float32, ${Object.keys(formats).join(", ")})`);
    }
  }
  return [...wanted];
}

export const generate: Suite = {
  name: "generate",
  about: "tokens a second of LLaMA-shaped models: reading a prompt, writing one by one",
  cases(sweep) {
    const models: ModelShape[] =
      sweep.effort === "quick"
        ? [modelShapes.tiny]
        : [modelShapes["15M"], ...(sweep.effort === "long" ? [modelShapes["91M"]] : [])];
    const prompt = sweep.effort === "quick" ? 64 : 512;
    const usual = models.flatMap((model) =>
      formatsOf(sweep).flatMap((format) =>
        [0, sweep.effort === "quick" ? 16 : 32].map((tokens) =>
          caseOf({ model, format, prompt: tokens === 0 ? prompt : 16, tokens }),
        ),
      ),
    );
    return sweep.effort === "long" && !sweep.formats ? [...usual, ...ggmlCases("987M")] : usual;
  },
};
