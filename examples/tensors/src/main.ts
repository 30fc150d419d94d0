/**
 * Tensors, gradients and memory in a page.
 *
 *     npm start
 */
import { Generator, memoryStats, randn, tensor, tidy, valueAndGrad } from "@nomoat/core";
import { Linear, Module } from "@nomoat/core/nn";
import { AdamW } from "@nomoat/core/optim";

// Operations broadcast, and make new tensors; views (reshape, transpose, slice) share memory.
const a = tensor([
  [1, 2, 3],
  [4, 5, 6],
]);
console.log("a · aᵀ =", a.matmul(a.transpose()).toArray());
console.log("column means =", a.mean(0).toArray());
console.log("softmax of each row =", a.softmax());

// Gradients: of a function ...
const { value, gradients } = valueAndGrad((x) => x.square().sum())(a);
console.log(`Σ a² = ${value.item()}, its gradient =`, gradients[0].toArray());

// ... or gathered in leaves.
const w = tensor([0.5, -1, 2]);
w.requiresGrad = true;
a.mul(w).sum().backward();
console.log("d(Σ a · w) / dw =", w.grad?.toArray());

// A model is a tree of modules; its parameters are found by their names.
class Mlp extends Module {
  readonly generator = new Generator(7);
  readonly hidden = Linear.create(2, 8, { generator: this.generator });
  readonly output = Linear.create(8, 1, { generator: this.generator });

  override forward(x: ReturnType<typeof randn>) {
    return this.output.forward(this.hidden.forward(x).tanh());
  }
}

// It learns exclusive or. What `tidy` makes and does not return is freed at its end.
const model = new Mlp();
const optimizer = new AdamW(model.parameters(), { learningRate: 0.05, weightDecay: 0 });
const inputs = tensor([
  [0, 0],
  [0, 1],
  [1, 0],
  [1, 1],
]);
const targets = tensor([[0], [1], [1], [0]]);
for (let step = 0; step <= 200; step++) {
  const loss = tidy(() => {
    const error = model.forward(inputs).sub(targets).square().mean();
    error.backward();
    return error.item();
  });
  optimizer.step();
  optimizer.zeroGrad();
  if (step % 50 === 0)
    console.log(`step ${step}: loss ${loss.toFixed(5)}, ${memoryStats().tensors} live tensors`);
}
const answers = tidy(() => Array.from(model.forward(inputs).dataSync(), Math.round));
console.log("0⊕0, 0⊕1, 1⊕0, 1⊕1 =", answers);

// The same seed gives the same numbers, on every backend and with any number of threads.
console.log("normal numbers:", randn([3], { generator: new Generator(1) }));
