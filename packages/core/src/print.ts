// Tensors as text, the way NumPy prints arrays: aligned columns, long axes shortened.

import type { Tensor } from "./tensor.js";

const edgeItems = 3;
const shortenAbove = 1000;

function formatNumbers(values: readonly number[], integer: boolean): string[] {
  if (integer) return values.map(String);
  const finite = values.filter((value) => Number.isFinite(value) && value !== 0).map(Math.abs);
  const scientific =
    finite.length > 0 &&
    (Math.max(...finite) >= 1e8 ||
      Math.max(...finite) / Math.min(...finite) >= 1e6 ||
      Math.max(...finite) < 1e-4);
  return values.map((value) => {
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
    return scientific ? value.toExponential(4) : value.toFixed(4);
  });
}

/** `Tensor([[1.0000, 2.0000]], shape=[1, 2], float32)`; values on a backend that cannot be read at once are left out. */
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
  const texts = formatNumbers(
    positions.map((i) => Number(values[i])),
    integer,
  ).map((text) => (bool ? (text === "1" ? "true" : "false") : text));
  const width = Math.max(0, ...texts.map((text) => text.length));
  let next = 0;
  const render = (axis: number): string => {
    if (axis === shape.length) return texts[next++].padStart(shape.length === 0 ? 0 : width);
    const parts = shown(shape[axis]).map((i) => (i === null ? "..." : render(axis + 1)));
    const separator = axis === shape.length - 1 ? ", " : `,\n${" ".repeat(8 + axis)}`;
    return `[${parts.join(separator)}]`;
  };
  return `Tensor(${render(0)}, ${tail})`;
}
