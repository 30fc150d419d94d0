// Packed kernel modules, as scripts/pack-kernels.mjs makes them: whether this host has relaxed SIMD, and the module's bytes then.

import { BackendError } from "../../errors.js";
import { unpacker } from "./generated/kernels.js";

/** One set of kernels: a module for hosts without and one for hosts with relaxed SIMD, or what both are made from. */
export type KernelBuilds =
  | { readonly baseline: Uint8Array<ArrayBuffer>; readonly relaxed: Uint8Array<ArrayBuffer> }
  | PackedBuilds;

/** A module for relaxed SIMD in parts: see scripts/pack-kernels.mjs. */
export interface PackedBuilds {
  /** Bytes of numbers of locals. */
  readonly locals: number;
  /** Bytes of the rest. */
  readonly code: number;
  /** Both as an LZMA stream, base64. */
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
  if ("baseline" in builds) return relaxed ? builds.relaxed : builds.baseline;
  const { locals, code, data } = builds;
  const { memory, parts, assemble } = unpackTo(fromBase64(data), locals + code);
  const target = parts + locals + code;
  const end = assemble(parts, parts + locals, target, target, !relaxed);
  return new Uint8Array(memory.buffer.slice(target, end));
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
  const { memory, parts } = unpackTo(stream, size);
  return new Uint8Array(memory.buffer.slice(parts, parts + size));
}

/** As `unpack`: the unpacker, with what it has unpacked in its memory at `parts` and room for a module behind. */
function unpackTo(stream: Uint8Array, size: number) {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(fromBase64(unpacker)));
  const { memory, unpack, assemble } = exports as {
    memory: WebAssembly.Memory;
    unpack(source: number, output: number, size: number): number;
    assemble(locals: number, code: number, end: number, target: number, fallback: boolean): number;
  };
  // Reading past the end of a damaged stream stays within the page that is left between.
  const parts = workspace + stream.length + 65536;
  // Sizes and what stands for relaxed instructions make a module longer, by less than all of it.
  memory.grow(Math.ceil((parts + 3 * size) / 65536));
  new Uint8Array(memory.buffer).set(stream, workspace);
  const end = unpack(workspace, parts, size);
  if (end === 0 || end > workspace + stream.length)
    throw new BackendError("wasm: the packed kernels are damaged");
  return { memory, parts, assemble };
}
