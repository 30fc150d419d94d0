// Every error that nomoat throws on purpose. A raw RangeError or TypeError out of a public call is a bug.

/** Base class of all errors of nomoat; `code` is stable and meant for programs. */
export class NomoatError extends Error {
  /** The class's name, written out in each: minifiers change what a class is called. */
  static readonly kind: string = "NomoatError";
  readonly code: string;

  constructor(message: string, code = "NOMOAT", options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.kind;
    this.code = code;
  }

  /** True also for errors of another copy of the library (ESM and CJS in one process): classes are told by their kinds. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore-start lint/complexity/noThisInStatic: subclasses inherit this and ask for their own kind
    if (Function.prototype[Symbol.hasInstance].call(this, value)) return true;
    if (!(value instanceof Error) || !Object.hasOwn(this, "kind")) return false;
    const kinds: unknown[] = [];
    let level: unknown = value.constructor;
    for (; typeof level === "function"; level = Object.getPrototypeOf(level))
      if (Object.hasOwn(level, "kind")) kinds.push((level as typeof NomoatError).kind);
    return kinds.includes(this.kind) && kinds.includes("NomoatError");
    // biome-ignore-end lint/complexity/noThisInStatic: until here
  }
}

/** Shapes, axes or indices that do not fit an operation. */
export class ShapeError extends NomoatError {
  static override readonly kind: string = "ShapeError";

  constructor(message: string) {
    super(message, "SHAPE");
  }
}

/** An element type that an operation or a backend does not take. */
export class DTypeError extends NomoatError {
  static override readonly kind: string = "DTypeError";

  constructor(message: string) {
    super(message, "DTYPE");
  }
}

/** An argument outside its range: a negative rank, a NaN rate, an unknown option. */
export class ArgumentError extends NomoatError {
  static override readonly kind: string = "ArgumentError";

  constructor(message: string) {
    super(message, "ARGUMENT");
  }
}

/** A tensor that was used after it was disposed. */
export class DisposedError extends NomoatError {
  static override readonly kind: string = "DisposedError";

  constructor(message: string) {
    super(message, "DISPOSED");
  }
}

/** A backend that cannot run, a kernel that failed, tensors of two backends in one operation. */
export class BackendError extends NomoatError {
  static override readonly kind: string = "BackendError";

  constructor(message: string, options?: ErrorOptions) {
    super(message, "BACKEND", options);
  }
}

/** An operation that automatic differentiation cannot honour. */
export class AutogradError extends NomoatError {
  static override readonly kind: string = "AutogradError";

  constructor(message: string) {
    super(message, "AUTOGRAD");
  }
}

/** The backend's memory is exhausted; everything made before stays usable. */
export class OutOfMemoryError extends NomoatError {
  static override readonly kind: string = "OutOfMemoryError";
  /** Bytes that were asked for. */
  readonly wanted: number;
  /** Bytes in use when they were asked for. */
  readonly used: number;

  constructor(message: string, wanted: number, used: number) {
    super(message, "OUT_OF_MEMORY");
    this.wanted = wanted;
    this.used = used;
  }
}

/** Where in a file a {@link FormatError} arose; what is unknown stays undefined. */
export interface FormatErrorPlace {
  /** Name of the file as the caller gave it. */
  file?: string;
  /** Byte offset of the fault. */
  offset?: number;
  /** Field or tensor at fault. */
  field?: string;
}

/** Bytes that are not what their format demands. Message: `file: field: reason`. */
export class FormatError extends NomoatError {
  static override readonly kind: string = "FormatError";
  readonly file: string | undefined;
  readonly offset: number | undefined;
  readonly field: string | undefined;

  constructor(reason: string, place: FormatErrorPlace = {}, options?: ErrorOptions) {
    const prefix = [place.file, place.field].filter((part) => part !== undefined).join(": ");
    super(prefix ? `${prefix}: ${reason}` : reason, "FORMAT", options);
    this.file = place.file;
    this.offset = place.offset;
    this.field = place.field;
  }
}
