/** The loss curve is well-formed XML, whatever the numbers. */
import { DOMParser, onErrorStopParsing } from "@xmldom/xmldom";
import { describe, expect, it } from "vitest";
import { drawCurve } from "../src/curve.js";

function parse(svg: string) {
  return new DOMParser({ onError: onErrorStopParsing }).parseFromString(svg, "image/svg+xml");
}

const falling = Array.from({ length: 200 }, (_, i) => ({ step: i + 1, loss: 3 + 2 * Math.exp(-i / 40) }));

describe("the loss curve", () => {
  it("draws both lines and every held-out point within the picture", () => {
    const svg = drawCurve({
      title: "Loss",
      training: falling,
      heldOut: [
        { step: 0, loss: 5.2 },
        { step: 200, loss: 3.1 },
      ],
    });
    const root = parse(svg).documentElement!;
    expect(root.nodeName).toBe("svg");
    const paths = Array.from(root.getElementsByTagName("path"), (path) => path.getAttribute("d") ?? "");
    expect(paths.length).toBe(2);
    for (const path of paths) {
      const numbers = path.match(/-?[\d.]+/g)!.map(Number);
      expect(numbers.length).toBe(400);
      for (const [i, value] of numbers.entries()) {
        expect(value).toBeGreaterThanOrEqual(i % 2 === 0 ? 50 : 40);
        expect(value).toBeLessThanOrEqual(i % 2 === 0 ? 720 : 420);
      }
    }
    expect(root.getElementsByTagName("circle").length).toBe(2);
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });

  it.each([
    ["no points", []],
    ["one point", [{ step: 1, loss: 2 }]],
    ["equal points", Array.from({ length: 5 }, (_, i) => ({ step: i + 1, loss: 2 }))],
    [
      "losses that are not finite",
      [
        { step: 1, loss: 2 },
        { step: 2, loss: Number.NaN },
        { step: 3, loss: Number.POSITIVE_INFINITY },
        { step: 4, loss: 1 },
      ],
    ],
  ])("stands %s", (_, training) => {
    const svg = drawCurve({ title: "Loss", training, heldOut: [] });
    expect(parse(svg).documentElement?.nodeName).toBe("svg");
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });

  it("escapes what is special in XML", () => {
    const title = '<b> & "c" \u0001';
    const root = parse(drawCurve({ title, training: falling, heldOut: [] })).documentElement!;
    expect(root.getElementsByTagName("title")[0].textContent).toBe('<b> & "c"  ');
  });
});
