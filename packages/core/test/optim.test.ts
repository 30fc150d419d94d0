// Optimizers, clipping and schedules against PyTorch's numbers; their state; their errors.

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import * as nn from "../src/nn/index.js";
import * as optim from "../src/optim/index.js";
import { on, type Subject, subjects } from "./support/backends.js";
import { expectClose, expectNoLeak } from "./support/numbers.js";

interface Values {
  shape: number[];
  data: number[];
}

interface Run {
  name: string;
  optimizer: string;
  options: { lr: number; eps?: number } & Partial<optim.AdamOptions & optim.SGDOptions>;
  learningRates?: number[];
  after: number[][][];
}

interface Clip {
  name: string;
  maxNorm: number;
  normType: number | "Infinity";
  gradients: Values[];
  totalNorm: number;
  clipped: Values[];
}

interface Schedule {
  kind: "cosine" | "linear" | "constant";
  warmupSteps: number;
  totalSteps: number;
  cycles?: number;
  factors: number[];
}

const file = new URL("./fixtures/optim.json", import.meta.url);
const golden = JSON.parse(readFileSync(file, "utf8")) as {
  parameters: Values[];
  gradients: number[][][];
  runs: Run[];
  clipGradNorm: Clip[];
  schedules: Schedule[];
};

beforeAll(() => nm.init({ backend: "reference" }));

/** Twenty steps: rounding of each adds up, relative to parameters of about 1. */
const tolerance = { float64: 1e-12, float32: 2e-6 };

function parametersOf(subject: Subject): nm.Tensor[] {
  return golden.parameters.map(({ shape, data }) =>
    nm.tensor(data, { ...on(subject), shape, requiresGrad: true }),
  );
}

function setGradients(parameters: readonly nm.Tensor[], gradients: readonly (readonly number[])[]): void {
  parameters.forEach((parameter, i) => {
    parameter.zeroGrad();
    const { device, dtype, shape } = parameter;
    parameter.grad = nm.keep(nm.tensor([...gradients[i]], { device, dtype, shape }));
  });
}

describe.each(subjects)("$name equals PyTorch", (subject) => {
  const kinds = { AdamW: optim.AdamW, Adam: optim.Adam, SGD: optim.SGD };

  test.each(golden.runs.map((run) => [run.name, run] as const))("%s", (_, run) => {
    const { options, learningRates, after } = run;
    expectNoLeak("optimizer", () => {
      const parameters = parametersOf(subject);
      const { lr, eps, ...rest } = options;
      const given = { ...rest, learningRate: lr, ...(eps === undefined ? {} : { epsilon: eps }) };
      const optimizer = new kinds[run.optimizer as keyof typeof kinds](parameters, given);
      after.forEach((expected, step) => {
        setGradients(parameters, golden.gradients[step]);
        if (learningRates) optimizer.learningRateFactor = learningRates[step] / lr;
        optimizer.step();
        expected.forEach((values, i) => {
          expectClose(
            parameters[i].dataSync(),
            values,
            tolerance[subject.dtype],
            `step ${step}, parameter ${i}`,
          );
        });
      });
      optimizer.dispose();
      for (const parameter of parameters) parameter.dispose();
    });
  });

  test.each(golden.clipGradNorm.map((clip) => [clip.name, clip] as const))("clipGradNorm, %s", (_, clip) => {
    const parameters = clip.gradients.map(({ shape, data }) => {
      const parameter = nm.zeros(shape, { ...on(subject), requiresGrad: true });
      parameter.grad = nm.keep(nm.tensor(data, { ...on(subject), shape }));
      return parameter;
    });
    const before = optim.clipGradNorm(parameters, clip.maxNorm, Number(clip.normType));
    expectClose([before], [clip.totalNorm], tolerance[subject.dtype]);
    clip.clipped.forEach(({ data }, i) => {
      expectClose(parameters[i].grad!.dataSync(), data, tolerance[subject.dtype]);
    });
  });

  test("clipping by gradientScale equals clipping the gradients first", () => {
    const [a, b] = [parametersOf(subject), parametersOf(subject)];
    const [first, second] = [new optim.AdamW(a), new optim.AdamW(b)];
    setGradients(a, golden.gradients[0]);
    setGradients(b, golden.gradients[0]);
    optim.clipGradNorm(a, 0.5);
    first.step();
    second.step({ gradientScale: optim.clipScale(optim.gradNorm(b), 0.5) });
    // PyTorch's 1e-6 in the denominator: it is finite for a gradient of zeros.
    expect(optim.clipScale(0, 0)).toBe(0);
    expect(optim.clipScale(1e-6, 1e-6)).toBeCloseTo(0.5, 12);
    a.forEach((parameter, i) => {
      expectClose(b[i].dataSync(), parameter.dataSync(), tolerance[subject.dtype]);
    });
  });

  test("a saved state goes on bit for bit", () => {
    const steps = (optimizer: optim.AdamW, parameters: nm.Tensor[], from: number, to: number) => {
      for (let step = from; step < to; step++) {
        setGradients(parameters, golden.gradients[step]);
        optimizer.step();
      }
    };
    const [whole, broken] = [parametersOf(subject), parametersOf(subject)];
    steps(new optim.AdamW(whole), whole, 0, 8);
    const before = new optim.AdamW(broken);
    steps(before, broken, 0, 3);
    const after = new optim.AdamW(broken);
    after.loadStateDict(before.stateDict());
    steps(after, broken, 3, 8);
    expect(broken.map((p) => p.toArray())).toEqual(whole.map((p) => p.toArray()));
  });
});

