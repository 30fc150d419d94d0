// jax-js on wasm, in Node and in a page.

import { type Adapter, type PeerJob, unsupported } from "../adapter.js";
import { productInputs } from "../inputs.js";
import type { ProductTask } from "../protocol.js";
import type { Values } from "../stored.js";
import { mlpParameters, mlpProjections } from "./mlp.js";

/** An array of jax-js; operations use their operands up, so that each needs a reference of its own. */
interface JaxArray {
  readonly ref: JaxArray;
  reshape(shape: readonly number[]): JaxArray;
  add(other: JaxArray): JaxArray;
  mul(other: JaxArray): JaxArray;
  sum(): JaxArray;
  blockUntilReady(): Promise<JaxArray>;
  data(): Promise<ArrayLike<number>>;
  dispose(): void;
}

type Arrays = JaxArray | JaxArray[];

interface Jax {
  init(device: string): Promise<unknown>;
  defaultDevice(device: string): void;
  jit<T extends Arrays>(fn: (...xs: JaxArray[]) => T): (...xs: JaxArray[]) => T;
  grad(
    fn: (...xs: JaxArray[]) => JaxArray,
    options: { argnums: number[] },
  ): (...xs: JaxArray[]) => JaxArray[];
  readonly numpy: {
    array(values: Float32Array, options?: object): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
    swapaxes(a: JaxArray, first: number, second: number): JaxArray;
  };
  readonly nn: { silu(x: JaxArray): JaxArray };
}

function productJob({ numpy, jit }: Jax, task: ProductTask): PeerJob {
  const inputs = productInputs(task);
  const array = ({ values, shape }: Values): JaxArray => numpy.array(values).reshape(shape);
  const [a, b] = [array(inputs.a), array(inputs.b)];
  const turn = (x: JaxArray, letter: string): JaxArray => (letter === "T" ? numpy.swapaxes(x, -1, -2) : x);
  const product = jit((x, y) => numpy.matmul(turn(x, task.transposes[0]), turn(y, task.transposes[1])));
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
}

function mlpJob({ numpy, nn, jit, grad }: Jax, stored: Map<string, Values>): PeerJob {
  const names = [...mlpParameters, "dy", ...mlpProjections.map((name) => `${name}.weight`)];
  const inputs = names.map((name) => {
    const { values, shape } = stored.get(name)!;
    return numpy.array(values).reshape(shape);
  });
  const times = (x: JaxArray, w: JaxArray): JaxArray => numpy.matmul(x, numpy.swapaxes(w, -1, -2));
  const project = (x: JaxArray, weight: JaxArray, a: JaxArray, b: JaxArray): JaxArray =>
    times(x.ref, weight).add(times(times(x, a), b));
  const forward = (...[x, ga, gb, ua, ub, da, db, gate, up, down]: JaxArray[]): JaxArray =>
    project(nn.silu(project(x.ref, gate, ga, gb)).mul(project(x, up, ua, ub)), down, da, db);
  const trained = mlpParameters.length;
  const loss = (...xs: JaxArray[]): JaxArray =>
    forward(...xs.slice(0, trained), ...xs.slice(trained + 1))
      .mul(xs[trained])
      .sum();
  const gradients = jit(grad(loss, { argnums: mlpParameters.map((_, i) => i) }));
  const references = (): JaxArray[] => inputs.map((one) => one.ref);
  return {
    async run() {
      for (const one of gradients(...references())) (await one.blockUntilReady()).dispose();
    },
    async result() {
      const [...xs] = references();
      xs.splice(trained, 1)[0].dispose();
      const parts = [await jit(forward)(...xs).data()];
      for (const one of gradients(...references())) parts.push(await one.data());
      return parts.flatMap((part) => Array.from(part));
    },
    dispose() {
      for (const one of inputs) one.dispose();
    },
  };
}

export const jaxJs: Adapter = async (context) => {
  const jax = (await context.load("@jax-js/jax")) as unknown as Jax;
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  return {
    version: await context.version("@jax-js/jax"),
    async prepare(task) {
      if (task.kind === "gemm") return productJob(jax, task);
      if (task.kind === "lora-mlp") return mlpJob(jax, await context.tensors(task.stored));
      return unsupported(task.kind);
    },
  };
};
