// A small model with Hugging Face's names, and helpers that tests share.

import {
  type BackendName,
  type DType,
  Generator,
  randn,
  silu,
  type Tensor,
  tensor,
  tidy,
} from "@nomoat/core";
import { Embedding, Linear, Module } from "@nomoat/core/nn";

export interface Place {
  dtype: DType & ("float32" | "float64");
  device: BackendName;
}

export const reference64: Place = { dtype: "float64", device: "reference" };

class Attention extends Module {
  q_proj: Linear;
  k_proj: Linear;
  v_proj: Linear;
  o_proj: Linear;

  constructor(width: number, place: Place, generator: Generator, bias: boolean) {
    super();
    const linear = (out: number) => Linear.create(width, out, { ...place, generator, bias });
    this.q_proj = linear(width);
    this.k_proj = linear(width);
    this.v_proj = linear(width);
    this.o_proj = linear(width);
  }

  override forward(x: Tensor): Tensor {
    return tidy(() => {
      const scores = this.q_proj.forward(x).matmul(this.k_proj.forward(x), { transB: true }).softmax();
      return this.o_proj.forward(scores.matmul(this.v_proj.forward(x)));
    });
  }
}

class Mlp extends Module {
  up_proj: Linear;
  down_proj: Linear;

  constructor(width: number, place: Place, generator: Generator) {
    super();
    this.up_proj = Linear.create(width, 2 * width, { ...place, generator, bias: false });
    this.down_proj = Linear.create(2 * width, width, { ...place, generator, bias: false });
  }

  override forward(x: Tensor): Tensor {
    return tidy(() => this.down_proj.forward(silu(this.up_proj.forward(x))));
  }
}

class Block extends Module {
  self_attn: Attention;
  mlp: Mlp;

  constructor(width: number, place: Place, generator: Generator, bias: boolean) {
    super();
    this.self_attn = new Attention(width, place, generator, bias);
    this.mlp = new Mlp(width, place, generator);
  }

  override forward(x: Tensor): Tensor {
    return tidy(() => {
      const h = x.add(this.self_attn.forward(x));
      return h.add(this.mlp.forward(h));
    });
  }
}

class Decoder extends Module {
  embed_tokens: Embedding;
  layers: Block[];

  constructor(
    width: number,
    depth: number,
    vocabulary: number,
    place: Place,
    generator: Generator,
    bias: boolean,
  ) {
    super();
    this.embed_tokens = Embedding.create(vocabulary, width, { ...place, generator });
    this.layers = Array.from({ length: depth }, () => new Block(width, place, generator, bias));
  }

  override forward(tokens: Tensor): Tensor {
    return tidy(() => this.layers.reduce((x, layer) => layer.forward(x), this.embed_tokens.forward(tokens)));
  }
}

/** Tokens [B, T] → logits [B, T, vocabulary]. */
export class TinyModel extends Module {
  model: Decoder;
  lm_head: Linear;

  constructor(
    options: {
      width?: number;
      depth?: number;
      vocabulary?: number;
      seed?: number;
      bias?: boolean;
    } & Partial<Place> = {},
  ) {
    super();
    const { width = 6, depth = 2, vocabulary = 11, seed = 1, bias = true } = options;
    const place: Place = { ...reference64, ...pick(options) };
    const generator = new Generator(seed);
    this.model = new Decoder(width, depth, vocabulary, place, generator, bias);
    this.lm_head = Linear.create(width, vocabulary, { ...place, generator, bias: false });
  }

  override forward(tokens: Tensor): Tensor {
    return tidy(() => this.lm_head.forward(this.model.forward(tokens)));
  }
}

function pick({ dtype, device }: Partial<Place>): Partial<Place> {
  return { ...(dtype ? { dtype } : {}), ...(device ? { device } : {}) };
}

export function tokens(place: Place = reference64): Tensor {
  return tensor([1, 4, 9, 0, 7, 3, 3, 10], { shape: [2, 4], dtype: "int32", device: place.device });
}

/** Writes normal values over tensors, so that B is not zero. */
export function randomize(tensors: Iterable<Tensor>, seed = 5, std = 0.3): void {
  const generator = new Generator(seed);
  for (const target of tensors) {
    const values = new Float64Array(target.size);
    generator.fillNormal(values, 0, std);
    const source = tensor(values, { shape: target.shape, dtype: target.dtype, device: target.device });
    source.requiresGrad = false;
    const wants = target.requiresGrad;
    target.requiresGrad = false;
    target.copyFrom(source);
    target.requiresGrad = wants;
    source.dispose();
  }
}

export function normalTensor(shape: number[], seed: number, place: Place = reference64): Tensor {
  return randn(shape, { ...place, generator: new Generator(seed) });
}

/** All values of a model's state by name, as plain arrays. */
export function snapshot(model: Module): Map<string, number[]> {
  return new Map([...model.stateDict()].map(([name, value]) => [name, [...value.dataSync()]]));
}

export function maxDifference(a: Tensor, b: Tensor): number {
  const [x, y] = [a.dataSync(), b.dataSync()];
  if (x.length !== y.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < x.length; i++) worst = Math.max(worst, Math.abs(x[i] - y[i]));
  return worst;
}
