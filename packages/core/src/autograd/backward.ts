// The walk back through the graph: nodes in descending order of creation, gradients added up on the way.

import { requireFunction, requireList, requireOptions, requireThat, use } from "../arguments.js";
import { ones, zerosLike } from "../creation.js";
import { AutogradError, ShapeError } from "../errors.js";
import { keep, tidy } from "../memory.js";
import { overwriting } from "../ops/dispatch.js";
import { add, cast } from "../ops/elementwise.js";
import { clone } from "../ops/view.js";
import { runtime } from "../runtime.js";
import { formatShape, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { type BackwardContext, type Edge, type GraphNode, withGradMode } from "./graph.js";

export interface BackwardRoot {
  readonly tensor: Tensor;
  /** d(result)/d(tensor); null for 1, of a tensor with one element. */
  readonly gradient: Tensor | null;
}

interface BackwardOptions {
  retainGraph: boolean;
  /** Record the backward itself, for gradients of gradients. */
  createGraph?: boolean;
  /** Gather gradients of these tensors, leaves or not, instead of those of all leaves. */
  targets?: readonly Tensor[];
  /** Do not walk past the targets: none of them was made from another. */
  stopAtTargets?: boolean;
  /** Gradients of other leaves go where those of the enclosing walk go, instead of nowhere. */
  nested?: boolean;
}

/** Gradients being gathered, by the node whose output they belong to. */
type Gradients = Map<GraphNode, Tensor>;

/** `gradient` may be changed: it is seen by nobody else, and not part of a graph being recorded. */
function owned(gradient: Tensor): boolean {
  return !runtime.gradEnabled && gradient.storage.exclusive;
}

/** `gradient` may be added to in place, by kernels that write contiguous tensors. */
function writable(gradient: Tensor | null | undefined): Tensor | undefined {
  return gradient?.isContiguous && owned(gradient) ? gradient : undefined;
}

/** `existing + part`, in place where that may be. Takes over both. */
function merge(existing: Tensor, part: Tensor): Tensor {
  if (existing === part) return existing;
  for (const [target, other] of [
    [existing, part],
    [part, existing],
  ]) {
    const operands = owned(target) ? overwriting("backward", target, other) : null;
    if (!operands) continue;
    const [place, source] = operands;
    target.storage.backend.binary("add", place, source, place);
    other.dispose();
    return target;
  }
  const sum = add(existing, part);
  existing.dispose();
  part.dispose();
  return sum;
}

/** The nodes before `roots`, those of `ends` included but not what is before them, last made first. */
function reachable(roots: readonly BackwardRoot[], ends: ReadonlyMap<GraphNode, Tensor>): GraphNode[] {
  const seen = new Set<GraphNode>();
  const stack: GraphNode[] = [];
  for (const { tensor } of roots) if (tensor.node) stack.push(tensor.node);
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    if (ends.has(node)) continue;
    for (const edge of node.edges) if (edge?.node) stack.push(edge.node);
  }
  return [...seen].sort((a, b) => b.sequence - a.sequence);
}

function rootGradient({ tensor, gradient }: BackwardRoot): Tensor {
  if (!tensor.requiresGrad) {
    throw new AutogradError("backward: the tensor does not depend on any tensor that requires a gradient");
  }
  if (!gradient) {
    if (tensor.size !== 1) {
      throw new ShapeError(
        `backward: a gradient is needed for a tensor of shape ${formatShape(tensor.shape)}; only one with one element has an obvious one`,
      );
    }
    return keep(ones(tensor.shape, { dtype: tensor.dtype, device: tensor.device }));
  }
  use("backward", gradient);
  if (!sameShape(gradient.shape, tensor.shape)) {
    throw new ShapeError(
      `backward: gradient ${formatShape(gradient.shape)} does not fit ${formatShape(tensor.shape)}`,
    );
  }
  return keep(gradient.dtype === tensor.dtype ? gradient.alias() : cast(gradient, tensor.dtype));
}

/** Where leaves' gradients go: `.grad`, or, within `grad(fn)`, the result's list. Checkpoints inside follow it. */
export interface LeafSink {
  get(leaf: Tensor): Tensor | null;
  set(leaf: Tensor, gradient: Tensor): void;
  wants(leaf: Tensor): boolean;
}

const gradField: LeafSink = {
  get: (leaf) => leaf.grad,
  set: (leaf, gradient) => {
    leaf.grad = gradient;
  },
  // Nobody would free the gradient of a leaf that is gone.
  wants: (leaf) => !leaf.disposed,
};

const currentSink = (): LeafSink => runtime.sink ?? gradField;

