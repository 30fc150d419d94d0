// The form of result files, version 2, and the check of what is read. docs/benchmarking.md describes every field. Files of version 1
// are read too: they knew neither interrupted runs nor rounds of several processes.

import type { Machine } from "../machine.js";
import type { Peaks } from "../measure/peaks.js";
import { type Accuracy, BenchError, type Implementation, type Parameters, type Work } from "../model.js";
import { Field } from "./field.js";

export const schemaName = "nomoat-bench";
export const schemaVersion = 2;
const readVersions: readonly number[] = [1, schemaVersion];

/** One entry, measured or failed. */
export interface Result {
  readonly suite: string;
  readonly name: string;
  readonly parameters: Parameters;
  readonly implementation: Implementation;
  readonly backend: string;
  readonly threads: number;
  readonly work: Work;
  /** Calls that a sample is the mean of. */
  readonly callsPerSample: number;
  /** Seconds of one call: samples, by round. Empty where it failed. */
  readonly rounds: readonly (readonly number[])[];
  /** How many of the rounds, in their order, each process measured that took part. */
  readonly launches: readonly number[];
  readonly accuracy: Accuracy | null;
  /** Other figures by name, such as `scriptBytes`. */
  readonly details: Readonly<Record<string, number>>;
  /** Why there are no samples, or why they do not count; null where all is well. */
  readonly failure: string | null;
}

export interface RunOptions {
  readonly effort: "quick" | "standard" | "long";
  readonly suites: readonly string[];
  readonly filter: string | null;
}

/** What one call of the tool measured on one machine. */
export interface Run {
  /** Unique: files that are merged twice count once. */
  readonly id: string;
  /** A name that the user gave the machine, or "". */
  readonly label: string;
  /** ISO 8601, UTC. */
  readonly started: string;
  readonly seconds: number;
  /** Why the run ended early, such as "SIGINT"; null for a whole one. */
  readonly interrupted: string | null;
  readonly options: RunOptions;
  readonly machine: Machine;
  readonly peaks: readonly Peaks[];
  readonly results: readonly Result[];
}

export interface ResultFile {
  readonly schema: typeof schemaName;
  readonly version: typeof schemaVersion;
  readonly runs: readonly Run[];
}

/** @throws {BenchError} naming the field that is missing, unknown, or not what it should be */
export function parseResultFile(text: string, file: string): ResultFile {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new BenchError(`${file}: not JSON: ${(error as Error).message}`);
  }
  const root = new Field(value, file, "");
  if (root.member("schema").text() !== schemaName) {
    throw new BenchError(`${file}: schema: not a file of nomoat-bench`);
  }
  const version = root.member("version").number();
  if (!readVersions.includes(version)) {
    throw new BenchError(
      `${file}: version: ${version} is none of ${readVersions.join(" and ")}, which this program reads`,
    );
  }
  root.members(["schema", "version", "runs"]);
  const runs = root.member("runs").list((run) => parseRun(run, version));
  return { schema: schemaName, version: schemaVersion, runs };
}

function parseRun(field: Field, version: number): Run {
  const own = version > 1 ? ["interrupted"] : [];
  field.members(["id", "label", "started", "seconds", "options", "machine", "peaks", "results", ...own]);
  const started = field.member("started").text();
  if (!/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(started))
    field.member("started").fail("a time such as 2026-01-31T12:00:00Z");
  const options = field.member("options");
  options.members(["effort", "suites", "filter"]);
  return {
    id: field.member("id").text(),
    label: field.member("label").text(),
    started,
    seconds: field.member("seconds").number(0),
    interrupted: version > 1 ? field.member("interrupted").orNull((one) => one.text()) : null,
    options: {
      effort: options.member("effort").oneOf(["quick", "standard", "long"]),
      suites: options.member("suites").list((one) => one.text()),
      filter: options.member("filter").orNull((one) => one.text()),
    },
    machine: parseMachine(field.member("machine")),
    peaks: field.member("peaks").list(parsePeaks),
    results: field.member("results").list((one) => parseResult(one, version)),
  };
}

