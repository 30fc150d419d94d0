// Low-rank adaptation of an embedding: rows of W + s·(B·A)ᵀ, as PEFT's lora.Embedding. A [r, numEmbeddings] starts with zeros, B
// [embeddingDim, r] with normal numbers; only the rows that are looked up are computed. Dropout does not apply.

import { embedding, matmul, noGrad, randn, type Tensor, tidy, zeros } from "@nomoat/core";
import { type Embedding, type Module, parameter } from "@nomoat/core/nn";
import { AdapterBranch, type LoraVariant, type UpdateContext } from "../branch.js";
import { isEmbedding } from "../targets.js";

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

  override update(indices: Tensor, y: Tensor, _context: UpdateContext): Tensor {
    return tidy(() => {
      const rows = embedding(this.loraA.transpose(), indices);
      const product = matmul(rows, this.loraB, { transB: true, alpha: this.scaling * this.weight });
      return y.add(product.cast(y.dtype));
    });
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

function sizes(layer: Module): [numEmbeddings: number, embeddingDim: number] {
  const [rows, width] = (layer as Embedding).weight.shape;
  return [rows, width];
}

export const embeddingLora: LoraVariant = {
  name: "embedding LoRA",
  handles: (_, layer) => isEmbedding(layer),
  shapes({ r }, layer) {
    const [rows, width] = sizes(layer);
    return new Map([
      ["lora_embedding_A", [r, rows]],
      ["lora_embedding_B", [width, r]],
    ]);
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
    return new EmbeddingBranch(options.adapter, a, b, target.scaling);
  },
};
