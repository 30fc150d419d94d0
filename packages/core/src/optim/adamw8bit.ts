// AdamW whose running means take one byte an entry instead of four (Dettmers et al., arXiv:2110.02861): blocks of 256 entries, each
// scaled to its largest, in a code whose steps are finer near 0. The step runs on the host, over the backend's memory.

import { requireNonNegative } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { ArgumentError, BackendError, DTypeError } from "../errors.js";
import { tidy } from "../memory.js";
import { contiguous, operand } from "../ops/dispatch.js";
import type { Tensor } from "../tensor.js";
import { AdamFamily, type AdamOptions } from "./adam.js";
import type { ParameterGroup, SlotForm, UpdateContext } from "./optimizer.js";

export interface AdamW8bitOptions extends Omit<AdamOptions, "amsgrad"> {
  /** Parameters with fewer entries keep their state in full precision (default 4096). */
  minimumSize: number;
}

/** Entries that share a scale. */
const blockSize = 256;

/**
 * The dynamic code of the paper: 0, 1 and, for each power of ten from 10⁻⁶ to 1, twice as many equally spaced values as for the one
 * below; with both signs, or half as coarse without.
 */
function dynamicCode(signed: boolean): Float64Array {
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const count = 2 ** (signed ? i : i + 1);
    for (let k = 0; k < count; k++) {
      // Middles of equal parts of [0.1, 1].
      const value = 10 ** (i - 6) * (0.1 + (0.9 * (k + 0.5)) / count);
      values.push(value);
      if (signed) values.push(-value);
    }
  }
  return Float64Array.from(values).sort();
}

/** A code with the bounds between its neighbours. */
class Code {
  readonly values: Float64Array;
  readonly #bounds: Float64Array;

  constructor(signed: boolean) {
    this.values = dynamicCode(signed);
    this.#bounds = Float64Array.from({ length: 255 }, (_, i) => (this.values[i] + this.values[i + 1]) / 2);
  }

  /** Number of the nearest value. */
  nearest(x: number): number {
    let low = 0;
    for (let step = 128; step > 0; step >>= 1) if (x > this.#bounds[low + step - 1]) low += step;
    return low;
  }
}

const signedCode = /* @__PURE__ */ new Code(true);
const unsignedCode = /* @__PURE__ */ new Code(false);

/** AdamW with block-wise 8-bit state. Works on host backends, for float32 and float64 parameters. */
export class AdamW8bit extends AdamFamily<AdamOptions & AdamW8bitOptions> {
  protected override readonly decoupled = true;

  /** @throws {ArgumentError} for options out of range */
  constructor(
    parameters: readonly Tensor[] | readonly ParameterGroup<AdamW8bitOptions>[],
    options: Partial<AdamW8bitOptions> = {},
  ) {
    super(
      "AdamW8bit",
      parameters as readonly Tensor[],
      {
        learningRate: 1e-3,
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weightDecay: 0.01,
        minimumSize: 4096,
        amsgrad: false,
      },
      options,
    );
    for (const group of this.groups) {
      requireNonNegative("AdamW8bit", "minimumSize", group.minimumSize);
      if (group.amsgrad) throw new ArgumentError("AdamW8bit: has no amsgrad");
    }
  }

  protected override slotForm(parameter: Tensor, name: string): SlotForm | null {
    if (name === "m" || name === "v") return parameter;
    if (name === "mCodes" || name === "vCodes") return { shape: [parameter.size], dtype: "uint8" };
    if (name === "mScales" || name === "vScales")
      return { shape: [Math.ceil(parameter.size / blockSize)], dtype: "float32" };
    return null;
  }

  protected override update(
    parameter: Tensor,
    gradient: Tensor,
    options: AdamOptions & AdamW8bitOptions,
    context: UpdateContext,
  ): void {
    if (parameter.size < options.minimumSize) {
      super.update(parameter, gradient, options, context);
      return;
    }
    const { backend } = parameter.storage;
    if (!backend.window)
      throw new BackendError(`AdamW8bit: the ${backend.name} backend's memory cannot be seen from the host`);
    if (parameter.dtype !== "float32" && parameter.dtype !== "float64")
      throw new DTypeError(`AdamW8bit: parameters must be float32 or float64, not ${parameter.dtype}`);
    noGrad(() =>
      tidy(() => {
        const target = contiguous(parameter);
        this.#step(target, contiguous(gradient), parameter, options, context);
        if (target !== parameter) parameter.copyFrom(target);
        else parameter.storage.version++;
      }),
    );
  }

  /** The update of contiguous values, `target`, of `parameter`. */
  #step(
    target: Tensor,
    gradient: Tensor,
    parameter: Tensor,
    options: AdamW8bitOptions,
    context: UpdateContext,
  ): void {
    const { count: updates, gradientScale } = context;
    const slots = ["mCodes", "mScales", "vCodes", "vScales"].map((name) => this.slot(parameter, name));
    // After everything is allocated: growing the memory can detach windows.
    const [p, g, mCodes, mScales, vCodes, vScales] = [target, gradient, ...slots].map((tensor) =>
      tensor.storage.backend.window!(operand(tensor)),
    );
    const [beta1, beta2] = options.betas;
    const rate = options.learningRate / (1 - beta1 ** updates);
    const correction2 = 1 / (1 - beta2 ** updates);
    const keep = 1 - options.learningRate * options.weightDecay;
    const m = new Float64Array(blockSize);
    const v = new Float64Array(blockSize);
    for (let block = 0; block < mScales.length; block++) {
      const start = block * blockSize;
      const count = Math.min(blockSize, p.length - start);
      let mMost = 0;
      let vMost = 0;
      for (let i = 0; i < count; i++) {
        const slopeHere = g[start + i] * gradientScale;
        m[i] = beta1 * signedCode.values[mCodes[start + i]] * mScales[block] + (1 - beta1) * slopeHere;
        v[i] =
          beta2 * unsignedCode.values[vCodes[start + i]] * vScales[block] +
          (1 - beta2) * slopeHere * slopeHere;
        mMost = Math.max(mMost, Math.abs(m[i]));
        vMost = Math.max(vMost, v[i]);
        p[start + i] =
          p[start + i] * keep - (rate * m[i]) / (Math.sqrt(v[i] * correction2) + options.epsilon);
      }
      mScales[block] = mMost;
      vScales[block] = vMost;
      for (let i = 0; i < count; i++) {
        mCodes[start + i] = mMost > 0 ? signedCode.nearest(m[i] / mMost) : 0;
        vCodes[start + i] = vMost > 0 ? unsignedCode.nearest(v[i] / vMost) : 0;
      }
    }
  }
}
