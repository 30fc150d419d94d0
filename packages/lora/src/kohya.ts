// Adapters of kohya's sd-scripts (https://github.com/kohya-ss/sd-scripts, networks/lora.py), read only: one safetensors file with
// lora_unet_… or lora_te_… for the name of a module with its dots as underscores, and for each .alpha [] and either .lora_down.weight
// [r, in] and .lora_up.weight [out, r] (linear layers) or [r, in, height, width] and [out, r, 1, 1] (convolutions).

import type { Tensor } from "@nomoat/core";
import { Conv2d, type Module, requireModule } from "@nomoat/core/nn";
import { openSafetensors, type SourceLike } from "@nomoat/core/safetensors";
import { type Adapter, peftPrefix } from "./adapter.js";
import { layerwiseConfig } from "./config.js";
import { LoraConv2d } from "./layer.js";
import { type LoadAdapterOptions, loadAdapter } from "./peft.js";
import { Faults } from "./peft-checks.js";
import { type AdapterSource, peftFiles } from "./peft-folder.js";
import { candidateModules, isLinear } from "./targets.js";

/** Which part of a Stable Diffusion pipeline a model is: the beginning of its keys. */
export type KohyaPrefix = "lora_unet" | "lora_te" | "lora_te1" | "lora_te2";

/** Layers that can be meant, by their names with underscores; null for a name that several share. */
function flatNames(model: Module): Map<string, { name: string; convolution: boolean } | null> {
  const names = new Map<string, { name: string; convolution: boolean } | null>();
  for (const [name, module] of candidateModules(model)) {
    const convolution = module instanceof Conv2d || module instanceof LoraConv2d;
    if (!isLinear(module) && !convolution) continue;
    const flat = name.replaceAll(".", "_");
    names.set(flat, names.has(flat) ? null : { name, convolution });
  }
  return names;
}

/** The shape that PEFT gives a factor of such a layer: convolutions of one pixel stand for linear layers and the other way round; null where it cannot be one. */
function factorShape(shape: readonly number[], convolution: boolean): readonly number[] | null {
  if (shape.length === 2) return convolution ? [...shape, 1, 1] : shape;
  if (shape.length !== 4) return null;
  if (convolution) return shape;
  return shape[2] === 1 && shape[3] === 1 ? shape.slice(0, 2) : null;
}

/** The files of a PEFT folder; null where there is too much wrong for that. */
async function convert(
  model: Module,
  source: SourceLike,
  prefix: KohyaPrefix,
  faults: Faults,
): Promise<Map<string, Uint8Array> | null> {
  requireModule("loadKohyaAdapter", model);
  const file = typeof source === "string" ? source : "adapter";
  const names = flatNames(model);
  const opened = await faults.attempt(file, () => openSafetensors(source));
  if (!opened) return null;
  const tensors = new Map<string, Tensor>();
  const layers = new Map<string, { r: number; alpha: number | null }>();
  const found: string[] = [];
  try {
    for (const [key, { shape }] of opened.entries) {
      if (!key.startsWith(`${prefix}_`)) continue;
      const shown = JSON.stringify(key.slice(0, 200));
      const [, flat, part] = /^(.*?)\.(.+)$/.exec(key.slice(prefix.length + 1)) ?? [];
      const meant = names.get(flat);
      if (!meant) {
        const alone = meant === null ? " alone" : "";
        found.push(`${shown} fits no linear layer or convolution of the model${alone}`);
        continue;
      }
      if (!["lora_down.weight", "lora_up.weight", "alpha"].includes(part)) {
        found.push(`${shown} belongs to another kind of adapter`);
        continue;
      }
      const { name, convolution } = meant;
      const layer = layers.get(name) ?? { r: 0, alpha: null };
      layers.set(name, layer);
      const loaded = await opened.load(key);
      if (part === "alpha") {
        const [alpha] = loaded.size === 1 ? Array.from(await loaded.data(), Number) : [Number.NaN];
        loaded.dispose();
        if (Number.isFinite(alpha) && alpha > 0) layer.alpha = alpha;
        else
          found.push(
            `${shown} is ${shape.length === 0 ? alpha : `[${shape.join(", ")}]`}, no positive number`,
          );
        continue;
      }
      const down = part === "lora_down.weight";
      const extent = shape[down ? 0 : 1] ?? 0;
      if (down || layer.r === 0) layer.r = extent;
      // What has no such shape is left as it is, for `loadAdapter` to refuse.
      const wanted = factorShape(shape, convolution);
      const shaped = wanted ? loaded.reshape([...wanted]) : loaded;
      if (shaped !== loaded) loaded.dispose();
      tensors.set(`${peftPrefix}${name}.lora_${down ? "A" : "B"}.weight`, shaped);
    }
    if (layers.size === 0) found.push(`no key begins with ${prefix}_ and a layer's name`);
    faults.add(file, found);
    if (layers.size === 0) return null;
    return await faults.attempt(file, () => {
      const ranked = Array.from(
        layers,
        ([name, { r, alpha }]) => [name, { r: r || 1, alpha: alpha ?? (r || 1) }] as const,
      );
      return peftFiles(layerwiseConfig(new Map(ranked), { taskType: null }), tensors);
    });
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
    await opened.close();
  }
}

/**
 * The part for one model of an adapter of sd-scripts, as the files of a PEFT folder, for `loadAdapter`, which finds factors that are
 * missing or misshapen. Ranks and alphas may differ by layer; without an alpha it is the rank. Other kinds of adapters (LyCORIS' `hada_`,
 * `lokr_`, `dora_scale`, `lora_mid`) are refused.
 *
 * @param model - whose module names the keys are compared with
 * @throws {FormatError} listing every key of this prefix that fits no linear layer or convolution of the model, or is of another kind, and
 *   alphas that are not positive and finite
 */
export async function kohyaToPeft(
  model: Module,
  source: SourceLike,
  prefix: KohyaPrefix,
): Promise<Map<string, Uint8Array>> {
  const faults = new Faults();
  const files = await convert(model, source, prefix, faults);
  faults.throwIfAny();
  return files as Map<string, Uint8Array>;
}

/** Puts the part for `model` of an adapter of sd-scripts on it; see {@link kohyaToPeft} and `loadAdapter`. All faults are reported together. */
export async function loadKohyaAdapter(
  model: Module,
  source: SourceLike,
  prefix: KohyaPrefix,
  name = "default",
  options: LoadAdapterOptions = {},
): Promise<Adapter> {
  const faults = new Faults();
  const files = await convert(model, source, prefix, faults);
  if (!files) faults.throwIfAny();
  return loadAdapter(model, files as AdapterSource, name, { ...options, faults: faults.found });
}