/** Runs the walk. Without `targets` gradients end in the leaves' `grad`; with them they are returned, in their order. */
export function runBackward(roots: readonly BackwardRoot[], options: BackwardOptions): (Tensor | null)[] {
  const { targets, stopAtTargets = false, nested = false, retainGraph, createGraph = false } = options;
  const found = new Map<Tensor, Tensor>();
  const targetNodes = new Map<GraphNode, Tensor>();
  for (const target of targets ?? []) if (target.node) targetNodes.set(target.node, target);
  const nodes = reachable(roots, stopAtTargets ? targetNodes : new Map());
  const outerSink = runtime.sink;
  if (targets) {
    const wanted = new Set(targets);
    const outer = currentSink();
    const goesOut = (leaf: Tensor) => nested && !wanted.has(leaf);
    runtime.sink = {
      get: (leaf) => (goesOut(leaf) ? outer.get(leaf) : (found.get(leaf) ?? null)),
      set: (leaf, gradient) => (goesOut(leaf) ? outer.set(leaf, gradient) : void found.set(leaf, gradient)),
      wants: (leaf) => (goesOut(leaf) ? outer.wants(leaf) : wanted.has(leaf)),
    };
  }
  for (const node of nodes) node.retain();
  const gradients: Gradients = new Map();
  let complete = false;
  try {
    withGradMode(createGraph, () => {
      for (const root of roots) {
        const gradient = rootGradient(root);
        if (root.tensor.node) deliver({ node: root.tensor.node, leaf: null }, gradient, gradients);
        else deliver({ node: null, leaf: root.tensor }, gradient, gradients);
      }
      for (const node of nodes) {
        const dy = gradients.get(node);
        if (dy) {
          gradients.delete(node);
          const target = targetNodes.get(node);
          try {
            if (target) found.set(target, keep(dy.alias()));
            if (!target || !stopAtTargets) step(node, dy, gradients);
          } finally {
            dy.dispose();
          }
        }
        if (!retainGraph && !createGraph) node.free();
      }
    });
    complete = true;
  } finally {
    runtime.sink = outerSink;
    for (const gradient of gradients.values()) gradient.dispose();
    if (!complete) for (const gradient of found.values()) gradient.dispose();
    for (const node of nodes) node.release();
  }
  return (targets ?? []).map((target) => found.get(target) ?? null);
}

/** Hands dy through one node to its inputs. */
function step(node: GraphNode, dy: Tensor, gradients: Gradients): void {
  const sink = currentSink();
  const wants = node.edges.map((edge) => edge !== null && (edge.node !== null || sink.wants(edge.leaf)));
  if (!wants.includes(true) && !node.hiddenLeaves) return;
  const context: BackwardContext = {
    wants,
    shape: (i) => node.shapes[i],
    accumulate: (i) => writable(existingAt(node.edges[i], gradients)),
  };
  tidy(() => {
    const parts = node.backward(context, dy);
    node.edges.forEach((edge, i) => {
      const part = parts[i];
      if (!part || !edge || !wants[i]) return;
      if (!sameShape(part.shape, node.shapes[i])) {
        throw new AutogradError(
          `backward: gradient ${i} of ${node.operation} is ${formatShape(part.shape)}, not ${formatShape(node.shapes[i])}`,
        );
      }
      // A rule may hand the same tensor to two inputs, or dy itself: each gets a handle of its own.
      const shared = part === dy || parts.indexOf(part) < i;
      const existing = existingAt(edge, gradients);
      deliver(edge, part === existing ? part : keep(shared ? part.alias() : part), gradients);
    });
  });
}

function existingAt(edge: Edge, gradients: Gradients): Tensor | null | undefined {
  if (!edge) return undefined;
  return edge.node ? gradients.get(edge.node) : currentSink().get(edge.leaf);
}

/** Adds `part`, which it takes over, to what was gathered for `edge`. */
function deliver(edge: NonNullable<Edge>, part: Tensor, gradients: Gradients): void {
  const existing = existingAt(edge, gradients);
  const total = keep(existing ? merge(existing, part) : part);
  if (edge.node) gradients.set(edge.node, total);
  else currentSink().set(edge.leaf, existing ? total : ownedByLeaf(total, edge.leaf));
}

/** A leaf's gradient is read and written by optimizers: contiguous or laid out as the leaf is, without gaps, and nobody else's. */
function ownedByLeaf(gradient: Tensor, leaf: Tensor): Tensor {
  if (runtime.gradEnabled || writable(gradient)) return gradient;
  if (
    owned(gradient) &&
    sameShape(gradient.strides, leaf.strides) &&
    overwriting("backward", gradient, gradient)
  )
    return gradient;
  const copy = keep(clone(gradient));
  gradient.dispose();
  return copy;
}

