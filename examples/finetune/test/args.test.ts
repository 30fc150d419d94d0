/** The command line, in isolation: no model is loaded here. */
import { describe, expect, it } from "vitest";
import { DEFAULTS, EMBEDDED_MODEL, readArguments } from "../src/args.js";
import { UserError } from "../src/errors.js";

describe("arguments", () => {
  it("have defaults", () => {
    expect(readArguments([])).toEqual({
      model: EMBEDDED_MODEL,
      data: undefined,
      steps: DEFAULTS.steps,
      rank: DEFAULTS.rank,
      alpha: 2 * DEFAULTS.rank,
      learningRate: DEFAULTS.learningRate,
      batch: DEFAULTS.batch,
      length: undefined,
      format: "nf4",
      heldOutTokens: DEFAULTS.heldOutTokens,
      out: "out/finetune",
      backend: "wasm",
      mode: undefined,
      threads: undefined,
      seed: DEFAULTS.seed,
      prompts: undefined,
    });
  });

  it("are all understood", () => {
    const argv =
      "--model m --data d.txt --steps 7 --rank 4 --alpha 12.5 --learning-rate 1e-3 --batch 2 --length 64 --format q4_0 --held-out-tokens 500 --out o --backend gpu --mode webgl2 --seed 0 --prompt one --prompt two";
    expect(readArguments(argv.split(" "))).toEqual({
      model: "m",
      data: "d.txt",
      steps: 7,
      rank: 4,
      alpha: 12.5,
      learningRate: 1e-3,
      batch: 2,
      length: 64,
      format: "q4_0",
      heldOutTokens: 500,
      out: "o",
      backend: "gpu",
      mode: "webgl2",
      threads: undefined,
      seed: 0,
      prompts: ["one", "two"],
    });
  });

  it.each([
    ["--stepz 5", "unknown option '--stepz'"],
    ["--steps", "argument missing"],
    ["--steps 0", "integer from 1"],
    ["--steps 1.5", "integer from 1"],
    ["--steps 1e3", "integer from 1"],
    ["--steps -3", "integer from 1"],
    ["--rank x", "integer from 1"],
    ["--alpha 0", "above 0"],
    ["--learning-rate NaN", "above 0"],
    ["--learning-rate 2", "at most 1"],
    ["--format int3", "Allowed choices are nf4, q4_0, q8_0, int8, none"],
    ["--threads 0", "integer from 1"],
    ["--held-out-tokens 1", "integer from 2"],
    ["--backend gpu --threads 2", "--threads is for --backend wasm"],
    ["--mode webasm", "--mode is for --backend gpu"],
    ["--backend gpu --mode metal", "Allowed choices are webgpu, webgl2, webgl, headlessgl, webasm, cpu"],
    ["--out=", "must not be empty"],
    ["extra", "too many arguments"],
  ])("%s is refused", (argv, reason) => {
    let thrown: unknown;
    try {
      readArguments(argv.split(" "));
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(UserError);
    expect((thrown as Error).message).toContain(reason);
  });
});
