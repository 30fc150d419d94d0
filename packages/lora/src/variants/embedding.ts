// Low-rank adaptation of an embedding: rows of W + s·(B·A)ᵀ, as PEFT's lora.Embedding. A [r, numEmbeddings] starts with zeros, B
// [embeddingDim, r] with normal numbers; only the rows that are looked up are computed. Dropout does not apply. As DoRA (PEFT's
// DoraEmbeddingLayer) every column of the table, a feature over all entries, has a magnitude.

import { embedding, matmul, noGrad, randn, type Tensor, tidy, zeros } from "@nomoat/core";
import { type Embedding, type Module, parameter } from "@nomoat/core/nn";
import { AdapterBranch, type LoraVariant, type UpdateContext } from "../branch.js";
import { isEmbedding } from "../targets.js";
import { Magnitudes, type WeightView } from "./dora.js";
import { baseOf } from "./lora.js";

class EmbeddingBranch extends AdapterBranch {
  /** A [r, numEmbeddings]. */
  readonly loraA: Tensor;
  /** B [embeddingDim, r]. */
  readonly loraB: Tensor;
  scaling: number;

  constructor(adapter: string, a: Tensor, b: Tensor, scaling: number) {
    super(adapter);
    this.loraA = parameter(a);
    this.loraB = parameter(b);
    this.scaling = scaling;
  }

  get r(): number {
    return this.loraA.shape[0];
  }

  override reconfigure({ scaling }: { scaling: number }): void {
    this.scaling = scaling;
  }

  override tensors(): Map<string, Tensor> {
    return new Map([
      ["lora_embedding_A", this.loraA],
      ["lora_embedding_B", this.loraB],
    ]);
  }

  /** s · A[:, indices]ᵀ · Bᵀ [..., embeddingDim]. */
  protected product(indices: Tensor, alpha: number): Tensor {
    return matmul(embedding(this.loraA.transpose(), indices), this.loraB, { transB: true, alpha });
  }

  override update(indices: Tensor, y: Tensor, _context: UpdateContext): Tensor {
    return tidy(() => y.add(this.product(indices, this.scaling * this.weight).cast(y.dtype)));
  }

  override updateWeight(sum: Tensor, _original: Tensor): Tensor {
    return noGrad(() =>
      tidy(() => {
        const alpha = this.scaling * this.weight;
        const delta = matmul(this.loraA, this.loraB, { transA: true, transB: true, alpha });
        return sum.add(delta).cast(sum.dtype);
      }),
    );
  }
}

/** Columns of the table: features. */
const tableView: WeightView<Embedding> = {
  squared: ({ weight }, dtype) => weight.cast(dtype).square().sum(0),
  crossed: ({ weight }, a) => matmul(weight.cast(a.dtype), a, { transA: true, transB: true }),
};

class EmbeddingDoraBranch extends EmbeddingBranch {
  /** m [embeddingDim]. */
  readonly magnitude: Tensor;
  // Private, since it is no state.
  readonly #magnitudes: Magnitudes<Embedding>;

  constructor(
    adapter: string,
    a: Tensor,
    b: Tensor,
    magnitude: Tensor | undefined,
    base: Embedding,
    scaling: number,
  ) {
    super(adapter, a, b, scaling);
    this.#magnitudes = new Magnitudes(this, base, magnitude, tableView);
    this.magnitude = this.#magnitudes.vector;
  }

  override tensors(): Map<string, Tensor> {
    return super.tensors().set("lora_magnitude_vector", this.magnitude);
  }

  override update(indices: Tensor, y: Tensor, context: UpdateContext): Tensor {
    return tidy(() => {
      const base = context.base as Embedding;
      const plain = context.isBaseOutput ? y : base.forward(indices);
      const scale = this.#magnitudes.scale(base, y.dtype);
      const adapted = plain.add(this.product(indices, this.scaling).cast(y.dtype)).mul(scale);
      return y.add(adapted.sub(plain).mul(this.weight));
    });
  }

  override updateWeight(sum: Tensor, original: Tensor): Tensor {
    return noGrad(() =>
      tidy(() => {
        const { loraA: a, loraB: b, scaling } = this;
        const delta = matmul(a, b, { transA: true, transB: true, alpha: scaling });
        const adapted = original.cast(a.dtype).add(delta);
        const scaled = adapted.mul(this.magnitude.div(adapted.square().sum(0).sqrt()));
        return sum.add(scaled.sub(original).mul(this.weight)).cast(sum.dtype);
      }),
    );
  }

  override dispose(): void {
    this.#magnitudes.dispose();
    super.dispose();
  }
}

function sizes(layer: Module): [numEmbeddings: number, embeddingDim: number] {
  const [rows, width] = (layer as Embedding).weight.shape;
  return [rows, width];
}

export const embeddingLora: LoraVariant = {
  name: "embedding LoRA",
  handles: (_, layer) => isEmbedding(layer),
  shapes({ r }, layer, { useDora }) {
    const [rows, width] = sizes(layer);
    const shapes = new Map<string, readonly number[]>([
      ["lora_embedding_A", [r, rows]],
      ["lora_embedding_B", [width, r]],
    ]);
    return useDora ? shapes.set("lora_magnitude_vector", [width]) : shapes;
  },
  create(layer, options, tensors) {
    const [rows, width] = sizes(layer);
    const { target, dtype, device, generator, config } = options;
    const random = generator ? { dtype, device, generator } : { dtype, device };
    const { r } = target;
    // false asks for an adapter that has an effect at once.
    const a =
      tensors?.get("lora_embedding_A") ??
      (config.initLoraWeights === false ? randn([r, rows], random) : zeros([r, rows], { dtype, device }));
    const b = tensors?.get("lora_embedding_B") ?? randn([width, r], random);
    if (!config.useDora) return new EmbeddingBranch(options.adapter, a, b, target.scaling);
    const magnitude = tensors?.get("lora_magnitude_vector");
    const base = baseOf(layer) as Embedding;
    return new EmbeddingDoraBranch(options.adapter, a, b, magnitude, base, target.scaling);
  },
};