function parseMachine(field: Field): Machine {
  const text = (name: string): string => field.member(name).text();
  const textOrNull = (name: string): string | null => field.member(name).orNull((one) => one.text());
  field.members(
    [
      "cpu",
      "processors",
      "frequency",
      "caches",
      "memoryBytes",
      "system",
      "architecture",
      "runtime",
      "v8",
    ].concat(["simd", "gpu", "libraries", "commit", "load", "power"]),
  );
  return {
    cpu: text("cpu"),
    processors: field.member("processors").integer(1),
    frequency: field.member("frequency").orNull((one) => one.number(0)),
    caches: field.member("caches").list((one) => one.text()),
    memoryBytes: field.member("memoryBytes").orNull((one) => one.number(0)),
    system: text("system"),
    architecture: text("architecture"),
    runtime: text("runtime"),
    v8: text("v8"),
    simd: field.member("simd").oneOf(["relaxed", "baseline"]),
    gpu: textOrNull("gpu"),
    libraries: field.member("libraries").record((one) => one.text()),
    commit: textOrNull("commit"),
    load: field.member("load").orNull((load) => {
      load.members(["before", "after"]);
      return { before: load.member("before").number(0), after: load.member("after").number(0) };
    }),
    power: textOrNull("power"),
  };
}

function parsePeaks(field: Field): Peaks {
  field.members(["threads", "float32", "int8", "bandwidth"]);
  const bandwidth = field.member("bandwidth").list((one) => {
    one.members(["bytes", "rate", "kind"]);
    return {
      bytes: one.member("bytes").integer(1),
      rate: one.member("rate").positive(),
      kind: one.member("kind").oneOf(["read", "copy", "add"]),
    };
  });
  if (bandwidth.length === 0) field.member("bandwidth").fail("at least one size");
  return {
    threads: field.member("threads").integer(1),
    float32: field.member("float32").positive(),
    int8: field.member("int8").positive(),
    bandwidth,
  };
}

function parseLaunches(field: Field, rounds: number): number[] {
  const launches = field.list((one) => one.integer(1));
  if (launches.reduce((sum, count) => sum + count, 0) !== rounds) field.fail(`${rounds} rounds in all`);
  return launches;
}

function parseResult(field: Field, version: number): Result {
  const own = version > 1 ? ["launches"] : [];
  field.members(
    ["suite", "name", "parameters", "implementation", "backend", "threads", "work", "callsPerSample"].concat([
      "rounds",
      "accuracy",
      "details",
      "failure",
      ...own,
    ]),
  );
  const implementation = field.member("implementation");
  implementation.members(["name", "version"]);
  const rounds = field.member("rounds");
  const samples = rounds.list((round) => round.list((one) => one.positive()));
  const failure = field.member("failure").orNull((one) => one.text());
  if (samples.some((round) => round.length === 0)) rounds.fail("rounds with samples");
  if (samples.length === 0 && failure === null) rounds.fail("samples, or a failure");
  return {
    suite: field.member("suite").text(),
    name: field.member("name").text(),
    parameters: field.member("parameters").record((one) => one.scalar()),
    implementation: {
      name: implementation.member("name").text(),
      version: implementation.member("version").text(),
    },
    backend: field.member("backend").text(),
    threads: field.member("threads").integer(1),
    work: parseWork(field.member("work")),
    callsPerSample: field.member("callsPerSample").integer(1),
    rounds: samples,
    launches:
      version > 1
        ? parseLaunches(field.member("launches"), samples.length)
        : samples.length > 0
          ? [samples.length]
          : [],
    accuracy: field.member("accuracy").orNull(parseAccuracy),
    details: field.member("details").record((one) => one.number()),
    failure,
  };
}

function parseWork(field: Field): Work {
  field.members(["operations", "bytes", "arithmetic", "items", "shown"]);
  return {
    operations: field.member("operations").number(0),
    bytes: field.member("bytes").number(0),
    arithmetic: field.member("arithmetic").oneOf(["float32", "int8"]),
    items: field.member("items").orNull((one) => {
      one.members(["count", "unit"]);
      return { count: one.member("count").positive(), unit: one.member("unit").text() };
    }),
    shown: field.member("shown").oneOf(["operations", "bytes", "items"]),
  };
}

function parseAccuracy(field: Field): Accuracy {
  field.members(["maxError", "scale", "tolerance", "compared"]);
  return {
    // JSON has no infinity; null stands for a result that was no number.
    maxError: field.member("maxError").orNull((one) => one.number(0)) ?? Number.POSITIVE_INFINITY,
    scale: field.member("scale").number(0),
    tolerance: field.member("tolerance").number(0),
    compared: field.member("compared").integer(0),
  };
}
