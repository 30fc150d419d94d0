// What AdaLoRA needs in training besides its layers (Zhang et al., arXiv:2303.10512; PEFT's RankAllocator and AdaLoraModel.forward): the
// penalty that keeps both sides of the SVD orthogonal, and the pruning of singular values by their importance.

import {
  ArgumentError,
  BackendError,
  eye,
  keep,
  matmul,
  noGrad,
  sqrt,
  type Tensor,
  tensor,
  tidy,
  zerosLike,
} from "@nomoat/core";
import type { Adapter } from "./adapter.js";
import { requireAdapter } from "./adapter.js";
import type { AdaLoraBranch } from "./variants/adalora.js";

function branchesOf(adapter: Adapter): Map<string, AdaLoraBranch> {
  if (adapter.config.peftType !== "ADALORA")
    throw new ArgumentError(`adapter "${adapter.name}" is ${adapter.config.peftType}, not ADALORA`);
  return adapter.branches() as Map<string, AdaLoraBranch>;
}

/**
 * orthRegWeight · the mean over all A and B of ‖A·Aᵀ − 1‖ and ‖Bᵀ·B − 1‖ (Frobenius), to be added to the loss. Differentiable.
 * @returns a scalar
 * @throws {ArgumentError} for an adapter of another kind
 */
export function orthogonalPenalty(adapter: Adapter): Tensor {
  requireAdapter("orthogonalPenalty", adapter);
  const branches = [...branchesOf(adapter).values()].filter((branch) => branch.r > 0);
  const weight = adapter.config.orthRegWeight / (2 * branches.length);
  return tidy(() => {
    const norms = branches.flatMap(({ loraA, loraB }) => {
      const { dtype, device } = loraA;
      const one = eye(loraA.shape[0], { dtype, device });
      return [matmul(loraA, loraA, { transB: true }), matmul(loraB, loraB, { transA: true })].map((product) =>
        sqrt(product.sub(one).square().sum()),
      );
    });
    return norms.reduce((sum, norm) => sum.add(norm)).mul(weight);
  });
}

/** Smoothed sensitivity and its uncertainty, in the shape of a parameter. */
interface Importance {
  readonly sensitivity: Tensor;
  readonly uncertainty: Tensor;
}

/**
 * Prunes an AdaLoRA adapter's singular values, from a rank of `initR` to `targetR` on average over the layers, so that the least
 * important ones go first. Call {@link update} once in every step.
 */
export class RankAllocator {
  readonly adapter: Adapter;
  readonly #totalStep: number;
  readonly #initialBudget: number;
  readonly #targetBudget: number;
  readonly #importance = new Map<Tensor, Importance>();

  /**
   * @throws {ArgumentError} for an adapter of another kind, or a configuration without `totalStep` (beyond tinit + tfinal)
   * @throws {BackendError} on a backend that is read asynchronously, because pruning depends on values
   */
  constructor(adapter: Adapter) {
    const { totalStep, tinit, tfinal, targetR } = adapter.config;
    const branches = [...branchesOf(adapter).values()];
    const waiting = branches.find(({ loraE }) => !loraE.storage.backend.synchronous);
    if (waiting)
      throw new BackendError(
        `RankAllocator: the result depends on values, and the ${waiting.loraE.device} backend gives those only later: train AdaLoRA on the wasm backend; saveAdapter and loadAdapter bring the adapter here`,
      );
    if (totalStep === null || totalStep <= tinit + tfinal)
      throw new ArgumentError(
        `RankAllocator: totalStep must be more than tinit + tfinal = ${tinit + tfinal}, not ${totalStep}`,
      );
    this.adapter = adapter;
    this.#totalStep = totalStep;
    this.#initialBudget = branches.reduce((sum, branch) => sum + branch.r, 0);
    this.#targetBudget = targetR * branches.length;
  }

