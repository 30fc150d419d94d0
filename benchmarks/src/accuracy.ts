// Float64 references that are not the library's own: plain loops, plainly right, over as much of a result as a few hundredths of
// a second allow.

import type { Accuracy } from "./model.js";

/** Multiply-adds that a reference may take. */
const budget = 1.5e7;
/** Values of a product that are compared at most. */
const mostPlaces = 2e5;

/** Collects differences between values and their reference. */
export class Comparison {
  #maxError = 0;
  #scale = 0;
  #compared = 0;

  /** A NaN on either side counts as an infinite error. */
  add(value: number, reference: number): void {
    const error = Math.abs(value - reference);
    this.#maxError = Math.max(this.#maxError, Number.isNaN(error) ? Number.POSITIVE_INFINITY : error);
    this.#scale = Math.max(this.#scale, Math.abs(reference));
    this.#compared++;
  }

  result(tolerance: number): Accuracy {
    return { maxError: this.#maxError, scale: this.#scale, tolerance, compared: this.#compared };
  }
}

/** Compares two arrays element by element. */
export function compareArrays(
  values: ArrayLike<number>,
  reference: ArrayLike<number>,
  tolerance: number,
): Accuracy {
  if (values.length !== reference.length) {
    return {
      maxError: Number.POSITIVE_INFINITY,
      scale: 1,
      tolerance,
      compared: Math.min(values.length, reference.length),
    };
  }
  const comparison = new Comparison();
  for (let i = 0; i < values.length; i++) comparison.add(values[i], reference[i]);
  return comparison.result(tolerance);
}

/** Whether a result may be shown as one. */
export function isAccurate({ maxError, scale, tolerance }: Accuracy): boolean {
  return maxError <= tolerance * Math.max(scale, Number.MIN_VALUE);
}

/** A matrix in a flat array: element (i, j) of product p stands at p·batch + i·row + j·column. */
export interface Matrix {
  readonly values: ArrayLike<number>;
  readonly batch: number;
  readonly row: number;
  readonly column: number;
}

/** The extents of a product. */
export interface ProductSize {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch?: number;
}

/** So many of `extent` places, spread evenly, first and last among them. */
export function spreadOver(extent: number, most: number): number[] {
  const count = Math.max(1, Math.min(extent, Math.floor(most)));
  if (count === 1) return [extent - 1];
  return Array.from({ length: count }, (_, i) => Math.round((i * (extent - 1)) / (count - 1)));
}

/** Where a product is compared: at the crossings of some of its batch·m rows with some of its n columns. */
export interface Places {
  readonly rows: readonly number[];
  readonly columns: readonly number[];
  /** Values in a row of the product. */
  readonly width: number;
}

/** As many crossings as the budget allows: all of a small product, a grid over a large one, narrower than any tile of a kernel. */
export function placesOf({ m, n, k, batch = 1 }: ProductSize): Places {
  const most = Math.max(1, Math.min(mostPlaces, budget / k));
  const side = Math.sqrt(most);
  const columns = spreadOver(n, Math.max(side, most / (batch * m)));
  return { rows: spreadOver(batch * m, most / columns.length), columns, width: n };
}

/** The values of a whole product at the places. */
export function valuesAt(product: ArrayLike<number>, { rows, columns, width }: Places): Float64Array {
  const values = new Float64Array(rows.length * columns.length);
  let at = 0;
  for (const row of rows) for (const column of columns) values[at++] = product[row * width + column];
  return values;
}

/** Σ a·b in float64 at the places: of every row and column there one dot product. */
function productReference(a: Matrix, b: Matrix, size: ProductSize, places: Places): Float64Array {
  const { m, k } = size;
  const { rows, columns } = places;
  const values = new Float64Array(rows.length * columns.length);
  const left = new Float64Array(k);
  const right = new Float64Array(columns.length * k);
  let product = -1;
  let at = 0;
  for (const row of rows) {
    const p = Math.floor(row / m);
    if (p !== product) {
      product = p;
      columns.forEach((column, c) => {
        const start = p * b.batch + column * b.column;
        for (let l = 0; l < k; l++) right[c * k + l] = b.values[start + l * b.row];
      });
    }
    const start = p * a.batch + (row - p * m) * a.row;
    for (let l = 0; l < k; l++) left[l] = a.values[start + l * a.column];
    for (let c = 0; c < columns.length; c++) {
      let sum = 0;
      for (let l = 0, i = c * k; l < k; l++, i++) sum += left[l] * right[i];
      values[at++] = sum;
    }
  }
  return values;
}

/** References that are asked for again: by other thread counts, and by peers. */
const references = new Map<string, unknown>();

/** What `make` gives, made once for a key in this process; without a key, each time. */
export function sharedReference<T>(key: string | null, make: () => T): T {
  if (key === null) return make();
  if (!references.has(key)) references.set(key, make());
  return references.get(key) as T;
}

/** How a product is checked, whoever computed it. */
export interface ProductCheck {
  readonly places: Places;
  /** Compares what stands at the places. */
  compare(values: ArrayLike<number>): Accuracy;
  /** Compares at the places of a whole product [batch, m, n]. */
  compareWhole(product: ArrayLike<number>): Accuracy;
}

/**
 * The check of `batch` products [m, n] against Σ a·b in float64, at as many places as the budget allows.
 *
 * @param key - of a reference that others can use too, or null
 * @param operands - a and b; asked for when the reference is first needed
 */
export function productCheck(
  key: string | null,
  size: ProductSize,
  tolerance: number,
  operands: () => readonly [a: Matrix, b: Matrix],
): ProductCheck {
  const places = placesOf(size);
  const reference = (): Float64Array =>
    sharedReference(key, () => productReference(...operands(), size, places));
  return {
    places,
    compare: (values) => compareArrays(values, reference(), tolerance),
    compareWhole(product) {
      const whole = (size.batch ?? 1) * size.m * size.n;
      const values = product.length === whole ? valuesAt(product, places) : product;
      return compareArrays(values, reference(), tolerance);
    },
  };
}
