// onnxruntime-web (wasm) and onnxruntime-node (native): one-node models, both operands as inputs, weights of integer formats
// as constants, since the runtime packs those once.

import { codeValues } from "../../inputs.js";
import { type Adapter, type PeerContext, type PeerJob, unsupported } from "../adapter.js";
import {
  convolutionInputs,
  type InputPair,
  poolingInput,
  productInputs,
  type Stored,
  windowCounts,
} from "../inputs.js";
import type { ConvolutionTask, PoolingTask, ProductTask, QuantTask } from "../protocol.js";
import { type ElementType, onnxModel, type TensorInfo } from "./onnx-model.js";

interface OrtTensor {
  readonly data: ArrayLike<number>;
  dispose?(): void;
}

interface Session {
  run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}

interface Ort {
  readonly env: { wasm: { numThreads?: number }; logLevel?: string };
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> };
  readonly Tensor: new (type: string, data: ArrayLike<number>, shape: readonly number[]) => OrtTensor;
}

const blockSize = 32;

async function jobOf(
  ort: Ort,
  { threads }: PeerContext,
  provider: string,
  model: Uint8Array,
  feeds: Record<string, OrtTensor>,
): Promise<PeerJob> {
  const session = await ort.InferenceSession.create(model, {
    executionProviders: [provider],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  return {
    async run() {
      (await session.run(feeds)).y.dispose?.();
    },
    result: async () => (await session.run(feeds)).y.data,
    dispose: () => void session.release(),
  };
}

function productModel({ m, n, batch, transposes }: ProductTask, { a, b }: InputPair): Uint8Array {
  const info = (name: string, shape: readonly number[]): TensorInfo => ({ name, type: "float32", shape });
  const inputs = [info("a", a.shape), info("b", b.shape)];
  const output = info("y", batch > 1 ? [batch, m, n] : [m, n]);
  if (transposes === "NN") return onnxModel({ type: "MatMul", domain: "", inputs, output });
  const integers = { transA: Number(transposes[0] === "T"), transB: Number(transposes[1] === "T") };
  return batch > 1
    ? onnxModel({ type: "FusedMatMul", domain: "com.microsoft", inputs, output, integers })
    : onnxModel({ type: "Gemm", domain: "", inputs, output, integers });
}

/** The gradient of the input is the transposed convolution; that of the weight is no operation. */
function convolutionModel(task: ConvolutionTask): Uint8Array {
  const { kernel, stride, padding, groups, wanted } = task;
  if (wanted === "weight") return unsupported("gradient of a convolution's weight");
  const { x, weight, dy } = convolutionInputs(task);
  const [from, to] = wanted === "output" ? [x, dy] : [dy, x];
  const lists = { kernel_shape: kernel, strides: [stride, stride], pads: Array<number>(4).fill(padding) };
  return onnxModel({
    type: wanted === "output" ? "Conv" : "ConvTranspose",
    domain: "",
    inputs: [
      { name: "x", type: "float32", shape: from.shape },
      { name: "w", type: "float32", shape: weight.shape },
    ],
    output: { name: "y", type: "float32", shape: to.shape },
    integers: { group: groups },
    lists: wanted === "output" ? lists : { ...lists, output_shape: to.shape.slice(2) },
  });
}

function poolingModel(task: PoolingTask): Uint8Array {
  const { kernel, stride, padding, reduction } = task;
  const { shape } = poolingInput(task);
  return onnxModel({
    type: reduction === "max" ? "MaxPool" : "AveragePool",
    domain: "",
    inputs: [{ name: "x", type: "float32", shape }],
    output: { name: "y", type: "float32", shape: [...shape.slice(0, 2), ...windowCounts(task)] },
    lists: { kernel_shape: kernel, strides: [stride, stride], pads: Array<number>(4).fill(padding) },
  });
}

interface QuantModel {
  readonly model: Uint8Array;
  readonly x: { type: ElementType; values: ArrayLike<number> };
}

/** MatMulNBits: two codes of a row a byte, the lower one first; the zero point is 8. */
function int4Model({ size, rows, format, seeds }: QuantTask): QuantModel {
  const weights = codeValues(seeds[1], size * size, 4);
  const packed = new Uint8Array((size * size) / 2);
  for (let i = 0; i < packed.length; i++) packed[i] = weights[2 * i] | (weights[2 * i + 1] << 4);
  const scales = new Float32Array((size * size) / blockSize).fill(1 / 16);
  const blocks = size / blockSize;
  const x = Float32Array.from(codeValues(seeds[0], rows * size, 8), (code) => (code - 128) / 16);
  const model = onnxModel({
    type: "MatMulNBits",
    domain: "com.microsoft",
    inputs: [
      { name: "x", type: "float32", shape: [rows, size] },
      { name: "w", type: "uint8", shape: [size, blocks, blockSize / 2] },
      { name: "scales", type: "float32", shape: [size * blocks] },
    ],
    output: { name: "y", type: "float32", shape: [rows, size] },
    constants: { w: packed, scales: new Uint8Array(scales.buffer) },
    integers: { K: size, N: size, bits: 4, block_size: blockSize, accuracy_level: format === "int4" ? 1 : 4 },
  });
  return { model, x: { type: "float32", values: x } };
}

/** MatMulInteger with w stored as [in, out]. */
function int8Model({ size, rows, seeds }: QuantTask): QuantModel {
  const stored = codeValues(seeds[1], size * size, 8);
  const w = new Int8Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) w[column * size + row] = stored[row * size + column] - 128;
  }
  const x = codeValues(seeds[0], rows * size, 8);
  const model = onnxModel({
    type: "MatMulInteger",
    domain: "",
    inputs: [
      { name: "x", type: "uint8", shape: [rows, size] },
      { name: "w", type: "int8", shape: [size, size] },
      { name: "zero", type: "uint8", shape: [] },
    ],
    output: { name: "y", type: "int32", shape: [rows, size] },
    constants: { w: new Uint8Array(w.buffer), zero: Uint8Array.of(128) },
  });
  return { model, x: { type: "uint8", values: x } };
}

