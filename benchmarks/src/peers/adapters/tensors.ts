// Tensor libraries: TensorFlow.js on its cpu and wasm backends, and jax-js on wasm.

import { type Adapter, unsupported } from "../adapter.js";
import { productInputs } from "../inputs.js";

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
      wasm.setWasmPaths(`${context.folder}/node_modules/@tensorflow/tfjs-backend-wasm/dist/`);
    }
    if (!(await tf.setBackend(backend))) throw new Error(`the ${backend} backend does not start`);
    await tf.ready();
    if (tf.getBackend() !== backend) throw new Error(`runs on ${tf.getBackend()} instead of ${backend}`);
    return {
      version: context.version("@tensorflow/tfjs-core"),
      prepare(task) {
        if (task.kind !== "gemm") return unsupported("quantized product");
        const inputs = productInputs(task);
        const [a, b] = [inputs.a, inputs.b].map(({ values, shape }) => tf.tensor(values, shape));
        const call = (): TfTensor => tf.matMul(a, b, task.transposes[0] === "T", task.transposes[1] === "T");
        return {
          run: () => call().dispose(),
          result() {
            const product = call();
            const values = Array.from(product.dataSync());
            product.dispose();
            return values;
          },
          dispose() {
            a.dispose();
            b.dispose();
          },
        };
      },
    };
  };
}

/** An array of jax-js; operations use their operands up, so that each needs a reference of its own. */
interface JaxArray {
  readonly ref: JaxArray;
  reshape(shape: readonly number[]): JaxArray;
  blockUntilReady(): Promise<JaxArray>;
  data(): Promise<ArrayLike<number>>;
  dispose(): void;
}

interface Jax {
  init(device: string): Promise<unknown>;
  defaultDevice(device: string): void;
  jit(fn: (a: JaxArray, b: JaxArray) => JaxArray): (a: JaxArray, b: JaxArray) => JaxArray;
  readonly numpy: {
    array(values: Float32Array, options?: object): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
    swapaxes(a: JaxArray, first: number, second: number): JaxArray;
  };
}

export const jaxJs: Adapter = async (context) => {
  const jax = (await context.load("@jax-js/jax")) as unknown as Jax;
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  const { numpy } = jax;
  return {
    version: context.version("@jax-js/jax"),
    prepare(task) {
      if (task.kind !== "gemm") return unsupported("quantized product");
      const inputs = productInputs(task);
      const array = ({ values, shape }: { values: Float32Array; shape: number[] }): JaxArray =>
        numpy.array(values).reshape(shape);
      const [a, b] = [array(inputs.a), array(inputs.b)];
      const turn = (x: JaxArray, letter: string): JaxArray =>
        letter === "T" ? numpy.swapaxes(x, -1, -2) : x;
      const product = jax.jit((x, y) =>
        numpy.matmul(turn(x, task.transposes[0]), turn(y, task.transposes[1])),
      );
      return {
        async run() {
          (await product(a.ref, b.ref).blockUntilReady()).dispose();
        },
        result: () => product(a.ref, b.ref).data(),
        dispose() {
          a.dispose();
          b.dispose();
        },
      };
    },
  };
};
