import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createWasmBackend } from "../../src/backend/wasm/backend.js";
import { ArgumentError } from "../../src/errors.js";
import {
  defaultGenerator,
  Generator,
  type GeneratorState,
  manualSeed,
  philox4x32,
} from "../../src/random.js";

type Words4 = [number, number, number, number];

function block(counter: Words4, key: [number, number]): number[] {
  const out = new Uint32Array(4);
  philox4x32(out, ...key, ...counter);
  return [...out];
}

/** Philox4x32-10 as the paper writes it, with BigInt. */
function plainBlock(counter: Words4, key: [number, number]): number[] {
  let [c0, c1, c2, c3] = counter.map(BigInt);
  let [k0, k1] = key.map(BigInt);
  const mask = 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c0;
    const p1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & mask, (p0 >> 32n) ^ c3 ^ k1, p0 & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [c0, c1, c2, c3].map(Number);
}

describe("Philox4x32-10", () => {
  test("gives Random123's known answers", () => {
    // tests/kat_vectors of Random123, lines "philox4x32 10".
    expect(block([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    const ones = 0xffffffff;
    expect(block([ones, ones, ones, ones], [ones, ones])).toEqual([
      0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd,
    ]);
    expect(block([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ]);
  });

  test("equals the BigInt form everywhere", () => {
    const word = fc.integer({ min: 0, max: 0xffffffff });
    fc.assert(
      fc.property(fc.tuple(word, word, word, word), fc.tuple(word, word), (counter, key) => {
        expect(block(counter, key)).toEqual(plainBlock(counter, key));
      }),
    );
  });

  test("is the same on the wasm kernel, over the carry and for lengths that are no multiple of its blocks", () => {
    const backend = createWasmBackend({ threads: 1 });
    for (const [length, first] of [
      [16, 0],
      [4096, 0xffffff00],
      [260, 0xfffffffd],
    ]) {
      const [fast, plain] = [new Uint32Array(length), new Uint32Array(length)];
      backend.philox(fast, 0x9abcdef0, 0xfedcba98, first, 0xffffffff, 3, 0x80000004);
      philox4x32(plain, 0x9abcdef0, 0xfedcba98, first, 0xffffffff, 3, 0x80000004);
      expect(fast).toEqual(plain);
    }
    expect(backend.memory().used).toBe(0);
    backend.shutdown();
  });

  test("the two low counter words count as one number", () => {
    const out = new Uint32Array(8);
    philox4x32(out, 1, 2, 0xffffffff, 7, 3, 4);
    expect([...out.subarray(4)]).toEqual(block([0, 8, 3, 4], [1, 2]));
  });
});

describe("Generator", () => {
  test("words are the blocks of the seed as key", () => {
    const generator = new Generator(2n ** 64n - 2n);
    const words = [...generator.nextUint32s(6), ...generator.nextUint32s(1)];
    const key: [number, number] = [0xfffffffe, 0xffffffff];
    expect(words.slice(0, 4)).toEqual(block([0, 0, 0, 0], key));
    expect(words.slice(4, 6)).toEqual(block([1, 0, 0, 0], key).slice(0, 2));
    expect(words[6]).toBe(block([2, 0, 0, 0], key)[0]);
  });

  test("long fills equal short ones after another", () => {
    const whole = new Generator(5).nextUint32s(10_000);
    const parts = new Generator(5);
    const joined = [...parts.nextUint32s(4000), ...parts.nextUint32s(6000)];
    expect([...whole]).toEqual(joined);
  });

  test("uniform numbers lie in [low, high) and have their mean and variance", () => {
    for (const array of [new Float32Array(200_001), new Float64Array(200_001)]) {
      new Generator(1).fillUniform(array, -2, 4);
      const values = Array.from(array);
      const mean = values.reduce((a, v) => a + v, 0) / array.length;
      const variance = values.reduce((a, v) => a + (v - mean) ** 2, 0) / array.length;
      expect(values.every((v) => v >= -2 && v < 4)).toBe(true);
      expect(mean).toBeCloseTo(1, 1);
      expect(variance).toBeCloseTo(3, 1);
    }
  });

  test("rounding never reaches the upper bound", () => {
    const array = new Float32Array(100_000);
    new Generator(1).fillUniform(array, 16_777_216, 16_777_217.5);
    expect(array.every((v) => v < 16_777_217.5)).toBe(true);
    new Generator(1).fillUniform(array, 3, 3);
    expect(array.every((v) => v === 3)).toBe(true);
  });

  test("normal numbers have the moments and tails of the normal distribution", () => {
    for (const array of [new Float32Array(400_000), new Float64Array(400_000)]) {
      new Generator(3).fillNormal(array, 10, 2);
      const z = Array.from(array, (v: number) => (v - 10) / 2);
      const moment = (k: number) => z.reduce((a, v) => a + v ** k, 0) / z.length;
      expect(moment(1)).toBeCloseTo(0, 2);
      expect(moment(2)).toBeCloseTo(1, 2);
      expect(Math.abs(moment(3))).toBeLessThan(0.02);
      expect(Math.abs(moment(4) - 3)).toBeLessThan(0.05);
      expect(z.filter((v) => Math.abs(v) > 1.959964).length / z.length).toBeCloseTo(0.05, 2);
    }
  });

  test("normal numbers follow the documented formula, odd counts too", () => {
    const array = new Float64Array(3);
    new Generator(9).fillNormal(array);
    const u = new Float64Array(4);
    new Generator(9).fillUniform(u);
    const radius = Math.sqrt(-2 * Math.log(1 - u[0]));
    expect(array[0]).toBe(radius * Math.cos(2 * Math.PI * u[1]));
    expect(array[1]).toBe(radius * Math.sin(2 * Math.PI * u[1]));
    expect(array[2]).toBe(Math.sqrt(-2 * Math.log(1 - u[2])) * Math.cos(2 * Math.PI * u[3]));
  });

  test("Bernoulli numbers", () => {
    const array = new Uint8Array(100_000);
    const generator = new Generator(4);
    generator.fillBernoulli(array, 0.3);
    expect(array.reduce((a, v) => a + v, 0) / array.length).toBeCloseTo(0.3, 2);
    generator.fillBernoulli(array, 0);
    expect(array.every((v) => v === 0)).toBe(true);
    generator.fillBernoulli(array, 1);
    expect(array.every((v) => v === 1)).toBe(true);
  });

  test("integers are uniform and within range", () => {
    const generator = new Generator(8);
    const counts = new Array(7).fill(0);
    for (let i = 0; i < 70_000; i++) counts[generator.integer(7)]++;
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(450);
    expect(generator.integer(1)).toBe(0);
    const wide = Array.from({ length: 100 }, () => generator.integer(Number.MAX_SAFE_INTEGER));
    expect(wide.every(Number.isSafeInteger)).toBe(true);
    expect(Math.max(...wide)).toBeGreaterThan(2 ** 52);
  });

  test("permutations hold every index once, every order is equally likely", () => {
    const order = new Generator(2).permutation(10_000);
    expect([...order].sort((a, b) => a - b)).toEqual([...order.keys()]);
    const generator = new Generator(6);
    const counts = new Map<string, number>();
    for (let i = 0; i < 12_000; i++) {
      const key = generator.permutation(3).join();
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    for (const count of counts.values()) expect(Math.abs(count - 2000)).toBeLessThan(220);
    expect(generator.permutation(0).length).toBe(0);
  });

  test("a restored generator goes on bit for bit", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat(5000), (seed, drawn) => {
        const generator = new Generator(seed).fork("a");
        generator.nextUint32s(drawn);
        const state = JSON.parse(JSON.stringify(generator.state())) as GeneratorState;
        const next = Generator.restore(state);
        expect([...next.nextUint32s(9)]).toEqual([...generator.nextUint32s(9)]);
        expect(next.state()).toEqual(generator.state());
      }),
    );
  });

  test("forks depend on the label alone, and differ", () => {
    const parent = new Generator(11);
    const before = parent.fork("data").nextUint32s(4);
    parent.nextUint32s(100);
    expect(parent.fork("data").nextUint32s(4)).toEqual(before);
    const streams = ["data", "dropout", 1, "1", -1, "", 0].map((label) => parent.fork(label));
    streams.push(parent, parent.fork("data").fork("data"), new Generator(12).fork("data"));
    const firsts = streams.map((stream) => stream.nextUint32s(4).join());
    expect(new Set(firsts).size).toBe(firsts.length);
  });

  test("wrong arguments are ArgumentErrors", () => {
    const generator = new Generator(0);
    const wrong: (() => unknown)[] = [
      () => new Generator(-1),
      () => new Generator(1.5),
      () => new Generator(Number.NaN),
      () => new Generator(2n ** 64n),
      () => new Generator(0, -1),
      () => generator.nextUint32s(-1),
      () => generator.fillUniform(new Float32Array(1), 1, 0),
      () => generator.fillUniform(new Float32Array(1), 0, Number.POSITIVE_INFINITY),
      () => generator.fillNormal(new Float32Array(1), 0, -1),
      () => generator.fillNormal(new Float32Array(1), Number.NaN),
      () => generator.fillBernoulli(new Uint8Array(1), 1.1),
      () => generator.fillBernoulli(new Uint8Array(1), Number.NaN),
      () => generator.integer(0),
      () => generator.integer(2 ** 53),
      () => generator.permutation(-1),
      () => generator.fork(0.5),
      () => Generator.restore({ ...generator.state(), block: "-1" }),
      () => Generator.restore({ ...generator.state(), seed: `${2n ** 64n}` }),
      () => Generator.restore(null as unknown as GeneratorState),
      () => Generator.restore({ ...generator.state(), algorithm: "mt19937" as "philox4x32-10" }),
    ];
    for (const call of wrong) expect(call).toThrow(ArgumentError);
    expect(generator.state().block).toBe("0");
  });
});

test("manualSeed seeds the default generator", () => {
  manualSeed(42);
  const first = defaultGenerator().nextUint32s(4);
  manualSeed(42n);
  expect(defaultGenerator().nextUint32s(4)).toEqual(first);
  expect(defaultGenerator().nextUint32s(4)).not.toEqual(first);
});
