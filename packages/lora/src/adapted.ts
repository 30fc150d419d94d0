// How layers that carry adapters are told from others, without importing them.

import type { Module } from "@nomoat/core/nn";

export const adaptedBrand = Symbol.for("@nomoat/lora/adapted");

/** True for layers that carry adapters. */
export function isAdapted(module: Module): boolean {
  return adaptedBrand in module;
}
