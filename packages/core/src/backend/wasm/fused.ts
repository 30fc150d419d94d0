// The fused kernels of the contract on wasm. What each computes stands in ../types.ts; how, in assembly/.

import { sizeOf } from "../../shape.js";
import type { AttentionOptions, FusedKernels, Operand } from "../types.js";
import { sumColumns } from "./reduce.js";
import type { WasmRuntime } from "./runtime.js";
import { launchFlat, rowGrain, withTemporary } from "./strided.js";

/** Elements of a chunk of exponentials, and of plain arithmetic. */
const heavyChunk = 8192;
const lightChunk = 16384;
/** Rows whose contribution to a weight's gradient is summed in one go. */
const rowsPerPartial = 32;
/** Queries and keys of a block, as in assembly/attention-tiles.ts. */
const attentionBlock = 64;
/** Up to so many queries a head are taken one by one. */
const decodeQueries = 2;
/** Multiply-adds of one chunk of attention. */
const attentionChunk = 500_000;

/** Byte strides of all axes but the last of a float32 operand. */
function byteStrides(x: Operand): number[] {
  return x.strides.slice(0, -1).map((stride) => stride * 4);
}

function attentionInts(
  runtime: WasmRuntime,
  q: Operand,
  k: Operand,
  causal: boolean,
  operands: readonly (Operand | null)[],
  logSumExp: Operand | null,
): number[] {
  const [, heads, queries, depth] = q.shape;
  const [, kvHeads, keys] = k.shape;
  const ints = [heads, heads / kvHeads, queries, keys, depth, causal ? 1 : 0];
  const describe = (x: Operand | null) => (x ? [runtime.address(x), ...byteStrides(x)] : [0, 0, 0, 0]);
  for (const x of operands.slice(0, 4)) ints.push(...describe(x));
  ints.push(logSumExp ? runtime.address(logSumExp) : 0);
  for (const x of operands.slice(4)) ints.push(...describe(x));
  return ints;
}

