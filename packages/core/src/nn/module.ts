// Module: a tree of parameters, buffers and submodules found among its own properties.

import { describe, requireOptions, requireThat, use } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { keep } from "../memory.js";
import { formatShape, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";

/**
 * Makes `tensor` a parameter: it requires a gradient (unless told otherwise), outlives every `tidy`, and belongs to the
 * module that holds it. The same tensor is returned.
 */
export function parameter(tensor: Tensor, requiresGrad = true): Tensor {
  use("parameter", tensor);
  tensor.requiresGrad = requiresGrad;
  return keep(tensor);
}

const inspect = Symbol.for("nodejs.util.inspect.custom");

type Child = [name: string, value: Module | Tensor, property: string];

const isChild = (value: unknown): value is Module | Tensor =>
  value instanceof Module || value instanceof Tensor;

/** Own tensors and modules of `module`, and those in its arrays, by name and by the property that holds them. */
function* childrenOf(module: Module): Generator<Child> {
  for (const [name, value] of Object.entries(module)) {
    if (isChild(value)) yield [name, value, name];
    else if (Array.isArray(value)) {
      for (const [i, item] of value.entries()) if (isChild(item)) yield [`${name}.${i}`, item, name];
    }
  }
}

/** Whether `value` is of `kind`, or of a class, perhaps of another copy, with its brand. */
function isInstance(kind: typeof Module, value: unknown): boolean {
  if (Function.prototype[Symbol.hasInstance].call(kind, value)) return true;
  if (typeof value !== "object" || value === null || !Object.hasOwn(kind, "brand")) return false;
  let level: unknown = value.constructor;
  for (; typeof level === "function"; level = Object.getPrototypeOf(level)) {
    if (Object.hasOwn(level, "brand") && (level as typeof Module).brand === kind.brand) return true;
  }
  return false;
}

/**
 * Base class of layers and models. Own properties that are tensors are parameters (buffers when named in `buffers`), those
 * that are modules are submodules, arrays of either hold several; names follow the properties, as in PyTorch: `layers.0.weight`.
 */
export abstract class Module {
  /** False in evaluation mode: dropout does nothing. */
  training = true;
  /** Names of own tensors that are state but not parameters. */
  protected readonly buffers: ReadonlySet<string> = new Set();

  /** What tells a class of this library across copies of it: unique, given by each class that `instanceof` is asked for. */
  static get brand(): string {
    return "@nomoat/core/Module";
  }

  /** True also for modules that another copy of the library made (ESM and CJS in one process): classes are told by their brand. */
  static [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore lint/complexity/noThisInStatic: subclasses inherit this and ask for their own brand
    return isInstance(this, value);
  }

  abstract forward(...inputs: never[]): unknown;

  /** This module ("") and all below it, by dotted name, parents first. */
  *namedModules(prefix = ""): Generator<[name: string, module: Module]> {
    yield [prefix, this];
    for (const [name, child] of childrenOf(this)) {
      if (child instanceof Module) yield* child.namedModules(prefix ? `${prefix}.${name}` : name);
    }
  }

  *#namedTensors(): Generator<[name: string, tensor: Tensor, buffer: boolean]> {
    for (const [path, module] of this.namedModules()) {
      for (const [name, child, property] of childrenOf(module)) {
        if (child instanceof Tensor)
          yield [path ? `${path}.${name}` : name, child, module.buffers.has(property)];
      }
    }
  }

  /** Parameters by dotted name; one that appears twice (tied weights) is given once, under its first name. */
  *namedParameters(): Generator<[name: string, parameter: Tensor]> {
    const seen = new Set<Tensor>();
    for (const [name, tensor, buffer] of this.#namedTensors()) {
      if (buffer || seen.has(tensor)) continue;
      seen.add(tensor);
      yield [name, tensor];
    }
  }

  /** All parameters, trainable or frozen. */
  parameters(): Tensor[] {
    return Array.from(this.namedParameters(), ([, tensor]) => tensor);
  }

  /** The parameters that require a gradient. */
  trainableParameters(): Tensor[] {
    return this.parameters().filter((tensor) => tensor.requiresGrad);
  }

  /** Sets whether parameters gather gradients. */
  requiresGrad(value: boolean): this {
    for (const tensor of this.parameters()) tensor.requiresGrad = value;
    return this;
  }

  /** Training mode, here and below. */
  train(mode = true): this {
    for (const [, module] of this.namedModules()) module.training = mode;
    return this;
  }

  /** Evaluation mode, here and below. */
  eval(): this {
    return this.train(false);
  }

  zeroGrad(): void {
    for (const tensor of this.parameters()) tensor.zeroGrad();
  }

  /** Parameters and buffers by name: the tensors themselves, not copies. Tied weights appear under each name. */
  stateDict(): Map<string, Tensor> {
    return new Map(Array.from(this.#namedTensors(), ([name, tensor]) => [name, tensor]));
  }

  /**
   * Copies values into parameters and buffers (dtypes are converted). All faults are found before anything is written.
   * @throws {ArgumentError} listing every missing, unexpected and misshapen name; with `strict: false` only misshapen ones
   */
  loadStateDict(state: ReadonlyMap<string, Tensor>, options: { strict?: boolean } = {}): void {
    if (typeof state?.get !== "function" || typeof state.keys !== "function")
      throw new ArgumentError(`loadStateDict: expected a Map of tensors by name, not ${describe(state)}`);
    requireOptions("loadStateDict", options, ["strict"]);
    const own = this.stateDict();
    const faults: string[] = [];
    for (const [name, tensor] of own) {
      const given = state.get(name);
      if (!given) {
        if (options.strict ?? true) faults.push(`missing "${name}" ${formatShape(tensor.shape)}`);
      } else if (!(given instanceof Tensor)) {
        faults.push(`"${name}" is ${describe(given)}, not a tensor`);
      } else if (given.disposed) {
        faults.push(`"${name}" was disposed`);
      } else if (!sameShape(given.shape, tensor.shape)) {
        faults.push(`"${name}" is ${formatShape(given.shape)}, expected ${formatShape(tensor.shape)}`);
      } else if (given.device !== tensor.device) {
        faults.push(`"${name}" is on ${given.device}, expected ${tensor.device}`);
      }
    }
    if (options.strict ?? true)
      for (const name of state.keys()) if (!own.has(name)) faults.push(`unexpected "${name}"`);
    if (faults.length > 0) throw new ArgumentError(`loadStateDict: ${faults.join("; ")}`);
    noGrad(() => {
      for (const [name, tensor] of own) {
        const given = state.get(name);
        if (given) tensor.copyFrom(given);
      }
    });
  }

  /** What stands at a dotted name, own properties and positions alone: a module or a list of them. */
  #at(operation: string, name: string): Module | Module[] {
    if (typeof name !== "string")
      throw new ArgumentError(`${operation}: a name must be a string, not ${describe(name)}`);
    let at: Module | Module[] = this;
    for (const part of name === "" ? [] : name.split(".")) {
      const exists = Array.isArray(at) ? /^(0|[1-9]\d*)$/.test(part) : Object.hasOwn(at, part);
      const next: unknown = exists ? at[part as never] : undefined;
      if (!(next instanceof Module || Array.isArray(next))) {
        throw new ArgumentError(`${operation}: no module "${name}" (stopped at "${part}")`);
      }
      at = next as Module | Module[];
    }
    return at;
  }

  /** The module at a dotted name. @throws {ArgumentError} when there is none */
  getModule(name: string): Module {
    const found = this.#at("getModule", name);
    if (Array.isArray(found)) throw new ArgumentError(`getModule: "${name}" is a list, not a module`);
    return found;
  }

  /** Puts `replacement` where the module named `name` was; the old one is returned, undisposed. */
  replaceModule(name: string, replacement: Module): Module {
    if (name === "") throw new ArgumentError("replaceModule: the root cannot be replaced within itself");
    requireModule("replaceModule", replacement);
    const old = this.#at("replaceModule", name);
    if (Array.isArray(old)) throw new ArgumentError(`replaceModule: "${name}" is a list, not a module`);
    const at = name.lastIndexOf(".");
    const parent = this.#at("replaceModule", at < 0 ? "" : name.slice(0, at)) as unknown as Record<
      string,
      Module
    >;
    parent[name.slice(at + 1)] = replacement;
    return old;
  }

  /** The tree of modules: the class of each and the shapes of its own tensors, one module a line. */
  toString(): string {
    const tensors: string[] = [];
    const modules: string[] = [];
    for (const [name, child] of childrenOf(this)) {
      if (child instanceof Tensor) tensors.push(`${name} ${formatShape(child.shape)}`);
      else modules.push(`\n(${name}): ${child}`);
    }
    // Bundlers rename classes that refer to themselves; brands stay.
    const kind = this.constructor as typeof Module;
    const name = Object.hasOwn(kind, "brand") ? kind.brand.split("/").at(-1) : kind.name;
    const below = modules.length > 0 ? `${modules.join("").replaceAll("\n", "\n  ")}\n` : "";
    return `${name}(${tensors.join(", ")}${below})`;
  }

  [inspect](): string {
    return this.toString();
  }

  /** Disposes all parameters and buffers, here and below, and what submodules hold besides (by their own `dispose`). */
  dispose(): void {
    for (const [, child] of [...childrenOf(this)]) child.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Throws unless `module` is one. */
export function requireModule(operation: string, module: unknown): asserts module is Module {
  if (!(module instanceof Module))
    throw new ArgumentError(`${operation}: expected a module, not ${describe(module)}`);
}

/** Throws unless `weight` is a tensor: PyTorch's layers take `sizes` where these take a weight. */
export function requireWeight(layer: string, sizes: string, weight: Tensor): void {
  const rule = `a tensor (${layer}.create(${sizes}) makes one)`;
  requireThat(typeof weight?.use === "function", layer, "weight", rule, weight);
  use(layer, weight);
}

/** Throws unless the last axis of `x` is `inFeatures` long. */
export function checkFeatures(layer: string, x: Tensor, inFeatures: number): void {
  use(layer, x);
  if (x.rank === 0 || x.shape[x.rank - 1] !== inFeatures) {
    throw new ShapeError(`${layer}: the last axis of ${formatShape(x.shape)} should be ${inFeatures}`);
  }
}
