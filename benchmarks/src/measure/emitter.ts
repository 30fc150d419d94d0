// Small wasm modules of hand-written instructions, for measuring what the machine can do at most. Takes part in the pool of
// @nomoat/core, whose kernels are `(args, begin, end, scratch)` over one imported shared memory.

const op = {
  loop: [0x03, 0x40],
  end: [0x0b],
  i32Add: [0x6a],
  i32Sub: [0x6b],
  i32Mul: [0x6c],
  i32LessUnsigned: [0x49],
  splat: [0xfd, 0x11],
  or: [0xfd, 0x50],
  i32x4Add: [0xfd, 0xae, 0x01],
  f32x4Add: [0xfd, 0xe4, 0x01],
  dotInt16: [0xfd, 0xba, 0x01],
  relaxedDotInt8Add: [0xfd, 0x93, 0x02],
} as const;

/** Unsigned LEB128. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest % 128;
    rest = Math.floor(rest / 128);
    bytes.push(rest > 0 ? low | 0x80 : low);
  } while (rest > 0);
  return bytes;
}

/** Signed LEB128 of a non-negative number. */
function positive(value: number): number[] {
  const bytes = unsigned(value);
  const last = bytes[bytes.length - 1];
  if (last & 0x40) {
    bytes[bytes.length - 1] = last | 0x80;
    bytes.push(0);
  }
  return bytes;
}

const get = (local: number): number[] => [0x20, ...unsigned(local)];
const set = (local: number): number[] => [0x21, ...unsigned(local)];
const tee = (local: number): number[] => [0x22, ...unsigned(local)];
const constant = (value: number): number[] => [0x41, ...positive(value)];
const branchIf = (depth: number): number[] => [0x0d, depth];
const argument = (i: number): number[] => [...get(0), 0x28, 2, ...unsigned(4 * i)];
const loadVector = (offset: number): number[] => [0xfd, 0x00, 4, ...unsigned(offset)];
const storeVector = (offset: number): number[] => [0xfd, 0x0b, 4, ...unsigned(offset)];

const [begin, finish, scratch] = [1, 2, 3];
/** Locals after the four parameters: first the integers, then the vectors. */
const firstLocal = 4;

interface Kernel {
  readonly name: string;
  readonly integers: number;
  readonly vectors: number;
  readonly body: readonly number[];
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...unsigned(content.length), ...content];
}

function named(name: string): number[] {
  return [...unsigned(name.length), ...[...name].map((letter) => letter.charCodeAt(0))];
}

function assemble(kernels: readonly Kernel[]): Uint8Array<ArrayBuffer> {
  const int32 = 0x7f;
  const vector = 0x7b;
  const type = [0x60, 4, int32, int32, int32, int32, 0];
  const memory = [...named("env"), ...named("memory"), 0x02, 0x03, ...unsigned(1), ...unsigned(65536)];
  const exported = kernels.flatMap(({ name }, i) => [...named(name), 0x00, ...unsigned(i)]);
  const code = kernels.flatMap(({ integers, vectors, body }) => {
    const locals = [2, ...unsigned(integers), int32, ...unsigned(vectors), vector];
    const whole = [...locals, ...body, ...op.end];
    return [...unsigned(whole.length), ...whole];
  });
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, ...type]),
    ...section(2, [1, ...memory]),
    ...section(3, [...unsigned(kernels.length), ...kernels.map(() => 0)]),
    ...section(7, [...unsigned(kernels.length), ...exported]),
    ...section(10, [...unsigned(kernels.length), ...code]),
  ]);
}

/** Rounds of one unit of the dot kernel. */
export const dotRounds = 1000;
/** Chains of dependent dot products of a round: enough to hide the latency, few enough for Node 20 to keep in registers. */
export const dotChains = 10;