/** The table of fused kernels over one runtime. */
export function fusedKernels(runtime: WasmRuntime): Omit<FusedKernels, "unpack" | "packedMatmul"> {
  const { core } = runtime;
  const address = (x: Operand) => runtime.address(x);
  const addressOrNull = (x: Operand | null) => (x ? runtime.address(x) : 0);

  /** A kernel over contiguous rows of `x`, whose first argument is the length of a row. */
  function launchOverRows(
    kernel: string,
    x: Operand,
    ints: readonly number[],
    floats?: readonly number[],
  ): void {
    const length = x.shape[x.shape.length - 1];
    const size = sizeOf(x.shape);
    if (size > 0)
      core.launch(kernel, size / length, [length, ...ints], floats, {
        grain: rowGrain(length + 32, heavyChunk),
      });
  }

  return {
    softmax(x, out) {
      launchOverRows("softmax", x, [address(x), address(out)]);
    },

    softmaxBackward(y, dy, dx) {
      launchOverRows("softmaxBackward", y, [address(y), address(dy), address(dx)]);
    },

    logSoftmax(x, out) {
      launchOverRows("logSoftmax", x, [address(x), address(out)]);
    },

    logSoftmaxBackward(y, dy, dx) {
      launchOverRows("logSoftmaxBackward", y, [address(y), address(dy), address(dx)]);
    },

    rmsNorm(x, weight, eps, out, inverse) {
      launchOverRows("rmsNorm", x, [address(x), address(weight), address(out), address(inverse)], [eps]);
    },

    rmsNormBackward(x, weight, inverse, dy, dx, dWeight) {
      const width = weight.shape[0];
      const rows = sizeOf(inverse.shape);
      if (rows === 0 || width === 0) {
        if (dWeight) runtime.views.f32().fill(0, address(dWeight) / 4, address(dWeight) / 4 + width);
        return;
      }
      const units = Math.ceil(rows / rowsPerPartial);
      const launch = (partial: number) =>
        core.launch(
          "rmsNormBackward",
          units,
          [
            rows,
            width,
            rowsPerPartial,
            address(x),
            address(weight),
            address(inverse),
            address(dy),
            addressOrNull(dx),
            partial,
          ],
          undefined,
          { grain: rowGrain(width * rowsPerPartial, lightChunk) },
        );
      if (!dWeight) launch(0);
      else if (units === 1) launch(address(dWeight));
      else {
        withTemporary(runtime, "float32", [units, width], (partial) => {
          launch(address(partial));
          sumColumns(runtime, address(partial), units, width, address(dWeight));
        });
      }
    },

    rope(x, cos, sin, sign, out) {
      const [batch, heads, length, depth] = x.shape;
      core.launch(
        "rope",
        depth === 0 ? 0 : batch * heads * length,
        [
          heads,
          length,
          depth / 2,
          address(x),
          ...byteStrides(x),
          address(out),
          ...byteStrides(out),
          address(cos),
          address(sin),
        ],
        [sign],
        { grain: rowGrain(depth + 16, lightChunk) },
      );
    },

    swiglu(gate, up, out) {
      launchFlat(runtime, "swiglu", sizeOf(out.shape), heavyChunk, [
        address(gate),
        address(up),
        address(out),
      ]);
    },

    swigluBackward(gate, up, dy, dGate, dUp) {
      const addresses = [address(gate), address(up), address(dy), addressOrNull(dGate), addressOrNull(dUp)];
      launchFlat(runtime, "swigluBackward", sizeOf(dy.shape), heavyChunk, addresses);
    },

    attention(q, k, v, options, out, logSumExp) {
      const [batch, heads, queries, depth] = q.shape;
      if (depth === 0) return;
      const keys = k.shape[2];
      const ints = attentionInts(runtime, q, k, options.causal, [q, k, v, out], logSumExp);
      const width = Math.ceil(depth / 8) * 8;
      const work = keys * depth * 2 + 256;
      if (queries <= decodeQueries) {
        const scratchBytes = 8 * width + 1024;
        core.launch("attentionDecode", batch * heads * queries, ints, [options.scale], {
          grain: rowGrain(work, attentionChunk / 4),
          scratchBytes,
        });
        return;
      }
      const scratchBytes = 4 * attentionBlock * (4 * width + attentionBlock + 2);
      core.launch("attention", batch * heads * Math.ceil(queries / attentionBlock), ints, [options.scale], {
        grain: rowGrain(work * Math.min(queries, attentionBlock), attentionChunk),
        scratchBytes,
      });
    },

    attentionBackward(q, k, v, out, logSumExp, dOut, options: AttentionOptions, dq, dk, dv) {
      const [batch, heads, queries, depth] = q.shape;
      const [, kvHeads, keys] = k.shape;
      if (depth === 0) return;
      const width = Math.ceil(depth / 8) * 8;
      withTemporary(runtime, "float32", [batch, heads, queries], (delta) => {
        const operands = [q, k, v, out, dOut, dq, dk, dv];
        const ints = attentionInts(runtime, q, k, options.causal, operands, logSumExp);
        ints.push(address(delta));
        const floats = [options.scale];
        core.launch("attentionDelta", batch * heads * queries, ints, floats, {
          grain: rowGrain(depth + 32, lightChunk),
        });
        core.launch(
          "attentionQueryGradient",
          batch * heads * Math.ceil(queries / attentionBlock),
          ints,
          floats,
          {
            grain: rowGrain(keys * depth * 3 * Math.min(queries, attentionBlock), attentionChunk),
            scratchBytes: 4 * attentionBlock * (6 * width + 2 * attentionBlock),
          },
        );
        core.launch(
          "attentionKeyGradient",
          batch * kvHeads * Math.ceil(keys / attentionBlock),
          ints,
          floats,
          {
            grain: rowGrain(
              ((queries * heads) / kvHeads) * depth * 4 * Math.min(keys, attentionBlock),
              attentionChunk,
            ),
            scratchBytes: 4 * attentionBlock * (8 * width + 2 * attentionBlock + 2),
          },
        );
      });
    },

    crossEntropy(logits, targets, ignoreIndex, losses, scales) {
      const ints = [address(logits), address(targets), ignoreIndex, address(losses), addressOrNull(scales)];
      launchOverRows("crossEntropy", logits, ints);
    },

    adamw(parameter, gradient, m, v, options) {
      launchFlat(
        runtime,
        "adamw",
        sizeOf(parameter.shape),
        lightChunk / 2,
        [address(parameter), address(gradient), address(m), address(v)],
        [
          options.learningRate,
          options.beta1,
          options.beta2,
          options.epsilon,
          options.weightDecay,
          options.biasCorrection1,
          options.biasCorrection2,
          options.gradientScale,
        ],
      );
    },
  };
}
