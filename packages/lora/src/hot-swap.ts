// Another adapter's values in the place of those that are on the model, without a change of layers (PEFT's hotswap_adapter).

import { ArgumentError, noGrad, type Tensor } from "@nomoat/core";
import type { Adapter } from "./adapter.js";
import { requireAdapter } from "./adapter.js";
import { placeOf } from "./apply.js";
import type { LoraConfig } from "./config.js";
import { isPrincipal } from "./init/principal.js";
import { type Expected, Faults, readTensors } from "./peft-checks.js";
import { type WarningHandler, warnOfUnknown } from "./peft-config.js";
import { type AdapterSource, openFolder, openWeights, readConfig, weightsFile } from "./peft-folder.js";
import { resolveTargets } from "./targets.js";

/** Why the values of an adapter of this configuration cannot serve in the place of `adapter`'s. */
function obstacles(adapter: Adapter, config: LoraConfig): string[] {
  const faults: string[] = [];
  const fields = config.peftType === "IA3" ? (["feedforwardModules"] as const) : [];
  for (const field of ["peftType", "useDora", "trainableTokenIndices", ...fields] as const) {
    const [own, other] = [adapter.config[field], config[field]].map((value) => JSON.stringify(value));
    if (own !== other) faults.push(`${field} is ${other}, that of the adapter in place ${own}`);
  }
  const [own, other] = [adapter.layers, resolveTargets(adapter.model, config)];
  const names = new Set(other.map((target) => target.name));
  for (const name of names)
    if (!own.has(name)) faults.push(`${name} is adapted, but not by the adapter in place`);
  for (const name of own.keys()) if (!names.has(name)) faults.push(`${name} is not adapted`);
  return faults;
}

/**
 * Loads a PEFT folder into an adapter that is on a model already: same layers, same ranks, other values and perhaps another alpha and
 * dropout. Nothing is built anew, so optimizers and whoever else holds the adapter's tensors keep them. What is enabled stays so.
 *
 * @throws {FormatError} listing all faults of the folder, among them layers and shapes that differ; nothing is changed then
 * @throws {ArgumentError} while the adapter is merged, or when it began with a principal part of the base (PiSSA, OLoRA)
 * @throws {NomoatError} with code `"IO"` when files cannot be read
 */
export async function hotSwapAdapter(
  adapter: Adapter,
  source: AdapterSource,
  options: { onWarning?: WarningHandler } = {},
): Promise<void> {
  requireAdapter("hotSwapAdapter", adapter);
  if (isPrincipal(adapter.config.initLoraWeights))
    throw new ArgumentError(
      `adapter "${adapter.name}" began with ${adapter.config.initLoraWeights}, whose start other values do not share`,
    );
  const unmerged = () => {
    if (adapter.merged) throw new ArgumentError(`adapter "${adapter.name}" is merged; unmerge it first`);
  };
  unmerged();
  const folder = openFolder(source);
  const faults = new Faults();
  const read = await readConfig(folder, faults);
  const { file: configPath, broken } = read;
  const config = broken.size === 0 ? read.config : null;
  if (config)
    faults.add(configPath, (await faults.attempt(configPath, () => obstacles(adapter, config))) ?? []);
  const loaded = new Map<string, Tensor>();
  try {
    const own = adapter.swappableTensors();
    const weights = await faults.attempt(`${folder.name}/${weightsFile}`, () => openWeights(folder));
    if (weights) {
      const { opened, file } = weights;
      try {
        const expected = new Map<string, Expected>();
        for (const [key, { shape }] of own) {
          const rankAxis = key.includes(".lora_A") ? 0 : key.includes(".lora_B.w") ? 1 : -1;
          expected.set(key, { layer: null, rankAxis, shape });
        }
        await readTensors(opened, expected, { file, faults, tensors: loaded, ...placeOf(adapter.model) });
      } finally {
        await opened.close();
      }
    }
    faults.throwIfAny();
    warnOfUnknown(read, configPath, options.onWarning ?? console.warn);
    unmerged();
    const next = config as LoraConfig;
    noGrad(() => {
      for (const [key, tensor] of own) tensor.copyFrom(loaded.get(key) as Tensor);
    });
    const branches = adapter.branches();
    for (const target of resolveTargets(adapter.model, next))
      branches.get(target.name)?.reconfigure(target, next);
    adapter.setConfig(next);
  } finally {
    for (const tensor of loaded.values()) tensor.dispose();
  }
}
