// How the tool talks to a peer: a child process of its own, one JSON object a line, an answer to every request. A peer that
// crashes or hangs takes nothing else with it, and native libraries bring threads that ours should not share a process with.

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Places } from "../accuracy.js";
import { BenchError } from "../model.js";

/** A matrix product as peers are asked for it. Inputs are made from seeds, so that nothing large is sent. */
export interface ProductTask {
  readonly kind: "gemm";
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch: number;
  readonly transposes: string;
  /** Seeds of `uniformValues` for a and b, hashed. */
  readonly seeds: readonly [a: number, b: number];
}

/**
 * How x and w are stored: 4-bit codes in blocks of 32 times float32 or int8 activations, or int8 codes times int8 codes.
 * Codes are the high bits of seeded words, less half their range; 4-bit ones are divided by 16, as is x.
 */
export type QuantTaskFormat = "int4" | "int4-int8" | "int8";

/** x [rows, size] · wᵀ with w [size, size] in an integer format. */
export interface QuantTask {
  readonly kind: "quant";
  readonly size: number;
  readonly rows: number;
  readonly format: QuantTaskFormat;
  readonly seeds: readonly [x: number, w: number];
}

/** float32 tensors in a file, little-endian, one after the other: what is too large or too particular to make from seeds. */
export interface StoredTensors {
  readonly file: string;
  readonly tensors: Readonly<Record<string, { readonly offset: number; readonly shape: readonly number[] }>>;
}

/**
 * Forward and backward through a gated MLP with a low-rank adapter at each projection, y = down(silu(gate x) · up x),
 * projection p: x·Wᵀ + (x·Aᵀ)·Bᵀ. Tensors: x, dy, and for each of gate, up, down: p.weight, p.A, p.B.
 *
 * The result is y and the gradients of Σ y·dy by x, gate.A, gate.B, up.A, up.B, down.A, down.B, one after the other.
 */
export interface LoraMlpTask {
  readonly kind: "lora-mlp";
  readonly stored: StoredTensors;
}

/**
 * A training step of a LLaMA with low-rank adapters at all seven projections: loss, backward, clipping to norm 1, AdamW.
 * Tensors by Hugging Face's names, adapters as `NAME.lora_A` and `NAME.lora_B`; the output layer is the embedding.
 *
 * The result is the losses of the first steps, before each step.
 */
export interface TrainTask {
  readonly kind: "train-step";
  readonly stored: StoredTensors;
  readonly heads: number;
  readonly layers: number;
  readonly epsilon: number;
  readonly theta: number;
  readonly learningRate: number;
  /** Token ids, a text a row. */
  readonly ids: readonly (readonly number[])[];
  readonly losses: number;
}

/** How windows lie over images [images, channels, height, width]; lists have an entry for rows and one for columns. */
export interface WindowShape {
  readonly images: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly kernel: readonly [number, number];
  readonly stride: number;
  readonly padding: number;
}

/**
 * Cross-correlation with a weight [outChannels, channels / groups, kernel…], its output, or the gradient of Σ y·dy by its input or its
 * weight alone.
 */
export interface ConvolutionTask extends WindowShape {
  readonly kind: "convolution";
  readonly outChannels: number;
  readonly groups: number;
  readonly wanted: "output" | "input" | "weight";
  /** Seeds of `uniformValues`, hashed. */
  readonly seeds: readonly [x: number, weight: number, dy: number];
}

/** The largest or the mean of each window, padding not counted. */
export interface PoolingTask extends WindowShape {
  readonly kind: "pooling";
  readonly reduction: "max" | "mean";
  readonly seed: number;
}

/** Reads a prompt, or reads one and writes `tokens` more; the result is the next token's probabilities after `few` ids. */
export interface GenerateTask {
  readonly kind: "generate";
  /** A GGUF file. */
  readonly file: string;
  readonly prompt: readonly number[];
  readonly tokens: number;
  readonly few: readonly number[];
}

export type Task =
  | ProductTask
  | QuantTask
  | ConvolutionTask
  | PoolingTask
  | LoraMlpTask
  | TrainTask
  | GenerateTask;

export type Request =
  | { readonly do: "start"; readonly peer: string; readonly folder: string; readonly threads: number }
  | { readonly do: "prepare"; readonly task: Task }
  | { readonly do: "time"; readonly calls: number }
  /** The values at the places of a product, or all. */
  | { readonly do: "result"; readonly places: Places | null }
  /** Of peers in Python: the most memory that the process has held. */
  | { readonly do: "memory" }
  | { readonly do: "dispose" };

export interface Answer {
  readonly error?: string;
  /** To "start". */
  readonly version?: string;
  /** To "time". */
  readonly seconds?: number;
  /** To "memory": of the process, resident. */
  readonly bytes?: number;
  /** To "result": float32 values in base64, little-endian. */
  readonly values?: string;
}

/** How long a peer may take to answer. */
export const deadlineMilliseconds = 300_000;

/** Longest part of an answer that an error message repeats. */
const mostErrorText = 200;

/** Whatever answers a peer's requests. */
export interface PeerHost {
  /** Whether it can answer no more. */
  readonly ended: boolean;
  ask(request: Request): Promise<Answer>;
  close(): void;
}

export class PeerProcess implements PeerHost {
  readonly #child: ChildProcess;
  #waiting: { resolve(answer: Answer): void; reject(error: Error): void } | null = null;
  #ended: Error | null = null;
  #stderr = "";

  constructor(command: string, args: readonly string[], environment: Readonly<Record<string, string>>) {
    this.#child = spawn(command, [...args], {
      env: { ...process.env, ...environment },
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#child.on("error", (error) => this.#end(new BenchError(`cannot run ${command}: ${error.message}`)));
    this.#child.on("close", (code, signal) => {
      const lines = this.#stderr.trim().split("\n");
      const last = lines.find((line) => /^\w*Error\b/.test(line)) ?? lines.at(-1) ?? "";
      this.#end(new BenchError(`ended with ${signal ?? `exit code ${code}`}${last && `: ${last}`}`));
    });
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-4096);
    });
    // Writing to a process that has gone is reported by "close".
    this.#child.stdin!.on("error", () => undefined);
    createInterface({ input: this.#child.stdout! }).on("line", (line) => this.#receive(line));
  }

  #receive(line: string): void {
    // Libraries print to stdout too; an answer begins as ours do.
    if (!line.startsWith('{"nomoat":')) return;
    const waiting = this.#waiting;
    this.#waiting = null;
    try {
      const answer = (JSON.parse(line) as { nomoat: Answer }).nomoat;
      if (answer.error) waiting?.reject(new BenchError(answer.error));
      else waiting?.resolve(answer);
    } catch {
      waiting?.reject(new BenchError(`answered ${line.slice(0, mostErrorText)}`));
    }
  }

  #end(error: Error): void {
    this.#ended ??= error;
    this.#waiting?.reject(this.#ended);
    this.#waiting = null;
  }

  /** @throws {BenchError} when the peer answers with an error, ends, or does not answer in time */
  ask(request: Request): Promise<Answer> {
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#end(new BenchError(`gave no answer within ${deadlineMilliseconds / 1000} s`));
        this.#child.kill("SIGKILL");
      }, deadlineMilliseconds);
      const settle = (): void => clearTimeout(timer);
      this.#waiting = {
        resolve(answer) {
          settle();
          resolve(answer);
        },
        reject(error) {
          settle();
          reject(error);
        },
      };
      this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    });
  }

  get ended(): boolean {
    return this.#ended !== null;
  }

  close(): void {
    this.#end(new BenchError("was closed"));
    this.#child.kill();
  }
}
