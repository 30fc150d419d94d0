// Adapters on packed weights whose layers share their input: as a group, and each layer for itself.

import { Generator, randn, type Tensor, tidy } from "@nomoat/core";
import { Linear, type LinearBase, linearGroup, Module } from "@nomoat/core/nn";
import { applyLora } from "@nomoat/lora";
import { quantizeModel } from "@nomoat/quant";
import { describe, expect, it } from "vitest";

class Pair extends Module {
  gate_proj: LinearBase;
  up_proj: LinearBase;

  constructor(inFeatures: number, width: number) {
    super();
    const generator = new Generator(1);
    const make = () => Linear.create(inFeatures, width, { generator, bias: false });
    this.gate_proj = make();
    this.up_proj = make();
  }

  get layers(): LinearBase[] {
    return [this.gate_proj, this.up_proj];
  }

  override forward(): never {
    throw new Error("the layers are run");
  }
}

/** Outputs and gradients, of the group or of each layer alone. */
function pass(model: Pair, together: boolean, rows: number): number[][] {
  return tidy(() => {
    const x = randn([rows, model.gate_proj.inFeatures], { generator: new Generator(3), requiresGrad: true });
    const [gate, up] = together
      ? linearGroup(x, model.layers)
      : model.layers.map((layer) => layer.forward(x));
    gate.mul(up).sum().backward();
    const gradients = [x, ...model.parameters().filter((one) => one.requiresGrad)].map((one) => {
      const gradient = Array.from(one.grad!.dataSync(), Number);
      one.zeroGrad();
      return gradient;
    });
    const values = (y: Tensor): number[] => Array.from(y.dataSync(), Number);
    return [values(gate), values(up), ...gradients];
  });
}

describe.each(["nf4", "int8", "q4_0", "q8_0"] as const)("%s", (format) => {
  // One row, a few, one block of rows and several.
  it.each([1, 7, 40, 300])("%i rows give as a group what they give alone", (rows) => {
    const model = new Pair(288, 96);
    quantizeModel(model, { format });
    // Without adapters the products are the same ones, and so are their bits.
    const x = randn([rows, 288], { generator: new Generator(3) });
    linearGroup(x, model.layers).forEach((y, i) => {
      expect(y.dataSync()).toEqual(model.layers[i].forward(x).dataSync());
    });
    applyLora(model, { r: 4, targetModules: "all-linear", initLoraWeights: false });
    const [group, alone] = [pass(model, true, rows), pass(model, false, rows)];
    for (const [i, list] of group.entries()) {
      const scale = Math.max(...alone[i].map(Math.abs));
      expect(list).toHaveLength(alone[i].length);
      const apart = Math.max(...list.map((value, j) => Math.abs(value - alone[i][j])));
      expect(apart / scale).toBeLessThan(1e-5);
    }
    model.dispose();
  });
});
