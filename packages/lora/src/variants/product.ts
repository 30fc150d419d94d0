// Updates that are products of another kind, as in PEFT and LyCORIS: LoHa, s·(W₁ₐW₁ᵦ ⊙ W₂ₐW₂ᵦ) (FedPara, arXiv:2108.06098), and LoKr,
// s·(W₁ ⊗ W₂) (arXiv:2212.10650), each factor itself perhaps a product of low rank. Neither makes the whole update in a forward pass, but
// for LoHa where that is the smaller work.

import { matmul, noGrad, type Tensor, tidy, zeros } from "@nomoat/core";
import { kaimingUniform, type LinearBase, type Module, parameter } from "@nomoat/core/nn";
import { AdapterBranch, type BranchOptions, type LoraVariant, type UpdateContext } from "../branch.js";
import type { LoraConfig } from "../config.js";
import { lowRankUpdate } from "../low-rank.js";

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

  /** The tensor of that name, or the product of its halves `_a` and `_b`. */
  protected factor(name: string): Tensor {
    const [whole, a, b] = [name, `${name}_a`, `${name}_b`].map((key) => this.#tensors.get(key));
    return whole ?? matmul(a as Tensor, b as Tensor);
  }

  /** The update [outFeatures, inFeatures] without scaling. */
  protected abstract product(): Tensor;

  override updateWeight(sum: Tensor, _original: Tensor): Tensor {
    return noGrad(() => tidy(() => sum.add(this.product().mul(this.scaling * this.weight)).cast(sum.dtype)));
  }
}

class LohaBranch extends ProductBranch {
  protected override product(): Tensor {
    return this.factor("hada_w1").mul(this.factor("hada_w2"));
  }

  override update(x: Tensor, y: Tensor, _context: UpdateContext): Tensor {
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
    const [a1, b1, a2, b2] = [...this.tensors().values()];
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

  override update(x: Tensor, y: Tensor, _context: UpdateContext): Tensor {
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

export const loha: LoraVariant = {
  name: "LoHa",
  handles: (config) => config.peftType === "LOHA",
  shapes({ r }, layer) {
    const { inFeatures, outFeatures } = layer as LinearBase;
    return new Map([
      ["hada_w1_a", [outFeatures, r]],
      ["hada_w1_b", [r, inFeatures]],
      ["hada_w2_a", [outFeatures, r]],
      ["hada_w2_b", [r, inFeatures]],
    ]);
  },
  create(layer, options, tensors) {
    const shapes = loha.shapes(options.target, layer, options.config);
    return new LohaBranch(options, tensors ?? initialTensors(shapes, new Set(["hada_w2_b"]), options));
  },
};

function lokrShapes({ r }: { r: number }, layer: Module, config: LoraConfig): Map<string, readonly number[]> {
  const { inFeatures, outFeatures } = layer as LinearBase;
  const [c, d] = factorization(inFeatures, config.decomposeFactor);
  const [a, b] = factorization(outFeatures, config.decomposeFactor);
  const shapes = new Map<string, readonly number[]>();
  const put = (name: string, rows: number, columns: number, halves: boolean) => {
    if (!halves) shapes.set(name, [rows, columns]);
    else shapes.set(`${name}_a`, [rows, r]).set(`${name}_b`, [r, columns]);
  };
  put("lokr_w1", a, c, config.decomposeBoth && r < Math.max(a, c) / 2);
  put("lokr_w2", b, d, r < Math.max(b, d) / 2);
  return shapes;
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
