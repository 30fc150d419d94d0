// Result files: what is written is read again, what is broken is refused with the field named, other forms are as agreed.

import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { exportRuns } from "../src/results/export.js";
import { readResults, readRuns, writeText } from "../src/results/files.js";
import { formatResults } from "../src/results/format.js";
import { parseResultFile } from "../src/results/schema.js";
import { aResult, aRun } from "./support.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nomoat-bench-test-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const seconds = fc.double({ min: 1e-9, max: 1e4, noNaN: true });
const name = fc.string({ maxLength: 20 });
const result = fc
  .record({
    suite: name,
    name,
    parameters: fc.dictionary(name, fc.oneof(name, fc.integer(), fc.boolean()), { noNullPrototype: true }),
    implementation: fc.record({ name, version: name }),
    backend: name,
    threads: fc.integer({ min: 1, max: 64 }),
    work: fc.record({
      operations: fc.nat(),
      bytes: fc.nat(),
      arithmetic: fc.constantFrom("float32" as const, "int8" as const),
      items: fc.option(fc.record({ count: fc.integer({ min: 1 }), unit: name })),
      shown: fc.constantFrom("operations" as const, "bytes" as const, "items" as const),
    }),
    callsPerSample: fc.integer({ min: 1, max: 1000 }),
    rounds: fc.array(fc.array(seconds, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 4 }),
    accuracy: fc.option(
      fc.record({
        maxError: fc.oneof(seconds, fc.constant(Number.POSITIVE_INFINITY)),
        scale: seconds,
        tolerance: seconds,
        compared: fc.nat(),
      }),
    ),
    details: fc.dictionary(name, seconds, { noNullPrototype: true }),
    failure: fc.option(name),
  })
  .map((one) => ({ ...one, launches: [one.rounds.length] }));

describe("the schema", () => {
  test("gives back what was written, samples to six digits", () => {
    fc.assert(
      fc.property(fc.array(result, { maxLength: 4 }), name, (results, label) => {
        const run = { ...aRun(results), label };
        const [read] = parseResultFile(formatResults([run]), "file.json").runs;
        const round = (value: number): number => Number(value.toPrecision(6));
        expect(read).toEqual({
          ...run,
          results: results.map((one) => ({
            ...one,
            rounds: one.rounds.map((samples) => samples.map(round)),
          })),
        });
      }),
    );
  });

  test("names whatever field is taken away, and whatever is added", () => {
    const whole = JSON.parse(formatResults([aRun([aResult()])])) as object;
    const paths: string[][] = [];
    const collect = (value: unknown, path: string[]): void => {
      if (typeof value !== "object" || value === null) return;
      for (const [key, child] of Object.entries(value)) {
        const free = path.at(-1) === "parameters" || path.at(-1) === "libraries";
        if (!Array.isArray(value) && !free) paths.push([...path, key]);
        collect(child, [...path, key]);
      }
    };
    collect(whole, []);
    expect(paths.length).toBeGreaterThan(50);
    for (const path of paths) {
      const copy = structuredClone(whole);
      const parent = path
        .slice(0, -1)
        .reduce((value, key) => (value as never)[key], copy as unknown) as object;
      delete (parent as Record<string, unknown>)[path.at(-1)!];
      const wanted = path
        .map((key, i) => (/^\d+$/.test(key) ? `[${key}]` : i > 0 ? `.${key}` : key))
        .join("");
      expect(() => parseResultFile(JSON.stringify(copy), "f.json")).toThrow(`f.json: ${wanted}: `);
    }
    const added = structuredClone(whole) as { runs: Record<string, unknown>[] };
    added.runs[0].extra = 1;
    expect(() => parseResultFile(JSON.stringify(added), "f.json")).toThrow(
      "f.json: runs[0].extra: expected no such field",
    );
  });

  test.each([
    ["{", "f.json: not JSON"],
    ["[]", "f.json: the file: expected an object"],
    ['{"schema":"other"}', "f.json: schema: not a file of nomoat-bench"],
    ['{"schema":"nomoat-bench","version":3}', "f.json: version: 3 is none of 1 and 2"],
  ])("refuses %s", (text, message) => {
    expect(() => parseResultFile(text, "f.json")).toThrow(message);
  });

  test("reads files of version 1, whose runs were whole and of one process", () => {
    const file = JSON.parse(formatResults([aRun([aResult()])])) as {
      version: number;
      runs: { interrupted?: unknown; results: { launches?: unknown }[] }[];
    };
    file.version = 1;
    delete file.runs[0].interrupted;
    delete file.runs[0].results[0].launches;
    expect(parseResultFile(JSON.stringify(file), "f.json").runs).toEqual([aRun([aResult()])]);
  });

  test("refuses processes that had other rounds than there are", () => {
    const file = JSON.parse(formatResults([aRun([{ ...aResult(), launches: [1] }])]));
    expect(() => parseResultFile(JSON.stringify(file), "f.json")).toThrow(
      "f.json: runs[0].results[0].launches: expected 2 rounds in all, found [1]",
    );
  });

  test("refuses times that are none", () => {
    for (const rounds of [[[0]], [[-1]], [[]], [["1"]], []]) {
      const text = JSON.stringify({ ...JSON.parse(formatResults([aRun([])])) });
      const file = JSON.parse(text) as { runs: { results: unknown[] }[] };
      file.runs[0].results.push({ ...aResult(), rounds });
      expect(() => parseResultFile(JSON.stringify(file), "f.json")).toThrow(
        "f.json: runs[0].results[0].rounds",
      );
    }
  });
});

