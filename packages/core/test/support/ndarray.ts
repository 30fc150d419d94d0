// Arrays with shapes in the plainest way: every operation walks over all indices of its result. The measure of views and
// broadcasting, since it shares nothing with the library.

export interface NdArray {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

type Index = readonly number[];

const product = (shape: Index): number => shape.reduce((size, extent) => size * extent, 1);

/** An array of `shape` with the value `at(index)` at every index. */
export function build(shape: Index, at: (index: number[]) => number): NdArray {
  const data: number[] = [];
  const index = shape.map(() => 0);
  for (let flat = 0; flat < product(shape); flat++) {
    let rest = flat;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = rest % shape[axis];
      rest = (rest - index[axis]) / shape[axis];
    }
    data.push(at([...index]));
  }
  return { shape: [...shape], data };
}

export function get({ shape, data }: NdArray, index: Index): number {
  return data[index.reduce((at, i, axis) => at * shape[axis] + i, 0)];
}

/** The value that `x`, broadcast to more axes or longer ones, has at `index`. */
export function getBroadcast(x: NdArray, index: Index): number {
  const own = index.slice(index.length - x.shape.length);
  return get(
    x,
    own.map((i, axis) => (x.shape[axis] === 1 ? 0 : i)),
  );
}

/** The shape that both broadcast to, or null. */
export function broadcast(a: Index, b: Index): number[] | null {
  const rank = Math.max(a.length, b.length);
  const pad = (shape: Index) => [...Array(rank - shape.length).fill(1), ...shape] as number[];
  const [x, y] = [pad(a), pad(b)];
  if (x.some((extent, i) => extent !== y[i] && extent !== 1 && y[i] !== 1)) return null;
  return x.map((extent, i) => (extent === 1 ? y[i] : extent));
}

export function zip(a: NdArray, b: NdArray, f: (x: number, y: number) => number): NdArray {
  return build(broadcast(a.shape, b.shape)!, (index) => f(getBroadcast(a, index), getBroadcast(b, index)));
}

export function permuted(x: NdArray, order: Index): NdArray {
  return build(
    order.map((axis) => x.shape[axis]),
    (index) => {
      const source = new Array<number>(order.length);
      order.forEach((axis, i) => {
        source[axis] = index[i];
      });
      return get(x, source);
    },
  );
}

/** NumPy's start:stop:step over an axis of `extent`, as the positions that it takes. */
export function positionsOf(
  extent: number,
  start: number | null,
  stop: number | null,
  step: number,
): number[] {
  const clamp = (value: number, low: number, high: number) => Math.max(low, Math.min(high, value));
  const normal = (value: number) => (value < 0 ? value + extent : value);
  const list: number[] = [];
  if (step > 0) {
    const end = stop === null ? extent : clamp(normal(stop), 0, extent);
    for (let i = start === null ? 0 : clamp(normal(start), 0, extent); i < end; i += step) list.push(i);
  } else {
    const end = stop === null ? -1 : clamp(normal(stop), -1, extent - 1);
    for (let i = start === null ? extent - 1 : clamp(normal(start), -1, extent - 1); i > end; i += step)
      list.push(i);
  }
  return list;
}

/** The elements at `positions[axis]` of every axis. */
export function taken(x: NdArray, positions: readonly Index[]): NdArray {
  return build(
    positions.map((list) => list.length),
    (index) =>
      get(
        x,
        index.map((i, axis) => positions[axis][i]),
      ),
  );
}

/** `f` of the elements along `axes`, which stay with length 1. */
export function reduced(x: NdArray, axes: Index, f: (list: number[]) => number): NdArray {
  const inner = axes.map((axis) => x.shape[axis]);
  return build(
    x.shape.map((extent, axis) => (axes.includes(axis) ? 1 : extent)),
    (outer) => {
      const list: number[] = [];
      build(inner, (along) => {
        const index = [...outer];
        axes.forEach((axis, i) => {
          index[axis] = along[i];
        });
        list.push(get(x, index));
        return 0;
      });
      return f(list);
    },
  );
}

/** Matrix product over the last two axes, the others broadcast. */
export function multiplied(a: NdArray, b: NdArray): NdArray {
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2))!;
  const [m, k] = a.shape.slice(-2);
  const n = b.shape[b.shape.length - 1];
  const along = (x: NdArray, index: Index, row: number, column: number) => {
    const outer = index.slice(0, -2).slice(index.length - x.shape.length);
    return get(x, [...outer.map((i, axis) => (x.shape[axis] === 1 ? 0 : i)), row, column]);
  };
  return build([...batch, m, n], (index) => {
    const [i, j] = index.slice(-2);
    let sum = 0;
    for (let l = 0; l < k; l++) sum += along(a, index, i, l) * along(b, index, l, j);
    return sum;
  });
}
