// The report as a picture: a bar for each layer, as long as its signal-to-noise ratio.

import type { LayerReport } from "./report.js";

// Told apart in print and by most colour-blind eyes (Okabe and Ito).
const colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"];
const rowHeight = 20;
const barWidth = 360;

function escapeXml(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&apos;",
  };
  // Control characters have no place in XML.
  return text.replace(/\p{Cc}/gu, "�").replace(/[&<>"']/g, (character) => entities[character]);
}

/** @internal An SVG document: a line a layer with name, bar of SQNR in dB, format and bits per weight; `below`, a line under all. */
export function reportChart(
  layers: readonly LayerReport[],
  bitsPerWeight: (layer: LayerReport) => number,
  below: string | null = null,
): string {
  const values = layers.map(({ error }) =>
    error && Number.isFinite(error.sqnr) ? Math.max(0, error.sqnr) : null,
  );
  const most = Math.max(1, ...values.map((value) => value ?? 0));
  const left = 20 + 7 * Math.max(5, ...layers.map(({ name }) => Math.min(name.length, 60)));
  const formats = [...new Set(layers.map(({ format }) => format))];
  const height = rowHeight * (layers.length + (below === null ? 2 : 3));
  const width = Math.max(left + barWidth + 220, 16 + 6.5 * (below?.length ?? 0));
  const rows = layers.map((layer, i) => {
    const y = rowHeight * (i + 1.5);
    const value = values[i];
    const length = ((value ?? 0) / most) * barWidth;
    const exact = layer.error?.sqnr === Infinity;
    const shown = value === null ? (exact ? "exact" : "not measured") : `${value.toFixed(1)} dB`;
    const colour = colours[formats.indexOf(layer.format) % colours.length];
    return [
      `<text x="${left - 8}" y="${y + 14}" text-anchor="end">${escapeXml(layer.name.slice(0, 60))}</text>`,
      `<rect x="${left}" y="${y + 3}" width="${length.toFixed(1)}" height="${rowHeight - 6}" fill="${colour}"/>`,
      `<text x="${(left + length + 6).toFixed(1)}" y="${y + 14}">${shown}, ${escapeXml(layer.format)}, ${bitsPerWeight(layer).toFixed(2)} bits</text>`,
    ].join("");
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="${left}" y="18" font-weight="bold">Signal to quantization noise (longer is better)</text>`,
    ...rows,
    ...(below === null ? [] : [`<text x="8" y="${height - 10}" font-size="11">${escapeXml(below)}</text>`]),
    "</svg>",
    "",
  ].join("\n");
}
