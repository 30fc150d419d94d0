// The report: one HTML file with everything in it, no network, no build.

import {
  failureLines,
  formatNumber,
  formatPercent,
  formatSeconds,
  formatTimeLeft,
  implementationOf,
  machineLine,
  peakLines,
  type Row,
  rowsOf,
} from "../present.js";
import type { Run } from "../results/schema.js";
import { barCharts, rooflineChart, sizeChart, threadChart } from "./charts.js";
import { escapeXml } from "./svg.js";

const style = `
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1rem; margin-top: 1.5rem; }
ul { padding-left: 1.2rem; }
svg { max-width: 100%; height: auto; display: block; margin: 0.75rem 0; }
.bars { display: grid; grid-template-columns: repeat(auto-fill, minmax(500px, 1fr)); gap: 0 1.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort="ascending"] button::after { content: " ▲"; } th[aria-sort="descending"] button::after { content: " ▼"; }
tbody tr:hover { background: var(--soft); }
.ours td { font-weight: 600; }
`;

/** Sorts a table by the column whose head was pressed: by number where cells carry one. */
const script = `
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const value = (row) => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return x === y ? 0 : x === "" ? 1 : -1;
      const difference = Number(x) - Number(y);
      return sign * (Number.isNaN(difference) ? x.localeCompare(y) : difference);
    });
    table.tBodies[0].append(...rows);
  }));
}
`;

/** Columns: name, what is shown, what is sorted by ("" goes last). */
const columns: readonly (readonly [string, (row: Row) => string, ((row: Row) => number | null)?])[] = [
  ["case", (row) => row.result.name],
  ["by", (row) => implementationOf(row.result)],
  ["threads", (row) => String(row.result.threads), (row) => row.result.threads],
  ["time", (row) => formatSeconds(row.summary?.typical ?? null), (row) => row.summary?.typical ?? null],
  ["typical", (row) => formatNumber(row.rate), (row) => row.rate],
  ["best", (row) => formatNumber(row.bestRate), (row) => row.bestRate],
  ["unit", (row) => row.unit],
  ["of roof", (row) => formatPercent(row.share), (row) => row.share],
  ["bound", (row) => row.bound ?? "–"],
  ["error", (row) => (row.error === null ? "–" : row.error.toExponential(1)), (row) => row.error],
  ["±", (row) => formatPercent(row.uncertainty), (row) => row.uncertainty],
  ["samples", (row) => String(row.summary?.samples ?? 0), (row) => row.summary?.samples ?? 0],
];

function table(rows: readonly Row[]): string {
  const head = columns.map(
    ([name]) => `<th scope="col"><button type="button">${escapeXml(name)}</button></th>`,
  );
  const body = rows.map((row) => {
    const cells = columns.map(([, text, value]) => {
      const sortable = value ? ` data-value="${value(row) ?? ""}"` : "";
      return `<td${sortable}>${escapeXml(text(row))}</td>`;
    });
    return `<tr${row.result.implementation.name === "nomoat" ? ' class="ours"' : ""}>${cells.join("")}</tr>`;
  });
  return `<div class="scroll"><table><thead><tr>${head.join("")}</tr></thead><tbody>${body.join("\n")}</tbody></table></div>`;
}

function listOf(lines: readonly string[]): string {
  return `<ul>${lines.map((line) => `<li>${escapeXml(line)}</li>`).join("")}</ul>`;
}

function section(run: Run): string {
  const rows = rowsOf(run);
  const measured = rows.filter((row) => row.summary);
  const facts = [
    machineLine(run),
    ...peakLines(run),
    `${run.started}, ${run.options.effort}, ${formatTimeLeft(run.seconds)} minutes`,
    ...(run.machine.load
      ? [`load ${run.machine.load.before.toFixed(1)} before, ${run.machine.load.after.toFixed(1)} after`]
      : []),
  ];
  const failures = failureLines(run);
  const bars = barCharts(measured);
  const charts = [rooflineChart(run, measured), sizeChart(measured), threadChart(measured)].filter(
    (chart) => chart !== null,
  );
  const suites = [...new Set(measured.map((row) => row.result.suite))];
  return [
    `<h2>${escapeXml(run.label || run.machine.cpu)}</h2>`,
    listOf(facts),
    ...(failures.length > 0
      ? [`<details><summary>Not measured: ${failures.length} reasons</summary>${listOf(failures)}</details>`]
      : []),
    ...charts,
    ...(bars.length > 0 ? ["<h3>Against peers</h3>", `<div class="bars">${bars.join("\n")}</div>`] : []),
    ...suites.flatMap((suite) => [
      `<h3>${escapeXml(suite)}</h3>`,
      table(measured.filter((row) => row.result.suite === suite)),
    ]),
  ].join("\n");
}

/** The whole page. */
export function htmlReport(runs: readonly Run[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nomoat benchmarks</title>
<style>${style}</style>
</head>
<body>
<h1>nomoat benchmarks</h1>
<p>Rates are those of an undisturbed call; shares of the roof compare the fastest sample with what the machine did at most in the
same run. Errors are the largest difference from a float64 reference, by the largest reference value. Press a column's head
to sort.</p>
${runs.map(section).join("\n")}
<script>${script}</script>
</body>
</html>
`;
}
