// Updates that are products of another kind, as in PEFT and LyCORIS: LoHa, s·(W₁ₐW₁ᵦ ⊙ W₂ₐW₂ᵦ) (FedPara, arXiv:2108.06098), and LoKr,
// s·(W₁ ⊗ W₂) (arXiv:2212.10650), each factor itself perhaps a product of low rank. On linear layers neither makes the whole update in a
// forward pass, but for LoHa where that is the smaller work. On convolutions, of kernel k × l, both do, and convolve with it; with
// useEffectiveConv2d a factor of low rank is a CP decomposition over rank, rank, and kernel.

import { conv2d, matmul, noGrad, type Tensor, tidy, zeros } from "@nomoat/core";
import { type Conv2d, kaimingUniform, type LinearBase, type Module, parameter } from "@nomoat/core/nn";
import { AdapterBranch, type BranchOptions, type LoraVariant, type UpdateContext } from "../branch.js";
import type { LoraConfig } from "../config.js";
import { lowRankUpdate } from "../low-rank.js";
import { isConvolution } from "../targets.js";
import { baseOf } from "./lora.js";

abstract class ProductBranch extends AdapterBranch {
  readonly r: number;
  scaling: number;
  /** By PEFT's names. */
  readonly #tensors: ReadonlyMap<string, Tensor>;

  constructor(options: BranchOptions, tensors: ReadonlyMap<string, Tensor>) {
    super(options.adapter);
    this.r = options.target.r;
    this.scaling = options.target.scaling;
    this.#tensors = tensors;
    // As properties they are found as the module's parameters.
    for (const [name, tensor] of tensors) Object.assign(this, { [name]: parameter(tensor) });
  }

  override reconfigure({ scaling }: { scaling: number }): void {
    this.scaling = scaling;
  }

  override tensors(): Map<string, Tensor> {
    return new Map(this.#tensors);
  }

  /** The tensor of that name as a matrix, or the product of its halves `_a` and `_b`, perhaps around a core `_t`. */
  protected factor(name: string): Tensor {
    const core = name.replace("_w", "_t");
    const [whole, a, b, t] = [name, `${name}_a`, `${name}_b`, core].map((key) => this.#tensors.get(key));
    if (whole) return whole.reshape([whole.shape[0], whole.size / whole.shape[0]]);
    return t ? aroundCore(t, a as Tensor, b as Tensor) : matmul(a as Tensor, b as Tensor);
  }

  /** The update [outFeatures, inFeatures] without scaling; of a convolution [outChannels, inChannels · kernel]. */
  protected abstract product(): Tensor;

  /** What a linear layer gives with the update. */
  protected abstract updateLinear(x: Tensor, y: Tensor): Tensor;

  override update(x: Tensor, y: Tensor, { base }: UpdateContext): Tensor {
    if (!isConvolution(base)) return this.updateLinear(x, y);
    return tidy(() => {
      const { weight, options } = base as Conv2d;
      const update = this.product()
        .mul(this.scaling * this.weight)
        .reshape(weight.shape);
      return y.add(conv2d(x.cast(y.dtype), update.cast(y.dtype), null, options));
    });
  }

  override updateWeight(sum: Tensor, _original: Tensor): Tensor {
    return noGrad(() =>
      tidy(() =>
        sum
          .add(
            this.product()
              .mul(this.scaling * this.weight)
              .reshape(sum.shape),
          )
          .cast(sum.dtype),
      ),
    );
  }
}

/** Σ t[i, j, …] · a[i, out] · b[j, in] as a matrix [out, in · kernel], of t [r, r, kernel …], a [r, out], b [r, in]. */
function aroundCore(t: Tensor, a: Tensor, b: Tensor): Tensor {
  const [r, out, into] = [t.shape[0], a.shape[1], b.shape[1]];
  const kernel = t.size / (r * r);
  const half = matmul(t.reshape([r, r, kernel]), b, { transA: true }); // [i, kernel, in]
  const whole = matmul(a, half.reshape([r, kernel * into]), { transA: true });
  return whole
    .reshape([out, kernel, into])
    .permute(0, 2, 1)
    .reshape([out, into * kernel]);
}

class LohaBranch extends ProductBranch {
  protected override product(): Tensor {
    return this.factor("hada_w1").mul(this.factor("hada_w2"));
  }

  protected override updateLinear(x: Tensor, y: Tensor): Tensor {
    const scaling = this.scaling * this.weight;
    return tidy(() => {
      const thin = this.#thinFactors();
      if (thin) {
        const { dtype } = y;
        return lowRankUpdate(x.cast(dtype), y, thin.a.cast(dtype), thin.b.cast(dtype), { scaling });
      }
      const weight = this.product().cast(x.dtype);
      return y.add(matmul(x, weight, { transB: true, alpha: scaling }).cast(y.dtype));
    });
  }

  /**
   * A Hadamard product of two products of rank r is one product of rank r²: of all products of the rows of W₁ᵦ and W₂ᵦ [r², in], and of
   * the columns of W₁ₐ and W₂ₐ [out, r²]. Null where these hold more than the whole update.
   */
  #thinFactors(): { a: Tensor; b: Tensor } | null {
    const tensors = this.tensors();
    const [a1, b1, a2, b2] = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"].map(
      (name) => tensors.get(name) as Tensor,
    );
    const [outFeatures, inFeatures] = [a1.shape[0], b1.shape[1]];
    const r = a1.shape[1] * a2.shape[1];
    if (r * (inFeatures + outFeatures) >= inFeatures * outFeatures) return null;
    return {
      a: b1.unsqueeze(1).mul(b2).reshape([r, inFeatures]),
      b: a1.unsqueeze(2).mul(a2.unsqueeze(1)).reshape([outFeatures, r]),
    };
  }
}

