// Fused kernels that pay on a device: they spare passes over memory and kernel launches. All others run as their compositions.

import { sizeOf } from "../../size.js";
import type { AdamWUpdate, BufferHandle, FusedKernels, Operand } from "../types.js";
import { attention, attentionBackward } from "./attention.js";
import { bufferOf, clear, GpuBuffer } from "./buffer.js";
import { commit, KernelBuilder, outputIndices, planOutput, type Reader, termsOf, thread } from "./builder.js";
import type { Device } from "./device.js";
import { compute } from "./elementwise.js";
import { packedMatmul, unpack } from "./packed.js";
import { reduce } from "./reduce.js";

/** `x` [...] with axes put in front by stride 0 or dropped, as the same operand seen in `shape`. */
function seen(x: Operand, shape: readonly number[], strides: readonly number[]): Operand {
  return { ...x, shape, strides };
}

export function fusedKernelsOf(device: Device): Partial<FusedKernels> {
  /** Runs `fn` with scratch operands that are freed afterwards. */
  function withScratch(shapes: readonly (readonly number[])[], fn: (...scratch: Operand[]) => void): void {
    const buffers = shapes.map((shape) => new GpuBuffer(4 * sizeOf(shape)));
    fn(...buffers.map((buffer, i) => dense(buffer, shapes[i])));
    for (const buffer of buffers) clear(device, buffer);
  }

  /** [rows, n] of a contiguous operand, and [rows] spread over it by stride 0. */
  const matrix = (x: Operand): Operand => {
    const n = x.shape[x.shape.length - 1];
    return seen(x, [n === 0 ? 0 : sizeOf(x.shape) / n, n], [n, 1]);
  };
  const spread = (x: Operand, n: number): Operand => seen(x, [sizeOf(x.shape), n], [1, 0]);
  const column = (x: Operand): Operand => seen(x, [sizeOf(x.shape), 1], [1, 1]);
  const acrossRows = (x: Operand, rows: number): Operand => seen(x, [rows, x.shape[0]], [0, 1]);

  /** Σ over the last axis of an expression of [rows, n] operands. */
  function rowSums(
    inputs: readonly Operand[],
    expression: (...elements: string[]) => string,
    sums: Operand,
  ): void {
    withScratch([inputs[0].shape], (terms) => {
      compute(device, terms, inputs, (elements) => expression(...elements));
      reduce(device, "sum", terms, [1], column(sums));
    });
  }

  /** Largest logit and Σ e^(x − largest) of each row. */
  function statistics(x: Operand, largest: Operand, sums: Operand): void {
    const n = x.shape[1];
    reduce(device, "max", x, [1], column(largest));
    rowSums([x, spread(largest, n)], (a, m) => `Math.exp(${a} - ${m})`, sums);
  }

  function softmaxLike(x: Operand, out: Operand, expression: (...e: string[]) => string): void {
    const rows = matrix(x);
    if (sizeOf(rows.shape) === 0) return;
    withScratch([[rows.shape[0]], [rows.shape[0]]], (largest, sums) => {
      statistics(rows, largest, sums);
      const n = rows.shape[1];
      compute(device, matrix(out), [rows, spread(largest, n), spread(sums, n)], (e) => expression(...e));
    });
  }

  /** An expression of y, dy and a sum over each row of terms of both. */
  function softmaxBackwardLike(
    y: Operand,
    dy: Operand,
    dx: Operand,
    term: (y: string, dy: string) => string,
    expression: (y: string, dy: string, sum: string) => string,
  ): void {
    const rows = matrix(y);
    if (sizeOf(rows.shape) === 0) return;
    withScratch([[rows.shape[0]]], (sums) => {
      rowSums([rows, matrix(dy)], term, sums);
      compute(device, matrix(dx), [rows, matrix(dy), spread(sums, rows.shape[1])], ([a, b, s]) =>
        expression(a, b, s),
      );
    });
  }

  return {
    softmax: (x, out) => softmaxLike(x, out, (a, m, s) => `Math.exp(${a} - ${m}) / ${s}`),

    softmaxBackward: (y, dy, dx) =>
      softmaxBackwardLike(
        y,
        dy,
        dx,
        (a, b) => `${a} * ${b}`,
        (a, b, s) => `${a} * (${b} - ${s})`,
      ),

    logSoftmax: (x, out) => softmaxLike(x, out, (a, m, s) => `${a} - ${m} - Math.log(${s})`),

    logSoftmaxBackward: (y, dy, dx) =>
      softmaxBackwardLike(
        y,
        dy,
        dx,
        (_, b) => b,
        (a, b, s) => `${b} - Math.exp(${a}) * ${s}`,
      ),

    rmsNorm(x, weight, eps, out, inverse) {
      const rows = matrix(x);
      const [count, n] = rows.shape;
      if (sizeOf(rows.shape) === 0) return;
      rowSums([rows], (a) => `${a} * ${a}`, inverse);
      compute(device, column(inverse), [column(inverse)], ([sum], kernel) => {
        return `rsqrt(${sum} * ${kernel.number(1 / n)} + ${kernel.number(eps)})`;
      });
      compute(
        device,
        matrix(out),
        [rows, spread(inverse, n), acrossRows(weight, count)],
        ([a, inv, w]) => `${a} * ${inv} * ${w}`,
      );
    },

    rmsNormBackward(x, weight, inverse, dy, dx, dWeight) {
      const rows = matrix(x);
      const [count, n] = rows.shape;
      if (sizeOf(rows.shape) === 0) {
        if (dWeight) compute(device, dWeight, [], (_, kernel) => kernel.number(0));
        return;
      }
      const scale = spread(inverse, n);
      if (dx) {
        withScratch([[count]], (sums) => {
          const inputs = [rows, acrossRows(weight, count), matrix(dy)];
          rowSums(inputs, (a, w, g) => `${a} * ${w} * ${g}`, sums);
          compute(device, matrix(dx), [...inputs, scale, spread(sums, n)], ([a, w, g, inv, s], kernel) => {
            return `${inv} * (${g} * ${w} - ${a} * ${inv} * ${inv} * ${s} * ${kernel.number(1 / n)})`;
          });
        });
      }
      if (dWeight) {
        withScratch([rows.shape], (terms) => {
          compute(device, terms, [rows, scale, matrix(dy)], ([a, inv, g]) => `${a} * ${inv} * ${g}`);
          reduce(device, "sum", terms, [0], seen(dWeight, [1, n], [n, 1]));
        });
      }
    },

    rope(x, cos, sin, sign, out) {
      if (sizeOf(out.shape) === 0) return;
      const half = out.shape[3] / 2;
      const plan = planOutput(out);
      const kernel = new KernelBuilder(device, [x, out]);
      const [source, cosines, sines] = [x, cos, sin].map((each) => kernel.operand(each));
      const indices = outputIndices(kernel, out, plan);
      const place = indices[3];
      const near = `within(${place}, ${half - 1})`;
      const far = `within(${place} - ${half}, ${half - 1})`;
      const lead = termsOf(indices.slice(0, 3), x.strides);
      const pair = (at: string) => source([...lead, [at, 1]]);
      const table = (read: Reader, at: string) =>
        read([
          [indices[2], half],
          [at, 1],
        ]);
      kernel.line(
        `const factor = ${kernel.number(sign)};`,
        `if (${place} < ${half}) {`,
        `return ${pair(near)} * ${table(cosines, near)} - factor * ${pair(`(${near} + ${half})`)} * ${table(sines, near)};`,
        "}",
        `return ${pair(`(${far} + ${half})`)} * ${table(cosines, far)} + factor * ${pair(far)} * ${table(sines, far)};`,
      );
      commit(device, out, kernel.run(sizeOf(out.shape)), plan);
    },

    swiglu: (gate, up, out) => compute(device, out, [gate, up], ([g, u]) => `silu(${g}) * ${u}`),

    swigluBackward(gate, up, dy, dGate, dUp) {
      if (dGate) {
        compute(device, dGate, [gate, up, dy], ([g, u, d], kernel) => {
          const s = kernel.name("s");
          kernel.line(`const ${s} = sigmoid(${g});`);
          return `${d} * ${u} * ${s} * (1.0 + ${g} * (1.0 - ${s}))`;
        });
      }
      if (dUp) compute(device, dUp, [gate, dy], ([g, d]) => `${d} * silu(${g})`);
    },

    crossEntropy(logits, targets, ignoreIndex, losses, scales) {
      const rows = matrix(logits);
      const [count, classes] = rows.shape;
      if (sizeOf(rows.shape) === 0) return;
      withScratch([[count], [count]], (largest, sums) => {
        statistics(rows, largest, sums);
        const flat = (x: Operand) => seen(x, [count], [1]);
        const kernel = new KernelBuilder(device, [rows]);
        const [all, wanted, top, sum] = [rows, flat(targets), largest, sums].map((x) => kernel.operand(x));
        const ignored = kernel.number(ignoreIndex);
        kernel.line(`const target = ${wanted([[thread, 1]])};`);
        kernel.line("let counts = 1.0;");
        kernel.line(`if (target == ${ignored}) { counts = 0.0; }`);
        const chosen = all([
          [thread, classes],
          [`within(toInteger(target), ${classes - 1})`, 1],
        ]);
        kernel.line(`const loss = ${top([[thread, 1]])} - ${chosen} + Math.log(${sum([[thread, 1]])});`);
        kernel.line("if (counts == 0.0) { return 0.0; }", "return loss;");
        commit(device, flat(losses), kernel.run(count));
        if (!scales) return;
        const backward = new KernelBuilder(device, [rows]);
        const inputs = [
          rows,
          spread(flat(targets), classes),
          spread(largest, classes),
          spread(sums, classes),
        ];
        const readers = [...inputs, spread(flat(scales), classes)].map((x) => backward.operand(x));
        const [row, place] = outputIndices(backward, rows, planOutput(rows));
        const [x, target, m, s, scale] = readers.map((reader, i) => {
          const strides = i === 0 ? [classes, 1] : [1, 0];
          return reader(termsOf([row, place], strides));
        });
        const skipped = backward.number(ignoreIndex);
        backward.line(
          `const target = ${target};`,
          `let probability = Math.exp(${x} - ${m}) / ${s};`,
          `if (target == toFloat(${place === "0" ? `${thread} - ${thread}` : place})) { probability = probability - 1.0; }`,
          `if (target == ${skipped}) { return 0.0; }`,
          `return ${scale} * probability;`,
        );
        commit(device, rows, backward.run(count * classes));
      });
    },

    attention: (q, k, v, options, out, logSumExp) => attention(device, q, k, v, options, out, logSumExp),
    attentionBackward: (q, k, v, out, logSumExp, dOut, options, dq, dk, dv) =>
      attentionBackward(device, [q, k, v, out, logSumExp, dOut], options, [dq, dk, dv]),

    unpack: (weight, out) => unpack(device, weight, out),
    packedMatmul: (x, weight, transposed, beta, out) =>
      packedMatmul(device, x, weight, transposed, beta, out),

    adamw(updates) {
      for (const update of updates) if (sizeOf(update.parameter.shape) > 0) adamw(device, update);
    },
  };
}

