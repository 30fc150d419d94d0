// Layers with low-rank adapters in training: forward and backward through one layer, and through an MLP block with all three
// of its projections adapted, beside the same without adapters.

import { Generator, type Tensor, tidy } from "@nomoat/core";
import { Linear, Module } from "@nomoat/core/nn";
import { applyLora } from "@nomoat/lora";
import { quantizeModel } from "@nomoat/quant";
import type { Prepared } from "../model.js";
import { compareWithReference } from "../reference.js";
import { arithmetic, type Case, type Suite, seeded } from "./suite.js";

/** Sums of up to 2048 products through three layers and back. */
const tolerance = 5e-5;

class Mlp extends Module {
  readonly gate_proj: Linear;
  readonly up_proj: Linear;
  readonly down_proj: Linear;

  constructor(hidden: number, inner: number) {
    super();
    const layer = (outFeatures: number, inFeatures: number, name: string): Linear =>
      new Linear(seeded(name, [outFeatures, inFeatures], -0.05, 0.05));
    this.gate_proj = layer(inner, hidden, "gate");
    this.up_proj = layer(inner, hidden, "up");
    this.down_proj = layer(hidden, inner, "down");
  }

  override forward(x: Tensor): Tensor {
    return tidy(() => this.down_proj.forward(this.gate_proj.forward(x).silu().mul(this.up_proj.forward(x))));
  }
}

class One extends Module {
  readonly layer: Linear;

  constructor(inFeatures: number, outFeatures: number) {
    super();
    this.layer = new Linear(seeded("weight", [outFeatures, inFeatures], -0.05, 0.05));
  }

  override forward(x: Tensor): Tensor {
    return this.layer.forward(x);
  }
}

export interface Shape {
  readonly kind: "layer" | "mlp";
  readonly rows: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly rank: number;
  /** "none": dense. */
  readonly format: "none" | "nf4" | "int8";
}

type Layers = Module & { forward(x: Tensor): Tensor };

/** The layers without adapters. */
function baseOf({
  kind,
  inFeatures,
  outFeatures,
  format,
}: Pick<Shape, "kind" | "inFeatures" | "outFeatures" | "format">): Layers {
  const model = kind === "mlp" ? new Mlp(inFeatures, outFeatures) : new One(inFeatures, outFeatures);
  if (format !== "none") quantizeModel(model, { format });
  return model;
}

export function modelOf({
  kind,
  inFeatures,
  outFeatures,
  rank,
  format,
}: Shape): Module & { forward(x: Tensor): Tensor } {
  const model = baseOf({ kind, inFeatures, outFeatures, format });
  // With B not zero, so that every gradient has something to show.
  const options = { generator: new Generator(1) };
  applyLora(model, { r: rank, targetModules: "all-linear", initLoraWeights: false }, "default", options);
  return model;
}

/** Gradients of the adapter's matrices and of x, and the result. */
export function pass(model: Module & { forward(x: Tensor): Tensor }, x: Tensor, dy: Tensor): Tensor[] {
  x.requiresGrad = true;
  const y = model.forward(x);
  y.mul(dy).sum().backward();
  const trained = [x, ...model.parameters().filter((one) => one.requiresGrad)];
  const gradients = trained.map((one) => {
    const { grad } = one;
    one.grad = null;
    return grad!;
  });
  return [y.detach(), ...gradients];
}

function prepare(shape: Shape): Prepared {
  const { kind, rows, inFeatures, outFeatures } = shape;
  const model = modelOf(shape);
  const x = seeded("x", [rows, inFeatures], -1, 1);
  const dy = seeded("dy", [rows, kind === "mlp" ? inFeatures : outFeatures]);
  const run = (): void => tidy(() => void pass(model, x, dy));
  return {
    run,
    details: () => ({ timesFrozen: timesFrozen(shape, run, x, dy) }),
    verify: () => verify(shape, model),
    dispose() {
      model.dispose();
      for (const one of [x, dy]) one.dispose();
    },
  };
}

/** How many times as long the adapted layers take as the frozen ones' own forward and dx; the best of turns. */
function timesFrozen(shape: Shape, run: () => void, x: Tensor, dy: Tensor): number {
  const frozen = baseOf(shape).requiresGrad(false);
  const best = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  const turns = [run, () => tidy(() => void pass(frozen, x, dy))];
  for (let i = 0; i < 6; i++) {
    turns.forEach((turn, which) => {
      const start = performance.now();
      turn();
      best[which] = Math.min(best[which], performance.now() - start);
    });
  }
  frozen.dispose();
  return best[0] / best[1];
}

/** On a few rows: every row goes the same way, and gradients are sums over them. */
function verify(shape: Shape, model: Module & { forward(x: Tensor): Tensor }) {
  const { kind, inFeatures, outFeatures } = shape;
  return tidy(() => {
    const x = seeded("x", [6, inFeatures], -1, 1);
    const dy = seeded("dy", [6, kind === "mlp" ? inFeatures : outFeatures]);
    const results = pass(model, x, dy);
    // Seeded weights and adapters are the same numbers on every backend.
    return compareWithReference(
      results,
      [x, dy],
      ([x64, dy64]) => pass(modelOf(shape), x64, dy64),
      tolerance,
      `lora ${JSON.stringify(shape)}`,
    );
  });
}

function caseOf(shape: Shape): Case {
  const { kind, rows, inFeatures, outFeatures, rank, format } = shape;
  const layers = kind === "mlp" ? 3 : 1;
  // Forward and dx: two products with the frozen weight. u, y, dB, du, dA, dx: six low-rank ones.
  const dense = 4 * rows * inFeatures * outFeatures;
  const low = 6 * rows * rank * (inFeatures + outFeatures);
  const weight = layers * inFeatures * outFeatures * (format === "none" ? 4 : format === "int8" ? 1 : 0.55);
  const size = `${rows} rows ${inFeatures}→${outFeatures}${kind === "mlp" ? `→${inFeatures}` : ""}`;
  return {
    suite: "lora",
    name: `${kind} r${rank}${format === "none" ? "" : ` ${format}`} ${size}`,
    parameters: { kind, rows, inFeatures, outFeatures, rank, format },
    work: arithmetic(layers * (dense + low), 2 * weight + 16 * rows * (inFeatures + outFeatures)),
    prepare: () => prepare(shape),
  };
}

export const lora: Suite = {
  name: "lora",
  about:
    "forward and backward through layers with low-rank adapters, on dense and on packed weights, and how many times" +
    " the frozen layers' own forward and dx that takes",
  cases(sweep) {
    const small = {
      kind: "mlp",
      rows: 64,
      inFeatures: 192,
      outFeatures: 512,
      rank: 8,
      format: "none",
    } as const;
    const layer = { ...small, kind: "layer", rows: 512, inFeatures: 2048, outFeatures: 2048 } as const;
    const mlp = { ...small, rows: 512, inFeatures: 768, outFeatures: 2048 };
    const wide = { ...layer, rank: 16 } as const;
    const packed = (["nf4", "int8"] as const).map((format) => ({ ...wide, format }));
    const standard: Shape[] = [layer, wide, ...packed, mlp];
    const shapes: Shape[] = sweep.effort === "quick" ? [small, { ...small, format: "nf4" }] : [...standard];
    return shapes.map(caseOf);
  },
};