/** A unit is `dotRounds` · `dotChains` integer dot products with sums in registers. Integers: 0 factor. Scratch: 16 bytes. */
function dot(relaxed: boolean): Kernel {
  const rounds = firstLocal;
  const factor = firstLocal + 1;
  const chain = (i: number): number => factor + 1 + i;
  const chains = Array.from({ length: dotChains }, (_, i) => chain(i));
  const step = (local: number): number[] =>
    relaxed
      ? [...get(local), ...get(factor), ...get(local), ...op.relaxedDotInt8Add, ...set(local)]
      : [...get(local), ...get(local), ...get(factor), ...op.dotInt16, ...op.i32x4Add, ...set(local)];
  const body = [
    ...[...get(finish), ...get(begin), ...op.i32Sub, ...constant(dotRounds), ...op.i32Mul, ...set(rounds)],
    ...[...argument(0), ...op.splat, ...set(factor)],
    ...chains.flatMap((local) => [...get(factor), ...set(local)]),
    ...op.loop,
    ...chains.flatMap(step),
    ...[...get(rounds), ...constant(1), ...op.i32Sub, ...tee(rounds), ...branchIf(0)],
    ...op.end,
    ...get(scratch),
    ...get(chains[0]),
    ...chains.slice(1).flatMap((local) => [...get(local), ...op.or]),
    ...storeVector(0),
  ];
  return { name: "dot", integers: 1, vectors: dotChains + 1, body };
}

/** Bytes of one unit of the streaming kernels, of each stream. */
export const streamUnit = 4096;
const lines = [0, 16, 32, 48, 64, 80, 96, 112];
const stepBytes = 128;

/**
 * Passes over memory: "read" keeps what it reads in registers, "copy" writes it to another place, "add" writes the sum of
 * two places to a third. Integers: the addresses. Scratch: 16 bytes.
 */
function stream(name: "read" | "copy" | "add"): Kernel {
  const streams = { read: 1, copy: 2, add: 3 }[name];
  const pointer = (i: number): number => firstLocal + i;
  const last = pointer(streams);
  const vector = (i: number): number => last + 1 + i;
  const place = (i: number, unit: number): number[] => [
    ...[...argument(i), ...get(unit), ...constant(streamUnit), ...op.i32Mul, ...op.i32Add],
  ];
  const work = {
    read: lines.flatMap((offset, i) => [
      ...[...get(pointer(0)), ...loadVector(offset), ...get(vector(i % 4)), ...op.or, ...set(vector(i % 4))],
    ]),
    copy: lines.flatMap((offset) => [
      ...[...get(pointer(1)), ...get(pointer(0)), ...loadVector(offset), ...storeVector(offset)],
    ]),
    add: lines.flatMap((offset) => [
      ...[...get(pointer(2)), ...get(pointer(0)), ...loadVector(offset)],
      ...[...get(pointer(1)), ...loadVector(offset), ...op.f32x4Add, ...storeVector(offset)],
    ]),
  }[name];
  const advance = Array.from({ length: streams }, (_, i) => [
    ...[...get(pointer(i)), ...constant(stepBytes), ...op.i32Add, ...set(pointer(i))],
  ]).flat();
  const body = [
    ...Array.from({ length: streams }, (_, i) => [...place(i, begin), ...set(pointer(i))]).flat(),
    ...[...place(0, finish), ...set(last)],
    ...op.loop,
    ...work,
    ...advance,
    ...[...get(pointer(0)), ...get(last), ...op.i32LessUnsigned, ...branchIf(0)],
    ...op.end,
    ...get(scratch),
    ...get(vector(0)),
    ...[1, 2, 3].flatMap((i) => [...get(vector(i)), ...op.or]),
    ...storeVector(0),
  ];
  return { name, integers: streams + 1, vectors: 4, body };
}

/** The kernels "dot", "read", "copy" and "add", as `registerKernels` of core's runtime takes them. */
export function peakKernels(): { baseline: Uint8Array<ArrayBuffer>; relaxed: Uint8Array<ArrayBuffer> } {
  const streams = (["read", "copy", "add"] as const).map(stream);
  return {
    baseline: assemble([dot(false), ...streams]),
    relaxed: assemble([dot(true), ...streams]),
  };
}

/** Whether the host has relaxed SIMD. */
export function relaxedSimd(): boolean {
  return WebAssembly.validate(peakKernels().relaxed);
}
