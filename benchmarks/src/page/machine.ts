// The machine print as far as a browser tells: it hides the processor, its frequency and its caches.

import type { Machine } from "../machine.js";
import { relaxedSimd } from "../measure/emitter.js";

/** Put here by the build. */
declare const __VERSIONS__: Record<string, string>;

interface Hints {
  readonly brands?: readonly { readonly brand: string; readonly version: string }[];
  readonly platform?: string;
  getHighEntropyValues?(names: readonly string[]): Promise<{
    readonly architecture?: string;
    readonly platformVersion?: string;
    readonly fullVersionList?: readonly { readonly brand: string; readonly version: string }[];
  }>;
}

interface Gpu {
  requestAdapter(): Promise<{
    readonly info?: { readonly vendor: string; readonly architecture: string; readonly description: string };
  } | null>;
}

type Told = Navigator & {
  readonly userAgentData?: Hints;
  readonly deviceMemory?: number;
  readonly gpu?: Gpu;
};

/** Such as "Chrome 156.0.7000.1" out of a user agent's text. */
export function browserOf(userAgent: string): string {
  const names: readonly (readonly [RegExp, string])[] = [
    [/Firefox\/([\d.]+)/, "Firefox"],
    [/Edg\/([\d.]+)/, "Edge"],
    [/Chrome\/([\d.]+)/, "Chrome"],
    [/Version\/([\d.]+).*Safari/, "Safari"],
  ];
  for (const [pattern, name] of names) {
    const version = pattern.exec(userAgent)?.[1];
    if (version) return `${name} ${version}`;
  }
  return "a browser";
}

async function gpuOf({ gpu }: Told): Promise<string | null> {
  const adapter = await gpu?.requestAdapter().catch(() => null);
  const info = adapter?.info;
  if (!info) return null;
  return [info.vendor, info.architecture, info.description].filter(Boolean).join(" ") || "WebGPU";
}

/** Asks once; the print is the same before and after a run. */
export async function describeBrowser(): Promise<Machine> {
  const told = navigator as Told;
  const hints = await told.userAgentData
    ?.getHighEntropyValues?.(["architecture", "platformVersion", "fullVersionList"])
    .catch(() => undefined);
  const full = hints?.fullVersionList?.find(({ brand }) => !/Not.?A.?Brand/i.test(brand));
  const system = /\(([^)]*)\)/.exec(told.userAgent)?.[1] ?? "unknown";
  return {
    cpu: "not told by the browser",
    processors: told.hardwareConcurrency || 1,
    frequency: null,
    caches: [],
    memoryBytes: told.deviceMemory ? told.deviceMemory * 2 ** 30 : null,
    system: told.userAgentData?.platform
      ? `${told.userAgentData.platform} ${hints?.platformVersion ?? ""}`.trim()
      : system,
    architecture: hints?.architecture || "unknown",
    runtime: full ? `${full.brand} ${full.version}` : browserOf(told.userAgent),
    v8: "unknown",
    simd: relaxedSimd() ? "relaxed" : "baseline",
    gpu: await gpuOf(told),
    libraries: __VERSIONS__,
    commit: null,
    load: null,
    power: null,
  };
}

/** The version of this library. */
export function ownVersion(): string {
  return __VERSIONS__["@nomoat/core"] ?? "unknown";
}
