// Tensors as text, the way NumPy prints arrays: as many digits as tell a number from its neighbours (at most 8 after the point),
// columns aligned at the point, long axes shortened, long rows broken.

import { toBfloat16Bits, toFloat16Bits } from "./backend/reference/half.js";
import type { DType } from "./dtype.js";
import type { Tensor } from "./tensor.js";

const edgeItems = 3;
const shortenAbove = 1000;
const lineWidth = 75;
const precision = 8;

/** `Tensor([` and one bracket more for each axis. */
const indentOf = (axis: number): string => " ".repeat(8 + axis);

/** Numbers that are one in a dtype give the same; other dtypes hold them as they are. */
const stored: Partial<Record<DType, (value: number) => number>> = {
  float32: Math.fround,
  float16: toFloat16Bits,
  bfloat16: toBfloat16Bits,
};

/** A number as its sign and whole part, the digits after the point, and "" or the exponent from `e` on. */
type Parts = [whole: string, fraction: string, exponent: string];

function partsOf(value: number, places: number, exponential: boolean): Parts {
  const written = (count: number): Parts => {
    const text = exponential ? value.toExponential(count) : value.toFixed(count);
    const [, whole, fraction = "", exponent = ""] = /^(-?\d+)(?:\.(\d*))?(e.*)?$/.exec(text)!;
    return [Object.is(value, -0) ? "-0" : whole, fraction, exponent];
  };
  const [whole, exact, exponent] = written(60);
  const kept = exact.slice(0, places);
  // JavaScript rounds halves away from zero, NumPy to even.
  const half = /[02468]$/.test(whole + kept) && /^50*$/.test(exact.slice(places));
  return half ? [whole, kept, exponent] : written(places);
}

/** How many digits after the point tell `value` from its neighbours in `dtype`, at most {@link precision}. */
function placesOf(dtype: DType, value: number, exponential: boolean): number {
  const { [dtype]: store = Number } = stored;
  let digits = 0;
  // (−0 is written as 0, whose bits differ.)
  while (digits < 16 && value !== 0 && store(Number(value.toExponential(digits))) !== store(value)) digits++;
  const magnitude = exponential ? 0 : Number(value.toExponential(digits).split("e")[1]);
  const places = Math.min(precision, Math.max(0, digits - magnitude));
  // Where digits were cut off, zeros may be left at the end.
  return partsOf(value, places, exponential)[1].replace(/0+$/, "").length;
}

/** From where on NumPy (2.3) writes powers of ten: 10 to the number of digits that a dtype holds in any case, at most 8. */
const largestFixed: Partial<Record<DType, number>> = { float32: 1e6, float16: 1e3, bfloat16: 1e2 };

function formatFloats(values: readonly number[], dtype: DType): string[] {
  const magnitudes = values.filter((value) => Number.isFinite(value) && value !== 0).map(Math.abs);
  const most = Math.max(...magnitudes);
  const least = Math.min(...magnitudes);
  const smallest = dtype === "float64" ? 1e-4 : Math.fround(1e-4);
  const exponential =
    magnitudes.length > 0 &&
    (most >= (largestFixed[dtype] ?? 1e8) || least < smallest || most / least > 1000);
  const finite = values.filter(Number.isFinite);
  const each = finite.map((value) => placesOf(dtype, value, exponential));
  const places = Math.max(0, ...each);
  // Before an exponent all have as many digits; else spaces stand for those that others have and this one needs not.
  const forms = finite.map((value, i) => partsOf(value, exponential ? places : each[i], exponential));
  const exponentDigits = Math.max(2, ...forms.map(([, , exponent]) => exponent.length - 2));
  let next = 0;
  return values.map((value) => {
    // nan, inf, -inf
    if (!Number.isFinite(value)) return String(value).toLowerCase().replace("inity", "");
    const [whole, fraction, exponent] = forms[next++];
    const power = exponential ? exponent.slice(0, 2) + exponent.slice(2).padStart(exponentDigits, "0") : "";
    return `${whole}.${fraction.padEnd(places)}${power}`;
  });
}

/** `Tensor([[1., 2.5]], shape=[1, 2], float32)`; values on a backend that cannot be read at once are left out. */
export function formatTensor(tensor: Tensor): string {
  const { shape, dtype } = tensor;
  const tail = `shape=[${shape.join(", ")}], ${dtype}${tensor.requiresGrad ? ", requiresGrad" : ""}`;
  if (!tensor.storage.backend.synchronous) return `Tensor(on ${tensor.device}, ${tail})`;
  const values = tensor.dataSync();
  const shorten = values.length > shortenAbove;
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((product, extent) => product * extent, 1));
  const shown = (extent: number): (number | null)[] =>
    shorten && extent > 2 * edgeItems
      ? [
          ...Array(edgeItems).keys(),
          null,
          ...Array.from({ length: edgeItems }, (_, i) => extent - edgeItems + i),
        ]
      : [...Array(extent).keys()];
  const positions: number[] = [];
  const collect = (axis: number, base: number): void => {
    if (axis === shape.length) positions.push(base);
    else for (const i of shown(shape[axis])) if (i !== null) collect(axis + 1, base + i * strides[axis]);
  };
  collect(0, 0);
  const bool = dtype === "bool";
  const integer = bool || dtype.startsWith("int") || dtype === "uint8";
  const numbers = positions.map((i) => Number(values[i]));
  const texts = bool
    ? numbers.map((value) => (value ? "true" : "false").padStart(shape.length > 0 ? 5 : 0))
    : integer
      ? numbers.map(String)
      : formatFloats(numbers, dtype);
  if (texts.length === 0) return `Tensor([], ${tail})`;
  if (shape.length === 0) return `Tensor(${texts[0]}, ${tail})`;
  const width = Math.max(...texts.map((text) => text.length));
  let next = 0;
  const render = (axis: number): string => {
    const parts = shown(shape[axis]).map((i) =>
      i === null ? "..." : axis === shape.length - 1 ? texts[next++].padStart(width) : render(axis + 1),
    );
    if (axis === shape.length - 1) return `[${row(parts, indentOf(axis))}]`;
    return `[${parts.join(`,${"\n".repeat(shape.length - 1 - axis)}${indentOf(axis)}`)}]`;
  };
  return `Tensor(${render(0)}, ${tail})`;
}

/** Numbers side by side, broken into lines that are not longer than {@link lineWidth} with their indent. */
function row(parts: readonly string[], indent: string): string {
  const lines = [""];
  for (const [i, part] of parts.entries()) {
    const item = i < parts.length - 1 ? `${part},` : part;
    const last = lines[lines.length - 1];
    if (last !== "" && indent.length + last.length + 1 + item.length > lineWidth) lines.push(item);
    else lines[lines.length - 1] = last === "" ? item : `${last} ${item}`;
  }
  return lines.join(`\n${indent}`);
}
