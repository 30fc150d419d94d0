// Adapters of kohya's sd-scripts (https://github.com/kohya-ss/sd-scripts, networks/lora.py), read only: one safetensors file with
// lora_unet_… or lora_te_… for the name of a module with its dots as underscores, and for each .alpha [] and either .lora_down.weight
// [r, in] and .lora_up.weight [out, r] (linear layers) or [r, in, height, width] and [out, r, 1, 1] (convolutions).

import { FormatError, type Tensor } from "@nomoat/core";
import { Conv2d, type Module } from "@nomoat/core/nn";
import { openSafetensors, type SourceLike } from "@nomoat/core/safetensors";
import { type Adapter, peftPrefix } from "./adapter.js";
import { layerwiseConfig } from "./config.js";
import { LoraConv2d } from "./layer.js";
import { type LoadAdapterOptions, loadAdapter } from "./peft.js";
import { listed } from "./peft-checks.js";
import { peftFiles } from "./peft-folder.js";
import { candidateModules, isLinear } from "./targets.js";

/** Which part of a Stable Diffusion pipeline a model is: the beginning of its keys. */
export type KohyaPrefix = "lora_unet" | "lora_te" | "lora_te1" | "lora_te2";

interface Parts {
  down?: readonly number[];
  up?: readonly number[];
  alpha?: number;
}

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

/**
 * The part for one model of an adapter of sd-scripts, as the files of a PEFT folder, for `loadAdapter`. Ranks and alphas may differ by
 * layer; without an alpha it is the rank. Other kinds of adapters (LyCORIS' `hada_`, `lokr_`, `dora_scale`, `lora_mid`) are refused.
 *
 * @param model - whose module names the keys are compared with
 * @throws {FormatError} listing every key of this prefix that fits no linear layer or convolution of the model, is incomplete or
 *   misshapen, and alphas that are not positive and finite
 */
export async function kohyaToPeft(
  model: Module,
  source: SourceLike,
  prefix: KohyaPrefix,
): Promise<Map<string, Uint8Array>> {
  const names = flatNames(model);
  const opened = await openSafetensors(source);
  const tensors = new Map<string, Tensor>();
  const modules = new Map<string, Parts>();
  const faults: string[] = [];
  try {
    for (const [key, { shape, dtype }] of opened.entries) {
      if (!key.startsWith(`${prefix}_`)) continue;
      const shown = JSON.stringify(key.slice(0, 200));
      const [, flat, part] = /^(.*?)\.(.+)$/.exec(key.slice(prefix.length + 1)) ?? [];
      const found = names.get(flat);
      if (!found) {
        const alone = found === null ? " alone" : "";
        faults.push(`${shown} fits no linear layer or convolution of the model${alone}`);
        continue;
      }
      if (!["lora_down.weight", "lora_up.weight", "alpha"].includes(part)) {
        faults.push(`${shown} belongs to another kind of adapter`);
        continue;
      }
      const { name, convolution } = found;
      const entry = modules.get(name) ?? {};
      modules.set(name, entry);
      const size = shape.reduce((product, extent) => product * extent, 1);
      const wanted = part === "alpha" ? (size === 1 ? shape : null) : factorShape(shape, convolution);
      if (!/^B?F/.test(dtype) || wanted === null) {
        faults.push(`${shown} is ${dtype} [${shape.join(", ")}]`);
        continue;
      }
      const loaded = await opened.load(key, { dtype: "float32" });
      if (part === "alpha") {
        entry.alpha = Number((await loaded.data())[0]);
        loaded.dispose();
        if (!(Number.isFinite(entry.alpha) && entry.alpha > 0)) faults.push(`${shown} is ${entry.alpha}`);
        continue;
      }
      const down = part === "lora_down.weight";
      entry[down ? "down" : "up"] = wanted;
      const shaped = loaded.reshape([...wanted]);
      if (shaped !== loaded) loaded.dispose();
      tensors.set(`${peftPrefix}${name}.lora_${down ? "A" : "B"}.weight`, shaped);
    }
    if (modules.size === 0) faults.push(`no key begins with ${prefix}_`);
    const layers = new Map<string, { r: number; alpha: number }>();
    for (const [name, { down, up, alpha }] of modules) {
      if (!down || !up) faults.push(`${name} has no ${down ? "lora_up" : "lora_down"}`);
      else if (down[0] !== up[1]) faults.push(`${name} has ranks ${down[0]} and ${up[1]}`);
      const r = down?.[0] ?? 1;
      layers.set(name, { r, alpha: alpha ?? r });
    }
    if (faults.length > 0) throw new FormatError(listed(faults), { file: "adapter" });
    return await peftFiles(layerwiseConfig(layers, { taskType: null }), tensors);
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
    await opened.close();
  }
}

/** Puts the part for `model` of an adapter of sd-scripts on it; see {@link kohyaToPeft} and `loadAdapter`. */
export async function loadKohyaAdapter(
  model: Module,
  source: SourceLike,
  prefix: KohyaPrefix,
  name = "default",
  options: LoadAdapterOptions = {},
): Promise<Adapter> {
  return loadAdapter(model, await kohyaToPeft(model, source, prefix), name, options);
}
