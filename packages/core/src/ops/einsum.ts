// Sums of products by labels. Pairs of operands are brought to [batch, m, k] · [batch, k, n] and multiplied by matmul; the cheapest
// pair first.

import { requireThat } from "../arguments.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend } from "./dispatch.js";
import { alias, mul } from "./elementwise.js";
import { matmul } from "./matmul.js";
import { sum } from "./reduce.js";
import { expand, permute, reshape, slice } from "./view.js";

/** An operand with a label for each axis; those of an ellipsis are called …1, …2 from the back. */
interface Labelled {
  readonly x: Tensor;
  readonly labels: readonly string[];
}

/**
 * The sum over all labels that are not in the output of the products of elements with equal labels, as numpy.einsum and
 * torch.einsum: `einsum("bij,bjk->bik", a, b)` is a stack of matrix products, `"ii->i"` a diagonal, `"ij->ji"` a transpose. `...`
 * stands for axes that broadcast. Without `->` the output has the ellipsis, then the labels that occur once, in alphabetical order.
 *
 * @param equation - letters for axes, a comma between operands, spaces ignored
 * @throws {ArgumentError} for an equation that is none
 * @throws {ShapeError} naming the label whose lengths differ
 */
export function einsum(equation: string, ...operands: readonly Tensor[]): Tensor {
  requireThat(typeof equation === "string", "einsum", "equation", "a string", equation);
  const { inputs, output } = parse(equation);
  if (inputs.length !== operands.length) {
    throw new ArgumentError(
      `einsum: "${equation}" has ${inputs.length} operands, ${operands.length} were given`,
    );
  }
  commonBackend("einsum", operands);
  const labelled = inputs.map((text, i) => labelsOf(equation, text, operands[i], i));
  const result = outputLabels(equation, output, labelled);
  const extents = extentsOf(labelled, operands);
  return tidy(() => {
    let rest: Labelled[] = labelled.map((labels, i) => diagonals({ x: operands[i], labels }));
    for (const label of result) {
      if (!extents.has(label))
        throw new ArgumentError(`einsum: output label "${label}" of "${equation}" is in no operand`);
    }
    rest = rest.map((operand) => ({ ...operand, x: spread(operand, extents) }));
    while (rest.length > 1) {
      const [i, j] = cheapest(rest, result, extents);
      const others = rest.filter((_, k) => k !== i && k !== j);
      const kept = new Set([...result, ...others.flatMap(({ labels }) => labels)]);
      rest = [contract(rest[i], rest[j], kept, extents), ...others];
    }
    const single = sumOut(rest[0], new Set(result));
    return permute(
      single.x,
      result.map((label) => single.labels.indexOf(label)),
    );
  });
}

function parse(equation: string): { inputs: string[]; output: string | null } {
  const text = equation.replaceAll(" ", "");
  const [left, right, ...more] = text.split("->");
  const parts = [...left.split(","), ...(right === undefined ? [] : [right])];
  if (more.length > 0 || parts.some((part) => !/^[A-Za-z]*(\.\.\.)?[A-Za-z]*$/.test(part))) {
    throw new ArgumentError(
      `einsum: "${equation}" should be letters and "..." for each operand, separated by commas, and "->" with those of the result`,
    );
  }
  return { inputs: left.split(","), output: right ?? null };
}

/** One label an axis. */
function labelsOf(equation: string, text: string, x: Tensor, i: number): string[] {
  const [before, after] = text.split("...");
  const named = before.length + (after?.length ?? 0);
  if (after === undefined ? named !== x.rank : named > x.rank) {
    throw new ShapeError(
      `einsum: "${text}" of "${equation}" does not label the ${x.rank} axes of operand ${i} ${formatShape(x.shape)}`,
    );
  }
  return [...before, ...ellipsis(x.rank - named), ...(after ?? "")];
}

/** Labels of `count` axes of an ellipsis, aligned at the back. */
function ellipsis(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `…${count - i}`);
}

function outputLabels(equation: string, output: string | null, inputs: readonly string[][]): string[] {
  const all = inputs.flat();
  const dots = ellipsis(
    Math.max(0, ...inputs.map((labels) => labels.filter((label) => label[0] === "…").length)),
  );
  if (output === null) {
    const once = [...new Set(all)].filter(
      (label) => label[0] !== "…" && all.indexOf(label) === all.lastIndexOf(label),
    );
    return [...dots, ...once.sort()];
  }
  const [before, after] = output.split("...");
  const labels = [...before, ...(after === undefined ? [] : dots), ...(after ?? "")];
  for (const label of labels) {
    if (labels.indexOf(label) !== labels.lastIndexOf(label))
      throw new ArgumentError(`einsum: output label "${label}" of "${equation}" occurs twice`);
  }
  return labels;
}

