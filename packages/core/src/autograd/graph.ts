// The recorded graph: one node for each differentiable operation that ran with gradients on.
// Nodes are reference-counted like storages: by the tensor they made and by the nodes that follow them.

import { requireFunction } from "../arguments.js";
import type { DType } from "../dtype.js";
import { AutogradError } from "../errors.js";
import type { Layout } from "../layout.js";
import { tidy } from "../memory.js";
import { runtime } from "../runtime.js";
import type { Shape } from "../shape.js";
import type { Storage } from "../storage.js";
import { Tensor } from "../tensor.js";

/**
 * A tensor's value held for backward without holding the tensor. What its producer makes again cheaply out of what that keeps itself is
 * not held at all.
 */
export class SavedTensor {
  /** null where `#producer` makes the value again. */
  readonly #storage: Storage | null;
  readonly #producer: GraphNode | null;
  readonly #version: number;
  readonly #layout: Layout;
  readonly #dtype: DType;
  /** The tensor itself, for leaves; their gradient of second order has to arrive there. */
  readonly #leaf: Tensor | null;

  constructor(tensor: Tensor) {
    this.#producer = tensor.node?.makes(tensor) ? tensor.node.retain() : null;
    this.#storage = this.#producer ? null : tensor.storage.retain();
    this.#version = tensor.storage.version;
    this.#layout = tensor.layout;
    this.#dtype = tensor.dtype;
    this.#leaf = tensor.node === null && tensor.requiresGrad ? tensor : null;
  }

  /** A tensor with the saved value, joined to the graph by `node` (its producer). */
  restore(node: GraphNode | null, operation: string): Tensor {
    if (this.#producer) {
      const again = this.#producer.remake();
      if (node && runtime.gradEnabled) again.attach(node);
      return again;
    }
    const storage = this.#storage!;
    if (storage.version !== this.#version) {
      throw new AutogradError(
        `${operation}: a tensor of shape [${this.#layout.shape.join(", ")}] that its gradient needs was changed in place after it was used`,
      );
    }
    if (this.#leaf && !this.#leaf.disposed && runtime.gradEnabled) return this.#leaf;
    const tensor = new Tensor(storage.retain(), this.#dtype, this.#layout);
    if (node && runtime.gradEnabled) tensor.attach(node);
    return tensor;
  }

  release(): void {
    this.#storage?.release();
    this.#producer?.release();
  }
}

/** How a node's output is made again. */
export interface Remaking {
  /** Of the output's storage when it was made: what was written there since is another value. */
  readonly version: number;
  /** Makes a contiguous tensor with the output's value; what it makes besides is freed by a scope. */
  make(): Tensor;
}

/** Where a gradient goes: on to the node that made the input, or into a leaf. */
export type Edge =
  | { readonly node: GraphNode; readonly leaf: null }
  | { readonly node: null; readonly leaf: Tensor }
  | null;

export interface BackwardContext {
  /** Which inputs want a gradient. */
  readonly wants: readonly boolean[];
  shape(index: number): Shape;
  /**
   * The gradient of input `index` gathered so far, where the new part may be added to it in place (contiguous, held by
   * nobody else); undefined where there is none. Who adds in place returns this same tensor.
   */
  accumulate(index: number): Tensor | undefined;
}

/** Computes gradients of the inputs from the gradient of the output; undefined stands for zero. */
export type Backward = (context: BackwardContext, dy: Tensor) => readonly (Tensor | undefined)[];

export class GraphNode {
  readonly operation: string;
  readonly edges: readonly Edge[];
  readonly shapes: readonly Shape[];
  /** Its backward may reach leaves that are not among its inputs, so it runs even if no input wants a gradient. */
  readonly hiddenLeaves: boolean;
  /** Later nodes have higher numbers, so descending order is a valid order of backward. */
  readonly sequence: number;
  readonly #saved: readonly { release(): void }[];
  readonly #remaking: Remaking | null;
  #backward: Backward | null;
  #references = 0;

  constructor(
    operation: string,
    inputs: readonly Tensor[],
    saved: readonly { release(): void }[],
    backward: Backward,
    hiddenLeaves = false,
    remaking: Remaking | null = null,
  ) {
    this.operation = operation;
    this.#remaking = remaking;
    this.hiddenLeaves = hiddenLeaves;
    this.shapes = inputs.map((input) => input.shape);
    this.edges = inputs.map((input): Edge => {
      if (input.node) return { node: input.node.retain(), leaf: null };
      return input.requiresGrad ? { node: null, leaf: input } : null;
    });
    this.sequence = runtime.nextNode++;
    this.#saved = saved;
    this.#backward = backward;
  }

  get backward(): Backward {
    if (!this.#backward) {
      throw new AutogradError(
        `backward: the graph through ${this.operation} was already freed by an earlier backward; pass retainGraph: true to keep it`,
      );
    }
    return this.#backward;
  }

  /** Whether {@link remake} gives the value of `tensor`, which this node made. */
  makes(tensor: Tensor): boolean {
    return this.#remaking?.version === tensor.storage.version && tensor.isContiguous;
  }

  /** The output once more, out of what was saved; of `makes`. */
  remake(): Tensor {
    void this.backward;
    return withGradMode(false, () => tidy(() => this.#remaking!.make()));
  }

  retain(): this {
    this.#references++;
    return this;
  }

  release(): void {
    if (this.dropReference()) this.free();
  }

  /** Lets go of saved tensors and of the nodes before; idempotent. Iterative, since graphs are deeper than the call stack. */
  free(): void {
    const queue: GraphNode[] = [this];
    for (let node = queue.pop(); node; node = queue.pop()) node.letGo(queue);
  }

  // The nodes of one graph may come from two copies of this library, whose private fields are not each other's: so a node
  // only ever touches its own.

  /** True when nobody is left who holds this node. */
  dropReference(): boolean {
    return --this.#references === 0;
  }

  /** Lets go of saved tensors; puts the nodes before that nobody else holds on `queue`. */
  letGo(queue: GraphNode[]): void {
    if (!this.#backward) return;
    this.#backward = null;
    for (const saved of this.#saved) saved.release();
    for (const edge of this.edges) if (edge?.node?.dropReference()) queue.push(edge.node);
  }
}

/** True when an operation on `inputs` has to be recorded. */
export function needsGraph(inputs: readonly Tensor[]): boolean {
  if (!runtime.gradEnabled) return false;
  for (const input of inputs) if (input.requiresGrad) return true;
  return false;
}

/**
 * Runs `fn` without recording.
 * @throws {AutogradError} when `fn` returns a promise: the mode would end before the work does
 */
export function noGrad<T>(fn: () => T): T {
  requireFunction("noGrad", fn);
  return withGradMode(false, fn);
}

/** Runs `fn` with recording on, inside `noGrad` too. */
export function enableGrad<T>(fn: () => T): T {
  requireFunction("enableGrad", fn);
  return withGradMode(true, fn);
}

export function withGradMode<T>(enabled: boolean, fn: () => T): T {
  const before = runtime.gradEnabled;
  runtime.gradEnabled = enabled;
  try {
    const result = fn();
    if (result instanceof Promise)
      throw new AutogradError(
        "noGrad/enableGrad: the function returned a promise; wrap its synchronous parts",
      );
    return result;
  } finally {
    runtime.gradEnabled = before;
  }
}
