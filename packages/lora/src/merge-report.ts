// How much of an adapter survives a merge: into a quantized base the merged weight is quantized again, which can round a small update
// away. Reported layer by layer, without merging.

import { noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { hostValues } from "@nomoat/core/extend";
import { Conv2d, Embedding, Linear, type LinearBase, type Module } from "@nomoat/core/nn";
import type { Adapter } from "./adapter.js";
import { requireAdapter } from "./adapter.js";
import type { InputMoments } from "./inputs.js";
import type { AdaptedLayer } from "./layer.js";
import { onWasm } from "./linalg.js";
import { layerPlacer, type MergeQuantizer } from "./merge-quantizer.js";

/** What a merge would make of the update ΔW of one layer; ΔW′ is what would be left of it in the merged weight. */
export interface MergeFidelity {
  readonly name: string;
  /** How much of the update is left along its own direction, (ΔW′ · ΔW) / ‖ΔW‖²: 1 is all, 0 nothing, whatever the noise beside it. */
  readonly kept: number;
  /** ‖ΔW′‖ / ‖ΔW‖ in the Frobenius norm; 1 for an update of zero that stays zero. */
  readonly normKept: number;
  /** Cosine of the angle between ΔW′ and ΔW; 1 is the same direction, 0 means that the update is lost. */
  readonly cosine: number;
  /** ‖ΔW′ − ΔW‖ / ‖ΔW‖: what is lost, and the noise of rounding. */
  readonly relativeError: number;
  /** Output's signal over the merge's noise on the given inputs, in dB: 10 log₁₀ Σ‖(W + ΔW)x‖² / Σ‖(ΔW′ − ΔW)x‖²; null without inputs. */
  readonly outputSqnr: number | null;
  /** The update's own share of the output over the merge's noise, in dB: the same with ΔW in the place of W + ΔW; null without inputs. */
  readonly updateSqnr: number | null;
}

/** Squared norms that a layer's figures are made of. */
interface Energies {
  /** ‖ΔW‖², ‖ΔW′‖², ΔW · ΔW′, ‖ΔW′ − ΔW‖². */
  readonly wanted: number;
  readonly got: number;
  readonly dot: number;
  readonly error: number;
  /** Σ‖(W + ΔW)x‖², Σ‖ΔWx‖², Σ‖(ΔW′ − ΔW)x‖² where inputs are known. */
  readonly outputs: { readonly whole: number; readonly update: number; readonly error: number } | null;
}

const decibels = (signal: number, noise: number): number => 10 * Math.log10(signal / noise);

function fidelity(name: string, { wanted, got, dot, error, outputs }: Energies): MergeFidelity {
  const heard = {
    outputSqnr: outputs && decibels(outputs.whole, outputs.error),
    updateSqnr: outputs && decibels(outputs.update, outputs.error),
  };
  if (wanted === 0) {
    const [normKept, relativeError] =
      got === 0 ? [1, 0] : [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    return { name, kept: 1, normKept, cosine: got === 0 ? 1 : 0, relativeError, ...heard };
  }
  const normKept = Math.sqrt(got / wanted);
  const cosine = got === 0 ? 0 : dot / Math.sqrt(wanted * got);
  return { name, kept: dot / wanted, normKept, cosine, relativeError: Math.sqrt(error / wanted), ...heard };
}

function total(parts: readonly Energies[]): Energies {
  const sum = (value: (part: Energies) => number) => parts.reduce((all, part) => all + value(part), 0);
  const heard = parts.flatMap(({ outputs }) => outputs ?? []);
  const outputs = (value: (part: NonNullable<Energies["outputs"]>) => number) =>
    heard.reduce((all, part) => all + value(part), 0);
  return {
    wanted: sum(({ wanted }) => wanted),
    got: sum(({ got }) => got),
    dot: sum(({ dot }) => dot),
    error: sum(({ error }) => error),
    outputs:
      heard.length === 0
        ? null
        : {
            whole: outputs((x) => x.whole),
            update: outputs((x) => x.update),
            error: outputs((x) => x.error),
          },
  };
}

/** Below this an update counts as lost. */
const leastKept = 0.5;

/** What would be left of an adapter, by layers and in all. */
export class MergeReport {
  readonly layers: readonly MergeFidelity[];
  /** Over all layers together. */
  readonly total: MergeFidelity;

  /** @internal */
  constructor(parts: ReadonlyMap<string, Energies>) {
    this.layers = Array.from(parts, ([name, energies]) => fidelity(name, energies));
    this.total = fidelity("all layers", total([...parts.values()]));
  }

  /** The layers that would keep less than half of their update. */
  get lost(): readonly MergeFidelity[] {
    return this.layers.filter((layer) => layer.kept < leastKept);
  }

  /** Why not to merge so; null when at least half of the update survives. */
  get warning(): string | null {
    const { total, lost, layers } = this;
    if (total.kept >= leastKept) return null;
    const worst = layers.reduce((least, layer) => (layer.kept < least.kept ? layer : least));
    const percent = (kept: number) => `${(100 * kept).toFixed(0)} %`;
    return (
      `rounding would lose the update: ${percent(total.kept)} of it would be left, less than half in ${lost.length} of ` +
      `${layers.length} layers, least in ${worst.name} (${percent(worst.kept)}); ` +
      "keep the adapter apart, merge into float weights (denseMerge), or with error compensation (options.quantize)"
    );
  }

  /** A table, a line a layer. */
  toString(): string {
    const width = Math.max(...[...this.layers, this.total].map(({ name }) => name.length));
    const line = (name: string, ...cells: (number | string | null)[]) =>
      name.padEnd(width) +
      cells.map((cell) => (typeof cell === "number" ? cell.toFixed(3) : (cell ?? "-")).padStart(11)).join("");
    const rows = [...this.layers, this.total].map((layer) =>
      line(
        layer.name,
        ...[
          layer.kept,
          layer.normKept,
          layer.cosine,
          layer.relativeError,
          layer.outputSqnr,
          layer.updateSqnr,
        ],
      ),
    );
    return [line("layer", "kept", "norm kept", "cosine", "error", "output dB", "update dB"), ...rows].join(
      "\n",
    );
  }
}

/** True for layers whose `withDenseWeight` may round a weight: all but core's own with float32 or float64 weights. */
export function mayRound(layer: Module): boolean {
  const plain = [Linear, Embedding, Conv2d].some((kind) => layer instanceof kind);
  return !plain || !/^float(32|64)$/.test((layer as Linear).weight.dtype);
}

function denseWeight(layer: Module): Tensor {
  return "denseWeight" in layer ? (layer as LinearBase).denseWeight() : (layer as Embedding).weight.detach();
}

/** Compares `merged` with the original base and what the named adapters would make of it. */
export function mergeEnergies(
  layer: AdaptedLayer,
  names: readonly string[],
  merged: Module,
  inputs?: InputMoments,
): Energies {
  const { slots } = layer;
  return noGrad(() =>
    tidy(() => {
      const before = denseWeight(slots.original);
      let whole = before;
      for (const name of names) whole = slots.branch(name)?.updateWeight(whole, before) ?? whole;
      const wanted = whole.sub(before);
      const got = denseWeight(merged).cast(whole.dtype).sub(before);
      const off = got.sub(wanted);
      const energy = (a: Tensor, b = a) => Number(hostValues("mergeReport", a.mul(b).sum(), onWasm)[0]);
      let outputs: Energies["outputs"] = null;
      if (inputs && inputs.count > 0) {
        const n = inputs.inFeatures;
        const { dtype, device } = whole;
        const moments = tensor(inputs.products(), { shape: [n, n], dtype, device });
        // Σ‖Wx‖² = Σ wᵀ·(Σ x·xᵀ)·w over the rows w of W.
        const heard = (weight: Tensor) => Math.max(0, energy(weight.matmul(moments), weight));
        outputs = { whole: heard(whole), update: heard(wanted), error: heard(off) };
      }
      return {
        wanted: energy(wanted),
        got: energy(got),
        dot: energy(wanted, got),
        error: energy(off),
        outputs,
      };
    }),
  );
}

export interface MergeReportOptions {
  /** What the layers get as inputs over some text, by `layerInputs`: then outputs are compared too. */
  inputs?: ReadonlyMap<string, InputMoments>;
  /** As in `merge`. */
  quantize?: MergeQuantizer;
}

/**
 * What merging `adapter` would keep of its update, for each layer. The model is not changed; one layer at a time is merged aside.
 * `warning` says when it would be lost.
 * @throws {ArgumentError} for an adapter that cannot be merged
 */
export function mergeReport(adapter: Adapter, options: MergeReportOptions = {}): MergeReport {
  requireAdapter("mergeReport", adapter);
  const parts = new Map<string, Energies>();
  for (const [name, branch] of adapter.branches()) {
    const layer = adapter.layers.get(name) as AdaptedLayer;
    const plan = layer.slots.planMerge([branch.adapter], layerPlacer(name, options.quantize));
    try {
      parts.set(
        name,
        mergeEnergies(layer, [branch.adapter], plan.merged as Module, options.inputs?.get(name)),
      );
    } finally {
      plan.merged?.dispose();
    }
  }
  return new MergeReport(parts);
}
