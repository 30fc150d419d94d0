// Safetensors in several files: a folder with model.safetensors.index.json, as Hugging Face writes it. A single file is a folder of
// one shard. No tensors here.

import { ArgumentError, FormatError, NomoatError } from "../errors.js";
import { isPlainName } from "./atomic.js";
import { JsonScanner, printable } from "./json-scanner.js";
import { ioError, nodeFiles } from "./node.js";
import { maxTensors, parseSafetensors, requireEntry, type SafetensorsFile } from "./safetensors-format.js";
import { openSource, type SourceLike } from "./source.js";

/** One file, a path of a folder, or the files of a folder by name (in a browser). */
export type SafetensorsSource = SourceLike | ReadonlyMap<string, SourceLike>;

export const singleName = "model.safetensors";
export const indexName = "model.safetensors.index.json";

/** An index beyond this is refused; that of the largest published models is a hundredth of it. */
const maxIndexBytes = 2 ** 26;

/** Files whose headers are valid, and where each tensor stands. */
interface Shards {
  /** For error messages. */
  readonly name: string;
  readonly files: readonly SafetensorsFile[];
  readonly places: ReadonlyMap<string, SafetensorsFile>;
  readonly metadata: Record<string, string>;
}

interface Folder {
  readonly name: string;
  has(name: string): Promise<boolean>;
  get(name: string): SourceLike;
}

function mapFolder(files: ReadonlyMap<string, SourceLike>): Folder {
  return {
    name: "folder",
    has: async (name) => files.has(name),
    get(name) {
      const source = files.get(name);
      if (source === undefined) throw new NomoatError(`${name}: is not among the given files`, "IO");
      return source;
    },
  };
}

function diskFolder(path: string): Folder {
  const node = nodeFiles(path);
  return {
    name: path,
    has: async (name) => node.fs.existsSync(node.path.join(path, name)),
    get: (name) => node.path.join(path, name),
  };
}

async function isFolder(path: string): Promise<boolean> {
  const { fs } = nodeFiles(path);
  try {
    return (await fs.promises.stat(path)).isDirectory();
  } catch (cause) {
    throw ioError(path, "opened", cause);
  }
}

/** The shard's name of every tensor, from an index file: `{"metadata": …, "weight_map": {tensor: shard}}`. */
export async function readShardIndex(input: SourceLike, name: string): Promise<Map<string, string>> {
  const source = await openSource(input, name);
  try {
    const file = source.name;
    if (source.size > maxIndexBytes) {
      throw new FormatError(`an index of ${source.size} bytes exceeds ${maxIndexBytes}`, { file });
    }
    const scanner = new JsonScanner(await source.read(0, source.size), { file, maxKeys: 4 * maxTensors });
    const shards = new Map<string, string>();
    let found = false;
    scanner.object((key) => {
      if (key !== "weight_map") return scanner.skip();
      found = true;
      scanner.object((tensor) => {
        const shard = scanner.string();
        if (!isPlainName(shard)) {
          throw scanner.error(`shard ${printable(shard)} is not a plain name of a file in this folder`);
        }
        shards.set(tensor, shard);
      });
    });
    scanner.end();
    if (!found) throw new FormatError("weight_map is missing", { file, field: "weight_map" });
    return shards;
  } finally {
    await source.close();
  }
}

async function single(source: SourceLike): Promise<Shards> {
  const file = await parseSafetensors(source);
  const places = new Map([...file.entries.keys()].map((name) => [name, file]));
  return { name: file.source.name, files: [file], places, metadata: { ...file.metadata } };
}

/** Tensors of a shard that the index does not name are left out. */
async function sharded(folder: Folder, index: string): Promise<Shards> {
  const shards = await readShardIndex(folder.get(index), index);
  const files = new Map<string, SafetensorsFile>();
  try {
    const places = new Map<string, SafetensorsFile>();
    const metadata: Record<string, string> = Object.create(null);
    for (const [tensor, shard] of shards) {
      let file = files.get(shard);
      if (!file) {
        file = await parseSafetensors(folder.get(shard));
        files.set(shard, file);
        for (const [key, value] of Object.entries(file.metadata)) metadata[key] ??= value;
      }
      requireEntry(file.entries, tensor, file.source.name);
      places.set(tensor, file);
    }
    return { name: folder.name, files: [...files.values()], places, metadata };
  } catch (error) {
    await Promise.all([...files.values()].map((file) => file.close()));
    throw error;
  }
}

async function fromFolder(folder: Folder): Promise<Shards> {
  if (await folder.has(singleName)) return single(folder.get(singleName));
  if (await folder.has(indexName)) return sharded(folder, indexName);
  throw new NomoatError(`${folder.name}: has neither ${singleName} nor ${indexName}`, "IO");
}

/**
 * Opens one file or all shards of a folder. As in Hugging Face's libraries, `model.safetensors` comes before an index.
 *
 * @throws {FormatError} for a header or index that is not valid, or a tensor that the index puts into a shard that lacks it
 * @throws {NomoatError} with code `"IO"` when a file cannot be opened
 */
export async function openShards(source: SafetensorsSource): Promise<Shards> {
  if (source instanceof Map) return fromFolder(mapFolder(source));
  if (source instanceof URL && source.protocol !== "file:") {
    throw new ArgumentError(`${source.href}: only file: URLs are read; fetch it and hand over its bytes`);
  }
  if (typeof source === "string" || source instanceof URL) {
    const builtin = nodeFiles(String(source)).path;
    const path = typeof source === "string" ? source : fileUrlToPath(source);
    if (await isFolder(path)) return fromFolder(diskFolder(path));
    if (path.endsWith(".safetensors.index.json")) {
      return sharded(diskFolder(builtin.dirname(path)), builtin.basename(path));
    }
    return single(path);
  }
  return single(source as SourceLike);
}

function fileUrlToPath(url: URL): string {
  const builtin = globalThis.process?.getBuiltinModule?.("node:url");
  if (!builtin) throw new NomoatError(`${url.href}: there is no file system here`, "IO");
  return builtin.fileURLToPath(url);
}
