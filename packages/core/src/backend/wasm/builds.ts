// Packed kernel modules, as scripts/pack-kernels.mjs makes them: which of two builds this host can run, and its bytes.

import { BackendError } from "../../errors.js";
import { unpacker } from "./generated/kernels.js";

/** One set of kernels, compiled without and with relaxed SIMD: as modules, or packed. */
export type KernelBuilds =
  | { readonly baseline: Uint8Array<ArrayBuffer>; readonly relaxed: Uint8Array<ArrayBuffer> }
  | PackedBuilds;

/** Two modules as one LZMA stream: its first bytes are the baseline module, the rest the relaxed one. */
export interface PackedBuilds {
  /** Bytes of the baseline module. */
  readonly baseline: number;
  /** Bytes of the relaxed module. */
  readonly relaxed: number;
  /** The stream, base64. */
  readonly data: string;
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
  if (typeof builds.baseline !== "number")
    return relaxed ? (builds.relaxed as Uint8Array<ArrayBuffer>) : builds.baseline;
  const { baseline, relaxed: rest, data } = builds as PackedBuilds;
  const stream = fromBase64(data);
  return relaxed ? unpack(stream, baseline + rest).slice(baseline) : unpack(stream, baseline);
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** Bytes at the start of the unpacker's memory that are its own. */
const workspace = 16384;

/**
 * The first `size` bytes of what a raw LZMA stream holds, by a WebAssembly module (assembly/unpack): JavaScript that was just loaded
 * would take several times as long. Not for files of others: the packed modules are part of this package.
 *
 * @throws {BackendError} when the stream is damaged
 */
export function unpack(stream: Uint8Array, size: number): Uint8Array<ArrayBuffer> {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(fromBase64(unpacker)));
  const { memory, unpack: run } = exports as {
    memory: WebAssembly.Memory;
    unpack(source: number, output: number, size: number): number;
  };
  // Reading past the end of a damaged stream stays within the page that is left between.
  const output = workspace + stream.length + 65536;
  memory.grow(Math.ceil((output + size) / 65536));
  new Uint8Array(memory.buffer).set(stream, workspace);
  const end = run(workspace, output, size);
  if (end === 0 || end > workspace + stream.length)
    throw new BackendError("wasm: the packed kernels are damaged");
  return new Uint8Array(memory.buffer, output, size).slice();
}
