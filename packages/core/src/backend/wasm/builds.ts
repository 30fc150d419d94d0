// Packed kernel modules, as scripts/pack-kernels.mjs makes them: which of two builds this host can run, and its bytes.

import { BackendError } from "../../errors.js";
import { inflateRaw } from "./inflate.js";

/** Bytes compressed by raw DEFLATE. */
export interface PackedBytes {
  /** Their number before compression. */
  readonly size: number;
  /** The compressed bytes, base64. */
  readonly data: string;
}

/** One set of kernels, compiled without and with relaxed SIMD: as modules, or packed. */
export type KernelBuilds =
  | { readonly baseline: Uint8Array<ArrayBuffer>; readonly relaxed: Uint8Array<ArrayBuffer> }
  | PackedBuilds;

/** Two builds packed. */
export interface PackedBuilds {
  readonly baseline: PackedBytes;
  /** What to change in the baseline module: see `applyEdits`. */
  readonly relaxed: PackedBytes;
}

/** A module of one function, `f32x4.relaxed_madd` of three zeros: valid where the host has relaxed SIMD. */
const relaxedProbe = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0],
  ...[10, 20, 1, 18, 0, 65, 0, 253, 15, 65, 0, 253, 15, 65, 0, 253, 15, 253, 133, 2, 26, 11],
);

/** True when this host has relaxed SIMD. */
export function hasRelaxedSimd(): boolean {
  return WebAssembly.validate(relaxedProbe);
}

/** The bytes of the build with or without relaxed SIMD. */
export function unpackBuild(builds: KernelBuilds, relaxed: boolean): Uint8Array<ArrayBuffer> {
  if (isModules(builds)) return relaxed ? builds.relaxed : builds.baseline;
  const baseline = unpack(builds.baseline);
  return relaxed ? applyEdits(baseline, unpack(builds.relaxed)) : baseline;
}

function isModules(builds: KernelBuilds): builds is Exclude<KernelBuilds, PackedBuilds> {
  return builds.baseline instanceof Uint8Array;
}

function unpack({ size, data }: PackedBytes): Uint8Array<ArrayBuffer> {
  const binary = atob(data);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  // Node's own is ten times faster than a JavaScript that has just been loaded.
  const zlib = globalThis.process?.getBuiltinModule?.("node:zlib");
  return zlib ? new Uint8Array(zlib.inflateRawSync(bytes)) : inflateRaw(bytes, size);
}

/**
 * Makes a module out of another one and edits, records of: count of new bytes, the new bytes, count of bytes to copy,
 * where they begin in `from`, counted from where the last copy ended (zigzag). Counts and places are varints.
 *
 * @throws {BackendError} when the edits end in the middle of a record
 */
export function applyEdits(from: Uint8Array, edits: Uint8Array): Uint8Array<ArrayBuffer> {
  const output: number[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      if (at >= edits.length) throw new BackendError("wasm: the packed kernels are damaged");
      const byte = edits[at++];
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  for (let place = 0; at < edits.length; ) {
    for (let fresh = varint(); fresh > 0; fresh--) output.push(edits[at++]);
    const length = varint();
    const step = varint();
    place += step & 1 ? -((step + 1) >>> 1) : step >>> 1;
    for (const end = place + length; place < end; place++) output.push(from[place]);
  }
  return Uint8Array.from(output);
}
