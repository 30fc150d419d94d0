// Wrong arguments, of every public function of quant, lora and llama and of core's files: an error of our own, or none.

import { memoryStats, NomoatError, ones } from "@nomoat/core";
import * as io from "@nomoat/core/io";
import { Linear, Sequential } from "@nomoat/core/nn";
import * as safetensors from "@nomoat/core/safetensors";
import * as lora from "@nomoat/lora";
import * as quant from "@nomoat/quant";
import * as gguf from "@nomoat/quant/gguf";
import { expect, test } from "vitest";
import * as llama from "../src/index.js";

type Callable = (...values: never[]) => unknown;

const junk = [
  ...[undefined, null, 5, Number.NaN, "text", true, 5n, {}, [], [null], () => 1],
  ...[new Map(), new Float32Array(2)],
];

/** Parts of formats and layers, for those who build their own: they take what they are given. */
const parts = new Set([
  ...[
    "quant.QuantizedTensor",
    "quant.QuantizedLinear",
    "quant.QuantizedEmbedding",
    "quant.ActivationStatistics",
  ],
  ...[
    "quant.quantizeValues",
    "quant.dequantizeValues",
    "lora.Adapter",
    "lora.AdapterBranch",
    "lora.LoraLinear",
  ],
  ...["lora.LoraConv2d", "lora.LoraEmbedding", "lora.InputMoments", "lora.MergeReport", "lora.RankAllocator"],
  ...[
    "lora.adapterShapes",
    "llama.KVCache",
    "llama.LlamaForCausalLM",
    "llama.Tokenizer",
    "llama.llamaShapes",
  ],
  ...[
    "llama.formatConfig",
    "llama.parseConfig",
    "safetensors.encodeSafetensors",
    "io.JsonScanner",
    "io.Reader",
  ],
  ...["io.integerAt", "io.parseJson", "io.readPrefix"],
]);

/** Everything that users call: functions, and classes to be constructed. */
const tried = Object.entries({ quant, gguf, lora, llama, safetensors, io }).flatMap(([name, module]) =>
  Object.entries(module as Record<string, unknown>).flatMap(([member, value]): [string, Callable][] => {
    if (typeof value !== "function" || parts.has(`${name}.${member}`)) return [];
    const isClass = /^class\b/.test(Function.prototype.toString.call(value));
    const construct: Callable = (...values) => Reflect.construct(value, values);
    return [[`${name}.${member}`, isClass ? construct : (value as Callable)]];
  }),
);

test("most that is exported is tried", () => {
  expect(tried.length).toBeGreaterThan(80);
});

test.each(tried)("%s", async (name, call) => {
  const model = new Sequential(Linear.create(32, 32));
  const tensor = ones([32, 32]);
  // Within a file: there nothing can be read, and nothing be left behind.
  const lists = junk.flatMap((wrong) => [
    [wrong],
    [model, wrong],
    [tensor, wrong],
    ["package.json/within", wrong],
  ]);
  for (const values of [[], ...lists]) {
    try {
      let result = call(...(values as never[]));
      // A generator checks when it is asked for its first value.
      if (typeof (result as AsyncGenerator)?.next === "function") result = (result as AsyncGenerator).next();
      await result;
    } catch (error) {
      if (error instanceof NomoatError) continue;
      const shown = values.map((value) =>
        value === model ? "model" : value === tensor ? "tensor" : String(value),
      );
      throw new Error(`${name}(${shown.join(", ")}) threw ${String(error)}`, { cause: error });
    }
  }
  tensor.dispose();
  model.dispose();
  expect(memoryStats().backend.name).toBe("wasm");
});
