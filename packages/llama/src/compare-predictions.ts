// A model's predictions on a text against those of the model that it was made of, by quantization say.

import { ArgumentError, gather, noGrad, tidy } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import { PredictionComparison, type PredictionError } from "@nomoat/quant";
import { batchTensors } from "./data/batches.js";
import { inMode, nextTurn } from "./event-loop.js";
import { type LlamaForCausalLM, nextTokenTargets } from "./model/model.js";
import { requireLlama } from "./options.js";
import { type PerplexityOptions, textWindows } from "./perplexity.js";

export interface ComparePredictionsOptions extends PerplexityOptions {
  /** The model that predictions are measured against; most often the one before it was quantized, loaded once more. */
  reference: LlamaForCausalLM;
  /** Gathers into this one (default: a new one), over several texts say; it keeps the loss of each token as well. */
  comparison?: PredictionComparison;
}

/** Positions whose logits exist at a time, of both models. */
const positionsAtOnce = 256;

/**
 * Perplexity of a model and of its reference on one text, and the Kullback-Leibler divergence between their predictions. Windows are
 * those of {@link perplexity}.
 *
 * `quantizationReport(model, { predictions })` of `@nomoat/quant` shows them beside the layers' errors.
 *
 * Between batches the event loop has its turn. Both models run in evaluation mode, without gradients, on one backend.
 *
 * @throws {ArgumentError} as `perplexity`; for models of different vocabularies
 */
export async function comparePredictions(options: ComparePredictionsOptions): Promise<PredictionError> {
  requireOptions("comparePredictions", options);
  const { reference, comparison = new PredictionComparison(), ...rest } = options;
  const { model, signal } = options;
  requireLlama("comparePredictions: model", model);
  requireLlama("comparePredictions: reference", reference);
  if (model.config.vocabSize !== reference.config.vocabSize) {
    throw new ArgumentError(
      `comparePredictions: the model has ${model.config.vocabSize} tokens, the reference ${reference.config.vocabSize}`,
    );
  }
  const { rows, batch } = await textWindows("comparePredictions", rest);
  for (let start = 0; start < rows.length; start += batch) {
    await nextTurn();
    signal?.throwIfAborted();
    // The output layer is run in parts: all logits of both models would be larger than the models.
    const pass = tidy(() => {
      const { ids, labels } = batchTensors(rows.slice(start, start + batch), model);
      const { rows: places, targets } = nextTokenTargets(labels);
      const hidden = (of: LlamaForCausalLM) =>
        noGrad(() =>
          inMode(of, false, () => gather(of.hidden(ids).reshape(-1, of.config.hiddenSize), places)),
        );
      return { ours: hidden(model), theirs: hidden(reference), targets };
    });
    try {
      const targets = await pass.targets.data();
      for (let from = 0; from < targets.length; from += positionsAtOnce) {
        const end = Math.min(from + positionsAtOnce, targets.length);
        const [q, p] = noGrad(() =>
          tidy(() => [
            model.lm_head.forward(pass.ours.slice([from, end])),
            reference.lm_head.forward(pass.theirs.slice([from, end])),
          ]),
        );
        try {
          await comparison.add(q, p, targets.subarray(from, end));
        } finally {
          q.dispose();
          p.dispose();
        }
      }
    } finally {
      for (const each of Object.values(pass)) each.dispose();
    }
  }
  return comparison.result;
}
