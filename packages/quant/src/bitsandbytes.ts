// bitsandbytes' layout of 4-bit weights in safetensors files: NF4 and FP4, with and without quantized scales, as
// `QuantState.as_dict(packed=True)` writes it. The codes and scales are ours as they stand; names and the JSON differ.

import { ArgumentError, FormatError, fromBuffer, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { requireMap } from "@nomoat/core/extend";
import { integerAt, type JsonObject, parseJson } from "@nomoat/core/io";
import { codebookBlockSize, nestedBlockSize } from "./formats/codebook.js";
import { dynamicMap } from "./formats/dynamic-map.js";
import { fp4Values } from "./formats/fp4.js";
import { formatByName } from "./formats/index.js";
import { nf4Values } from "./formats/nf4.js";
import { QuantizedTensor, requirePacked } from "./quantized-tensor.js";

const books = { nf4: nf4Values, fp4: fp4Values } as const;
type Kind = keyof typeof books;
const statePrefix = "quant_state.bitsandbytes__";

/**
 * The tensors that bitsandbytes keeps a weight as: `name` (codes, [bytes, 1]), `name.absmax`, `name.quant_map`, with quantized
 * scales `name.nested_absmax` and `name.nested_quant_map`, and `name.quant_state.bitsandbytes__nf4` (JSON).
 *
 * @param name - full name, such as `model.layers.0.mlp.up_proj.weight`
 * @param dtype - what dequantizing in bitsandbytes gives (default float32)
 * @returns copies that the caller disposes
 * @throws {ArgumentError} for a format that bitsandbytes lacks
 */
export function toBitsAndBytes(
  name: string,
  weight: QuantizedTensor,
  { dtype = "float32" }: { dtype?: "float32" | "float16" | "bfloat16" } = {},
): Map<string, Tensor> {
  requirePacked("toBitsAndBytes", weight);
  const [, kind, single] = /^(nf4|fp4)(_single)?$/.exec(weight.format.name) ?? [];
  if (kind === undefined) {
    throw new ArgumentError(
      `toBitsAndBytes: ${name}: bitsandbytes has no ${weight.format.name} (it has: nf4, nf4_single, fp4, fp4_single)`,
    );
  }
  weight.partList("toBitsAndBytes");
  const { device, parts } = weight;
  const copy = (part: string, shape: number[]) =>
    noGrad(() => tidy(() => (parts.get(part) as Tensor).clone().reshape(shape)));
  const blocks = (parts.get("absmax") as Tensor).size;
  const state: Record<string, unknown> = {
    ...{ quant_type: kind, blocksize: codebookBlockSize, dtype, shape: weight.shape },
  };
  const out = new Map<string, Tensor>([
    [name, copy("data", [(parts.get("data") as Tensor).size, 1])],
    [`${name}.absmax`, copy("absmax", [blocks])],
    [`${name}.quant_map`, tensor(books[kind as Kind], { device })],
  ]);
  if (!single) {
    const [offset] = (parts.get("offset") as Tensor).dataSync() as Float32Array;
    Object.assign(state, {
      nested_blocksize: nestedBlockSize,
      nested_dtype: "float32",
      nested_offset: offset,
    });
    out.set(`${name}.nested_absmax`, copy("nestedAbsmax", [Math.ceil(blocks / nestedBlockSize)]));
    out.set(`${name}.nested_quant_map`, tensor(dynamicMap, { device }));
  }
  const json = new TextEncoder().encode(JSON.stringify(state));
  out.set(`${name}.${statePrefix}${kind}`, fromBuffer(json, { dtype: "uint8", device }));
  return out;
}

/**
 * The weight that bitsandbytes keeps under `name` among `tensors` (of a safetensors file, on one backend).
 *
 * @param name - full name, such as `model.layers.0.mlp.up_proj.weight`
 * @param file - name for messages
 * @returns a copy that the caller disposes; `tensors` stay the caller's
 * @throws {FormatError} naming the tensor that is missing or not what the format demands; for other codebooks or block sizes
 * than bitsandbytes' own (64, scales in 256)
 */
export function fromBitsAndBytes(
  tensors: ReadonlyMap<string, Tensor>,
  name: string,
  file = "safetensors",
): QuantizedTensor {
  requireMap("fromBitsAndBytes", "tensors", tensors);
  const fail = (field: string, reason: string): never => {
    throw new FormatError(reason, { file, field });
  };
  const take = (field: string, dtype: string, size?: number): Tensor => {
    const found = tensors.get(field) ?? fail(field, "is missing");
    if (found.dtype !== dtype || (size !== undefined && found.size !== size)) {
      const wanted = size === undefined ? dtype : `${size} elements of ${dtype}`;
      fail(field, `expected ${wanted}, not ${found.dtype} [${found.shape.join(", ")}]`);
    }
    return found;
  };
  const kind = (["nf4", "fp4"] as const).find((each) => tensors.has(`${name}.${statePrefix}${each}`));
  if (!kind) return fail(name, "has no quant_state of bitsandbytes for NF4 or FP4");
  const field = `${name}.${statePrefix}${kind}`;
  const bytes = tidy(() => take(field, "uint8").clone().dataSync() as Uint8Array);
  const state = parseState(bytes, file, field, kind, fail);
  const size = state.shape[0] * state.shape[1];
  const blocks = Math.ceil(size / codebookBlockSize);
  const nested = Math.ceil(blocks / nestedBlockSize);
  const sameMap = (key: string, expected: Float32Array) => {
    const given = tidy(() => take(`${name}.${key}`, "float32", expected.length).clone().dataSync());
    if (!expected.every((value, i) => Math.abs(value - Number(given[i])) <= 1e-6)) {
      fail(`${name}.${key}`, `is not the map of ${key === "quant_map" ? kind : "bitsandbytes' scales"}`);
    }
  };
  sameMap("quant_map", books[kind]);
  if (state.offset !== null) sameMap("nested_quant_map", dynamicMap);
  const sources: [part: string, given: Tensor][] = [["data", take(name, "uint8", Math.ceil(size / 2))]];
  if (state.offset === null) sources.push(["absmax", take(`${name}.absmax`, "float32", blocks)]);
  else {
    sources.push(["absmax", take(`${name}.absmax`, "uint8", blocks)]);
    sources.push(["nestedAbsmax", take(`${name}.nested_absmax`, "float32", nested)]);
  }
  const { offset } = state;
  return noGrad(() =>
    tidy(() => {
      const parts = new Map(sources.map(([part, given]) => [part, given.clone().reshape(-1)]));
      if (offset !== null) parts.set("offset", tensor([offset], { device: sources[0][1].device }));
      const format = formatByName(offset === null ? `${kind}_single` : kind);
      return new QuantizedTensor(format, state.shape, parts);
    }),
  );
}

interface State {
  readonly shape: readonly [number, number];
  /** null where scales are not quantized. */
  readonly offset: number | null;
}

function parseState(
  bytes: Uint8Array,
  file: string,
  field: string,
  kind: Kind,
  fail: (field: string, reason: string) => never,
): State {
  const json = parseJson(bytes, { file: `${file}: ${field}`, maxBytes: 2 ** 16 });
  if (typeof json !== "object" || json === null || Array.isArray(json))
    return fail(field, "expected an object");
  const state: JsonObject = json;
  const require = (key: string, expected: unknown) => {
    if (state[key] !== expected) {
      fail(field, `${key} must be ${String(expected)}, not ${JSON.stringify(state[key])}`);
    }
  };
  require("quant_type", kind);
  require("blocksize", codebookBlockSize);
  const { shape } = state;
  if (!Array.isArray(shape) || shape.length !== 2) return fail(field, "shape must have two extents");
  const [rows, columns] = shape.map((_, i) => {
    const extent = integerAt(shape, i);
    return extent !== undefined && extent >= 0 ? extent : fail(field, "shape must hold whole numbers");
  });
  if (!Number.isSafeInteger(rows * columns)) fail(field, `shape [${rows}, ${columns}] is too large`);
  const nested = state.nested_blocksize !== undefined || state.nested_offset !== undefined;
  if (!nested) return { shape: [rows, columns], offset: null };
  require("nested_blocksize", nestedBlockSize);
  const { nested_offset: offset } = state;
  if (typeof offset !== "number") return fail(field, "nested_offset must be a number");
  return { shape: [rows, columns], offset };
}
