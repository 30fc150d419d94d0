/** The whole program, as a child process, on a model of a few thousand random weights. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { loadLlama, perplexity } from "@nomoat/llama";
import { loadAdapter } from "@nomoat/lora";
import { quantizeModel } from "@nomoat/quant";
import { DOMParser, onErrorStopParsing } from "@xmldom/xmldom";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { writeTinyModel } from "./tiny-model.js";

const program = fileURLToPath(new URL("../src/main.ts", import.meta.url));
const loader = pathToFileURL(fileURLToPath(import.meta.resolve("tsx"))).href;
const node = ["--conditions=@nomoat/source", `--import=${loader}`, program];

let shared: string;
/** The folder that the program runs in: anew for each test. */
let folder: string;

beforeAll(async () => {
  shared = mkdtempSync(join(tmpdir(), "nomoat-finetune-"));
  mkdirSync(join(shared, "model"));
  await writeTinyModel(join(shared, "model"));
  const line = "The quick brown fox jumps over the lazy dog, and the dog sleeps on.\n";
  writeFileSync(join(shared, "notes.txt"), line.repeat(60));
  const record = { prompt: "What does the fox do?", completion: " It jumps over the dog." };
  writeFileSync(join(shared, "notes.jsonl"), `${JSON.stringify(record)}\n`.repeat(20));
});
afterAll(() => rmSync(shared, { recursive: true, force: true }));

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nomoat-run-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const child: ChildProcess = execFile(
      process.execPath,
      [...node, ...args],
      { cwd: folder, encoding: "utf8" },
      (_, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

const quickOn = (backend: string[], data: string, ...more: string[]): string[] => [
  ...["--model", join(shared, "model"), "--data", join(shared, data), ...backend],
  ...["--steps", "3", "--rank", "2", "--batch", "2", "--length", "32", ...more],
];
const quick = (data: string, ...more: string[]): string[] => quickOn(["--threads", "1"], data, ...more);

async function heldOutPerplexity(out: string, format: "nf4" | null): Promise<number> {
  const { model, tokenizer } = await loadLlama(join(shared, "model"));
  if (format) quantizeModel(model, { format });
  await loadAdapter(model, join(out, "adapter"));
  const text = readFileSync(join(shared, "notes.txt"), "utf8");
  const { perplexity: found } = await perplexity({ model, tokenizer, text });
  model.dispose();
  return found;
}

describe("the program", () => {
  it("gives on the gpu backend what it gives on wasm, to rounding", async () => {
    const common = ["notes.txt", "--prompt", "The quick", "--held-out-tokens", "100"] as const;
    const wasm = await run(...quick(...common, "--out", "wasm"));
    const gpu = await run(...quickOn(["--backend", "gpu", "--mode", "webasm"], ...common, "--out", "gpu"));
    expect(wasm.stderr + gpu.stderr).toBe("");
    expect(gpu.stdout).toContain("Backend: gpu.js, mode webasm");
    expect(gpu.stdout).toContain("gives the same held-out perplexity");
    const [expected, actual] = ["wasm", "gpu"].map((out) =>
      JSON.parse(readFileSync(join(folder, out, "report.json"), "utf8")),
    );
    expect(actual.figures.heldOutTokens).toBe(99);
    expect(actual.losses).toHaveLength(3);
    actual.losses.forEach((loss: number, i: number) => {
      expect(Math.abs(loss - expected.losses[i])).toBeLessThan(1e-3);
    });
    expect(actual.figures.perplexity.adapted / expected.figures.perplexity.adapted).toBeCloseTo(1, 3);
    expect(actual.figures.linearBytes).toEqual(expected.figures.linearBytes);
  });

  it("fine-tunes, reports, and writes an adapter that loads", async () => {
    const { code, stdout, stderr } = await run(
      ...quick("notes.txt", "--out", "a/b", "--prompt", "The quick"),
    );
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(stdout).toMatch(/step 3\/3 {2}loss \d+\.\d+ {2}[\d,]+ tokens\/s/);
    expect(stdout).toMatch(/│ base, float32 +│ +\d+\.\d\d │/);
    expect(stdout).toMatch(/│ base, nf4 +│ +\d+\.\d\d │ +[+−]\d+\.\d % │/);
    expect(stdout).toMatch(/│ adapted +│ +\d+\.\d\d │ +−\d+\.\d % │/);
    expect(stdout).toMatch(/peak memory +│ +[\d.]+ MB/);
    expect(stdout).toContain("“The quick”, greedy");
    expect(stdout).toContain("gives the same held-out perplexity");

    expect(readdirSync(folder)).toEqual(["a"]);
    expect(readdirSync(join(folder, "a"))).toEqual(["b"]);
    const out = join(folder, "a/b");
    expect(readdirSync(out).sort()).toEqual(["adapter", "loss.svg", "report.json"]);
    expect(readdirSync(join(out, "adapter")).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
    ]);
    expect(JSON.parse(readFileSync(join(out, "adapter/adapter_config.json"), "utf8"))).toMatchObject({
      peft_type: "LORA",
      r: 2,
      lora_alpha: 4,
    });
    const svg = new DOMParser({ onError: onErrorStopParsing }).parseFromString(
      readFileSync(join(out, "loss.svg"), "utf8"),
      "image/svg+xml",
    );
    expect(svg.documentElement?.getElementsByTagName("path").length).toBe(2);

    const { figures, losses, samples } = JSON.parse(readFileSync(join(out, "report.json"), "utf8"));
    expect(losses.length).toBe(3);
    expect(samples.length).toBe(2);
    expect(figures.perplexity.adapted).toBeLessThan(figures.perplexity.quantized);
    expect(figures.linearBytes.quantized).toBeLessThan(figures.linearBytes.float32 / 6);
    // Rank 2 on seven layers of each of two blocks.
    expect(figures.adapterParameters).toBe(2 * 2 * (64 + 48 + 48 + 64 + 96 + 96 + 96));
    expect(await heldOutPerplexity(out, "nf4")).toBeLessThan(258);
  });

  it("takes records, the other formats and its default folder, and gives the same again", async () => {
    const first = await run(...quick("notes.jsonl", "--format", "q8_0"));
    expect(first).toMatchObject({ code: 0, stderr: "" });
    expect(first.stdout).toContain("base, q8_0");
    const weights = join(folder, "out/finetune/adapter/adapter_model.safetensors");
    const before = readFileSync(weights);
    expect((await run(...quick("notes.jsonl", "--format", "q8_0"))).code).toBe(0);
    expect(readFileSync(weights).equals(before)).toBe(true);
    const dense = await run(...quick("notes.jsonl", "--format", "none"));
    expect(dense).toMatchObject({ code: 0, stderr: "" });
    expect(dense.stdout).not.toContain("base, none");
    expect(readdirSync(join(folder, "out"))).toEqual(["finetune"]);
  });

  it("shows its options", async () => {
    const { code, stdout, stderr } = await run("--help");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const flags =
      "model data steps rank alpha learning-rate batch length format held-out-tokens out backend mode threads seed prompt help";
    for (const flag of flags.split(" ")) expect(stdout).toContain(`--${flag}`);
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe("what cannot be done ends with one line and leaves nothing", () => {
  const broken = (name: string, change: (path: string) => void): string => {
    const path = join(folder, "..", `${name}-${process.pid}`);
    rmSync(path, { recursive: true, force: true });
    mkdirSync(path);
    for (const file of readdirSync(join(shared, "model"))) {
      writeFileSync(join(path, file), readFileSync(join(shared, "model", file)));
    }
    change(path);
    return path;
  };
  const cases: [name: string, args: () => string[], reason: RegExp][] = [
    ["an unknown flag", () => ["--stepz", "3"], /unknown option '--stepz'/],
    ["a flag without its value", () => quick("notes.txt", "--prompt"), /argument missing/],
    ["a number that is none", () => quick("notes.txt", "--steps", "many"), /integer from 1/],
    ["a length beyond the model", () => quick("notes.txt", "--length", "65"), /at most 64 tokens/],
    ["a missing text", () => quick("missing.txt"), /missing\.txt/],
    ["a folder as text", () => ["--data", shared], /\.txt or \.jsonl/],
    ["a missing model", () => ["--model", "nowhere", "--data", join(shared, "notes.txt")], /nowhere/],
    ["a folder without a model", () => ["--model", ".", "--data", join(shared, "notes.txt")], /config\.json/],
    [
      "a model that is cut off",
      () => {
        const path = broken("cut", (at) => {
          const file = join(at, "model.safetensors");
          writeFileSync(file, readFileSync(file).subarray(0, -100));
        });
        return ["--model", path, "--data", join(shared, "notes.txt")];
      },
      /model\.safetensors/,
    ],
    [
      "a configuration that is no JSON",
      () => {
        const path = broken("config", (at) => writeFileSync(join(at, "config.json"), "{"));
        return ["--model", path, "--data", join(shared, "notes.txt")];
      },
      /config\.json/,
    ],
    [
      "a configuration for another model",
      () => {
        const path = broken("other", (at) => {
          const file = join(at, "config.json");
          const config = JSON.parse(readFileSync(file, "utf8"));
          writeFileSync(file, JSON.stringify({ ...config, intermediate_size: 128 }));
        });
        return ["--model", path, "--data", join(shared, "notes.txt")];
      },
      /mlp\.\w+_proj\.weight/,
    ],
    ["an output that is a file", () => quick("notes.txt", "--out", join(shared, "notes.txt")), /is a file/],
  ];
  it.each(cases)("%s", async (_, makeArguments, reason) => {
    const { code, stdout, stderr } = await run(...makeArguments());
    expect(stderr.trimEnd().split("\n").length).toBe(1);
    expect(stderr).toMatch(reason);
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(code).toBe(1);
    expect(stdout).not.toContain("Wrote");
    expect(readdirSync(folder)).toEqual([]);
  });
});

it.skipIf(process.platform === "win32")("ends cleanly at Ctrl-C, in the middle of the training", async () => {
  const args = quick("notes.txt").map((arg) => (arg === "3" ? "1000000" : arg));
  const child = spawn(process.execPath, [...node, ...args], { cwd: folder });
  let stderr = "";
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  let sent = false;
  child.stdout.on("data", (text) => {
    // Once: at the second signal it ends without a word.
    if (!sent && String(text).includes("step ")) sent = child.kill("SIGINT");
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  expect(code).toBe(130);
  expect(stderr).toBe("finetune: stopped; nothing was written\n");
  expect(readdirSync(folder)).toEqual([]);
  expect(existsSync(join(folder, "out"))).toBe(false);
});