/** The length of every label: 1 gives way to another. */
function extentsOf(labelled: readonly string[][], operands: readonly Tensor[]): Map<string, number> {
  const extents = new Map<string, number>();
  labelled.forEach((labels, i) => {
    labels.forEach((label, axis) => {
      const extent = operands[i].shape[axis];
      const known = extents.get(label) ?? 1;
      if (known !== 1 && extent !== 1 && known !== extent) {
        const name = label[0] === "…" ? "an axis of the ellipsis" : `label "${label}"`;
        throw new ShapeError(
          `einsum: ${name} is ${known} long before and ${extent} in axis ${axis} of operand ${i} ${formatShape(operands[i].shape)}`,
        );
      }
      extents.set(label, known === 1 ? extent : known);
    });
  });
  return extents;
}

/** Axes that share a label made one, the diagonal. */
function diagonals({ x, labels }: Labelled): Labelled {
  const twice = labels.findIndex((label, i) => labels.indexOf(label) !== i);
  if (twice < 0) return { x, labels };
  const first = labels.indexOf(labels[twice]);
  const rest = labels.map((_, i) => i).filter((i) => i !== first && i !== twice);
  const shape = rest.map((i) => x.shape[i]);
  const n = Math.max(x.shape[first], x.shape[twice]);
  // [..., n, n] → [..., n²], of which every (n + 1)th is on the diagonal.
  const last = expand(permute(x, [...rest, first, twice]), [...shape, n, n]);
  const diagonal = slice(reshape(last, [...shape, n * n]), ...rest.map(() => null), [null, null, n + 1]);
  return diagonals({ x: diagonal, labels: [...rest.map((i) => labels[i]), labels[first]] });
}

/** The operand with axes of length 1 repeated to their label's length. */
function spread({ x, labels }: Labelled, extents: ReadonlyMap<string, number>): Tensor {
  return expand(
    x,
    labels.map((label) => extents.get(label)!),
  );
}

/** Sums over the labels that nobody needs any more. */
function sumOut({ x, labels }: Labelled, kept: ReadonlySet<string>): Labelled {
  const axes = labels.map((_, i) => i).filter((i) => !kept.has(labels[i]));
  if (axes.length === 0) return { x: alias(x), labels };
  return { x: sum(x, axes), labels: labels.filter((label) => kept.has(label)) };
}

/** The pair whose result is smallest. */
function cheapest(
  operands: readonly Labelled[],
  result: readonly string[],
  extents: ReadonlyMap<string, number>,
): [number, number] {
  let best: [number, number] = [0, 1];
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < operands.length; i++) {
    for (let j = i + 1; j < operands.length; j++) {
      const others = operands.filter((_, k) => k !== i && k !== j).flatMap(({ labels }) => labels);
      const kept = new Set([...result, ...others]);
      const labels = new Set([...operands[i].labels, ...operands[j].labels]);
      const size = sizeOf([...labels].filter((label) => kept.has(label)).map((label) => extents.get(label)!));
      if (size < least) [best, least] = [[i, j], size];
    }
  }
  return best;
}

/** The product of two operands, summed over the labels that both have and nobody else needs. */
function contract(
  left: Labelled,
  right: Labelled,
  kept: ReadonlySet<string>,
  extents: ReadonlyMap<string, number>,
): Labelled {
  const a = sumOut(left, new Set([...kept, ...right.labels]));
  const b = sumOut(right, new Set([...kept, ...left.labels]));
  const shared = a.labels.filter((label) => b.labels.includes(label));
  const batch = shared.filter((label) => kept.has(label));
  const inner = shared.filter((label) => !kept.has(label));
  const rows = a.labels.filter((label) => !shared.includes(label));
  const columns = b.labels.filter((label) => !shared.includes(label));
  const shapeOf = (labels: readonly string[]) => labels.map((label) => extents.get(label)!);
  const arrange = (operand: Labelled, labels: readonly string[]) =>
    permute(
      operand.x,
      labels.map((label) => operand.labels.indexOf(label)),
    );
  const labels = [...batch, ...rows, ...columns];
  if (inner.length === 0) {
    const one = (list: readonly string[]) => list.map(() => 1);
    const x = reshape(arrange(a, [...batch, ...rows]), [
      ...shapeOf(batch),
      ...shapeOf(rows),
      ...one(columns),
    ]);
    const y = reshape(arrange(b, [...batch, ...columns]), [
      ...shapeOf(batch),
      ...one(rows),
      ...shapeOf(columns),
    ]);
    return { x: mul(x, y), labels };
  }
  const size = (list: readonly string[]) => sizeOf(shapeOf(list));
  const x = reshape(arrange(a, [...batch, ...rows, ...inner]), [size(batch), size(rows), size(inner)]);
  const y = reshape(arrange(b, [...batch, ...inner, ...columns]), [size(batch), size(inner), size(columns)]);
  const product =
    batch.length === 0 ? matmul(reshape(x, x.shape.slice(1)), reshape(y, y.shape.slice(1))) : matmul(x, y);
  return { x: reshape(product, shapeOf(labels)), labels };
}
