// Libraries and loops in JavaScript alone: plain loops, @stdlib/blas, and gpu.js, which has no GPU in Node.

import { type Adapter, unsupported } from "../adapter.js";
import { productInputs } from "../inputs.js";
import type { ProductTask } from "../protocol.js";

const block = 64;

/** C += A·B in blocks that stay in the cache, rows of B and C innermost: what one writes by hand. */
function multiply(
  { m, n, k, transposes }: ProductTask,
  a: Float32Array,
  b: Float32Array,
  c: Float32Array,
): void {
  const [aRow, aColumn] = transposes[0] === "T" ? [1, m] : [k, 1];
  const [bRow, bColumn] = transposes[1] === "T" ? [1, k] : [n, 1];
  c.fill(0);
  for (let k0 = 0; k0 < k; k0 += block) {
    for (let j0 = 0; j0 < n; j0 += block) {
      for (let i = 0; i < m; i++) {
        for (let l = k0; l < Math.min(k0 + block, k); l++) {
          const x = a[i * aRow + l * aColumn];
          for (let j = j0; j < Math.min(j0 + block, n); j++) c[i * n + j] += x * b[l * bRow + j * bColumn];
        }
      }
    }
  }
}

export const plain: Adapter = async () => ({
  version: process.versions.v8 ? `V8 ${process.versions.v8}` : "unknown",
  prepare(task) {
    if (task.kind !== "gemm") return unsupported("quantized product");
    if (task.batch > 1) return unsupported("batches");
    const { a, b } = productInputs(task);
    const c = new Float32Array(task.m * task.n);
    const run = (): void => multiply(task, a.values, b.values, c);
    return {
      run,
      result() {
        run();
        return c;
      },
      dispose: () => undefined,
    };
  },
});

type Sgemm = (
  ...args:
    | [string, string, string, number, number, number, number, Float32Array, number, Float32Array, number]
    | [
        string,
        string,
        string,
        number,
        number,
        number,
        number,
        Float32Array,
        number,
        Float32Array,
        number,
        number,
        Float32Array,
        number,
      ]
) => Float32Array;

export const stdlibBlas: Adapter = async (context) => {
  // A file by name: the package has no `exports`, and Node imports no folders.
  const loaded = await context.load("@stdlib/blas/base/sgemm/lib/index.js");
  const sgemm = loaded.default as Sgemm;
  return {
    version: await context.version("@stdlib/blas"),
    prepare(task) {
      if (task.kind !== "gemm") return unsupported("quantized product");
      if (task.batch > 1) return unsupported("batches");
      const { m, n, k, transposes } = task;
      const { a, b } = productInputs(task);
      const c = new Float32Array(m * n);
      const kind = (letter: string): string => (letter === "T" ? "transpose" : "no-transpose");
      const [ka, kb] = [kind(transposes[0]), kind(transposes[1])];
      const run = (): Float32Array =>
        sgemm("row-major", ka, kb, m, n, k, 1, a.values, a.shape[1], b.values, b.shape[1], 0, c, n);
      return { run, result: run, dispose: () => undefined };
    },
  };
};

interface GpuJs {
  readonly GPU: new (options: {
    mode: string;
  }) => {
    readonly mode?: string;
    createKernel(
      source: string,
      settings: object,
    ): ((a: unknown, b: unknown) => ArrayLike<Float32Array>) & {
      destroy(): void;
    };
    destroy(): unknown;
  };
  input(values: Float32Array, size: readonly number[]): unknown;
}

/** gpu.js in a mode that Node has; asked for by name, since it would choose another silently. */
export function gpuJs(mode: "cpu" | "webasm"): Adapter {
  return async (context) => {
    const loaded = await context.load("gpu.js");
    const { GPU, input } = (loaded.GPU ? loaded : loaded.default) as unknown as GpuJs;
    return {
      version: await context.version("gpu.js"),
      prepare(task) {
        if (task.kind !== "gemm") return unsupported("quantized product");
        if (task.batch > 1) return unsupported("batches");
        const { m, n, k, transposes } = task;
        const gpu = new GPU({ mode });
        const left = transposes[0] === "T" ? "a[i][this.thread.y]" : "a[this.thread.y][i]";
        const right = transposes[1] === "T" ? "b[this.thread.x][i]" : "b[i][this.thread.x]";
        // Source text: whatever compiles this file would change a function.
        const kernel = gpu.createKernel(
          `function (a, b) { let sum = 0; for (let i = 0; i < this.constants.k; i++) { sum += ${left} * ${right}; } return sum; }`,
          { output: [n, m], constants: { k } },
        );
        const inputs = productInputs(task);
        const [a, b] = [inputs.a, inputs.b].map(({ values, shape }) => input(values, [shape[1], shape[0]]));
        return {
          run: () => kernel(a, b),
          result() {
            const values = new Float32Array(m * n);
            Array.from(kernel(a, b)).forEach((row, i) => {
              values.set(row, i * n);
            });
            return values;
          },
          dispose: () => kernel.destroy(),
        };
      },
    };
  };
}
