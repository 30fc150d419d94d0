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

/** Whether `text` reads back as `value` in `dtype`. */
function same(dtype: DType, text: string, value: number): boolean {
  const read = Number(text);
  if (dtype === "float16") return toFloat16Bits(read) === toFloat16Bits(value);
  if (dtype === "bfloat16") return toBfloat16Bits(read) === toBfloat16Bits(value);
  return dtype === "float32" ? Math.fround(read) === value : read === value;
}

/** Mantissa and exponent of the shortest decimal number that `value` is in `dtype`. */
function shortest(dtype: DType, value: number): { digits: number; exponent: number } {
  for (let digits = 1; ; digits++) {
    const text = value.toExponential(digits - 1);
    if (digits >= 17 || same(dtype, text, value))
      return { digits, exponent: Number(text.slice(text.indexOf("e") + 1)) };
  }
}

const special = (value: number): string => (Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf");

/** toFixed that keeps the sign of zero. */
const fixed = (value: number, digits: number): string =>
  (Object.is(value, -0) ? "-" : "") + value.toFixed(digits) + (digits === 0 ? "." : "");

function scientific(value: number, digits: number, exponentDigits: number): string {
  const [mantissa, exponent] = value.toExponential(digits).split("e");
  const sign = Object.is(value, -0) ? "-" : "";
  return `${sign}${mantissa}${digits === 0 ? "." : ""}e${exponent[0]}${exponent.slice(1).padStart(exponentDigits, "0")}`;
}

function formatFloats(values: readonly number[], dtype: DType): string[] {
  const finite = values.filter(Number.isFinite);
  const forms = finite.map((value) => shortest(dtype, value));
  const magnitudes = finite.filter((value) => value !== 0).map(Math.abs);
  const most = Math.max(...magnitudes);
  const least = Math.min(...magnitudes);
  const smallest = dtype === "float64" ? 1e-4 : Math.fround(1e-4);
  if (magnitudes.length > 0 && (most >= 1e8 || least < smallest || most / least > 1000)) {
    const digits = Math.min(precision, Math.max(...forms.map((form) => form.digits - 1)));
    const exponentDigits = Math.max(2, ...forms.map((form) => String(Math.abs(form.exponent)).length));
    return values.map((value) =>
      Number.isFinite(value) ? scientific(value, digits, exponentDigits) : special(value),
    );
  }
  const afterPoint = forms.map(({ digits, exponent }) =>
    Math.min(precision, Math.max(0, digits - 1 - exponent)),
  );
  const longest = Math.max(0, ...afterPoint);
  let next = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return special(value);
    const digits = afterPoint[next++];
    // Spaces stand for the digits that others have and this one needs not.
    return fixed(value, digits).padEnd(fixed(value, longest).length);
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
    ? numbers.map((value) => (value ? "true" : "false"))
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
