// Small blocks: their size classes, and slabs of equal blocks. Where slabs come from is the allocator's business.

/** Every block starts at a multiple of it. */
export const alignment = 64;
/** A slab is one stretch of the large blocks' store. */
export const slabBytes = 65536;
/** Most bytes of a small block. */
export const maximumSmall = 8192;

// Multiples of 64 to 512, then four classes a doubling: at most 25 % of a small block is waste.
export const classSizes: readonly number[] = (() => {
  const sizes: number[] = [];
  for (let size = 64; size <= 512; size += 64) sizes.push(size);
  for (let base = 512; base < maximumSmall; base *= 2) {
    for (let quarter = 1; quarter <= 4; quarter++) sizes.push(base + (base / 4) * quarter);
  }
  return sizes;
})();

/** Class of a size in units of 64 bytes. */
export const classOf: Uint8Array = (() => {
  const table = new Uint8Array(maximumSmall / alignment + 1);
  let index = 0;
  for (let units = 1; units < table.length; units++) {
    if (units * alignment > classSizes[index]) index++;
    table[units] = index;
  }
  return table;
})();

/** A run of granules cut into equal blocks. */
export class Slab {
  readonly slots: number;
  /** Stack of free slots. */
  readonly free: Uint16Array;
  readonly taken: Uint8Array;
  freeCount: number;
  /** Place in its class's list of slabs with free slots, −1 when full. */
  place = -1;

  constructor(
    readonly address: number,
    readonly sizeClass: number,
    readonly size: number,
  ) {
    this.slots = Math.floor(slabBytes / size);
    this.free = new Uint16Array(this.slots);
    this.taken = new Uint8Array(this.slots);
    this.freeCount = this.slots;
    for (let slot = 0; slot < this.slots; slot++) this.free[slot] = this.slots - 1 - slot;
  }
}
