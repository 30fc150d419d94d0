// Several adapters on one frozen 4-bit model: trained one after the other, and in one pass. The shape is that of the embedded model,
// the calls are those of its users.

import { Generator } from "@nomoat/core";
import { finetune, finetuneTogether, LlamaForCausalLM, Tokenizer } from "@nomoat/llama";
import { type Adapter, applyLora } from "@nomoat/lora";
import { quantizeModel } from "@nomoat/quant";
import { integerValues } from "../inputs.js";
import type { Prepared } from "../model.js";
import { configOf, type ModelShape, weightsOf } from "./llama-shapes.js";
import { type Case, items, type Suite } from "./suite.js";

const embedded: ModelShape = {
  name: "2M",
  hiddenSize: 160,
  intermediateSize: 448,
  numLayers: 6,
  numHeads: 4,
  numKeyValueHeads: 2,
  vocabSize: 2048,
};

const count = 8;
const rank = 8;
/** Steps of one call: a run's beginning and end count little. */
const steps = 4;

interface Shape {
  readonly way: "together" | "one after the other";
  /** Rows of an adapter's batch, and their tokens. */
  readonly batch: number;
  readonly length: number;
}

/** The data are ids, so nothing is ever asked of it. */
function silentTokenizer(): Tokenizer {
  const model = { type: "BPE", vocab: { a: 0 }, merges: [] };
  return Tokenizer.fromJson({ version: "1.0", added_tokens: [], model }, {});
}

function prepare({ way, batch, length }: Shape): Prepared {
  const model = LlamaForCausalLM.create(configOf(embedded), { generator: new Generator(7) });
  quantizeModel(model, { format: "nf4" });
  const tokenizer = silentTokenizer();
  const adapters = Array.from({ length: count }, (_, i) => {
    const config = { r: rank, loraAlpha: 2 * rank, targetModules: "all-linear" as const };
    return applyLora(model, config, `a${i}`, { generator: new Generator(i + 1) });
  });
  const runOf = (adapter: Adapter, i: number) => {
    const ids = integerValues(`ids ${i}`, steps * batch * length, embedded.vocabSize);
    const data = Array.from({ length: steps * batch }, (_, j) => ({
      ids: ids.slice(j * length, (j + 1) * length),
    }));
    return { adapter, data, steps, batchSize: batch, length, packing: false };
  };
  const runs = adapters.map(runOf);
  const together = async (): Promise<void> => void (await finetuneTogether({ model, tokenizer, runs }));
  const apart = async (): Promise<void> => {
    for (const run of runs) {
      run.adapter.setActive();
      await finetune({ model, tokenizer, ...run });
    }
  };
  return {
    run: way === "together" ? together : apart,
    ...(way === "together" && { details: async () => ({ timesApart: await ratio(together, apart) }) }),
    dispose: () => model.dispose(),
  };
}

/** The best of turns of one way by that of the other. */
async function ratio(one: () => Promise<void>, other: () => Promise<void>): Promise<number> {
  const best = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let i = 0; i < 4; i++) {
    for (const [which, turn] of [one, other].entries()) {
      const start = performance.now();
      await turn();
      best[which] = Math.min(best[which], performance.now() - start);
    }
  }
  return best[0] / best[1];
}

function caseOf(shape: Shape): Case {
  const { way, batch, length } = shape;
  const tokens = count * steps * batch * length;
  const { linear, all } = weightsOf(embedded);
  const passes = way === "together" ? steps : steps * count;
  return {
    suite: "together",
    name: `${count} adapters r${rank} ${way} ${batch}x${length} tokens each`,
    parameters: { way, adapters: count, rank, batch, length, steps },
    work: items(tokens, "tokens", 4 * tokens * linear, 2 * passes * all * 0.6),
    prepare: () => prepare(shape),
  };
}

export const together: Suite = {
  name: "together",
  about: "training several adapters on one 4-bit model in one pass, and one after the other",
  cases(sweep) {
    const lengths = sweep.sizes ?? (sweep.effort === "quick" ? [16] : [8, 16, 32, 64, 128]);
    const shapes = lengths.flatMap((length) =>
      (["one after the other", "together"] as const).map((way): Shape => ({ way, batch: 1, length })),
    );
    return shapes.map(caseOf);
  },
};
