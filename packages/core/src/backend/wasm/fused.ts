// The fused kernels of the contract on wasm. What each computes stands in ../types.ts; how, in assembly/.

import { sizeOf } from "../../shape.js";
import type { AttentionOptions, FusedKernels, Operand, StatisticKind } from "../types.js";
import { launchGroup } from "./group.js";
import { matmulGroup } from "./matmul-group.js";
import { sumColumns } from "./reduce.js";
import type { WasmRuntime } from "./runtime.js";
import { launchFlat, rowGrain, withTemporary } from "./strided.js";
import { convolve, convolveWeights, pool, poolBackward } from "./windows.js";

/** Elements of a chunk of exponentials, and of plain arithmetic. */
const heavyChunk = 8192;
const lightChunk = 16384;
/** Rows whose contribution to a weight's gradient is summed in one go. */
const rowsPerPartial = 32;
/** Queries and keys of a block, as in assembly/attention-tiles.ts, and queries of a block forward, as in attention.ts. */
const attentionBlock = 64;
const forwardQueries = 128;
/** Up to so many queries a head are taken one by one. */
const decodeQueries = 2;
/** Multiply-adds of one chunk of attention. */
const attentionChunk = 500_000;
/** Units that attention's backward makes at least, by splitting the keys of a head. */
const attentionUnits = 8;
/** Kinds of masks, as in assembly/attention-tiles.ts. */
const boolMask = 1;
const floatMask = 2;

/** As in assembly/statistics.ts. */
const statisticKinds: readonly StatisticKind[] = ["mean", "variance", "std", "norm", "logsumexp"];

/** Adds the address and the byte strides of all axes but the last of a float32 operand of rank 4. */
function describe(ints: number[], runtime: WasmRuntime, x: Operand): void {
  ints.push(runtime.address(x), x.strides[0] * 4, x.strides[1] * 4, x.strides[2] * 4);
}