describe("optimizers", () => {
  const leaf = (...shape: number[]) => nm.ones(shape, { requiresGrad: true });

  test("groups have options of their own", () => {
    const [a, b] = [leaf(2), leaf(2)];
    const optimizer = new optim.AdamW(
      [
        { parameters: [a], weightDecay: 0 },
        { parameters: [b], learningRate: 0 },
      ],
      {
        learningRate: 0.1,
        weightDecay: 0.5,
      },
    );
    for (const p of [a, b]) p.grad = nm.keep(nm.zeros([2]));
    optimizer.step();
    expect(a.toArray()).toEqual([1, 1]);
    expect(b.toArray()).toEqual([1, 1]);
    expect(optimizer.learningRates()).toEqual([0.1, 0]);
  });

  test("weight decay spares vectors, or what a mask says, and what is frozen", () => {
    const layer = nn.Linear.create(3, 2);
    const [matrices, vectors] = optim.weightDecayGroups(layer, 0.5);
    expect(matrices).toEqual({ parameters: [layer.weight], weightDecay: 0.5 });
    expect(vectors).toEqual({ parameters: [layer.bias], weightDecay: 0 });
    expect(optim.weightDecayGroups(layer, 0.5, (name) => name === "bias")).toEqual([
      { parameters: [layer.bias], weightDecay: 0.5 },
      { parameters: [layer.weight], weightDecay: 0 },
    ]);
    layer.bias!.requiresGrad = false;
    const groups = optim.weightDecayGroups(layer, 0.5);
    expect(groups).toEqual([matrices]);
    const before = layer.weight.toArray() as number[][];
    layer.weight.grad = nm.keep(nm.zeros([2, 3]));
    new optim.AdamW(groups, { learningRate: 0.5 }).step();
    expectClose(
      layer.weight.dataSync(),
      before.flat().map((w) => 0.75 * w),
      1e-6,
    );
    layer.dispose();
    for (const wrong of [-1, Number.NaN])
      expect(() => optim.weightDecayGroups(layer, wrong)).toThrow(
        `weightDecay must be finite and not negative, not ${wrong}`,
      );
  });

  test("schedules scale each group's own rate", () => {
    const [a, b] = [leaf(1), leaf(1)];
    const optimizer = new optim.SGD([{ parameters: [a] }, { parameters: [b], learningRate: 1.6 }], {
      learningRate: 0.1,
    });
    for (const factor of [0.5, 0.25]) {
      optimizer.learningRateFactor = factor;
      expect(optimizer.learningRates()).toEqual([0.1 * factor, 1.6 * factor]);
      for (const p of [a, b]) {
        p.zeroGrad();
        p.grad = nm.keep(nm.ones([1]));
      }
      optimizer.step();
    }
    expectClose([a.item(), b.item()], [1 - 0.75 * 0.1, 1 - 0.75 * 1.6], 1e-6);
    expect(optimizer.groups.map((group) => group.learningRate)).toEqual([0.1, 1.6]);
    expect(() => {
      optimizer.learningRateFactor = -1;
    }).toThrow("learningRateFactor must be finite and not negative, not -1");
  });

  test("bias correction counts the updates of each parameter, through saving too", () => {
    const step = (optimizer: optim.AdamW, parameters: nm.Tensor[], gradients: (number | null)[]) => {
      parameters.forEach((p, i) => {
        p.zeroGrad();
        if (gradients[i] !== null) p.grad = nm.keep(nm.full([2], gradients[i]));
      });
      optimizer.step();
    };
    const [early, late, alone] = [leaf(2), leaf(2), leaf(2)];
    let optimizer = new optim.AdamW([early, late]);
    for (const g of [0.3, -0.2, 0.7]) step(optimizer, [early, late], [g, null]);
    const state = optimizer.stateDict();
    expect(state).toMatchObject({ step: 3, updates: [3, 0] });
    const saved = optimizer;
    optimizer = new optim.AdamW([early, late]);
    optimizer.loadStateDict(state);
    saved.dispose();
    const single = new optim.AdamW([alone]);
    for (const g of [0.4, 0.1]) {
      step(optimizer, [early, late], [null, g]);
      step(single, [alone], [g]);
    }
    expect(late.toArray()).toEqual(alone.toArray());
    expect(optimizer.stateDict()).toMatchObject({ step: 5, updates: [3, 2] });
    const { updates: _, ...old } = optimizer.stateDict();
    single.loadStateDict({ step: 5, tensors: new Map() });
    expect(single.stateDict().updates).toEqual([5]);
    expect(() => optimizer.loadStateDict({ ...old, updates: [1] })).toThrow(
      "1 update counts for 2 parameters",
    );
    expect(() => optimizer.loadStateDict({ ...old, updates: [1, 6] })).toThrow(
      "6 updates of parameter 1 in 5 steps",
    );
  });

  test("parameters without a gradient stay as they are", () => {
    const [a, b] = [leaf(2), leaf(2)];
    const optimizer = new optim.AdamW([a, b]);
    a.grad = nm.keep(nm.ones([2]));
    optimizer.step();
    expect(a.dataSync()[0]).toBeLessThan(1);
    expect(b.toArray()).toEqual([1, 1]);
  });

  test.each(["reference", "wasm"] as const)("a step makes graphs of before unusable (%s)", (device) => {
    const w = nm.ones([2], { device, requiresGrad: true });
    const optimizer = new optim.AdamW([w]);
    const y = nm.sum(nm.mul(w, w));
    w.grad = nm.keep(nm.ones([2], { device }));
    optimizer.step();
    expect(() => y.backward()).toThrow("changed in place");
  });

  test.each([
    ["no parameters", () => new optim.AdamW([]), "no parameters"],
    [
      "PyTorch's name",
      () => new optim.AdamW([leaf(1)], { lr: 1 } as never),
      'unknown option "lr" (known: learningRate,',
    ],
    [
      "an unknown option of a group",
      () => new optim.SGD([{ parameters: [leaf(1)], beta: 1 } as never]),
      'unknown option "beta" (known: parameters, learningRate,',
    ],
    ["amsgrad in 8 bits", () => new optim.AdamW8bit([leaf(1)], { amsgrad: true } as never), "has no amsgrad"],
    ["a constant", () => new optim.AdamW([nm.ones([2])]), "of shape [2] does not gather gradients"],
    ["a result", () => new optim.AdamW([nm.exp(leaf(2))]), "does not gather gradients"],
    [
      "a negative rate",
      () => new optim.AdamW([leaf(1)], { learningRate: -1 }),
      "learningRate must be finite and not negative, not -1",
    ],
    ["a NaN rate", () => new optim.AdamW([leaf(1)], { learningRate: Number.NaN }), "not NaN"],
    ["betas", () => new optim.AdamW([leaf(1)], { betas: [0.9, 1] }), "betas must be within [0, 1), not 1"],
    [
      "one beta",
      () => new optim.AdamW([leaf(1)], { betas: [0.9] as never }),
      "AdamW: betas must be two numbers",
    ],
    [
      "a number as betas",
      () => new optim.Lion([leaf(1)], { betas: 0.9 as never }),
      "Lion: betas must be two numbers, not 0.9",
    ],
    [
      "amsgrad",
      () => new optim.Adam([leaf(1)], { amsgrad: "yes" as never }),
      "Adam: amsgrad must be true or false",
    ],
    [
      "nesterov",
      () => new optim.SGD([leaf(1)], { nesterov: 1 as never }),
      "SGD: nesterov must be true or false",
    ],
    [
      "dampening",
      () => new optim.SGD([leaf(1)], { dampening: Number.NaN }),
      "SGD: dampening must be a finite number",
    ],
    [
      "one epsilon",
      () => new optim.Adafactor([leaf(1)], { epsilons: [1] as never }),
      "Adafactor: epsilons must be two numbers",
    ],
    [
      "no threshold",
      () => new optim.Adafactor([leaf(1)], { clipThreshold: 0 }),
      "Adafactor: clipThreshold must be above 0",
    ],
    [
      "a number as parameter",
      () => new optim.SGD([3 as never]),
      "optimizer: each of parameters must be a tensor or a group, not 3",
    ],
    [
      "an option of step",
      () => new optim.SGD([leaf(1)]).step({ scale: 2 } as never),
      'optimizer.step: unknown option "scale" (known: gradientScale)',
    ],
    [
      "a closure",
      () => new optim.SGD([leaf(1)]).step((() => 1) as never),
      "optimizer.step: options must be an object, not a function",
    ],
    [
      "no state",
      () => new optim.SGD([leaf(1)]).loadStateDict(undefined as never),
      "optimizer.loadStateDict: the state must be an object, not undefined",
    ],
    [
      "a state without tensors",
      () => new optim.SGD([leaf(1)]).loadStateDict({ step: 1 } as never),
      "optimizer.loadStateDict: tensors must be a Map, not undefined",
    ],
    [
      "a state of numbers",
      () =>
        new optim.SGD([leaf(1)]).loadStateDict({ step: 1, tensors: new Map([["0.momentum", 3]]) } as never),
      "optimizer.loadStateDict: expected a tensor, not 3",
    ],
    ["clipping", () => optim.clipGradNorm([leaf(1)], -1), "clipGradNorm: maxNorm must be at least 0, not -1"],
    [
      "a schedule",
      () => optim.cosineSchedule({ totalSteps: -3 }),
      "totalSteps must be finite and not negative, not -3",
    ],
  ])("%s is refused", (_, make, message) => {
    expect(make).toThrow(nm.ArgumentError);
    expect(make).toThrow(message);
  });

  test("a gradient of another shape than its parameter is refused, and nothing is counted", () => {
    const p = nm.tensor([1, 2, 3, 4], { device: "wasm", requiresGrad: true });
    p.grad = nm.keep(nm.ones([2], { device: "wasm" }));
    const optimizer = new optim.AdamW([p]);
    expect(() => optimizer.step()).toThrow("optimizer.step: a gradient [2] for a parameter [4]");
    expect([optimizer.stepCount, optimizer.stateDict().tensors.size]).toEqual([0, 0]);
    p.dispose();
  });

  test("one parameter twice is refused", () => {
    const w = leaf(3);
    expect(() => new optim.AdamW([w, w])).toThrow("of shape [3] is given twice");
  });

  test.each(["9.m", "0.w", "0", "m", "x.m", "0x0.m"])(
    'a state with a tensor "%s" is refused whole',
    (key) => {
      const w = leaf(2);
      const optimizer = new optim.AdamW([w]);
      const tensors = new Map([
        ["0.m", nm.ones([2])],
        [key, nm.ones([2])],
      ]);
      expect(() => optimizer.loadStateDict({ step: 3, tensors })).toThrow(nm.ArgumentError);
      expect(() => optimizer.loadStateDict({ step: 3, tensors })).toThrow(key);
      expect(optimizer.stepCount).toBe(0);
      expect(optimizer.stateDict().tensors.size).toBe(0);
    },
  );

  test("a state of the wrong shape or step is refused; a fresh one starts anew", () => {
    const w = leaf(2);
    const optimizer = new optim.AdamW([w]);
    w.grad = nm.keep(nm.ones([2]));
    optimizer.step();
    const wrong = new Map([["0.m", nm.ones([3])]]);
    expect(() => optimizer.loadStateDict({ step: 1, tensors: wrong })).toThrow('"0.m" [3]');
    expect(() => optimizer.loadStateDict({ step: -1, tensors: new Map() })).toThrow("step -1");
    expectClose(optimizer.stateDict().tensors.get("0.m")!.dataSync(), [0.1, 0.1], 1e-6);
    optimizer.loadStateDict({ step: 0, tensors: new Map() });
    expect(optimizer.stateDict().tensors.size).toBe(0);
  });
});

const makers = {
  cosine: optim.cosineSchedule,
  linear: optim.linearSchedule,
  constant: optim.constantSchedule,
};

test.each(golden.schedules.map((s) => [s.kind, s.warmupSteps, s] as const))(
  "the %s schedule with %i steps of warm-up is Hugging Face's",
  (kind, _, { factors, kind: _kind, ...options }) => {
    const schedule = makers[kind](options);
    factors.forEach((factor, step) => {
      expect(schedule(step)).toBeCloseTo(factor, 12);
    });
  },
);
