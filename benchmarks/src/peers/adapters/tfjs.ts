// TensorFlow.js on its cpu and wasm backends.

import { type Adapter, type PeerJob, unsupported } from "../adapter.js";
import { convolutionInputs, poolingInput, productInputs, type Stored } from "../inputs.js";
import type { ConvolutionTask, PoolingTask, ProductTask } from "../protocol.js";
import type { Values } from "../stored.js";
import { mlpParameters, mlpProjections } from "./mlp.js";

interface TfTensor {
  dataSync(): ArrayLike<number>;
  dispose(): void;
}

interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  getBackend(): string;
  tensor(values: Float32Array, shape: readonly number[]): TfTensor;
  matMul(a: TfTensor, b: TfTensor, transposeA: boolean, transposeB: boolean): TfTensor;
  add(a: TfTensor, b: TfTensor): TfTensor;
  mul(a: TfTensor, b: TfTensor): TfTensor;
  sigmoid(a: TfTensor): TfTensor;
  sum(a: TfTensor): TfTensor;
  grads(f: (...xs: TfTensor[]) => TfTensor): (xs: TfTensor[]) => TfTensor[];
  tidy<T>(fn: () => T): T;
  transpose(x: TfTensor, order: readonly number[]): TfTensor;
  conv2d(x: TfTensor, filter: TfTensor, stride: number, padding: number): TfTensor;
  depthwiseConv2d(x: TfTensor, filter: TfTensor, stride: number, padding: number): TfTensor;
  conv2dTranspose(
    x: TfTensor,
    filter: TfTensor,
    shape: readonly number[],
    stride: number,
    padding: number,
  ): TfTensor;
  maxPool(x: TfTensor, size: readonly number[], stride: number, padding: number): TfTensor;
  avgPool(x: TfTensor, size: readonly number[], stride: number, padding: number): TfTensor;
}

function productJob(tf: Tf, task: ProductTask): PeerJob {
  const inputs = productInputs(task);
  const [a, b] = [inputs.a, inputs.b].map(({ values, shape }) => tf.tensor(values, shape));
  const call = (): TfTensor => tf.matMul(a, b, task.transposes[0] === "T", task.transposes[1] === "T");
  return {
    run: () => call().dispose(),
    result() {
      const product = call();
      const values = Float32Array.from(product.dataSync());
      product.dispose();
      return values;
    },
    dispose() {
      a.dispose();
      b.dispose();
    },
  };
}

/** Channels come last here, so that inputs are turned before and the result after, which is not timed. */
function windowJob(tf: Tf, inputs: TfTensor[], call: () => TfTensor): PeerJob {
  return {
    run: () => call().dispose(),
    result: () => tf.tidy(() => Float32Array.from(tf.transpose(call(), [0, 3, 1, 2]).dataSync())),
    dispose() {
      for (const one of inputs) one.dispose();
    },
  };
}

function turned(tf: Tf, { values, shape }: Stored, order: readonly number[]): TfTensor {
  return tf.tidy(() => tf.transpose(tf.tensor(values, shape), order));
}

function convolutionJob(tf: Tf, task: ConvolutionTask): PeerJob {
  const { images, channels, height, width, groups, wanted, stride, padding } = task;
  const depthwise = groups === channels && groups > 1;
  if (wanted === "weight" || (groups > 1 && (!depthwise || wanted === "input")))
    return unsupported(wanted === "weight" ? "gradient of a convolution's weight" : "such groups");
  const inputs = convolutionInputs(task);
  const x = turned(tf, wanted === "output" ? inputs.x : inputs.dy, [0, 2, 3, 1]);
  // [rows, columns, channels, outChannels], or of the depthwise kind [rows, columns, channels, outputs of each].
  const filter = turned(tf, inputs.weight, depthwise ? [2, 3, 0, 1] : [2, 3, 1, 0]);
  return windowJob(tf, [x, filter], () =>
    wanted === "input"
      ? tf.conv2dTranspose(x, filter, [images, height, width, channels], stride, padding)
      : depthwise
        ? tf.depthwiseConv2d(x, filter, stride, padding)
        : tf.conv2d(x, filter, stride, padding),
  );
}

function poolingJob(tf: Tf, task: PoolingTask): PeerJob {
  const { kernel, stride, padding, reduction } = task;
  const x = turned(tf, poolingInput(task), [0, 2, 3, 1]);
  return windowJob(tf, [x], () =>
    reduction === "max" ? tf.maxPool(x, kernel, stride, padding) : tf.avgPool(x, kernel, stride, padding),
  );
}

function mlpJob(tf: Tf, stored: Map<string, Values>): PeerJob {
  const all = new Map([...stored].map(([name, { values, shape }]) => [name, tf.tensor(values, shape)]));
  const get = (name: string): TfTensor => all.get(name)!;
  const project = (x: TfTensor, weight: TfTensor, a: TfTensor, b: TfTensor): TfTensor =>
    tf.add(tf.matMul(x, weight, false, true), tf.matMul(tf.matMul(x, a, false, true), b, false, true));
  const [gate, up, down] = mlpProjections.map((name) => get(`${name}.weight`));
  const forward = (x: TfTensor, ...[ga, gb, ua, ub, da, db]: TfTensor[]): TfTensor => {
    const z = project(x, gate, ga, gb);
    return project(tf.mul(tf.mul(z, tf.sigmoid(z)), project(x, up, ua, ub)), down, da, db);
  };
  const inputs = mlpParameters.map(get);
  const gradients = tf.grads((...xs) => tf.sum(tf.mul(forward(xs[0], ...xs.slice(1)), get("dy"))));
  return {
    run: () => tf.tidy(() => void gradients(inputs).map((one) => one)),
    result() {
      const parts = tf.tidy(() =>
        [forward(inputs[0], ...inputs.slice(1)), ...gradients(inputs)].map((one) =>
          Array.from(one.dataSync()),
        ),
      );
      return parts.flat();
    },
    dispose() {
      for (const one of all.values()) one.dispose();
    },
  };
}

export function tfjs(backend: "cpu" | "wasm"): Adapter {
  return async (context) => {
    const core = await context.load("@tensorflow/tfjs-core");
    const tf = (core.setBackend ? core : core.default) as unknown as Tf;
    const backendModule = await context.load(`@tensorflow/tfjs-backend-${backend}`);
    if (backend === "wasm") {
      const wasm = (backendModule.setWasmPaths ? backendModule : backendModule.default) as {
        setWasmPaths(folder: string): void;
      };
      wasm.setWasmPaths(`${context.place("@tensorflow/tfjs-backend-wasm", "dist")}/`);
    }
    if (!(await tf.setBackend(backend))) throw new Error(`the ${backend} backend does not start`);
    await tf.ready();
    if (tf.getBackend() !== backend) throw new Error(`runs on ${tf.getBackend()} instead of ${backend}`);
    return {
      version: await context.version("@tensorflow/tfjs-core"),
      async prepare(task) {
        if (task.kind === "gemm") return productJob(tf, task);
        if (task.kind === "convolution") return convolutionJob(tf, task);
        if (task.kind === "pooling") return poolingJob(tf, task);
        if (task.kind === "lora-mlp") {
          // The union package brings the gradients' rules; they hang on globalThis.
          await context.load("@tensorflow/tfjs");
          if (tf.getBackend() !== backend) await tf.setBackend(backend);
          return mlpJob(tf, await context.tensors(task.stored));
        }
        return unsupported(task.kind);
      },
    };
  };
}