function adapter(name: string, provider: string): Adapter {
  return async (context) => {
    const loaded = await context.load(name);
    const ort = (loaded.InferenceSession ? loaded : loaded.default) as unknown as Ort;
    if (provider === "wasm") ort.env.wasm.numThreads = context.threads;
    return {
      version: await context.version(name),
      prepare(task) {
        if (task.kind === "gemm") {
          const inputs = productInputs(task);
          const feeds = {
            a: new ort.Tensor("float32", inputs.a.values, inputs.a.shape),
            b: new ort.Tensor("float32", inputs.b.values, inputs.b.shape),
          };
          return jobOf(ort, context, provider, productModel(task, inputs), feeds);
        }
        const tensor = ({ values, shape }: Stored): OrtTensor => new ort.Tensor("float32", values, shape);
        if (task.kind === "convolution") {
          const { x, weight, dy } = convolutionInputs(task);
          const feeds = { x: tensor(task.wanted === "output" ? x : dy), w: tensor(weight) };
          return jobOf(ort, context, provider, convolutionModel(task), feeds);
        }
        if (task.kind === "pooling")
          return jobOf(ort, context, provider, poolingModel(task), { x: tensor(poolingInput(task)) });
        if (task.kind !== "quant") return unsupported(task.kind);
        const { model, x } = task.format === "int8" ? int8Model(task) : int4Model(task);
        const feeds = { x: new ort.Tensor(x.type, x.values, [task.rows, task.size]) };
        return jobOf(ort, context, provider, model, feeds);
      },
    };
  };
}

export const onnxruntimeWeb = adapter("onnxruntime-web", "wasm");
export const onnxruntimeNode = adapter("onnxruntime-node", "cpu");
