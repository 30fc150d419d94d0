// Sums of products by labels. Pairs of operands are brought to [batch, m, k] · [batch, k, n] and multiplied by matmul; the cheapest
// pair first.

import { requireThat } from "../arguments.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, range, sameShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { diagonal } from "./diagonal.js";
import { commonBackend } from "./dispatch.js";
import { alias, mul } from "./elementwise.js";
import { matmul } from "./matmul.js";
import { sum } from "./reduce.js";
import { arranged, expand, reshape } from "./view.js";

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
  const known = plans.get(equation);
  const fits = known?.labels.length === operands.length;
  const plan = fits && known.labels.every((labels, i) => labels.length === operands[i]?.rank) ? known : null;
  if (plan) commonBackend("einsum", operands);
  const { labels, result, pairing } = plan ?? planOf(equation, operands);
  const extents = extentsOf(labels, operands);
  return tidy(() => {
    const each = operands.map((x, i) => ({ x, labels: labels[i] }));
    const single = pairing
      ? contract(spread(each[0], extents), spread(each[1], extents), pairing, extents)
      : sumOut(contractAll(each, result, extents), result);
    const order = result.map((label) => single.labels.indexOf(label));
    const out = arranged(single.x, order);
    return operands.includes(out) ? alias(out) : out;
  });
}

/** The product of all operands, pair by pair, with labels of the result and others. */
function contractAll(operands: readonly Labelled[], result: readonly string[], extents: Extents): Labelled {
  let rest = operands.map((operand) => diagonals({ ...operand, x: spread(operand, extents) }));
  while (rest.length > 1) {
    const [i, j] = cheapest(rest, result, extents);
    const others = rest.filter((_, k) => k !== i && k !== j);
    const kept = [...result, ...others.flatMap(({ labels }) => labels)];
    const pairing = pairUp(rest[i].labels, rest[j].labels, kept);
    rest = [contract(rest[i].x, rest[j].x, pairing, extents), ...others];
  }
  return rest[0];
}

/** What an equation asks of operands of some ranks. */
interface Plan {
  /** One label for each axis of each operand. */
  readonly labels: readonly (readonly string[])[];
  readonly result: readonly string[];
  /** How two operands are multiplied; null where there are more or fewer, or one has a label twice. */
  readonly pairing: Pairing | null;
}

/** Plans of equations used lately, for the ranks that they were used with. */
const plans = new Map<string, Plan>();
const mostPlans = 64;

function planOf(equation: string, operands: readonly Tensor[]): Plan {
  const { inputs, output } = parse(equation);
  if (inputs.length !== operands.length) {
    throw new ArgumentError(
      `einsum: "${equation}" has ${inputs.length} operands, ${operands.length} were given`,
    );
  }
  commonBackend("einsum", operands);
  const labels = inputs.map((text, i) => labelsOf(equation, text, operands[i], i));
  const result = outputLabels(equation, output, labels);
  for (const label of result) {
    if (!labels.some((list) => list.includes(label)))
      throw new ArgumentError(`einsum: output label "${label}" of "${equation}" is in no operand`);
  }
  const once = labels.every((list) => new Set(list).size === list.length);
  const pairing = labels.length === 2 && once ? pairUp(labels[0], labels[1], result) : null;
  if (plans.size === mostPlans) plans.clear();
  const plan = { labels, result, pairing };
  plans.set(equation, plan);
  return plan;
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
function extentsOf(
  labelled: readonly (readonly string[])[],
  operands: readonly Tensor[],
): Map<string, number> {
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
  const rest = labels.filter((_, i) => i !== first && i !== twice);
  return diagonals({ x: diagonal(x, 0, first, twice), labels: [...rest, labels[first]] });
}

/** The operand with axes of length 1 repeated to their label's length. */
function spread({ x, labels }: Labelled, extents: Extents): Tensor {
  const shape = shapeOf(labels, extents);
  return sameShape(x.shape, shape) ? x : expand(x, shape);
}

type Extents = ReadonlyMap<string, number>;

const shapeOf = (labels: readonly string[], extents: Extents): number[] =>
  labels.map((label) => extents.get(label)!);

/** Sums over the labels that nobody needs any more. */
function sumOut({ x, labels }: Labelled, kept: readonly string[]): Labelled {
  if (labels.every((label) => kept.includes(label))) return { x, labels };
  const axes = range(labels.length).filter((i) => !kept.includes(labels[i]));
  return { x: sum(x, axes), labels: labels.filter((label) => kept.includes(label)) };
}

/** The pair whose result is smallest. */
function cheapest(
  operands: readonly Labelled[],
  result: readonly string[],
  extents: Extents,
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

/** How a product of two operands, summed over the labels that both have and nobody else needs, is made a product of matrices. */
interface Pairing {
  readonly batch: readonly string[];
  readonly rows: readonly string[];
  /** Summed over in the product. */
  readonly inner: readonly string[];
  readonly columns: readonly string[];
  /** Of each operand, the axes that are summed over before, and the order of those that are left. */
  readonly sides: readonly { readonly summed: readonly number[]; readonly order: readonly number[] }[];
}

function pairUp(left: readonly string[], right: readonly string[], kept: readonly string[]): Pairing {
  const a = left.filter((label) => right.includes(label) || kept.includes(label));
  const b = right.filter((label) => left.includes(label) || kept.includes(label));
  const shared = a.filter((label) => b.includes(label));
  const batch = shared.filter((label) => kept.includes(label));
  const inner = shared.filter((label) => !kept.includes(label));
  const rows = a.filter((label) => !shared.includes(label));
  const columns = b.filter((label) => !shared.includes(label));
  const side = (all: readonly string[], rest: readonly string[], wanted: readonly string[]) => ({
    summed: range(all.length).filter((i) => !rest.includes(all[i])),
    order: wanted.map((label) => rest.indexOf(label)),
  });
  const sides = [
    side(left, a, [...batch, ...rows, ...inner]),
    side(right, b, [...batch, ...inner, ...columns]),
  ];
  return { batch, rows, inner, columns, sides };
}

function contract(left: Tensor, right: Tensor, pairing: Pairing, extents: Extents): Labelled {
  const { batch, rows, inner, columns, sides } = pairing;
  const [a, b] = [left, right].map((x, i) => {
    const { summed, order } = sides[i];
    return arranged(summed.length === 0 ? x : sum(x, summed), order);
  });
  const labels = [...batch, ...rows, ...columns];
  const shape = shapeOf(labels, extents);
  const reshaped = (x: Tensor, wanted: readonly number[]) =>
    sameShape(x.shape, wanted) ? x : reshape(x, wanted);
  if (inner.length === 0) {
    const x = reshaped(a, [...a.shape, ...columns.map(() => 1)]);
    const y = reshaped(b, [...shapeOf(batch, extents), ...rows.map(() => 1), ...shapeOf(columns, extents)]);
    return { x: mul(x, y), labels };
  }
  const size = (list: readonly string[]) => sizeOf(shapeOf(list, extents));
  const lead = batch.length === 0 ? [] : [size(batch)];
  const x = reshaped(a, [...lead, size(rows), size(inner)]);
  const y = reshaped(b, [...lead, size(inner), size(columns)]);
  return { x: reshaped(matmul(x, y), shape), labels };
}
