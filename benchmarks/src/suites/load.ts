// Reading weights from a file: safetensors in float32, float16 and bfloat16, as float32 tensors in the backend's memory.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Tensor, tidy } from "@nomoat/core";
import { loadSafetensors, saveSafetensors } from "@nomoat/core/safetensors";
import { compareArrays } from "../accuracy.js";
import type { Prepared } from "../model.js";
import {
  type Case,
  dtypesOf,
  type FloatDtype,
  floatDtypes,
  movement,
  rounding,
  type Suite,
  seeded,
  sizesOf,
} from "./suite.js";

const tensors = 16;

async function prepare(megabytes: number, dtype: FloatDtype): Promise<Prepared> {
  const bytes = dtype === "float32" ? 4 : 2;
  const count = Math.floor((megabytes * 1e6) / bytes / tensors);
  const folder = await mkdtemp(join(tmpdir(), "nomoat-bench-"));
  const path = join(folder, "weights.safetensors");
  const original = seeded("weights", [count]);
  const stored: Record<string, Tensor> = {};
  for (let i = 0; i < tensors; i++) stored[`layer.${i}.weight`] = tidy(() => original.cast(dtype).clone());
  try {
    await saveSafetensors(path, stored);
  } finally {
    for (const one of Object.values(stored)) one.dispose();
  }
  const load = async () => (await loadSafetensors(path, { dtype: "float32" })).tensors;
  return {
    async run() {
      for (const one of (await load()).values()) one.dispose();
    },
    async verify() {
      const loaded = await load();
      const values = original.dataSync() as ArrayLike<number>;
      const accuracy = compareArrays(
        loaded.get(`layer.${tensors - 1}.weight`)!.dataSync() as ArrayLike<number>,
        values,
        rounding[dtype],
      );
      for (const one of loaded.values()) one.dispose();
      return accuracy;
    },
    dispose() {
      original.dispose();
      void rm(folder, { recursive: true, force: true });
    },
  };
}

export const load: Suite = {
  name: "load",
  about: "safetensors from the file cache into memory, by megabytes",
  cases(sweep): Case[] {
    const sizes = sizesOf(sweep, { quick: [16], standard: [16, 256] });
    return sizes.flatMap((megabytes) =>
      dtypesOf(sweep, floatDtypes).map((dtype) => ({
        suite: "load",
        name: `safetensors ${dtype} ${megabytes} MB`,
        parameters: { megabytes, dtype },
        // Read once, written once, 16-bit floats as 32.
        work: movement(megabytes * 1e6 * (dtype === "float32" ? 2 : 3)),
        prepare: () => prepare(megabytes, dtype),
      })),
    );
  },
};
