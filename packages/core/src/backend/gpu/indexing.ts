// Rows by index. Indices that the host knows are checked and, for sums, sorted on the host; others are read by the kernels.

import { viewAs } from "../../dtype.js";
import { ShapeError } from "../../errors.js";
import { sizeOf } from "../../size.js";
import type { Operand } from "../types.js";
import { hostBytes } from "./buffer.js";
import { commit, KernelBuilder, outputIndices, planOutput, termsOf, thread } from "./builder.js";
import type { Device } from "./device.js";

/** The indices in row-major order, or null when only the device knows them. */
function hostIndices(indices: Operand): Int32Array | null {
  const bytes = hostBytes(indices.buffer);
  if (!bytes) return null;
  const all = viewAs("int32", bytes.slice().buffer, 0, bytes.length / 4);
  const list = new Int32Array(sizeOf(indices.shape));
  for (let flat = 0; flat < list.length; flat++) {
    let rest = flat;
    let at = indices.offset;
    for (let axis = indices.shape.length - 1; axis >= 0; axis--) {
      at += (rest % indices.shape[axis]) * indices.strides[axis];
      rest = Math.floor(rest / indices.shape[axis]);
    }
    list[flat] = all[at];
  }
  return list;
}

/**
 * An index that only the device knows cannot be checked before it is used: it gives NaN where it is out of range.
 * @throws {ShapeError} naming an index that the host knows and that is out of range
 */
export function gather(device: Device, x: Operand, indices: Operand, out: Operand): void {
  const rows = x.shape[0];
  const known = hostIndices(indices);
  const outside = known?.find((index) => index < 0 || index >= rows);
  if (outside !== undefined) throw new ShapeError(`gather: index ${outside} is outside 0 … ${rows - 1}`);
  if (sizeOf(out.shape) === 0) return;
  const plan = planOutput(out);
  const kernel = new KernelBuilder(device, [x, indices, out]);
  const source = kernel.operand(x);
  const chosen = kernel.operand(indices);
  const variables = outputIndices(kernel, out, plan);
  const lead = indices.shape.length;
  const rest = termsOf(variables.slice(lead), x.strides.slice(1));
  const index = kernel.position(chosen(termsOf(variables.slice(0, lead), indices.strides)));
  if (!known) {
    const nan = kernel.number(Number.NaN);
    kernel.line(`if (${index} < 0) { return ${nan}; }`, `if (${index} >= ${rows}) { return ${nan}; }`);
  }
  const row = known ? index : `within(${index}, ${Math.max(0, rows - 1)})`;
  kernel.line(`return ${source([[row, x.strides[0]], ...rest])};`);
  commit(device, out, kernel.run(sizeOf(out.shape)), plan);
}

/** Every element of out looks for the rows that are added to it: threads cannot write where they choose. */
export function scatterAdd(device: Device, source: Operand, indices: Operand, out: Operand): void {
  const count = sizeOf(indices.shape);
  if (sizeOf(out.shape) === 0 || count === 0) return;
  const lead = indices.shape.length;
  const plan = planOutput(out);
  const kernel = new KernelBuilder(device, [source, indices, out]);
  const values = kernel.operand(source);
  const before = kernel.operand(out);
  const known = hostIndices(indices);
  const variables = outputIndices(kernel, out, plan);
  const rest = termsOf(variables.slice(1), source.strides.slice(lead));
  const row = variables[0] === "0" ? `(${thread} - ${thread})` : variables[0];
  kernel.line(`let total = ${before(termsOf(variables, out.strides))};`);
  const added = (list: string): string => {
    const places = kernel.decode(list, indices.shape);
    return `total = total + ${values([...termsOf(places, source.strides.slice(0, lead)), ...rest])};`;
  };
  if (known) {
    const { first, order, most } = groupByIndex(known, out.shape[0]);
    const [firstArray, orderArray] = [device.upload(first), device.upload(order)];
    const [firstOf, orderOf] = [kernel.array(firstArray), kernel.array(orderArray)];
    const begin = kernel.position(firstOf([[row, 1]]));
    const end = kernel.position(firstOf([[`(${row} + 1)`, 1]]));
    const at = `(${begin} + k)`;
    kernel.line(`for (let k = 0; k < ${most}; k++) {`, `if (${at} < ${end}) {`);
    const place = kernel.position(orderOf([[`within(${at}, ${count - 1})`, 1]]));
    kernel.line(added(place), "}", "}");
    kernel.line("return total;");
    const result = kernel.run(sizeOf(out.shape));
    device.release(firstArray);
    device.release(orderArray);
    commit(device, out, result, plan);
    return;
  }
  const chosen = kernel.operand(indices);
  kernel.line(`for (let k = 0; k < ${count}; k++) {`);
  const places = kernel.decode("k", indices.shape);
  kernel.line(`if (toInteger(${chosen(termsOf(places, indices.strides))}) == ${row}) {`);
  kernel.line(
    `total = total + ${values([...termsOf(places, source.strides.slice(0, lead)), ...rest])};`,
    "}",
    "}",
    "return total;",
  );
  commit(device, out, kernel.run(sizeOf(out.shape)), plan);
}

/**
 * The positions of each index in the list, in their order: those of row r are order[first[r]] … order[first[r+1] − 1]. `most` is the
 * longest such run rounded up to a power of two, so that few kernels differ by it.
 */
function groupByIndex(
  list: Int32Array,
  rows: number,
): { first: Float32Array; order: Float32Array; most: number } {
  const counts = new Int32Array(rows);
  for (const index of list) counts[index]++;
  const first = new Float32Array(rows + 1);
  let most = 1;
  for (let row = 0; row < rows; row++) {
    first[row + 1] = first[row] + counts[row];
    while (most < counts[row]) most *= 2;
  }
  const next = Int32Array.from(first);
  const order = new Float32Array(list.length);
  list.forEach((index, position) => {
    order[next[index]++] = position;
  });
  return { first, order, most };
}