/** Arguments 0 to 28 of the attention kernels, and the descriptions of further operands. */
function attentionInts(
  runtime: WasmRuntime,
  q: Operand,
  k: Operand,
  { causal, mask }: AttentionOptions,
  operands: readonly Operand[],
  logSumExp: Operand | null,
): number[] {
  const [, heads, queries, depth] = q.shape;
  const [, kvHeads, keys] = k.shape;
  const ints = [heads, heads / kvHeads, queries, keys, depth, causal ? 1 : 0];
  for (let i = 0; i < 4; i++) describe(ints, runtime, operands[i]);
  ints.push(logSumExp ? runtime.address(logSumExp) : 0);
  if (mask) {
    const size = mask.dtype === "bool" ? 1 : 4;
    ints.push(mask.dtype === "bool" ? boolMask : floatMask, runtime.address(mask));
    ints.push(...mask.strides.map((stride) => stride * size));
  } else ints.push(0, 0, 0, 0, 0, 0);
  for (let i = 4; i < operands.length; i++) describe(ints, runtime, operands[i]);
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

  /**
   * A normalisation's backward: `dx` row by row, and the gradients of its parameters as sums over blocks of rows, which are then
   * added up. `inverse` has one element a row.
   */
  function normBackward(
    kernel: string,
    inverse: Operand,
    width: number,
    inputs: readonly number[],
    dx: Operand | null,
    parameters: readonly (Operand | null)[],
  ): void {
    const rows = sizeOf(inverse.shape);
    const wanted = parameters.filter((x) => x !== null);
    if (rows === 0 || width === 0) {
      for (const x of wanted) runtime.views.f32().fill(0, address(x) / 4, address(x) / 4 + width);
      return;
    }
    const units = Math.ceil(rows / rowsPerPartial);
    const launch = (partials: readonly number[]) =>
      core.launch(
        kernel,
        units,
        [rows, width, rowsPerPartial, ...inputs, addressOrNull(dx), ...partials],
        undefined,
        { grain: rowGrain(width * rowsPerPartial, lightChunk) },
      );
    if (wanted.length === 0) launch(parameters.map(() => 0));
    else {
      withTemporary(runtime, "float32", [parameters.length, units, width], (sums) => {
        const partials = parameters.map((_, i) => address(sums) + 4 * i * units * width);
        launch(partials);
        for (const [i, x] of parameters.entries())
          if (x) sumColumns(runtime, partials[i], units, width, address(x));
      });
    }
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

    statistic(kind, x, length, divisor, out) {
      const ints = [length, statisticKinds.indexOf(kind), address(x), address(out)];
      core.launch("statistic", sizeOf(out.shape), ints, [divisor], {
        grain: rowGrain(length + 32, heavyChunk),
      });
    },

    rmsNorm(x, weight, eps, out, inverse) {
      launchOverRows("rmsNorm", x, [address(x), address(weight), address(out), address(inverse)], [eps]);
    },

    rmsNormBackward(x, weight, inverse, dy, dx, dWeight) {
      const inputs = [x, weight, inverse, dy].map(address);
      normBackward("rmsNormBackward", inverse, weight.shape[0], inputs, dx, [dWeight]);
    },

    layerNorm(x, weight, bias, eps, out, mean, inverse) {
      launchOverRows("layerNorm", x, [x, weight, bias, out, mean, inverse].map(address), [eps]);
    },

    layerNormBackward(x, weight, mean, inverse, dy, dx, dWeight, dBias) {
      const inputs = [x, weight, mean, inverse, dy].map(address);
      normBackward("layerNormBackward", inverse, weight.shape[0], inputs, dx, [dWeight, dBias]);
    },

    rope(x, cos, sin, sign, out) {
      const [batch, heads, length, depth] = x.shape;
      const ints = [heads, length, depth / 2];
      describe(ints, runtime, x);
      describe(ints, runtime, out);
      ints.push(address(cos), address(sin));
      core.launch("rope", depth === 0 ? 0 : batch * heads * length, ints, [sign], {
        grain: rowGrain(depth + 16, lightChunk),
      });
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

    attentionMasks: true,

    attention(q, k, v, options, out, logSumExp) {
      const [batch, heads, queries, depth] = q.shape;
      if (depth === 0) return;
      const keys = k.shape[2];
      const ints = attentionInts(runtime, q, k, options, [q, k, v, out], logSumExp);
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
      const scratchBytes =
        8 * forwardQueries * width + 8 * attentionBlock * width + 4 * forwardQueries * (attentionBlock + 2);
      core.launch("attention", batch * heads * Math.ceil(queries / forwardQueries), ints, [options.scale], {
        grain: rowGrain(work * Math.min(queries, forwardQueries), attentionChunk),
        scratchBytes,
      });
    },

    attentionBackward(q, k, v, out, logSumExp, dOut, options: AttentionOptions, dq, dk, dv) {
      const [batch, heads, queries, depth] = q.shape;
      const [, kvHeads, keys] = k.shape;
      if (depth === 0) return;
      const width = Math.ceil(depth / 8) * 8;
      const keyBlocks = Math.ceil(keys / attentionBlock);
      const splits = Math.max(1, Math.min(keyBlocks, Math.ceil(attentionUnits / (batch * kvHeads))));
      const withPartial = (fn: (partial: number) => void) =>
        splits === 1
          ? fn(0)
          : withTemporary(runtime, "float32", [splits, ...q.shape], (partial) => fn(address(partial)));
      withTemporary(runtime, "float32", [batch, heads, queries], (delta) =>
        withPartial((partial) => {
          const operands = [q, k, v, out, dOut, dq, dk, dv];
          const ints = attentionInts(runtime, q, k, options, operands, logSumExp);
          ints.push(address(delta), splits, partial, batch);
          const floats = [options.scale];
          const rows = { grain: rowGrain(depth + 32, lightChunk) };
          core.launch("attentionDelta", batch * heads * queries, ints, floats, rows);
          core.launch("attentionGradient", batch * kvHeads * splits, ints, floats, {
            grain: rowGrain(((queries * heads) / kvHeads / splits) * keys * depth * 5, attentionChunk),
            scratchBytes: 4 * attentionBlock * (10 * width + 2 * attentionBlock),
          });
          if (splits > 1) core.launch("attentionGatherGradient", batch * heads * queries, ints, floats, rows);
        }),
      );
    },

    crossEntropy(logits, targets, ignoreIndex, losses, scales) {
      const ints = [address(logits), address(targets), ignoreIndex, address(losses), addressOrNull(scales)];
      launchOverRows("crossEntropy", logits, ints);
    },

    sharePacking(x, work) {
      return runtime.packedRows.share(x, work);
    },

    matmulGroup(products) {
      matmulGroup(runtime, products);
    },

    convolve: convolve.bind(null, runtime),
    convolveWeights: convolveWeights.bind(null, runtime),
    pool: pool.bind(null, runtime),
    poolBackward: poolBackward.bind(null, runtime),

    adamw(updates) {
      const chunk = lightChunk / 2;
      const blocks = updates.map(({ parameter, gradient, m, v, options }) => {
        const size = sizeOf(parameter.shape);
        return {
          ints: [size, chunk, ...[parameter, gradient, m, v].map(address)],
          floats: [
            options.learningRate,
            options.beta1,
            options.beta2,
            options.epsilon,
            options.weightDecay,
            options.biasCorrection1,
            options.biasCorrection2,
            options.gradientScale,
          ],
          units: Math.ceil(size / chunk),
        };
      });
      launchGroup(runtime, "adamwGroup", blocks, { grain: 2 });
    },
  };
}