class LokrBranch extends ProductBranch {
  protected override product(): Tensor {
    const [w1, w2] = [this.factor("lokr_w1"), this.factor("lokr_w2")];
    const [[a, c], [b, d]] = [w1.shape, w2.shape];
    return w1
      .reshape([a, 1, c, 1])
      .mul(w2.reshape([1, b, 1, d]))
      .reshape([a * b, c * d]);
  }

  protected override updateLinear(x: Tensor, y: Tensor): Tensor {
    return tidy(() => {
      const [w1, w2] = [this.factor("lokr_w1").cast(x.dtype), this.factor("lokr_w2").cast(x.dtype)];
      const [c, d] = [w1.shape[1], w2.shape[1]];
      // (W₁ ⊗ W₂)·x = W₁ · X · W₂ᵀ for x as a matrix X [c, d]
      const half = matmul(x.reshape([x.size / (c * d), c, d]), w2, { transB: true });
      const whole = matmul(w1, half).mul(this.scaling * this.weight);
      return y.add(whole.reshape(y.shape).cast(y.dtype));
    });
  }
}

/**
 * Two factors of `dimension`, the smaller first: `factor` and the rest where it divides, else the pair closest to the square root (with
 * none above `factor`, when that is positive). PEFT's `factorization`.
 */
export function factorization(dimension: number, factor = -1): [number, number] {
  if (factor > 0 && dimension % factor === 0) return [factor, dimension / factor];
  const most = factor === -1 ? dimension : factor;
  let [m, n] = [1, dimension];
  while (m < n) {
    let next = m + 1;
    while (dimension % next !== 0) next++;
    if (next + dimension / next > m + n || next > most) break;
    [m, n] = [next, dimension / next];
  }
  return m > n ? [n, m] : [m, n];
}

/** Tensors named in `zero` start with zeros unless the config wants a random beginning; the others as `nn.Linear`'s default. */
function initialTensors(
  shapes: ReadonlyMap<string, readonly number[]>,
  zero: ReadonlySet<string>,
  { config, dtype, device, generator }: BranchOptions,
): Map<string, Tensor> {
  const place = { dtype, device };
  const random = generator ? { ...place, generator } : place;
  return new Map(
    Array.from(shapes, ([name, shape]) => [
      name,
      config.initLoraWeights && zero.has(name)
        ? zeros(shape, place)
        : kaimingUniform(shape, Math.sqrt(5), random),
    ]),
  );
}

/** Extents of a layer's weight: outputs, inputs, and those of the kernel, none for a linear layer. */
function extentsOf(layer: Module): { out: number; into: number; kernel: readonly number[] } {
  const base = baseOf(layer);
  if (!isConvolution(base)) {
    const { inFeatures, outFeatures } = base as LinearBase;
    return { out: outFeatures, into: inFeatures, kernel: [] };
  }
  const [out, into, ...kernel] = (base as Conv2d).weight.shape;
  return { out, into, kernel };
}

/** Shapes of a factor of low rank [out, in · kernel]: halves, or with `effective` halves around a core. */
function halves(
  name: string,
  r: number,
  { out, into, kernel }: ReturnType<typeof extentsOf>,
  effective: boolean,
): [name: string, shape: readonly number[]][] {
  const points = kernel.reduce((product, extent) => product * extent, 1);
  // PEFT: a kernel of one point has no use for a core.
  if (!effective || points === 1)
    return [
      [`${name}_a`, [out, r]],
      [`${name}_b`, [r, into * points]],
    ];
  return [
    [`${name}_a`, [r, out]],
    [`${name}_b`, [r, into]],
    [name.replace("_w", "_t"), [r, r, ...kernel]],
  ];
}

export const loha: LoraVariant = {
  name: "LoHa",
  handles: (config) => config.peftType === "LOHA",
  shapes({ r }, layer, { useEffectiveConv2d }) {
    const extents = extentsOf(layer);
    return new Map(["hada_w1", "hada_w2"].flatMap((name) => halves(name, r, extents, useEffectiveConv2d)));
  },
  create(layer, options, tensors) {
    const shapes = loha.shapes(options.target, layer, options.config);
    return new LohaBranch(options, tensors ?? initialTensors(shapes, new Set(["hada_w2_b"]), options));
  },
};

function lokrShapes({ r }: { r: number }, layer: Module, config: LoraConfig): Map<string, readonly number[]> {
  const { out, into, kernel } = extentsOf(layer);
  const [c, d] = factorization(into, config.decomposeFactor);
  const [a, b] = factorization(out, config.decomposeFactor);
  const first = { out: a, into: c, kernel: [] };
  const second = { out: b, into: d, kernel };
  const factor = (name: string, extents: typeof first | typeof second, thin: boolean) =>
    thin && r < Math.max(extents.out, extents.into) / 2
      ? halves(name, r, extents, config.useEffectiveConv2d)
      : [[name, [extents.out, extents.into, ...extents.kernel]] as const];
  return new Map([...factor("lokr_w1", first, config.decomposeBoth), ...factor("lokr_w2", second, true)]);
}

export const lokr: LoraVariant = {
  name: "LoKr",
  handles: (config) => config.peftType === "LOKR",
  shapes: lokrShapes,
  create(layer, options, tensors) {
    const shapes = lokrShapes(options.target, layer, options.config);
    return new LokrBranch(
      options,
      tensors ?? initialTensors(shapes, new Set(["lokr_w1", "lokr_w1_a"]), options),
    );
  },
};
