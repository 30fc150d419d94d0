// Rows by index: gather and scatterAdd.

import { ShapeError } from "../../errors.js";
import type { Operand } from "../types.js";
import { elements, numbers, rawElements, type Strided, walk } from "./strided.js";

/**
 * Visits every element of every row that `indices` choose: `visit(position in the table [n, rest…], position in the list
 * [indices…, rest…])`, in index order.
 */
function walkRows(
  operation: string,
  table: Operand,
  indices: Operand,
  list: Operand,
  visit: (tablePosition: number, listPosition: number) => void,
): void {
  const chosen = elements(indices);
  const rank = indices.shape.length;
  const rest = table.shape.slice(1);
  const restOfTable = table.strides.slice(1);
  const restOfList = list.strides.slice(rank);
  const lead: Strided = { strides: list.strides.slice(0, rank), offset: list.offset };
  walk(indices.shape, [indices, lead], (i, listOffset) => {
    const index = chosen[i];
    if (index < 0 || index >= table.shape[0]) {
      throw new ShapeError(`${operation}: index ${index} is outside 0 … ${table.shape[0] - 1}`);
    }
    const tableOffset = table.offset + index * table.strides[0];
    walk(
      rest,
      [
        { strides: restOfTable, offset: tableOffset },
        { strides: restOfList, offset: listOffset },
      ],
      visit,
    );
  });
}

export function gather(x: Operand, indices: Operand, out: Operand): void {
  const source = rawElements(x);
  const y = rawElements(out);
  walkRows("gather", x, indices, out, (i, o) => {
    y[o] = source[i];
  });
}

export function scatterAdd(source: Operand, indices: Operand, out: Operand): void {
  const values = numbers(source);
  const y = numbers(out);
  walkRows("scatterAdd", out, indices, source, (o, i) => {
    y[o] += values[i];
  });
}
