// Results in other forms: Markdown for people, CSV for spreadsheets, SQL for SQLite.

import { failureLines, machineLine, peakLines, type Row, rowCells, rowHeads, rowsOf } from "../present.js";
import type { Run } from "./schema.js";

export const exportFormats = ["md", "csv", "sql"] as const;
export type ExportFormat = (typeof exportFormats)[number];

/** The runs in a form. */
export function exportRuns(runs: readonly Run[], format: ExportFormat): string {
  return { md: toMarkdown, csv: toCsv, sql: toSql }[format](runs);
}

function markdownCell(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("|", "\\|").replaceAll("\n", " ");
}

/** A Markdown table. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(markdownCell).join(" | ")} |`;
  return [line(head), `|${head.map(() => "---|").join("")}`, ...rows.map(line)].join("\n");
}

function toMarkdown(runs: readonly Run[]): string {
  const parts = runs.flatMap((run) => {
    const rows = rowsOf(run).filter((row) => row.summary);
    const suites = [...new Set(rows.map((row) => row.result.suite))];
    const facts: (string | number | null)[] = [
      machineLine(run),
      ...peakLines(run),
      `${run.started}, ${run.options.effort}`,
    ];
    return [
      `## ${run.label || run.machine.cpu}`,
      facts.map((fact) => `- ${fact}`).join("\n"),
      ...suites.flatMap((suite) => [
        `### ${suite}`,
        markdownTable(
          ["case", ...rowHeads],
          rows.filter((row) => row.result.suite === suite).map((row) => [row.result.name, ...rowCells(row)]),
        ),
      ]),
      ...failureLines(run).map((line) => `- ${markdownCell(line)}`),
    ];
  });
  return `${parts.join("\n\n")}\n`;
}

/** Columns of CSV and SQL: name, SQL type, value. */
const columns: readonly (readonly [
  string,
  "TEXT" | "INTEGER" | "REAL",
  (run: Run, row: Row) => string | number | null,
])[] = [
  ["run", "TEXT", (run) => run.id],
  ["suite", "TEXT", (_, { result }) => result.suite],
  ["name", "TEXT", (_, { result }) => result.name],
  ["implementation", "TEXT", (_, { result }) => result.implementation.name],
  ["version", "TEXT", (_, { result }) => result.implementation.version],
  ["backend", "TEXT", (_, { result }) => result.backend],
  ["threads", "INTEGER", (_, { result }) => result.threads],
  ["parameters", "TEXT", (_, { result }) => JSON.stringify(result.parameters)],
  ["operations", "REAL", (_, { result }) => result.work.operations],
  ["bytes", "REAL", (_, { result }) => result.work.bytes],
  ["seconds", "REAL", (_, { summary }) => summary?.typical ?? null],
  ["best_seconds", "REAL", (_, { summary }) => summary?.best ?? null],
  ["uncertainty", "REAL", (_, row) => row.uncertainty && Number(row.uncertainty.toPrecision(3))],
  ["samples", "INTEGER", (_, { summary }) => summary?.samples ?? 0],
  ["rate", "REAL", (_, { rate }) => rate],
  ["unit", "TEXT", (_, { unit }) => unit],
  ["roof_share", "REAL", (_, { share }) => share],
  ["bound", "TEXT", (_, { bound }) => bound],
  ["error", "REAL", (_, { error }) => error],
  ["failure", "TEXT", (_, { result }) => result.failure],
];

function csvCell(value: string | number | null): string {
  if (value === null) return "";
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** RFC 4180 but for its line ends, with a line of names. */
function toCsv(runs: readonly Run[]): string {
  const lines = [columns.map(([name]) => name).join(",")];
  for (const run of runs) {
    for (const row of rowsOf(run))
      lines.push(columns.map(([, , value]) => csvCell(value(run, row))).join(","));
  }
  return `${lines.join("\n")}\n`;
}

function sqlValue(value: string | number | null): string {
  if (value === null || (typeof value === "number" && !Number.isFinite(value))) return "NULL";
  return typeof value === "number" ? String(value) : `'${value.replaceAll("'", "''").replaceAll("\0", "")}'`;
}

/** `sqlite3 results.db < results.sql`: tables runs, results and samples. */
function toSql(runs: readonly Run[]): string {
  const lines = [
    "BEGIN;",
    "CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, label TEXT, started TEXT, seconds REAL, effort TEXT, cpu TEXT, processors INTEGER, memory_bytes INTEGER, system TEXT, runtime TEXT, v8 TEXT, simd TEXT, commit_hash TEXT);",
    `CREATE TABLE IF NOT EXISTS results (${columns.map(([name, type]) => `${name} ${type}`).join(", ")});`,
    "CREATE TABLE IF NOT EXISTS samples (run TEXT, suite TEXT, name TEXT, implementation TEXT, backend TEXT, threads INTEGER, round INTEGER, seconds REAL);",
  ];
  for (const run of runs) {
    const { machine } = run;
    const facts: (string | number | null)[] = [
      run.id,
      run.label,
      run.started,
      run.seconds,
      run.options.effort,
      machine.cpu,
      machine.processors,
    ];
    facts.push(machine.memoryBytes, machine.system, machine.runtime, machine.v8, machine.simd);
    lines.push(`INSERT INTO runs VALUES (${[...facts, machine.commit].map(sqlValue).join(", ")});`);
    for (const row of rowsOf(run)) {
      const { suite, name, implementation, backend, threads, rounds } = row.result;
      lines.push(
        `INSERT INTO results VALUES (${columns.map(([, , value]) => sqlValue(value(run, row))).join(", ")});`,
      );
      const key = [run.id, suite, name, implementation.name, backend, threads].map(sqlValue).join(", ");
      rounds.forEach((samples, round) => {
        const values = samples.map((seconds) => `(${key}, ${round}, ${seconds})`);
        lines.push(`INSERT INTO samples VALUES ${values.join(", ")};`);
      });
    }
  }
  return `${[...lines, "COMMIT;"].join("\n")}\n`;
}
