// How messages name a wrong value. Apart from arguments.ts, and sizes apart from shape.ts, so that the gpu backend, which is loaded on
// demand, shares little with what a page loads at once: bundlers put what is shared into a file of its own.

import type { Tensor } from "./tensor.js";

/** A wrong value in few words. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === "function") return "a function";
  if (typeof value === "bigint") return `${value}n`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) {
    if (typeof (value as Tensor).use === "function") return "a tensor";
    const names = ArrayBuffer.isView(value) ? [] : Object.keys(value).slice(0, 3);
    return names.length > 0 ? `an object with ${names.join(", ")}` : "an object";
  }
  return String(value);
}
