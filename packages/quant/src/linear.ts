// QuantizedLinear: a linear layer whose frozen weight is packed. It stands wherever a LinearBase may, under an adapter too.

import { ArgumentError, keep, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { checkFeatures, LinearBase, type Module, parameter } from "@nomoat/core/nn";
import { type ActivationGrid, roundToGrid } from "./activations.js";
import type { BlockFormat } from "./formats/format.js";
import type { FormatName } from "./formats/index.js";
import { type QuantizedMatmulOptions, quantizedMatmul } from "./matmul.js";
import { quantize } from "./quantize.js";
import type { QuantizedTensor } from "./quantized-tensor.js";

/** @internal Gives a module the parts of its packed weight as properties, which become its buffers; their names. */
export function packedBuffers(module: Module, quantized: QuantizedTensor): Set<string> {
  const names = new Set<string>();
  // Own properties, for Module finds state among those.
  for (const [name, part] of quantized.parts) {
    const key = name === "data" ? "weight" : `weight.${name}`;
    names.add(key);
    Object.defineProperty(module, key, { value: part, enumerable: true });
  }
  return names;
}

export interface QuantizedLinearOptions {
  /** How activations enter products of a few rows that want no gradient; see `quantizedMatmul`. Default "float32". */
  readonly activations?: "float32" | "int8";
  /** Rounds all inputs to this grid first (static quantization); takes the place of `activations`. Not with `inputScales`. */
  readonly activationGrid?: ActivationGrid;
  /** float32 [inFeatures] that inputs are multiplied by: the weight was divided by it before it was quantized (AWQ). */
  readonly inputScales?: Tensor;
}

/**
 * y = x · dequantize(weight)ᵀ + bias. The weight gets no gradient, x and the bias do. With `inputScales` x is multiplied by them
 * first; with an `activationGrid` it is rounded to that (gradients pass within its range).
 *
 * Its packed arrays are buffers of the module, named after the weight: `weight` (the codes), `weight.absmax`, ...; so are
 * `inputScales`, `activationScale` and `activationZeroPoint`.
 */
export class QuantizedLinear extends LinearBase {
  static override get brand(): string {
    return "@nomoat/quant/QuantizedLinear";
  }

  /** The packed weight; disposed with the module. */
  readonly quantized: QuantizedTensor;
  readonly bias: Tensor | null;
  /** A buffer, or null. */
  readonly inputScales: Tensor | null;
  /** Buffers, float32 [1], or null: see {@link ActivationGrid}. */
  readonly activationScale: Tensor | null;
  readonly activationZeroPoint: Tensor | null;
  activations: "float32" | "int8";
  protected override readonly buffers: ReadonlySet<string>;

  /** Takes over `quantized`, `bias` [outFeatures] and `inputScales`. */
  constructor(quantized: QuantizedTensor, bias: Tensor | null = null, options: QuantizedLinearOptions = {}) {
    super();
    this.quantized = quantized;
    this.bias = bias && (bias.kept ? bias : parameter(bias));
    this.activations = options.activations ?? "float32";
    this.inputScales = options.inputScales ? keep(options.inputScales) : null;
    if (this.inputScales)
      checkFeatures("QuantizedLinear: inputScales", this.inputScales, quantized.inFeatures);
    const { activationGrid: grid } = options;
    if (grid && this.inputScales)
      throw new ArgumentError("QuantizedLinear: an activationGrid does not go with inputScales");
    if (grid && !(grid.scale > 0 && Number.isFinite(grid.scale) && isCode(grid.zeroPoint))) {
      throw new ArgumentError(
        `QuantizedLinear: activationGrid { scale: ${grid.scale}, zeroPoint: ${grid.zeroPoint} }: scale must be positive, zeroPoint from −128 to 127`,
      );
    }
    const { device } = quantized;
    this.activationScale = grid ? keep(tensor([grid.scale], { dtype: "float32", device })) : null;
    this.activationZeroPoint = grid ? keep(tensor([grid.zeroPoint], { dtype: "float32", device })) : null;
    const own = ["inputScales", "activationScale", "activationZeroPoint"];
    this.buffers = new Set([...own, ...packedBuffers(this, quantized)]);
  }

  /**
   * A layer with a quantized copy of `weight` [outFeatures, inFeatures]; takes over `bias`.
   * @throws as {@link quantize}
   */
  static from(
    weight: Tensor,
    bias: Tensor | null,
    format: FormatName | BlockFormat,
    options: QuantizedLinearOptions & { name?: string } = {},
  ): QuantizedLinear {
    return new QuantizedLinear(quantize(weight, { format, name: options.name }), bias, options);
  }

  get inFeatures(): number {
    return this.quantized.inFeatures;
  }

  get outFeatures(): number {
    return this.quantized.outFeatures;
  }

  override forward(x: Tensor): Tensor {
    checkFeatures("QuantizedLinear", x, this.inFeatures);
    const { bias, quantized, activations, inputScales, activationScale, activationZeroPoint } = this;
    if (!bias && !inputScales && !activationScale) return quantizedMatmul(x, quantized, { activations });
    return tidy(() => {
      let inputs = inputScales ? x.mul(inputScales) : x;
      let options: QuantizedMatmulOptions = { activations };
      if (activationScale && activationZeroPoint) {
        inputs = roundToGrid(inputs, activationScale, activationZeroPoint);
        // What lies on the grid is multiplied as integers where there are kernels for it, and in float32 elsewhere.
        const grid = x.storage.backend.synchronous ? this.activationGrid : null;
        options = grid
          ? { activations: "int8", activationScale: grid.scale, activationZeroPoint: grid.zeroPoint }
          : {};
      }
      const y = quantizedMatmul(inputs, quantized, options);
      return bias ? y.add(bias) : y;
    });
  }

  /** The grid of the inputs; null where they are not rounded to one. On host backends. */
  get activationGrid(): ActivationGrid | null {
    const { activationScale, activationZeroPoint } = this;
    if (!activationScale || !activationZeroPoint) return null;
    return { scale: activationScale.item(), zeroPoint: activationZeroPoint.item() };
  }

  override denseWeight(): Tensor {
    const { quantized, inputScales } = this;
    return inputScales ? tidy(() => quantized.dequantize().mul(inputScales)) : quantized.dequantize();
  }

  override withDenseWeight(weight: Tensor): QuantizedLinear {
    const { activations, inputScales } = this;
    const activationGrid = this.activationGrid ?? undefined;
    const { format } = this.quantized;
    const bias = noGrad(() => this.bias && keep(this.bias.clone()));
    if (!inputScales) return QuantizedLinear.from(weight, bias, format, { activations, activationGrid });
    const scales = keep(inputScales.clone());
    const options = { activations, inputScales: scales };
    return tidy(() => QuantizedLinear.from(weight.div(scales), bias, format, options));
  }

  override dispose(): void {
    super.dispose();
    this.quantized.dispose();
  }
}

function isCode(value: number): boolean {
  return Number.isInteger(value) && value >= -128 && value <= 127;
}
