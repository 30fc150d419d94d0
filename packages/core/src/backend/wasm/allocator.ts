// Memory for storages: size classes for small blocks, best fit with coalescing for large ones. All bookkeeping
// lives in typed arrays outside the memory that it manages, so that a kernel that writes out of bounds cannot break it,
// and allocating makes no garbage. Not thread-safe: only the thread that owns the runtime allocates.

import { BackendError, OutOfMemoryError } from "../../errors.js";
import { alignment, classOf, classSizes, maximumSmall, Slab, slabBytes } from "./slab.js";

/** What the allocator takes its memory from. */
export interface Region {
  /** Bytes that exist now. */
  readonly bytes: number;
  readonly maximumBytes: number;
  /** Makes at least `bytes` exist; false when that cannot be. */
  grow(bytes: number): boolean;
}

/** Numbers of bytes, counted in whole blocks. */
export interface AllocatorStatistics {
  /** Handed out and not freed. */
  used: number;
  /** Highest `used` since start or `resetPeak`. */
  peak: number;
  /** Taken from the system. */
  reserved: number;
  /** Blocks handed out and not freed. */
  blocks: number;
  /** Free stretches that large blocks are taken from; 1 when everything has been freed and trimmed. */
  holes: number;
}

/** Large blocks and slabs are whole granules. */
const granuleShift = 12;
const granule = 1 << granuleShift;
const slabGranules = slabBytes / granule;

// Free stretches are kept in bins by length: exact up to 8 granules, then eight bins a doubling.
const binCount = 8 + 8 * 20;
function binOf(granules: number): number {
  if (granules < 8) return granules;
  const exponent = 31 - Math.clz32(granules);
  return 8 * (exponent - 2) + ((granules >>> (exponent - 3)) & 7);
}

export class Allocator {
  readonly #region: Region;
  readonly #base: number;
  /** Slabs by class that have a free slot; the last is used first. */
  readonly #open: Slab[][] = classSizes.map(() => []);
  /** Granules from `base` on that the tables cover. */
  #granules = 0;
  /** At the first and last granule of a stretch its length in granules, negative when free; elsewhere stale. */
  #tags = new Int32Array(0);
  /** At a granule of a slab, its number + 1 in `slabs`; 0 elsewhere. */
  #slabAt = new Int32Array(0);
  #next = new Int32Array(0);
  #previous = new Int32Array(0);
  readonly #bins = new Int32Array(binCount).fill(-1);
  readonly #binBits = new Uint32Array(Math.ceil(binCount / 32));
  readonly #slabs: (Slab | undefined)[] = [];
  readonly #freeSlabNumbers: number[] = [];
  #counted = true;
  #used = 0;
  #peak = 0;
  #blocks = 0;
  #holes = 0;

  /** @param base - first address that may be handed out, a multiple of 64 */
  constructor(region: Region, base: number) {
    this.#region = region;
    this.#base = base;
    this.#cover();
  }

  /**
   * A block of at least `bytes` bytes at an address that is a multiple of 64. What it holds is not defined.
   *
   * @throws {OutOfMemoryError} and leaves everything as it was
   */
  allocate(bytes: number): number {
    return bytes <= maximumSmall ? this.#allocateSmall(bytes) : this.#allocateLarge(bytes);
  }

  /** As `allocate`, for the runtime's own needs: the statistics leave the block out. */
  allocateUncounted(bytes: number): number {
    this.#counted = false;
    try {
      return this.allocate(bytes);
    } finally {
      this.#counted = true;
    }
  }

  /** Gives back a block of `allocateUncounted`. */
  freeUncounted(address: number): void {
    this.#counted = false;
    try {
      this.free(address);
    } finally {
      this.#counted = true;
    }
  }