/**
 * Gradients of `outputs` (each weighted by its entry of `gradients`) for `inputs`, which may be leaves or not.
 * Leaves' `grad` fields stay as they are.
 *
 * @returns one tensor for each input, zeros where the outputs do not depend on it; the caller owns them
 */
export function gradientsOf(
  outputs: Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options: {
    gradients?: readonly (Tensor | null)[];
    retainGraph?: boolean;
    createGraph?: boolean;
    stopAtTargets?: boolean;
  } = {},
): Tensor[] {
  const list = Array.isArray(outputs) ? (outputs as readonly Tensor[]) : [outputs as Tensor];
  requireList("gradientsOf", "inputs", inputs);
  requireOptions("gradientsOf", options, ["gradients", "retainGraph", "createGraph", "stopAtTargets"]);
  for (const tensor of [...list, ...inputs]) use("gradientsOf", tensor);
  const roots = list
    .map((tensor, i) => ({ tensor, gradient: options.gradients?.[i] ?? null }))
    .filter(({ tensor }) => tensor.requiresGrad);
  const { retainGraph = options.createGraph ?? false, createGraph = false, stopAtTargets } = options;
  const found = runBackward(roots, { retainGraph, createGraph, targets: inputs, stopAtTargets });
  return found.map((gradient, i) => {
    const result = gradient ?? zerosLike(inputs[i]);
    result.kept = false;
    runtime.scopes.at(-1)?.push(result);
    return result;
  });
}

/**
 * Gradients of `fn(inputs)` for those inputs that want one, themselves recorded while recording is on: how fused operations
 * differentiate twice.
 */
export function gradientsThrough(
  fn: (inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  dy: Tensor,
  wants: readonly boolean[],
): (Tensor | undefined)[] {
  const createGraph = runtime.gradEnabled;
  // Handles of their own make the inputs the ends of the walk, though they have a past of their own.
  const handles = inputs.map((input, i) => {
    if (!wants[i]) return input;
    const handle = createGraph ? input.alias() : input.detach();
    if (!handle.requiresGrad) handle.requiresGrad = true;
    return handle;
  });
  const wanted = handles.filter((_, i) => wants[i]);
  const output = withGradMode(true, () => fn(handles));
  const gradients = gradientsOf(output, wanted, { gradients: [dy], createGraph, stopAtTargets: true });
  return inputs.map((_, i) => (wants[i] ? gradients.shift() : undefined));
}

/**
 * The function that computes the gradient of scalar `fn` for its arguments (all of them, or those at `argnums`).
 * The gradients are differentiable themselves when computed inside another `grad`.
 */
export function grad(
  fn: (...inputs: Tensor[]) => Tensor,
  argnums?: number | readonly number[],
): (...inputs: Tensor[]) => Tensor[] {
  requireFunction("grad", fn);
  const both = valueAndGrad(fn, argnums);
  return (...inputs) => {
    const { value, gradients } = both(...inputs);
    value.dispose();
    return gradients;
  };
}

/** Runs `fn` as the function of a grad. */
function within<T>(fn: () => T): T {
  runtime.gradDepth++;
  try {
    return fn();
  } finally {
    runtime.gradDepth--;
  }
}

/** As {@link grad}, with the value. The caller owns value and gradients. */
export function valueAndGrad(
  fn: (...inputs: Tensor[]) => Tensor,
  argnums?: number | readonly number[],
): (...inputs: Tensor[]) => { value: Tensor; gradients: Tensor[] } {
  requireFunction("valueAndGrad", fn);
  return (...inputs) =>
    tidy(() => {
      for (const input of inputs) use("grad", input);
      // Recorded inputs mean that somebody differentiates around this call; within another grad anything that `fn` refers to
      // may be what that one differentiates for.
      const nested =
        runtime.gradEnabled && (runtime.gradDepth > 0 || inputs.some((input) => input.requiresGrad));
      const indices =
        argnums === undefined ? inputs.map((_, i) => i) : typeof argnums === "number" ? [argnums] : argnums;
      const handles = inputs.map((input, i) => {
        if (!indices.includes(i)) return input;
        const handle = nested ? input.alias() : input.detach();
        if (!handle.requiresGrad) handle.requiresGrad = true;
        return handle;
      });
      const value = within(() => withGradMode(true, () => fn(...handles)));
      requireThat(value instanceof Tensor, "grad", "what the function returns", "a tensor", value);
      if (value.size !== 1)
        throw new ShapeError(`grad: the function must return one element, not ${formatShape(value.shape)}`);
      const gradients = gradientsOf(
        value,
        indices.map((i) => handles[i]),
        { createGraph: nested, stopAtTargets: true },
      );
      return { value: nested ? value : value.detach(), gradients };
    });
}
