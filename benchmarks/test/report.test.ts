// Reports: everything in one file, every text escaped, the README's table between its markers.

import { describe, expect, test } from "vitest";
import { rowsOf } from "../src/present.js";
import { barCharts, rooflineChart, sizeChart, threadChart } from "../src/report/charts.js";
import { htmlReport } from "../src/report/html.js";
import { endMarker, readmeSection, replaceSection, startMarker } from "../src/report/readme.js";
import { aResult, aRun } from "./support.js";

const results = [512, 1024].flatMap((size) =>
  ["nomoat", "peer & <others>"].flatMap((name) =>
    (name === "nomoat" ? [1, 2] : [1]).map((threads) =>
      aResult({
        name: `${size}x${size}x${size} NN`,
        parameters: { label: "square", m: size, n: size, k: size, batch: 1, transposes: "NN" },
        implementation: { name, version: "1.0.0" },
        threads,
        rounds: [[(name === "nomoat" ? 0.1 : 0.2) / threads]],
      }),
    ),
  ),
);
const run = aRun(results, { label: "<script>alert(1)</script>" });
const rows = rowsOf(run);

describe("the report", () => {
  const html = htmlReport([run]);

  test("loads nothing and escapes what results say", () => {
    expect(html).not.toMatch(/(?:src|href)=|@import|url\(/);
    expect(html).not.toContain("<script>alert");
    expect(html).not.toContain("<others>");
    expect(html).toContain("peer &amp; &lt;others&gt;");
  });

  test("closes what it opens", () => {
    const body = html.replace(/<script>[\s\S]*<\/script>/, "").replace(/<style>[\s\S]*?<\/style>/g, "");
    const open: string[] = [];
    for (const [, close, name, , self] of body.matchAll(/<(\/?)([a-z1-6]+)((?:"[^"]*"|[^">])*?)(\/?)>/gi)) {
      if (["meta", "!doctype"].includes(name) || self) continue;
      if (close) expect(open.pop()).toBe(name);
      else open.push(name);
    }
    expect(open).toEqual([]);
  });

  test("has a row for each result, with what it is sorted by", () => {
    expect(html.match(/<tr class="ours">/g)).toHaveLength(4);
    expect(html).toContain('data-value="0.05"');
  });
});

describe("charts", () => {
  test("are there where results have something for them", () => {
    expect(rooflineChart(run, rows)).toContain("<circle");
    expect(sizeChart(rows)).toContain("nomoat (wasm), 2T");
    expect(threadChart(rows)).toContain("times one thread");
    expect(barCharts(rows)).toHaveLength(2);
    const empty = aRun([]);
    expect([rooflineChart(empty, []), sizeChart([]), threadChart([])]).toEqual([null, null, null]);
    expect(barCharts([])).toEqual([]);
  });

  test("draw no place that is no number", () => {
    for (const chart of [rooflineChart(run, rows), sizeChart(rows), threadChart(rows), ...barCharts(rows)]) {
      expect(chart).not.toMatch(/NaN|Infinity|undefined/);
    }
  });

  test("are as agreed", async () => {
    await expect(`${barCharts(rows)[0]}\n`).toMatchFileSnapshot("fixtures/bars.svg");
  });
});

describe("the README's table", () => {
  test("is as agreed", async () => {
    await expect(`${readmeSection([aRun(results)])}\n`).toMatchFileSnapshot("fixtures/readme.md");
  });

  test("goes between the markers, and stays the same the second time", () => {
    const text = `# Title\n\n${startMarker}\nold\n${endMarker}\n\nrest\n`;
    const replaced = replaceSection(text, "new", "README.md");
    expect(replaced).toBe(`# Title\n\n${startMarker}\nnew\n${endMarker}\n\nrest\n`);
    expect(replaceSection(replaced, "new", "README.md")).toBe(replaced);
    expect(() => replaceSection("no markers", "new", "README.md")).toThrow("README.md: needs the lines");
    expect(() => replaceSection(`${endMarker}${startMarker}`, "new", "x")).toThrow("needs the lines");
  });
});
