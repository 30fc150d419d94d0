// The charts of a report: the roofline, bars against peers, scaling by size and by threads. Each is null where the results
// have nothing for it.

import { formatNumber, implementationOf, type Row } from "../present.js";
import type { Run } from "../results/schema.js";
import { colours, drawing, element, frame, label, path, spread, tooltip } from "./svg.js";

function isOurs({ result }: Row): boolean {
  return result.implementation.name === "nomoat";
}

function groupBy<T>(list: readonly T[], key: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const one of list) {
    const group = groups.get(key(one));
    if (group) group.push(one);
    else groups.set(key(one), [one]);
  }
  return groups;
}

/** Work a byte against rate, below the roofs that were measured. */
export function rooflineChart(run: Run, rows: readonly Row[]): string | null {
  const points = rows.flatMap((row) => {
    const { work } = row.result;
    if (!isOurs(row) || !row.summary || work.operations === 0 || work.bytes === 0) return [];
    return [{ row, intensity: work.operations / work.bytes, rate: work.operations / row.summary.best / 1e9 }];
  });
  if (points.length === 0 || run.peaks.length === 0) return null;
  const rates = [...points.map((one) => one.rate), ...run.peaks.map((one) => one.float32 / 1e9)];
  const intensities = points.map((one) => one.intensity);
  const power = (value: number, round: (x: number) => number): number => 10 ** round(Math.log10(value));
  const [low, high] = [
    power(Math.min(...intensities, 0.1), Math.floor),
    power(Math.max(...intensities, 10), Math.ceil),
  ];
  const chart = frame(
    "Roofline",
    { name: "operations a byte", low, high, logarithmic: true },
    {
      name: "GFLOP/s",
      low: power(Math.min(...rates), Math.floor),
      high: 1.5 * Math.max(...rates),
      logarithmic: true,
    },
  );
  const bottom = power(Math.min(...rates), Math.floor);
  const labels = spread(
    run.peaks.map((one) => chart.y(one.float32 / 1e9)),
    chart.bottom,
  );
  const roofs = run.peaks.flatMap(({ threads, float32, bandwidth }, i) => {
    const memory = bandwidth[bandwidth.length - 1].rate;
    const [top, slope] = [float32 / 1e9, memory / 1e9];
    const start = Math.max(low, bottom / slope);
    const ridge = Math.min(high, Math.max(start, top / slope));
    return [
      path(
        [
          [chart.x(start), chart.y(Math.min(top, start * slope))],
          [chart.x(ridge), chart.y(Math.min(top, ridge * slope))],
          [chart.x(high), chart.y(top)],
        ],
        { class: "roof" },
      ),
      label(chart.right + 8, labels[i] + 4, `${threads}T: ${formatNumber(top)}`),
    ];
  });
  const suites = [...new Set(points.map(({ row }) => row.result.suite))];
  const dots = points.map(({ row, intensity, rate }) =>
    element(
      "circle",
      {
        cx: chart.x(intensity),
        cy: chart.y(rate),
        r: 4,
        fill: colours[suites.indexOf(row.result.suite) % colours.length],
        "fill-opacity": row.result.threads === 1 ? 0.85 : 0.4,
      },
      tooltip(
        `${row.result.suite} ${row.result.name}, ${row.result.threads}T: ${formatNumber(rate)} GFLOP/s`,
      ),
    ),
  );
  const legend = suites.map((suite, i) =>
    element(
      "g",
      {},
      element("circle", {
        cx: chart.right + 14,
        cy: 300 + 16 * (i - suites.length / 2),
        r: 4,
        fill: colours[i % colours.length],
      }),
      label(chart.right + 24, 304 + 16 * (i - suites.length / 2), suite),
    ),
  );
  return drawing(chart.width, chart.height, "Roofline", chart.markup, ...roofs, ...dots, ...legend);
}

/** Bars of one case: this library's, and those of all others that computed it. */
export function barChart(rows: readonly Row[], heading?: string): string {
  const sorted = rows.filter((row) => row.rate !== null).sort((a, b) => b.rate! - a.rate!);
  const { suite, name, threads } = sorted[0].result;
  const [left, right, height] = [190, 90, 22];
  const width = 760;
  const most = sorted[0].rate!;
  const bars = sorted.map((row, i) => {
    const y = 34 + i * height;
    const length = Math.max(1, ((width - left - right) * row.rate!) / most);
    const kind = isOurs(row) ? "ours" : row.result.backend === "native" ? "native" : "other";
    const bold: Record<string, number> = isOurs(row) ? { "font-weight": 600 } : {};
    return element(
      "g",
      {},
      label(left - 8, y + 14, implementationOf(row.result), { "text-anchor": "end", ...bold }),
      element("rect", { x: left, y: y + 2, width: length, height: height - 6, rx: 2, class: kind }),
      label(left + length + 6, y + 14, formatNumber(row.rate), bold),
      tooltip(`${implementationOf(row.result)} ${row.result.implementation.version}`),
    );
  });
  const title =
    heading ?? `${suite} ${name}, ${threads} ${threads === 1 ? "thread" : "threads"}, ${sorted[0].unit}`;
  return drawing(width, 44 + sorted.length * height, title, label(8, 18, title, { class: "title" }), ...bars);
}

