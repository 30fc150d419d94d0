// The batched matrix product. Each element is one sum over k in ascending order, in float64.

import type { MatmulOptions, Operand } from "../types.js";
import { numbers, type Strided, walk } from "./strided.js";

function leading(operand: Operand): Strided {
  return { strides: operand.strides.slice(0, -2), offset: operand.offset };
}

export function matmul(a: Operand, b: Operand, { alpha, beta }: MatmulOptions, out: Operand): void {
  const left = numbers(a);
  const right = numbers(b);
  const y = numbers(out);
  const [m, n] = out.shape.slice(-2);
  const k = a.shape[a.shape.length - 1];
  const [rowA, columnA] = a.strides.slice(-2);
  const [rowB, columnB] = b.strides.slice(-2);
  const [rowY, columnY] = out.strides.slice(-2);
  const sums = new Float64Array(n);
  walk(out.shape.slice(0, -2), [leading(out), leading(a), leading(b)], (baseY, baseA, baseB) => {
    for (let i = 0; i < m; i++) {
      sums.fill(0);
      for (let p = 0; p < k; p++) {
        const factor = left[baseA + i * rowA + p * columnA];
        const row = baseB + p * rowB;
        for (let j = 0; j < n; j++) sums[j] += factor * right[row + j * columnB];
      }
      const row = baseY + i * rowY;
      for (let j = 0; j < n; j++) {
        const o = row + j * columnY;
        y[o] = alpha * sums[j] + (beta === 0 ? 0 : beta * y[o]);
      }
    }
  });
}
