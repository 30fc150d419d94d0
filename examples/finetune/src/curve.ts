/** The loss curve as an SVG file: every step's loss, its running mean, and what was measured on held-out text. */
import { scaleLinear } from "d3-scale";
import { line } from "d3-shape";

export interface Point {
  step: number;
  /** Nats a token. */
  loss: number;
}

export interface Curve {
  title: string;
  /** One point a step, in order. */
  training: readonly Point[];
  heldOut: readonly Point[];
}

const WIDTH = 720;
const HEIGHT = 420;
const MARGIN = { top: 48, right: 20, bottom: 48, left: 56 };
const COLOURS = { raw: "#9ec5e8", mean: "#1f6fb2", heldOut: "#c2410c", axis: "#5f6b76", grid: "#e6e9ec" };

/** Exponential running mean, without the pull towards its start (Kingma and Ba 2015). */
function runningMean(points: readonly Point[]): Point[] {
  const decay = Math.max(0, 1 - 12 / Math.max(12, points.length));
  let sum = 0;
  let weight = 0;
  return points.map(({ step, loss }) => {
    sum = decay * sum + (1 - decay) * loss;
    weight = decay * weight + (1 - decay);
    return { step, loss: weight > 0 ? sum / weight : loss };
  });
}

function escapeXml(text: string): string {
  // Control characters cannot stand in XML at all.
  return text.replace(
    /[&<>"]|(?![\t\n])\p{Cc}/gu,
    (character) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[character] ?? " ",
  );
}

function label(x: number, y: number, text: string, attributes = ""): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escapeXml(text)}</text>`;
}

/** The least interval that holds all values; of length 1 where there are fewer than two. */
function extent(values: readonly number[]): [number, number] {
  const least = Math.min(...values);
  const most = Math.max(...values);
  if (!Number.isFinite(least)) return [0, 1];
  return most > least ? [least, most] : [least - 0.5, least + 0.5];
}

/**
 * Draws the curve. Losses that are not finite are left out.
 *
 * @returns a whole SVG document, without scripts and references to other files
 */
export function drawCurve(curve: Curve): string {
  const finite = (point: Point): boolean => Number.isFinite(point.loss);
  const training = curve.training.filter(finite);
  const heldOut = curve.heldOut.filter(finite);
  const all = [...training, ...heldOut];
  const right = WIDTH - MARGIN.right;
  const bottom = HEIGHT - MARGIN.bottom;
  const lastStep = Math.max(1, ...all.map((point) => point.step));
  const x = scaleLinear([0, lastStep], [MARGIN.left, right]);
  const y = scaleLinear(extent(all.map((point) => point.loss)), [bottom, MARGIN.top]).nice();
  const draw = (points: Point[], attributes: string): string => {
    const path = line<Point>(
      (point) => x(point.step),
      (point) => y(point.loss),
    ).digits(1)(points);
    return `<path d="${path ?? ""}" fill="none" ${attributes}/>`;
  };

  const parts: string[] = [];
  for (const tick of y.ticks(6)) {
    const at = y(tick).toFixed(1);
    parts.push(
      `<line x1="${MARGIN.left}" x2="${right}" y1="${at}" y2="${at}" stroke="${COLOURS.grid}"/>`,
      label(MARGIN.left - 8, y(tick) + 4, y.tickFormat(6)(tick), 'text-anchor="end"'),
    );
  }
  for (const tick of x.ticks(Math.min(8, lastStep)).filter(Number.isInteger)) {
    parts.push(label(x(tick), bottom + 20, String(tick), 'text-anchor="middle"'));
  }
  const turned = `text-anchor="middle" transform="translate(14 ${HEIGHT / 2}) rotate(-90)"`;
  parts.push(
    label(MARGIN.left, 24, curve.title, 'font-size="15" font-weight="600" fill="#1d2329"'),
    label((MARGIN.left + right) / 2, HEIGHT - 10, "step", 'text-anchor="middle"'),
    label(0, 0, "loss (nats a token)", turned),
    draw(training, `stroke="${COLOURS.raw}"`),
    draw(runningMean(training), `stroke="${COLOURS.mean}" stroke-width="2.2"`),
    ...heldOut.map(
      (point) =>
        `<circle cx="${x(point.step).toFixed(1)}" cy="${y(point.loss).toFixed(1)}" r="4.5" fill="${COLOURS.heldOut}"/>`,
    ),
  );
  const legend = [
    [COLOURS.raw, "each step"],
    [COLOURS.mean, "running mean"],
    ...(heldOut.length > 0 ? [[COLOURS.heldOut, "held-out text"]] : []),
  ];
  legend.forEach(([colour, text], i) => {
    const row = MARGIN.top + 14 + 18 * i;
    parts.push(
      `<rect x="${right - 120}" y="${row - 6}" width="14" height="4" fill="${colour}"/>`,
      label(right - 98, row, text),
    );
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" font-family="system-ui, sans-serif" font-size="12" fill="${COLOURS.axis}" role="img">`,
    `<title>${escapeXml(curve.title)}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}