describe("files", () => {
  test("are written whole, and runs in two files count once", async () => {
    const [first, second] = [aRun([aResult()]), { ...aRun([aResult()]), id: "second" }];
    const [a, b] = [join(folder, "a.json"), join(folder, "b.json")];
    await writeText(a, formatResults([first]));
    await writeText(b, formatResults([first, second]));
    expect((await readRuns([a, b])).map((run) => run.id)).toEqual(["first", "second"]);
    expect((await readResults(a)).runs).toHaveLength(1);
    expect((await readdir(folder)).filter((one) => !/^[ab]\.json$/.test(one))).toEqual([]);
  });

  test("that cannot be read or written say so in a line", async () => {
    await expect(readResults(join(folder, "none.json"))).rejects.toThrow(
      /none\.json: cannot be read \(ENOENT\)/,
    );
    const broken = join(folder, "broken.json");
    await writeFile(broken, "no");
    await expect(readResults(broken)).rejects.toThrow(/broken\.json: not JSON/);
    await expect(writeText(join(folder, "no", "x.json"), "")).rejects.toThrow(/cannot be written/);
    await rm(broken);
  });
});

describe("other forms", () => {
  const runs = [
    aRun([
      aResult({ name: 'with "quotes", | and \'' }),
      aResult({ name: "failed", rounds: [], accuracy: null, failure: "wrong result" }),
    ]),
  ];

  test.each(["md", "csv", "sql"] as const)("%s is as agreed", async (format) => {
    await expect(exportRuns(runs, format)).toMatchFileSnapshot(`fixtures/results.${format}`);
  });

  test("SQL has as many statements as it should, and no text leaves its quotes", () => {
    const sql = exportRuns(runs, "sql").replaceAll(/'(?:[^']|'')*'/g, "?");
    expect(sql).not.toMatch(/['"|]/);
    expect(sql.match(/INSERT INTO samples/g)).toHaveLength(2);
  });

  const sqlite = spawnSync("sqlite3", ["--version"]).status === 0;
  test.skipIf(!sqlite)("SQLite loads the SQL, with every sample", () => {
    const sql = exportRuns(runs, "sql");
    const query = (input: string): string => {
      const { stdout, stderr } = spawnSync("sqlite3", [":memory:"], { input, encoding: "utf8" });
      expect(stderr).toBe("");
      return stdout;
    };
    const select =
      "SELECT count(*), round(sum(seconds), 3) FROM samples; SELECT name FROM results ORDER BY name;";
    expect(query(`${sql}${select}`)).toBe(`6|0.73\nfailed\nwith "quotes", | and '\n`);
  });

  test("the result file is as agreed", async () => {
    await expect(formatResults(runs)).toMatchFileSnapshot("fixtures/results.json");
  });
});
