// What a benchmark is made of: a case says what is computed and how much work that is, an entry who computes it, and on how
// many threads. Suites make cases, peers make entries of the same cases, the runner measures entries.

/** Values that tell one case from another; they stand in result files. */
export type Parameters = Readonly<Record<string, string | number | boolean>>;

/** What one call does, from the definition of the operation: not what an implementation happens to do. */
export interface Work {
  /** Arithmetic operations; a multiply-add counts as two. */
  readonly operations: number;
  /** Bytes that must be read or written at least once, whatever the implementation. */
  readonly bytes: number;
  /** Which measured rate bounds the operations. */
  readonly arithmetic: "float32" | "int8";
  /** What users count, where that is neither operations nor bytes. */
  readonly items: { readonly count: number; readonly unit: string } | null;
  /** The rate that is shown first. */
  readonly shown: "operations" | "bytes" | "items";
}

/** How far a result is from the float64 reference. */
export interface Accuracy {
  /** Largest absolute difference among the values that were compared. */
  readonly maxError: number;
  /** Largest absolute value of the reference among them. */
  readonly scale: number;
  /** Most that maxError / scale may be. */
  readonly tolerance: number;
  /** Values that were compared. */
  readonly compared: number;
}

/** An entry with its inputs made. */
export interface Prepared {
  /** One call. A promise is awaited within the measured time. */
  run(): unknown;
  /** Seconds of that many calls, taken where they run; for calls in another process. */
  time?(calls: number): Promise<number>;
  /** Compares a result with the float64 reference; absent where none can be computed in reasonable time. */
  verify?(): Accuracy | Promise<Accuracy>;
  /** Other figures that are worth keeping, by name, such as `scriptBytes`. */
  details?(): Readonly<Record<string, number>> | Promise<Readonly<Record<string, number>>>;
  dispose(): unknown;
}

export interface Implementation {
  readonly name: string;
  readonly version: string;
}

/** One thing to measure. */
export interface Entry {
  readonly suite: string;
  /** Names the case within its suite; equal names are compared with each other. */
  readonly name: string;
  readonly parameters: Parameters;
  readonly work: Work;
  readonly implementation: Implementation;
  readonly backend: string;
  readonly threads: number;
  /** Operations a second, roughly, where that is known: for guesses of how long a run takes. */
  readonly rate?: number;
  prepare(): Prepared | Promise<Prepared>;
}

/** Benchmarks that were asked for in a way that cannot be; the command line shows the message alone. */
export class BenchError extends Error {
  override readonly name = "BenchError";
}
