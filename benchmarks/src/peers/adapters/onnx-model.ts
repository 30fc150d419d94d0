// ONNX models of one node, encoded by hand (protocol buffers; field numbers of onnx.proto, ir_version 8).

/** Element types of ONNX. */
const elementTypes = { float32: 1, uint8: 2, int8: 3, int32: 6 } as const;
export type ElementType = keyof typeof elementTypes;

export interface TensorInfo {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
}

export interface Node {
  readonly type: string;
  /** "" for ONNX's own operations. */
  readonly domain: "" | "com.microsoft";
  readonly inputs: readonly TensorInfo[];
  readonly output: TensorInfo;
  /** Values of inputs that are constant, by name. */
  readonly constants?: Readonly<Record<string, Uint8Array>>;
  readonly integers?: Readonly<Record<string, number>>;
  readonly lists?: Readonly<Record<string, readonly number[]>>;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

type Bytes = Uint8Array | readonly number[];

function join(parts: readonly Bytes[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const integer = (field: number, value: number): Uint8Array => join([varint(field * 8), varint(value)]);
const bytes = (field: number, value: Bytes): Uint8Array =>
  join([varint(field * 8 + 2), varint(value.length), value]);
const text = (field: number, value: string): Uint8Array => bytes(field, new TextEncoder().encode(value));

function valueInfo({ name, type, shape }: TensorInfo): Uint8Array {
  const dimensions = join(shape.map((extent) => bytes(1, integer(1, extent))));
  const tensor = join([integer(1, elementTypes[type]), bytes(2, dimensions)]);
  return join([text(1, name), bytes(2, bytes(1, tensor))]);
}

function constant({ name, type, shape }: TensorInfo, values: Uint8Array): Uint8Array {
  const dimensions = shape.map((extent) => integer(1, extent));
  return join([...dimensions, integer(2, elementTypes[type]), text(8, name), bytes(9, values)]);
}

/** The model's file. */
export function onnxModel(one: Node): Uint8Array {
  const { type, domain, inputs, output, constants = {}, integers = {}, lists = {} } = one;
  const [integerType, listType] = [2, 7];
  const attributes = [
    ...Object.entries(integers).map(([name, value]) =>
      bytes(5, join([text(1, name), integer(3, value), integer(20, integerType)])),
    ),
    ...Object.entries(lists).map(([name, values]) =>
      bytes(5, join([text(1, name), ...values.map((value) => integer(8, value)), integer(20, listType)])),
    ),
  ];
  const node = join([
    ...inputs.map((one) => text(1, one.name)),
    text(2, output.name),
    text(4, type),
    ...attributes,
    ...(domain ? [text(7, domain)] : []),
  ]);
  const graph = join([
    bytes(1, node),
    text(2, "benchmark"),
    ...inputs.flatMap((one) => (constants[one.name] ? [bytes(5, constant(one, constants[one.name]))] : [])),
    ...inputs.flatMap((one) => (constants[one.name] ? [] : [bytes(11, valueInfo(one))])),
    bytes(12, valueInfo(output)),
  ]);
  const opset = (name: string, version: number): Uint8Array =>
    bytes(8, join([text(1, name), integer(2, version)]));
  return join([integer(1, 8), bytes(7, graph), opset("", 17), opset("com.microsoft", 1)]);
}