  /** How many singular values may be left at this step, over all layers: falls as a cubic. */
  budget(step: number): number {
    const { tinit, tfinal } = this.adapter.config;
    const last = this.#totalStep - tfinal;
    if (step <= tinit) return this.#initialBudget;
    if (step > last) return this.#targetBudget;
    const left = 1 - (step - tinit) / (last - tinit);
    return Math.trunc((this.#initialBudget - this.#targetBudget) * left ** 3 + this.#targetBudget);
  }

  /**
   * Takes note of the gradients and, when it is time, prunes.
   * @param step - number of this step; call after the optimizer's step and before gradients are zeroed
   * @throws {ArgumentError} when a parameter has no gradient
   */
  update(step: number): void {
    const { tinit, tfinal, deltaT } = this.adapter.config;
    const last = this.#totalStep - tfinal;
    const branches = branchesOf(this.adapter);
    if (step > last) {
      for (const branch of branches.values()) if (branch.rankMask) prune(branch, branch.rankMask);
      return;
    }
    if (step < last) {
      for (const [at, branch] of branches)
        for (const tensor of branch.tensors().values()) this.#note(at, tensor);
    }
    if (step === last || (step > tinit && step % deltaT === 0)) this.#allocate(branches, this.budget(step));
    if (step === last) this.dispose();
  }

  #note(at: string, parameter: Tensor): void {
    const { grad } = parameter;
    if (!grad) throw new ArgumentError(`RankAllocator: a parameter of ${at} has no gradient`);
    const { beta1, beta2 } = this.adapter.config;
    noGrad(() =>
      tidy(() => {
        let entry = this.#importance.get(parameter);
        if (!entry) {
          entry = { sensitivity: keep(zerosLike(parameter)), uncertainty: keep(zerosLike(parameter)) };
          this.#importance.set(parameter, entry);
        }
        const { sensitivity, uncertainty } = entry;
        const now = parameter.mul(grad).abs();
        sensitivity.copyFrom(sensitivity.mul(beta1).add(now.mul(1 - beta1)));
        const off = now.sub(sensitivity).abs();
        uncertainty.copyFrom(uncertainty.mul(beta2).add(off.mul(1 - beta2)));
      }),
    );
  }

  /** Importance of each singular value with its vectors. */
  #scores(branch: AdaLoraBranch): Float64Array {
    return noGrad(() =>
      tidy(() => {
        const score = (parameter: Tensor) => {
          const { sensitivity, uncertainty } = this.#importance.get(parameter) as Importance;
          return sensitivity.mul(uncertainty);
        };
        const sum = score(branch.loraE)
          .reshape([branch.r])
          .add(score(branch.loraA).mean(1))
          .add(score(branch.loraB).mean(0));
        return Float64Array.from(sum.dataSync());
      }),
    );
  }

  #allocate(branches: ReadonlyMap<string, AdaLoraBranch>, budget: number): void {
    const scores = new Map(Array.from(branches, ([at, branch]) => [at, this.#scores(branch)]));
    const sorted = Float64Array.from([...scores.values()].flatMap((values) => [...values])).sort();
    const pruned = this.#initialBudget - budget;
    const threshold = pruned > 0 ? sorted[pruned - 1] : Number.NEGATIVE_INFINITY;
    const rankMasks: Record<string, boolean[]> = {};
    for (const [at, branch] of branches) {
      const mask = Array.from(scores.get(at) as Float64Array, (score) => score > threshold);
      prune(branch, mask);
      rankMasks[`${at}.lora_E`] = mask;
    }
    this.adapter.setConfig({ ...this.adapter.config, rankMasks });
  }

  /** Lets go of what it has noted. */
  dispose(): void {
    for (const { sensitivity, uncertainty } of this.#importance.values()) {
      sensitivity.dispose();
      uncertainty.dispose();
    }
    this.#importance.clear();
  }
}

/** Sets the singular values to zero where `mask` is false. */
function prune(branch: AdaLoraBranch, mask: readonly boolean[]): void {
  branch.rankMask = mask;
  if (mask.length !== branch.r) return;
  noGrad(() =>
    tidy(() => {
      const { loraE } = branch;
      const values = Float64Array.from(loraE.dataSync(), (value, i) => (mask[i] ? Number(value) : 0));
      loraE.copyFrom(tensor(values, { shape: loraE.shape, dtype: loraE.dtype, device: loraE.device }));
    }),
  );
}
