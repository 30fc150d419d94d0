// A run as people read it on a terminal: machine, peaks, a table for each suite, failures.

import Table from "cli-table3";
import {
  crossoverLines,
  failureLines,
  machineLine,
  peakLines,
  rowCells,
  rowHeads,
  rowsOf,
} from "../present.js";
import type { Run } from "../results/schema.js";

export function runText(run: Run): string {
  const lines = [machineLine(run), ...peakLines(run)];
  const rows = rowsOf(run).filter((row) => row.summary);
  for (const suite of new Set(rows.map((row) => row.result.suite))) {
    const table = new Table({
      head: [suite, ...rowHeads],
      colAligns: ["left", ...rowHeads.map((_, i) => (i === 0 ? ("left" as const) : ("right" as const)))],
      style: { head: [], border: [], compact: true },
    });
    for (const row of rows) if (row.result.suite === suite) table.push([row.result.name, ...rowCells(row)]);
    lines.push(table.toString());
  }
  lines.push(...crossoverLines(run), ...failureLines(run));
  return `${lines.join("\n")}\n`;
}
