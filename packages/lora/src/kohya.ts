// Adapters of kohya's sd-scripts (https://github.com/kohya-ss/sd-scripts, networks/lora.py), read only: one safetensors file with
// lora_unet_… or lora_te_… for the name of a module with its dots as underscores, and .lora_down.weight [r, in], .lora_up.weight [out, r]
// and .alpha [] for each.

import { FormatError, type Tensor } from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";
import { openSafetensors, type SourceLike, serializeSafetensors } from "@nomoat/core/safetensors";
import { type Adapter, peftPrefix } from "./adapter.js";
import { resolveLoraConfig } from "./config.js";
import { type LoadAdapterOptions, loadAdapter } from "./peft.js";
import { listed } from "./peft-checks.js";
import { toPeftJson } from "./peft-config.js";
import { configFile, weightsFile } from "./peft-folder.js";
import { candidateModules, isLinear } from "./targets.js";

/** Which part of a Stable Diffusion pipeline a model is: the beginning of its keys. */
export type KohyaPrefix = "lora_unet" | "lora_te" | "lora_te1" | "lora_te2";

interface Parts {
  down?: readonly number[];
  up?: readonly number[];
  alpha?: number;
}

/**
 * The part for one model of an adapter of sd-scripts, as the files of a PEFT folder, for `loadAdapter`. Convolutions of one pixel on
 * what is a linear layer here are taken as such. Ranks and alphas may differ by layer; without an alpha it is the rank.
 *
 * @param model - whose module names the keys are compared with
 * @throws {FormatError} listing every key of this prefix that fits no linear layer of the model, is incomplete or misshapen, and alphas
 *   that are not positive and finite
 */
export async function kohyaToPeft(
  model: Module,
  source: SourceLike,
  prefix: KohyaPrefix,
): Promise<Map<string, Uint8Array>> {
  const names = new Map<string, string>();
  const ambiguous = new Set<string>();
  for (const [name, module] of candidateModules(model)) {
    if (!isLinear(module)) continue;
    const flat = name.replaceAll(".", "_");
    if (names.has(flat)) ambiguous.add(flat);
    names.set(flat, name);
  }
  const opened = await openSafetensors(source);
  const tensors = new Map<string, Tensor>();
  const modules = new Map<string, Parts>();
  const faults: string[] = [];
  try {
    for (const [key, { shape, dtype }] of opened.entries) {
      if (!key.startsWith(`${prefix}_`)) continue;
      const shown = JSON.stringify(key.slice(0, 200));
      const [, flat, part] =
        /^(.*?)\.(lora_down\.weight|lora_up\.weight|alpha)$/.exec(key.slice(prefix.length + 1)) ?? [];
      const name = names.get(flat);
      if (name === undefined || ambiguous.has(flat)) {
        faults.push(`${shown} fits no linear layer of the model${ambiguous.has(flat) ? " alone" : ""}`);
        continue;
      }
      const entry = modules.get(name) ?? {};
      modules.set(name, entry);
      const size = shape.reduce((product, extent) => product * extent, 1);
      const pixel = shape.length === 4 && shape[2] === 1 && shape[3] === 1;
      if (!/^B?F/.test(dtype) || (part === "alpha" ? size !== 1 : shape.length !== 2 && !pixel)) {
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
      entry[down ? "down" : "up"] = shape;
      const flatShape = loaded.reshape([shape[0], shape[1]]);
      if (flatShape !== loaded) loaded.dispose();
      tensors.set(`${peftPrefix}${name}.lora_${down ? "A" : "B"}.weight`, flatShape);
    }
    if (modules.size === 0) faults.push(`no key begins with ${prefix}_`);
    const rankPattern: Record<string, number> = {};
    const alphaPattern: Record<string, number> = {};
    for (const [name, { down, up, alpha }] of modules) {
      if (!down || !up) faults.push(`${name} has no ${down ? "lora_up" : "lora_down"}`);
      else if (down[0] !== up[1]) faults.push(`${name} has ranks ${down[0]} and ${up[1]}`);
      const pattern = `^${name.replaceAll(".", "\\.")}$`;
      rankPattern[pattern] = down?.[0] ?? 1;
      alphaPattern[pattern] = alpha ?? rankPattern[pattern];
    }
    if (faults.length > 0) throw new FormatError(listed(faults), { file: "adapter" });
    const config = resolveLoraConfig({
      targetModules: [...modules.keys()],
      rankPattern,
      alphaPattern,
      taskType: null,
    });
    return new Map([
      [configFile, new TextEncoder().encode(JSON.stringify(toPeftJson(config)))],
      [weightsFile, await serializeSafetensors(tensors, { format: "pt" })],
    ]);
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