function dense(buffer: BufferHandle, shape: readonly number[]): Operand {
  const strides = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
  return { buffer: bufferOf(buffer), dtype: "float32", shape, strides, offset: 0 };
}

/** A thread writes one number, so each of m, v and the parameter has its kernel. */
function adamw(device: Device, { parameter, gradient, m, v, options }: AdamWUpdate): void {
  const { learningRate, beta1, beta2, epsilon, weightDecay, gradientScale } = options;
  compute(device, m, [m, gradient], ([mean, g], kernel) => {
    const [keep, take] = [kernel.number(beta1), kernel.number((1 - beta1) * gradientScale)];
    return `${keep} * ${mean} + ${take} * ${g}`;
  });
  compute(device, v, [v, gradient], ([mean, g], kernel) => {
    const [keep, take] = [kernel.number(beta2), kernel.number((1 - beta2) * gradientScale ** 2)];
    return `${keep} * ${mean} + ${take} * ${g} * ${g}`;
  });
  compute(device, parameter, [parameter, m, v], ([p, mean, square], kernel) => {
    const decay = kernel.number(1 - learningRate * weightDecay);
    const rate = kernel.number(learningRate / options.biasCorrection1);
    const correction = kernel.number(1 / options.biasCorrection2);
    return `${p} * ${decay} - ${rate} * ${mean} / (Math.sqrt(${square} * ${correction}) + ${kernel.number(epsilon)})`;
  });
}
