// Fine-tuning against PyTorch: losses, gradients and weights, in float64 and in float32.

import { init, memoryStats } from "@nomoat/core";
import { AdamW, clipScale, gradNorm } from "@nomoat/core/optim";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BorrowedGenerator } from "../src/event-loop.js";
import { accumulateGradients } from "../src/finetune-step.js";
import { finetune } from "../src/index.js";
import { byteTokenizer, loadGolden, relativeError } from "./support.js";

/** Runs with gradients and weights of their first steps. */
const detailed = ["attention", "all-linear", "rslora", "dropout", "accumulate-tokens", "accumulate-means"];
/** Runs with initial and final weights alone. */
const brief = ["dora", "dora-dropout", "patterns", "clip-decay", "lora-plus"];

const backends = [
  // Sums in another order: a few hundred roundings of float64.
  { device: "reference", tolerance: 1e-9, atTheEnd: 1e-8, prefix: "", dtype: "f64" },
  // What float32 reaches by itself is 1e-6 in the loss; single gradients cancel more.
  { device: "wasm", tolerance: 1e-4, atTheEnd: 1e-4, prefix: "f32.", dtype: "f32" },
] as const;

describe.each(backends)("PyTorch's runs on $device", ({ device, tolerance, atTheEnd, prefix, dtype }) => {
  beforeAll(() => init({ backend: device }));
  afterAll(() => init({ backend: "wasm" }));

  it.each(detailed)("%s: losses and gradients of five steps", async (name) => {
    const golden = await loadGolden(name, device);
    const { run, model, adapter, data, tensors } = golden;
    const { lr, betas, eps, weight_decay } = run.optimizer;
    const optimizer = new AdamW(adapter.parameters(), {
      ...{ learningRate: lr, betas, epsilon: eps, weightDecay: weight_decay },
    });
    const rows = data.map(({ ids, labels }) => ({
      ids: Int32Array.from(ids),
      labels: Int32Array.from(labels!),
    }));
    const perStep = run.gradient_accumulation_steps;
    const random = new BorrowedGenerator({ algorithm: "philox4x32-10", seed: "0", stream: "0", block: "0" });
    for (let step = 0; step < 5; step++) {
      golden.useMasks(step);
      const batches = Array.from({ length: perStep }, (_, i) => {
        const batch = (step * perStep + i) % 4;
        return rows.slice(2 * batch, 2 * batch + 2);
      });
      const options = { accumulation: run.accumulation, gradientCheckpointing: step % 2 === 1, random };
      const loss = await accumulateGradients(model, batches, options);
      expect(relativeError([loss], [run[`losses_${dtype}`][step]])).toBeLessThan(tolerance);
      for (const [key, tensor] of adapter.stateDict()) {
        const expected = tensors.get(`${prefix}step${step}.grad.${key}`)!;
        expect(relativeError(tensor.grad!.dataSync(), expected.dataSync()), `${step} ${key}`).toBeLessThan(
          tolerance,
        );
      }
      const norm = gradNorm(adapter.parameters());
      expect(relativeError([norm], [run[`grad_norms_${dtype}`][step]])).toBeLessThan(tolerance);
      optimizer.step({ gradientScale: clipScale(norm, run.max_grad_norm) });
      optimizer.zeroGrad();
      if (device !== "reference") continue;
      for (const [key, tensor] of adapter.stateDict()) {
        const expected = tensors.get(`step${step}.after.${key}`)!;
        expect(relativeError(tensor.dataSync(), expected.dataSync())).toBeLessThan(tolerance);
      }
    }
    optimizer.dispose();
    golden.dispose();
  });

  it.each([...detailed, ...brief])(
    "%s: finetune's losses, norms and final weights of 40 steps",
    async (name) => {
      const before = memoryStats().tensors;
      const golden = await loadGolden(name, device);
      const { run, model, adapter, data, tensors } = golden;
      const { lr, betas, eps, weight_decay } = run.optimizer;
      golden.useMasks(0);
      const norms: number[] = [];
      const { losses } = await finetune({
        ...{ model, adapter, data, tokenizer: byteTokenizer(), steps: 40, batchSize: 2, shuffle: false },
        ...{
          packing: false,
          schedule: "constant",
          learningRate: lr,
          betas,
          epsilon: eps,
          weightDecay: weight_decay,
        },
        ...(run.loraplus && {
          loraPlusLrRatio: run.loraplus.lr_ratio,
          loraPlusLrEmbedding: run.loraplus.lr_embedding,
        }),
        maxGradNorm: run.max_grad_norm,
        gradientAccumulationSteps: run.gradient_accumulation_steps,
        accumulation: run.accumulation,
        onStep: ({ step, gradNorm }) => {
          golden.useMasks(step);
          norms.push(gradNorm);
        },
      });
      expect(relativeError(losses, run[`losses_${dtype}`])).toBeLessThan(tolerance);
      expect(relativeError(norms, run[`grad_norms_${dtype}`])).toBeLessThan(atTheEnd);
      for (const [key, tensor] of adapter.stateDict()) {
        const expected = tensors.get(`${prefix}final.${key}`)!;
        // Adam divides by the gradient's size: where that is tiny, rounding decides the step's direction.
        expect(relativeError(tensor.dataSync(), expected.dataSync()), key).toBeLessThan(atTheEnd);
      }
      golden.dispose();
      expect(memoryStats().tensors).toBe(before);
    },
  );
});
