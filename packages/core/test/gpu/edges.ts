// Numbers that a GPU need not hold as they are: denormals, which it may flush to zero, and the bits of NaN.

import { expect } from "vitest";
import type { GpuMode } from "../../src/backend/gpu/index.js";
import * as nm from "../../src/index.js";

const leastNormal = 2 ** -126;
const denormals = [leastNormal / 2, -leastNormal / 8, 2 ** -149];
/** NaN by its bits: the usual one, one with a payload, a negative one. */
const nans = [0x7fc00000, 0x7fc12345, 0xffc00001];

export interface Edges {
  /** Whether each of the largest and the least normal numbers, infinities and zero came back as it was. */
  readonly kept: boolean[];
  /** Denormals after an upload, a copy on the device, and a product with 1: 1 where as before, 0 where zero, −1 for anything else. */
  readonly uploaded: number[];
  readonly copied: number[];
  readonly computed: number[];
  /** Whether NaN is NaN after the same. */
  readonly nan: boolean[];
  /** Whether bits of NaN and denormals are kept while the host alone has seen them. */
  readonly hostBits: boolean;
}

const upload = (values: Float32Array): nm.Tensor => nm.tensor(values, { device: "gpu" });

async function read(make: () => nm.Tensor): Promise<number[]> {
  const result = nm.tidy(make);
  const values = Array.from(await result.data(), Number);
  result.dispose();
  return values;
}

/** An array on the device that holds `values` as the device takes them. */
const onDevice = (values: Float32Array): nm.Tensor => {
  const x = upload(values);
  return nm.where(nm.greaterEqual(nm.mul(nm.ones([values.length], { device: "gpu" }), 1), 0), x, 0);
};

/** What becomes of them on the started gpu backend. */
export async function edges(): Promise<Edges> {
  const bits = Uint32Array.from([...nans, 1, 0x807fffff]);
  const host = upload(new Float32Array(bits.buffer));
  const back = (await host.data()) as Float32Array;
  host.dispose();
  const exact = [3.4028234663852886e38, leastNormal, -leastNormal, Infinity, -Infinity, 0];
  const classify = (found: number[]): number[] =>
    found.map((value, i) => (value === denormals[i] ? 1 : value === 0 ? 0 : -1));
  const small = Float32Array.from(denormals);
  const nan = new Float32Array(bits.buffer, 0, nans.length);
  const kept = await read(() => nm.mul(upload(Float32Array.from(exact)), 1));
  return {
    kept: kept.map((value, i) => value === exact[i]),
    uploaded: classify(await read(() => onDevice(small))),
    copied: classify(await read(() => nm.clone(onDevice(small)))),
    computed: classify(await read(() => nm.mul(upload(small), 1))),
    nan: [
      ...(await read(() => onDevice(nan))),
      ...(await read(() => nm.clone(onDevice(nan)))),
      ...(await read(() => nm.mul(upload(nan), 1))),
      ...(await read(() => nm.sub(upload(Float32Array.of(Infinity)), Infinity))),
    ].map(Number.isNaN),
    hostBits: new Uint32Array(back.buffer, back.byteOffset, back.length).every((each, i) => each === bits[i]),
  };
}

/** What all modes promise, and what modes on the host promise besides. */
export function expectEdges(found: Edges, mode: GpuMode): void {
  console.log(mode, JSON.stringify(found));
  expect(found.kept).toEqual(found.kept.map(() => true));
  expect(found.nan).toEqual(found.nan.map(() => true));
  expect(found.hostBits).toBe(true);
  const flushed = [found.uploaded, found.copied, found.computed].flat();
  expect(flushed).not.toContain(-1);
  if (mode === "webasm" || mode === "cpu") expect(flushed).toEqual(flushed.map(() => 1));
}