  /**
   * Gives a block back.
   *
   * @throws {BackendError} when no block starts at `address`: it was freed before, or never was one
   */
  free(address: number): void {
    const at = (address - this.#base) >>> granuleShift;
    const number = address >= this.#base && at < this.#granules ? this.#slabAt[at] : -1;
    if (number > 0) {
      this.#freeSmall(this.#slabs[number - 1]!, address);
      return;
    }
    const length = number === 0 && this.#base + at * granule === address ? this.#tags[at] : 0;
    if (length <= 0 || this.#next[at] !== -2) throw notABlock(address);
    this.#account(-length * granule);
    this.#release(at, length);
  }

  /** Gives empty slabs back to the large blocks' store. */
  trim(): void {
    for (const open of this.#open) {
      for (let i = open.length - 1; i >= 0; i--) {
        if (open[i].freeCount === open[i].slots) this.#dropSlab(open[i]);
      }
    }
  }

  statistics(): AllocatorStatistics {
    return {
      used: this.#used,
      peak: this.#peak,
      reserved: this.#region.bytes,
      blocks: this.#blocks,
      holes: this.#holes,
    };
  }

  resetPeak(): void {
    this.#peak = this.#used;
  }

  #account(bytes: number): void {
    if (!this.#counted) return;
    this.#used += bytes;
    this.#blocks += bytes > 0 ? 1 : -1;
    if (this.#used > this.#peak) this.#peak = this.#used;
  }

  #allocateSmall(bytes: number): number {
    const sizeClass = classOf[Math.max(1, (bytes + (alignment - 1)) >>> 6)];
    const open = this.#open[sizeClass];
    const slab = open.length > 0 ? open[open.length - 1] : this.#addSlab(sizeClass, bytes);
    const slot = slab.free[--slab.freeCount];
    slab.taken[slot] = 1;
    if (slab.freeCount === 0) {
      open.pop();
      slab.place = -1;
    }
    this.#account(slab.size);
    return slab.address + slot * slab.size;
  }

  #freeSmall(slab: Slab, address: number): void {
    const slot = (address - slab.address) / slab.size;
    if (slab.taken[slot] !== 1) throw notABlock(address); // a fraction or a free slot
    slab.taken[slot] = 0;
    slab.free[slab.freeCount++] = slot;
    this.#account(-slab.size);
    const open = this.#open[slab.sizeClass];
    if (slab.place < 0) {
      slab.place = open.length;
      open.push(slab);
    } else if (slab.freeCount === slab.slots && open.length > 1) {
      this.#dropSlab(slab); // the class keeps one slab, so that a block that comes and goes costs nothing
    }
  }

  #addSlab(sizeClass: number, wanted: number): Slab {
    const at = this.#take(slabGranules, wanted);
    const slab = new Slab(this.#base + at * granule, sizeClass, classSizes[sizeClass]);
    const number = this.#freeSlabNumbers.pop() ?? this.#slabs.length;
    this.#slabs[number] = slab;
    this.#slabAt.fill(number + 1, at, at + slabGranules);
    const open = this.#open[sizeClass];
    slab.place = open.length;
    open.push(slab);
    return slab;
  }

  #dropSlab(slab: Slab): void {
    const open = this.#open[slab.sizeClass];
    const last = open.pop()!;
    if (last !== slab) {
      open[slab.place] = last;
      last.place = slab.place;
    }
    const at = (slab.address - this.#base) >>> granuleShift;
    const number = this.#slabAt[at] - 1;
    this.#slabs[number] = undefined;
    this.#freeSlabNumbers.push(number);
    this.#slabAt.fill(0, at, at + slabGranules);
    this.#release(at, slabGranules);
  }

  #allocateLarge(bytes: number): number {
    const granules = Math.ceil(bytes / granule);
    const at = this.#take(granules, bytes);
    this.#account(granules * granule);
    return this.#base + at * granule;
  }

  /** Takes the best fitting stretch, growing the region if none fits; returns its first granule. */
  #take(granules: number, wanted: number): number {
    let at = this.#find(granules);
    if (at < 0) {
      this.#grow(granules);
      at = this.#find(granules);
    }
    if (at < 0) {
      this.trim();
      at = this.#find(granules);
    }
    if (at < 0) throw outOfMemory(wanted, this.#used, this.#region);
    const length = -this.#tags[at];
    this.#unlink(at, length);
    if (length > granules) this.#insert(at + granules, length - granules);
    this.#tag(at, granules);
    this.#next[at] = -2; // marks the start of a block, against freeing what is not one
    return at;
  }

