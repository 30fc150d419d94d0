// Token rates of a LLaMA-shaped model in Q4_0: the generate suite's cases, for peers that read GGUF files.

import { noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { saveGguf, type TokenizerFiles } from "@nomoat/llama";
import { compareArrays } from "../../accuracy.js";
import { integerValues } from "../../inputs.js";
import { ggmlCases, quantized } from "../../suites/generate.js";
import { type ModelShape, modelShapes } from "../../suites/llama-shapes.js";
import { activate, type Sweep, valuesOf } from "../../suites/suite.js";
import type { GenerateTask } from "../protocol.js";
import { once, type PeerCase, temporaryFile } from "./case.js";

const format = "q4_0";
/** Next-token probabilities through all layers, activations rounded to int8 in both, in blocks of different kinds. */
const tolerance = 0.1;
const fewTokens = 8;

/** A SentencePiece vocabulary of that size: bytes, and tokens that no text needs. llama.cpp reads no model without one. */
function anyTokenizer(size: number): TokenizerFiles {
  const special = ["<unk>", "<s>", "</s>"];
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const known = [...special, ...bytes];
  const rest = Array.from({ length: size - known.length }, (_, i) => `▁token${i}`);
  const vocab = Object.fromEntries([...known, ...rest].map((token, id) => [token, id]));
  const flags = { special: true, single_word: false, lstrip: false, rstrip: false, normalized: false };
  const normalizers = [
    { type: "Prepend", prepend: "▁" },
    { type: "Replace", pattern: { String: " " }, content: "▁" },
  ];
  const json = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({ id, content, ...flags })),
    normalizer: { type: "Sequence", normalizers },
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "ByteFallback" },
    model: { type: "BPE", unk_token: "<unk>", fuse_unk: true, byte_fallback: true, vocab, merges: [] },
  };
  const config = { unk_token: "<unk>", bos_token: "<s>", eos_token: "</s>" };
  return { json: JSON.stringify(json), config };
}

/** Writes the model, and computes the next token's probabilities after a few tokens. */
async function make(shape: ModelShape): Promise<{ file: string; few: number[]; wanted: ArrayLike<number> }> {
  await activate("wasm", 1);
  const model = quantized({ model: shape, format });
  try {
    const file = await temporaryFile(`${shape.name}-${format}.gguf`);
    await saveGguf(model, anyTokenizer(shape.vocabSize), file, { type: format });
    const few = integerValues("few", fewTokens, shape.vocabSize);
    const wanted = tidy(() =>
      noGrad(() => {
        const ids = tensor(few, { dtype: "int32", shape: [1, fewTokens] });
        const logits: Tensor = model.forward(ids);
        return valuesOf(
          logits
            .slice([0, 1], [fewTokens - 1, fewTokens])
            .reshape(-1)
            .softmax(),
        );
      }),
    );
    return { file, few: Array.from(few), wanted };
  } finally {
    model.dispose();
  }
}

/** Reading and writing by the model of 91 million weights, and by that of 987 where there is time. */
export function generateCases(sweep: Sweep): PeerCase[] {
  if (sweep.effort === "quick") return [];
  const made = new Map<string, ReturnType<typeof once<Awaited<ReturnType<typeof make>>>>>();
  const names = sweep.effort === "long" ? (["91M", "987M"] as const) : (["91M"] as const);
  return names.flatMap(ggmlCases).map((one) => {
    const { model, prompt, tokens } = one.parameters;
    const shape = modelShapes[model as keyof typeof modelShapes];
    const get = made.get(shape.name) ?? once(() => make(shape));
    made.set(shape.name, get);
    return {
      ...one,
      kind: "generate",
      async task(): Promise<GenerateTask> {
        const { file, few } = await get();
        const ids = Array.from(integerValues("prompt", Number(prompt), shape.vocabSize));
        return { kind: "generate", file, prompt: ids, tokens: Number(tokens), few };
      },
      check: async (values) => compareArrays(values, (await get()).wanted, tolerance),
    };
  });
}
