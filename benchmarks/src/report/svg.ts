// SVG by hand: elements as strings, text escaped, and the frame of a chart with its two axes.

import { scaleLinear, scaleLog } from "d3-scale";

/** Text within XML. */
export function escapeXml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

type Attributes = Readonly<Record<string, string | number>>;

function rounded(value: string | number): string {
  return typeof value === "number" ? String(Math.round(value * 100) / 100) : escapeXml(value);
}

/** An element; children are markup. */
export function element(name: string, attributes: Attributes = {}, ...children: string[]): string {
  const list = Object.entries(attributes).map(([key, value]) => ` ${key}="${rounded(value)}"`);
  return children.length > 0
    ? `<${name}${list.join("")}>${children.join("")}</${name}>`
    : `<${name}${list.join("")}/>`;
}

export function label(x: number, y: number, text: string, attributes: Attributes = {}): string {
  return element("text", { x, y, ...attributes }, escapeXml(text));
}

/** What a browser shows when the pointer rests on the element. */
export function tooltip(text: string): string {
  return element("title", {}, escapeXml(text));
}

/** Colours of lines and points in turn, told apart by colour-blind readers too (Okabe and Ito, without yellow). */
export const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f"];

const style = `
text { font: 12px system-ui, sans-serif; fill: #333; }
.title { font-size: 14px; font-weight: 600; }
.axis { stroke: #999; }
.grid { stroke: #8884; }
.muted { fill: #777; }
.ours { fill: #0072b2; }
.other { fill: #9aa7b1; }
.native { fill: #c9b8a0; }
.roof { fill: none; stroke: #d55e00; stroke-width: 2; }
.ideal { fill: none; stroke: #999; stroke-dasharray: 4 3; }
@media (prefers-color-scheme: dark) { text { fill: #ddd; } .muted { fill: #aaa; } }
`;

/** A whole drawing that needs nothing around it. */
export function drawing(width: number, height: number, title: string, ...children: string[]): string {
  return element(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`,
      width: Math.ceil(width),
      height: Math.ceil(height),
      role: "img",
      "aria-label": title,
    },
    element("style", {}, style),
    ...children,
  );
}

export interface Axis {
  readonly name: string;
  readonly low: number;
  readonly high: number;
  readonly logarithmic: boolean;
  /** Where marks stand, in place of round numbers. */
  readonly marks?: readonly number[];
}

export interface Frame {
  readonly width: number;
  readonly height: number;
  /** Places on the drawing. */
  x(value: number): number;
  y(value: number): number;
  /** The ends of the plot, where labels of lines stand. */
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
  /** Title, axes, marks and names. */
  readonly markup: string;
}

const margin = { left: 62, right: 200, top: 34, bottom: 44 };

function plain(value: number): string {
  return value >= 1000 || value < 0.01
    ? value.toLocaleString("en", { notation: "compact" })
    : String(+value.toPrecision(3));
}

/** The frame of a chart. */
export function frame(title: string, xAxis: Axis, yAxis: Axis, width = 760, height = 400): Frame {
  const scale = ({ low, high, logarithmic }: Axis, range: [number, number]) =>
    (logarithmic ? scaleLog() : scaleLinear()).domain([low, high]).range(range);
  const x = scale(xAxis, [margin.left, width - margin.right]);
  const y = scale(yAxis, [height - margin.bottom, margin.top]);
  const marksOf = (axis: Axis, one: typeof x): readonly number[] => {
    if (axis.marks) return axis.marks;
    if (!axis.logarithmic) return one.ticks(6);
    return one
      .ticks()
      .filter((value) => Number.isInteger(Math.log10(value)) || Math.log10(axis.high / axis.low) < 1.5);
  };
  const right = width - margin.right;
  const bottom = height - margin.bottom;
  const parts = [label(margin.left, 18, title, { class: "title" })];
  for (const value of marksOf(xAxis, x)) {
    parts.push(element("line", { x1: x(value), x2: x(value), y1: margin.top, y2: bottom, class: "grid" }));
    parts.push(label(x(value), bottom + 16, plain(value), { "text-anchor": "middle" }));
  }
  for (const value of marksOf(yAxis, y)) {
    parts.push(element("line", { x1: margin.left, x2: right, y1: y(value), y2: y(value), class: "grid" }));
    parts.push(label(margin.left - 6, y(value) + 4, plain(value), { "text-anchor": "end" }));
  }
  parts.push(element("line", { x1: margin.left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
  parts.push(
    element("line", { x1: margin.left, x2: margin.left, y1: margin.top, y2: bottom, class: "axis" }),
  );
  parts.push(
    label((margin.left + right) / 2, height - 8, xAxis.name, { "text-anchor": "middle", class: "muted" }),
  );
  const middle = (margin.top + bottom) / 2;
  parts.push(
    label(14, middle, yAxis.name, {
      "text-anchor": "middle",
      class: "muted",
      transform: `rotate(-90 14 ${Math.round(middle)})`,
    }),
  );
  const places = { right, top: margin.top, bottom };
  return { width, height, ...places, x: (value) => x(value), y: (value) => y(value), markup: parts.join("") };
}

/** A line through points. */
export function path(points: readonly (readonly [number, number])[], attributes: Attributes): string {
  const d = points.map(([x, y], i) => `${i === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return element("path", { d, ...attributes });
}

/** Heights for labels that want to stand at `wanted`: in the same order, 13 apart at least, above `bottom` where there is room. */
export function spread(wanted: readonly number[], bottom: number): number[] {
  const order = wanted.map((y, i) => ({ y, i })).sort((a, b) => a.y - b.y);
  for (let k = 1; k < order.length; k++) order[k].y = Math.max(order[k].y, order[k - 1].y + 13);
  let limit = bottom;
  for (let k = order.length - 1; k >= 0; k--) {
    order[k].y = Math.min(order[k].y, limit);
    limit = order[k].y - 13;
  }
  const places = new Array<number>(wanted.length);
  for (const { y, i } of order) places[i] = y;
  return places;
}