  /**
   * The shortest free stretch of at least `granules`, or −1. The last one, which growing makes longer, only where no other will do: blocks
   * taken from it while there is room before them would let the memory grow although it is not full.
   */
  #find(granules: number): number {
    if (granules > this.#granules) return -1;
    let tail = -1;
    for (let bin = binOf(granules); bin < binCount; bin = this.#nextBin(bin + 1)) {
      let best = -1;
      let bestLength = 0;
      for (let at = this.#bins[bin]; at >= 0; at = this.#next[at]) {
        const length = -this.#tags[at];
        if (length < granules) continue;
        if (at + length === this.#granules) tail = at;
        else if (length === granules) return at;
        else if (best < 0 || length < bestLength) {
          best = at;
          bestLength = length;
        }
      }
      if (best >= 0) return best;
    }
    return tail;
  }

  #nextBin(from: number): number {
    for (let word = from >>> 5; word < this.#binBits.length; word++) {
      const bits = this.#binBits[word] & (word === from >>> 5 ? -1 << (from & 31) : -1);
      if (bits !== 0) return (word << 5) + (31 - Math.clz32(bits & -bits));
    }
    return binCount;
  }

  /** Frees a stretch and joins it with free neighbours. */
  #release(at: number, length: number): void {
    let start = at;
    let total = length;
    this.#next[at] = -1;
    if (start > 0 && this.#tags[start - 1] < 0) {
      const before = -this.#tags[start - 1];
      this.#unlink(start - before, before);
      start -= before;
      total += before;
    }
    const end = at + length;
    if (end < this.#granules && this.#tags[end] < 0) {
      const after = -this.#tags[end];
      this.#unlink(end, after);
      total += after;
    }
    this.#insert(start, total);
  }

  #tag(at: number, value: number): void {
    const length = Math.abs(value);
    this.#tags[at] = value;
    this.#tags[at + length - 1] = value;
  }

  #insert(at: number, length: number): void {
    this.#tag(at, -length);
    const bin = binOf(length);
    const head = this.#bins[bin];
    this.#next[at] = head;
    this.#previous[at] = -1;
    if (head >= 0) this.#previous[head] = at;
    this.#bins[bin] = at;
    this.#binBits[bin >>> 5] |= 1 << (bin & 31);
    this.#holes++;
  }

  #unlink(at: number, length: number): void {
    const bin = binOf(length);
    const before = this.#previous[at];
    const after = this.#next[at];
    if (before >= 0) this.#next[before] = after;
    else this.#bins[bin] = after;
    if (after >= 0) this.#previous[after] = before;
    if (this.#bins[bin] < 0) this.#binBits[bin >>> 5] &= ~(1 << (bin & 31));
    this.#holes--;
  }

  /**
   * Grows the region for a stretch of `granules`; growing costs little, so it takes some more than it needs. Not much more, for all
   * of it is touched sooner or later: blocks that stay are put behind blocks that come and go.
   */
  #grow(granules: number): void {
    let tail = 0;
    if (this.#granules > 0 && this.#tags[this.#granules - 1] < 0) tail = -this.#tags[this.#granules - 1];
    const end = this.#base + this.#granules * granule;
    // The last granule of the region is never handed out: kernels may read a little beyond a block's end.
    const needed = end + (granules - tail + 1) * granule;
    const generous = needed + Math.min(8 << 20, Math.max(1 << 20, needed >>> 3));
    if (!this.#region.grow(Math.min(generous, this.#region.maximumBytes)) || this.#region.bytes < needed) {
      this.#region.grow(needed);
    }
    this.#cover();
  }

  /** Takes what the region has gained into the tables, as free. */
  #cover(): void {
    const granules = Math.floor((this.#region.bytes - this.#base) / granule) - 1;
    const gained = granules - this.#granules;
    if (gained <= 0) return;
    if (granules > this.#tags.length) {
      const size = Math.max(granules, this.#tags.length * 2, 1024);
      this.#tags = resized(this.#tags, size);
      this.#slabAt = resized(this.#slabAt, size);
      this.#next = resized(this.#next, size);
      this.#previous = resized(this.#previous, size);
    }
    const at = this.#granules;
    this.#granules = granules;
    this.#release(at, gained);
  }
}

function resized(old: Int32Array, size: number): Int32Array<ArrayBuffer> {
  const array = new Int32Array(size);
  array.set(old);
  return array;
}

function notABlock(address: number): BackendError {
  return new BackendError(`wasm: no allocated block starts at address ${address}: freed twice?`);
}

function outOfMemory(wanted: number, used: number, region: Region): OutOfMemoryError {
  const mib = (bytes: number) => `${(bytes / 1048576).toFixed(1)} MiB`;
  return new OutOfMemoryError(
    `wasm: out of memory: wanted ${mib(wanted)} with ${mib(used)} in use of at most ${mib(region.maximumBytes)}; ` +
      "dispose of tensors that are no longer needed, or wrap steps in tidy()",
    wanted,
    used,
  );
}
