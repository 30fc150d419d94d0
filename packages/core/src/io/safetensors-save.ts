// Tensors to safetensors: one file, its bytes, or a folder of shards with an index. The bytes of tensors are read in pieces while they are
// written, so that a model is never in memory twice.

import { requireOptions, requirePath, use } from "../arguments.js";
import { bytesPerElement, type DType } from "../dtype.js";
import { ArgumentError } from "../errors.js";
import { contiguous } from "../ops/dispatch.js";
import { Tensor } from "../tensor.js";
import { type Chunks, writeFileAtomic, writeFilesAtomic } from "./atomic.js";
import { printable } from "./json-scanner.js";
import { nodeFiles } from "./node.js";
import { encodeSafetensorsHeader, type SafetensorsDType } from "./safetensors-format.js";
import { indexName, singleName } from "./safetensors-shards.js";

/** What dtypes are called in files. */
export const storedAs: Readonly<Record<DType, SafetensorsDType>> = {
  float64: "F64",
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
  int32: "I32",
  int8: "I8",
  uint8: "U8",
  bool: "BOOL",
};

/** Bytes that are read or written at once, a multiple of every element's. */
export const chunkBytes = 2 ** 24;

/** Tensors by name. */
export type NamedTensors = ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>;

/** A file to be written: its header, and then the tensors' bytes in pieces. */
function planFile(tensors: NamedTensors, metadata: Readonly<Record<string, string>> | undefined) {
  requireOptions("safetensors", tensors);
  const named = tensors instanceof Map ? [...tensors] : Object.entries(tensors as Record<string, Tensor>);
  const specs = named.map(([name, tensor]) => {
    if (!(tensor instanceof Tensor))
      throw new ArgumentError(`safetensors: ${printable(name)} is not a tensor`);
    use("saveSafetensors", tensor);
    return { name, dtype: storedAs[tensor.dtype], shape: tensor.shape, tensor };
  });
  const plan = encodeSafetensorsHeader(specs, metadata);
  // Handles of their own, so that a tensor disposed meanwhile is written all the same.
  const held = plan.ordered.map(({ tensor }) => tensor.detach());

  async function* chunks(): AsyncGenerator<Uint8Array> {
    try {
      yield plan.header;
      for (const tensor of held) {
        const flat = contiguous(tensor);
        try {
          const { backend, buffer } = flat.storage;
          const width = bytesPerElement(flat.dtype);
          const bytes = flat.size * width;
          for (let done = 0; done < bytes; done += chunkBytes) {
            const length = Math.min(chunkBytes, bytes - done);
            yield await backend.read(buffer, flat.layout.offset * width + done, length);
          }
        } finally {
          if (flat !== tensor) flat.dispose();
        }
      }
    } finally {
      release();
    }
  }
  const release = () => {
    for (const tensor of held) tensor.dispose();
  };
  return { chunks: chunks(), release, bytes: plan.header.length + plan.dataBytes };
}

/**
 * Writes tensors to a safetensors file, byte for byte as the reference implementation does, whole or not at all (see
 * {@link writeFileAtomic}). Their values must not change until the promise is fulfilled.
 *
 * @param metadata - strings by name, kept as `__metadata__`
 * @throws {ArgumentError} for what the format cannot hold
 * @throws {NomoatError} with code `"IO"` when the file system refuses
 */
export async function saveSafetensors(
  path: string,
  tensors: NamedTensors,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  requirePath("saveSafetensors", path);
  const { chunks, release } = planFile(tensors, metadata);
  try {
    await writeFileAtomic(path, chunks);
  } finally {
    release();
  }
}

/** The file that {@link saveSafetensors} would write, as bytes. */
export async function serializeSafetensors(
  tensors: NamedTensors,
  metadata?: Readonly<Record<string, string>>,
): Promise<Uint8Array> {
  const { chunks, release, bytes } = planFile(tensors, metadata);
  try {
    const file = new Uint8Array(bytes);
    let offset = 0;
    for await (const chunk of chunks) {
      file.set(chunk, offset);
      offset += chunk.length;
    }
    return file;
  } finally {
    release();
  }
}

export interface SaveShardedOptions {
  /** Most bytes of tensors in one file, but for a tensor that is larger by itself (default 5 · 10⁹, Hugging Face's). */
  maxShardBytes?: number;
  /** Kept as `__metadata__` of every file. */
  metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes tensors into a folder as Hugging Face's libraries do: `model-00001-of-00003.safetensors` and so on, filled in the given order,
 * and `model.safetensors.index.json`; or `model.safetensors` alone where one file is enough. All files are complete before the first
 * takes its place (see {@link writeFilesAtomic}).
 *
 * @returns the names of the files
 * @throws {ArgumentError} when shards would go beside a `model.safetensors`, which readers take instead of an index
 * @throws {NomoatError} with code `"IO"` when the file system refuses
 */
export async function saveShardedSafetensors(
  folder: string,
  tensors: NamedTensors,
  options: SaveShardedOptions = {},
): Promise<string[]> {
  requirePath("saveShardedSafetensors", folder);
  requireOptions("saveShardedSafetensors", tensors);
  const { maxShardBytes = 5e9, metadata } = options;
  if (!(maxShardBytes > 0))
    throw new ArgumentError(`saveShardedSafetensors: maxShardBytes must be above 0, not ${maxShardBytes}`);
  const named = tensors instanceof Map ? [...tensors] : Object.entries(tensors as Record<string, Tensor>);
  const shards: Map<string, Tensor>[] = [];
  let [filled, total] = [0, 0];
  for (const [name, tensor] of named) {
    const bytes = tensor instanceof Tensor ? tensor.size * bytesPerElement(tensor.dtype) : 0;
    if (shards.length === 0 || (filled > 0 && bytes > 0 && filled + bytes > maxShardBytes)) {
      shards.push(new Map());
      filled = 0;
    }
    shards[shards.length - 1].set(name, tensor);
    filled += bytes;
    total += bytes;
  }
  if (shards.length <= 1) {
    await writeShards(folder, [singleName], [shards[0] ?? new Map()], metadata);
    return [singleName];
  }
  const node = nodeFiles(folder);
  if (node.fs.existsSync(node.path.join(folder, singleName))) {
    throw new ArgumentError(
      `saveShardedSafetensors: ${folder} holds ${singleName}, which readers would take instead of ${shards.length} shards; remove it first`,
    );
  }
  const number = (i: number) => String(i).padStart(5, "0");
  const names = shards.map((_, i) => `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`);
  const places = shards.flatMap((shard, i) => Array.from(shard.keys(), (name) => [name, names[i]] as const));
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(places) };
  const text = new TextEncoder().encode(`${JSON.stringify(index, null, 2)}\n`);
  await writeShards(folder, names, shards, metadata, [[indexName, text]]);
  return [...names, indexName];
}

async function writeShards(
  folder: string,
  names: readonly string[],
  shards: readonly ReadonlyMap<string, Tensor>[],
  metadata: Readonly<Record<string, string>> | undefined,
  more: readonly (readonly [string, Chunks])[] = [],
): Promise<void> {
  const plans: ReturnType<typeof planFile>[] = [];
  try {
    for (const shard of shards) plans.push(planFile(shard, metadata));
    await writeFilesAtomic(
      folder,
      new Map<string, Chunks>([...names.map((name, i) => [name, plans[i].chunks] as const), ...more]),
    );
  } finally {
    for (const plan of plans) plan.release();
  }
}
