// Where a model can take AWQ's scales in without computing any more: the module before, whose outputs are scaled down as the layers
// after it are scaled up.

import { ArgumentError, keep, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { Linear, type Module } from "@nomoat/core/nn";
import type { BlockFormat } from "../formats/format.js";
import { type AwqLayer, searchAwqScales } from "./awq.js";
import { requireStatistics } from "./gptq.js";
import type { ActivationStatistics } from "./statistics.js";

/** Linear layers that share their inputs, and the module that makes those; names as llm-compressor has them. */
export interface AwqMapping {
  /** A normalisation, or a linear layer with nothing after it but what is linear in each channel. */
  readonly smoothLayer: string;
  /** All linear layers that take its outputs. */
  readonly balanceLayers: readonly string[];
  /** By input of the balance layers: which output of `smoothLayer` it comes from (default: the same one). */
  readonly channels?: ArrayLike<number>;
}

/** A layer that is to be quantized. */
interface Target {
  readonly name: string;
  readonly layer: Module & { readonly weight: Tensor };
  readonly format: BlockFormat;
}

/** Scales that the model takes in, by module. */
export interface FoldedScales {
  /** What columns of layers are multiplied by, [inFeatures]. */
  readonly columns: ReadonlyMap<string, Float32Array>;
  /** What outputs of modules are divided by. */
  readonly outputs: ReadonlyMap<string, Float32Array>;
}

export const nothingFolded: FoldedScales = { columns: new Map(), outputs: new Map() };

type Scalable = Module & { readonly weight: Tensor; readonly bias?: Tensor | null };

/** The module that takes scales in. @throws {ArgumentError} for one that cannot, or whose weight is another's too */
function smoothModule(model: Module, name: string): Scalable {
  const module = model.getModule(name) as Module & Partial<Scalable>;
  const { weight } = module;
  if (!weight || !(module instanceof Linear || weight.rank === 1)) {
    throw new ArgumentError(
      `quantizeModel: ${name} cannot take scales in: it is no normalisation and no linear layer`,
    );
  }
  let holders = 0;
  for (const held of model.stateDict().values()) if (held === weight) holders++;
  if (holders > 1)
    throw new ArgumentError(`quantizeModel: ${name} shares its weight: it cannot take scales in`);
  return module as Scalable;
}

/** The sources of a mapping's inputs, checked. */
function channelsOf(mapping: AwqMapping, outputs: number, inputs: number): ArrayLike<number> {
  const { channels = Array.from({ length: outputs }, (_, i) => i), smoothLayer } = mapping;
  const fits =
    channels.length === inputs &&
    Array.from(channels).every((source) => Number.isInteger(source) && source >= 0 && source < outputs);
  if (!fits) {
    throw new ArgumentError(
      `quantizeModel: ${mapping.balanceLayers.join(", ")} have ${inputs} inputs, and the mapping has ${channels.length} channels of the ${outputs} of ${smoothLayer}`,
    );
  }
  return channels;
}

/**
 * Scales for all mappings whose balance layers are all quantized; the others are passed over. Asks for each weight, and is given it or a
 * copy that can be read until it asks again.
 *
 * @throws {ArgumentError} for modules that are not there or do not fit together, or without statistics
 */
export function* foldScales(
  model: Module,
  mappings: Iterable<AwqMapping>,
  targets: readonly Target[],
  statistics: ReadonlyMap<string, ActivationStatistics> | undefined,
): Generator<Tensor, FoldedScales, Tensor> {
  const columns = new Map<string, Float32Array>();
  const outputs = new Map<string, Float32Array>();
  for (const mapping of mappings) {
    const { smoothLayer, balanceLayers } = mapping;
    const smooth = smoothModule(model, smoothLayer);
    const found = balanceLayers.map((name) => {
      model.getModule(name);
      return targets.find((target) => target.name === name);
    });
    const balanced = found.filter((target) => target !== undefined);
    if (balanced.length === 0 || balanced.length < found.length) continue;
    if (outputs.has(smoothLayer)) throw new ArgumentError(`quantizeModel: two mappings have ${smoothLayer}`);
    const channels = channelsOf(mapping, smooth.weight.shape[0], balanced[0].layer.weight.shape[1]);
    const copies: Tensor[] = [];
    try {
      const layers: AwqLayer[] = [];
      for (const { name, layer, format } of balanced) {
        if (columns.has(name)) throw new ArgumentError(`quantizeModel: two mappings have ${name}`);
        const seen = statistics?.get(name);
        if (!seen)
          throw new ArgumentError(`quantizeModel: awq needs statistics of ${name}: see collectStatistics`);
        requireStatistics("quantizeModel", seen, channels.length);
        const given = yield layer.weight;
        const weight = noGrad(() => keep(given.clone()));
        copies.push(weight);
        layers.push({ weight, statistics: seen, format, name: `${name}.weight` });
      }
      const scales = searchAwqScales(layers, channels, 10);
      outputs.set(smoothLayer, scales);
      const byInput = Float32Array.from(channels, (source) => scales[source]);
      for (const { name } of balanced) columns.set(name, byInput);
    } finally {
      for (const copy of copies) copy.dispose();
    }
  }
  return { columns, outputs };
}

/** Divides outputs [channels, ...] (a weight by rows, a bias) by `scales`. */
export function dividedBy(x: Tensor, scales: Float32Array): Tensor {
  return noGrad(() =>
    tidy(() => {
      const shape = [scales.length, ...x.shape.slice(1).map(() => 1)];
      return x
        .detach()
        .div(tensor(scales, { shape, device: x.device }))
        .cast(x.dtype);
    }),
  );
}

/** Divides what the modules of `outputs` put out, in place: their biases, and the weights of those that are not `packed`. */
export function scaleOutputs(
  modules: ReadonlyMap<string, Module>,
  { outputs }: FoldedScales,
  packed: ReadonlySet<string>,
): void {
  for (const [name, scales] of outputs) {
    const { weight, bias } = modules.get(name) as Scalable;
    for (const each of [packed.has(name) ? null : weight, bias]) {
      if (each) noGrad(() => tidy(() => void each.detach().copyFrom(dividedBy(each, scales))));
    }
  }
}
