// Long training: what is live stays flat. `npm run test:leaks` takes 100,000 steps instead of 2,000.

import { expect, test } from "vitest";
import * as nm from "../src/index.js";
import * as nn from "../src/nn/index.js";
import { AdamW, clipGradNorm } from "../src/optim/index.js";
import { backends, type Subject } from "./support/backends.js";
import { random } from "./support/numbers.js";

const width = 8;
const heads = 2;
const vocabulary = 11;
const length = 5;

/** One decoder block over an embedding: every operation that training a LLaMA takes. */
class Tiny extends nn.Module {
  readonly embed: nn.Embedding;
  readonly norms: nn.RMSNorm[];
  readonly projections: nn.Linear[];
  readonly gate: nn.Linear;
  readonly up: nn.Linear;
  readonly down: nn.Linear;
  readonly drop = new nn.Dropout(0.1);
  readonly cos: nm.Tensor;
  readonly sin: nm.Tensor;
  protected override readonly buffers = new Set(["cos", "sin"]);

  constructor({ device }: Subject) {
    super();
    const options = { device, bias: false };
    this.embed = nn.Embedding.create(vocabulary, width, { device });
    this.norms = [0, 1, 2].map(() => nn.RMSNorm.create(width, 1e-6, { device }));
    this.projections = [0, 1, 2, 3].map(() => nn.Linear.create(width, width, options));
    this.gate = nn.Linear.create(width, 2 * width, options);
    this.up = nn.Linear.create(width, 2 * width, options);
    this.down = nn.Linear.create(2 * width, width, options);
    const angles = Float64Array.from(
      { length: length * 2 },
      (_, i) => Math.floor(i / 2) * (i % 2 ? 0.01 : 1),
    );
    const table = (f: (x: number) => number) =>
      nm.keep(nm.tensor(angles.map(f), { device, shape: [length, 2] }));
    this.cos = table(Math.cos);
    this.sin = table(Math.sin);
  }

  #attention(x: nm.Tensor): nm.Tensor {
    const [batch] = x.shape;
    const [q, k, v] = this.projections.slice(0, 3).map((layer) =>
      layer
        .forward(x)
        .reshape(batch, length, heads, width / heads)
        .transpose(1, 2),
    );
    const turned = [q, k].map((t) => nm.rope(t, this.cos, this.sin));
    const mixed = nm.scaledDotProductAttention(turned[0], turned[1], v, { causal: true });
    return this.projections[3].forward(mixed.transpose(1, 2).reshape(batch, length, width));
  }

  #mlp(x: nm.Tensor): nm.Tensor {
    return this.down.forward(this.drop.forward(nm.swiglu(this.gate.forward(x), this.up.forward(x))));
  }

  override forward(ids: nm.Tensor): nm.Tensor {
    return nm.tidy(() => {
      let x = this.embed.forward(ids);
      x = x.add(this.#attention(this.norms[0].forward(x)));
      // The second half is computed again in backward.
      x = x.add(nm.checkpoint((h) => this.#mlp(this.norms[1].forward(h)), x));
      return this.norms[2].forward(x);
    });
  }

  loss(ids: nm.Tensor, targets: nm.Tensor): nm.Tensor {
    return nm.tidy(() => {
      const hidden = this.forward(ids).reshape(-1, width);
      return nm.linearCrossEntropy(hidden, this.embed.weight, targets.reshape(-1));
    });
  }
}

// The reference backend takes 20 times as long a step, and shares everything but kernels.
const full = (import.meta as { env?: { MODE?: string } }).env?.MODE === "full";
const steps = full ? { reference: 1000, wasm: 100_000 } : { reference: 150, wasm: 2000 };

test.each(backends)(
  "live tensors, storages and bytes stay flat while a transformer trains ($name)",
  { timeout: full ? 3_600_000 : 600_000 },
  async (subject) => {
    const { device } = subject;
    await nm.init({ backend: device, ...(device === "wasm" ? { threads: 1 } : {}) });
    nm.manualSeed(1);
    const model = new Tiny(subject);
    const optimizer = new AdamW(model.parameters(), { learningRate: 1e-2 });
    const next = random(3);
    const before = nm.memoryStats();
    let settled: ReturnType<typeof nm.memoryStats> | undefined;
    const losses: number[] = [];
    for (let step = 0; step < steps[device as keyof typeof steps]; step++) {
      losses.push(
        nm.tidy(() => {
          const start = Math.floor(next() * vocabulary);
          // The next number after i is i + 1 mod 11.
          const at = (shift: number) =>
            nm.tensor(
              Int32Array.from({ length: 2 * length }, (_, i) => (start + (i % length) + shift) % vocabulary),
              { device, shape: [2, length] },
            );
          const loss = model.loss(at(0), at(1));
          loss.backward();
          clipGradNorm(model.parameters(), 1);
          optimizer.step();
          optimizer.zeroGrad();
          return loss.item();
        }),
      );
      if (step === 9) settled = nm.memoryStats();
      if (full && (step + 1) % 10_000 === 0)
        console.log(`step ${step + 1}: ${JSON.stringify(nm.memoryStats())}`);
    }
    const after = nm.memoryStats();
    expect({ ...after, backend: after.backend.used }).toEqual({
      ...settled!,
      backend: settled!.backend.used,
    });
    expect(after.backend.peak).toBeLessThanOrEqual(settled!.backend.peak * 1.5);
    expect(after.backend.reserved).toBe(settled!.backend.reserved);
    // Besides the parameters only the optimizer's two tensors for each.
    expect(after.tensors - before.tensors).toBe(2 * model.parameters().length);
    expect(losses.at(-1)!).toBeLessThan(losses[0] / 4);
    optimizer.dispose();
    model.dispose();
  },
);