/** One bar chart for each case that several have computed. */
export function barCharts(rows: readonly Row[]): string[] {
  const measured = rows.filter((row) => row.rate !== null);
  const groups = groupBy(measured, ({ result }) => `${result.suite} ${result.name} ${result.threads}`);
  return [...groups.values()]
    .filter((group) => new Set(group.map(({ result }) => implementationOf(result))).size > 1)
    .map((group) => barChart(group));
}

interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

function lines(chart: ReturnType<typeof frame>, list: readonly Line[]): string[] {
  const ends = spread(
    list.map((line) => chart.y(line.points[line.points.length - 1][1])),
    chart.bottom,
  );
  return list.flatMap((line, i) => {
    const colour = colours[i % colours.length];
    const places = line.points.map(([x, value]): [number, number] => [chart.x(x), chart.y(value)]);
    return [
      path(places, { fill: "none", stroke: colour, "stroke-width": 2 }),
      ...places.map(([cx, cy], point) =>
        element(
          "circle",
          { cx, cy, r: 3, fill: colour },
          tooltip(`${line.name}: ${formatNumber(line.points[point][1])}`),
        ),
      ),
      label(chart.right + 8, ends[i] + 4, line.name, { style: `fill: ${colour}` }),
    ];
  });
}

/** Square products by size: how soon a kernel is at its full speed, and whether it stays there. */
export function sizeChart(rows: readonly Row[]): string | null {
  const squares = rows.filter(({ result, rate }) => {
    const { m, n, k, batch, transposes } = result.parameters;
    const square = result.suite === "gemm" && m === n && n === k && batch === 1 && transposes === "NN";
    // Of the others one line each, or nobody could tell them apart.
    return rate !== null && square && (result.threads === 1 || result.implementation.name === "nomoat");
  });
  const groups = groupBy(squares, ({ result }) => `${implementationOf(result)}, ${result.threads}T`);
  const list: Line[] = [...groups].flatMap(([name, group]) => {
    const points = group
      .map((row): [number, number] => [Number(row.result.parameters.m), row.rate!])
      .sort((a, b) => a[0] - b[0]);
    return points.length > 1 ? [{ name, points }] : [];
  });
  if (list.length === 0) return null;
  const sizes = [...new Set(list.flatMap((line) => line.points.map(([size]) => size)))].sort((a, b) => a - b);
  const most = Math.max(...list.flatMap((line) => line.points.map(([, rate]) => rate)));
  const chart = frame(
    "Square matrix products by size",
    { name: "size", low: sizes[0], high: sizes[sizes.length - 1], logarithmic: true, marks: sizes },
    { name: "GFLOP/s", low: 0, high: 1.05 * most, logarithmic: false },
  );
  return drawing(
    chart.width,
    chart.height,
    "Square matrix products by size",
    chart.markup,
    ...lines(chart, list),
  );
}

/** Speed with several threads by that with one: for each suite its cases' middle. */
export function threadChart(rows: readonly Row[]): string | null {
  const ours = rows.filter((row) => isOurs(row) && row.summary && row.result.backend === "wasm");
  const cases = groupBy(ours, ({ result }) => `${result.suite} ${result.name}`);
  const counts = [...new Set(ours.map((row) => row.result.threads))].sort((a, b) => a - b);
  if (counts.length < 2 || counts[0] !== 1) return null;
  const speedups = [...cases.values()].flatMap((group) => {
    const single = group.find((row) => row.result.threads === 1);
    return single
      ? group.map((row) => ({ row, factor: single.summary!.typical / row.summary!.typical }))
      : [];
  });
  const suites = [...groupBy(speedups, ({ row }) => row.result.suite)].filter(([, group]) =>
    group.some(({ row }) => row.result.threads > 1),
  );
  const list: Line[] = suites.map(([suite, group]) => ({
    name: suite,
    points: counts.flatMap((threads): [number, number][] => {
      const factors = group.filter(({ row }) => row.result.threads === threads).map((one) => one.factor);
      if (factors.length === 0) return [];
      factors.sort((a, b) => a - b);
      return [[threads, factors[Math.floor(factors.length / 2)]]];
    }),
  }));
  const high = counts[counts.length - 1];
  const most = Math.max(high, ...list.flatMap((line) => line.points.map(([, factor]) => factor)));
  const chart = frame(
    "Speed by threads, middle case of each suite",
    { name: "threads", low: 1, high, logarithmic: false, marks: counts },
    { name: "times one thread", low: 0, high: 1.05 * most, logarithmic: false },
  );
  const ideal = path(
    [
      [chart.x(1), chart.y(1)],
      [chart.x(high), chart.y(high)],
    ],
    { class: "ideal" },
  );
  return drawing(chart.width, chart.height, "Speed by threads", chart.markup, ideal, ...lines(chart, list));
}
