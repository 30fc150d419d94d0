import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Allocator, type Region } from "../../src/backend/wasm/allocator.js";
import { OutOfMemoryError } from "../../src/errors.js";

const base = 262144;

/** Memory that is only counted. */
class Counted implements Region {
  bytes = 1 << 20;
  constructor(readonly maximumBytes: number) {}

  grow(bytes: number): boolean {
    if (bytes > this.maximumBytes) return false;
    this.bytes = Math.max(this.bytes, bytes);
    return true;
  }
}

/** Sizes around the borders of classes and of the large blocks, and large ones. */
const size = fc.oneof(
  fc.integer({ min: 0, max: 700 }),
  fc.integer({ min: 0, max: 20_000 }),
  fc.constantFrom(8191, 8192, 8193, 65536, 65537),
  fc.integer({ min: 0, max: 3_000_000 }),
);

/** Allocate so many bytes, or free one of the blocks. */
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ allocate: size }) },
  { weight: 2, arbitrary: fc.record({ free: fc.nat() }) },
);

describe("Allocator", () => {
  it("never overlaps blocks, stays in the region, and coalesces everything into one hole", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const region = new Counted(64 << 20);
        const allocator = new Allocator(region, base);
        const blocks: { address: number; bytes: number }[] = [];
        let used = 0;
        let peak = 0;
        for (const action of steps) {
          if ("allocate" in action) {
            let address: number;
            try {
              address = allocator.allocate(action.allocate);
            } catch (error) {
              expect(error).toBeInstanceOf(OutOfMemoryError);
              continue;
            }
            expect(address % 64).toBe(0);
            expect(address).toBeGreaterThanOrEqual(base);
            expect(address + action.allocate + 64).toBeLessThanOrEqual(region.bytes);
            blocks.push({ address, bytes: Math.max(1, action.allocate) });
          } else if (blocks.length > 0) {
            const [{ address }] = blocks.splice(action.free % blocks.length, 1);
            allocator.free(address);
          }
          used = allocator.statistics().used;
          peak = Math.max(peak, used);
        }
        const sorted = blocks.toSorted((a, b) => a.address - b.address);
        for (let i = 1; i < sorted.length; i++) {
          expect(sorted[i].address).toBeGreaterThanOrEqual(sorted[i - 1].address + sorted[i - 1].bytes);
        }
        const asked = blocks.reduce((sum, { bytes }) => sum + bytes, 0);
        expect(used).toBeGreaterThanOrEqual(asked);
        expect(allocator.statistics()).toMatchObject({ blocks: blocks.length, peak, reserved: region.bytes });
        for (const { address } of blocks) {
          allocator.free(address);
          expect(() => allocator.free(address)).toThrow(/freed twice/);
        }
        allocator.trim();
        expect(allocator.statistics()).toMatchObject({ used: 0, blocks: 0, holes: 1 });
        allocator.resetPeak();
        expect(allocator.statistics().peak).toBe(0);
      }),
      { numRuns: 150 },
    );
  });

  it("hands out a freed block again at once", () => {
    const allocator = new Allocator(new Counted(64 << 20), base);
    for (const bytes of [1, 64, 1000, 8192, 8193, 100_000, 5_000_000]) {
      const address = allocator.allocate(bytes);
      allocator.free(address);
      expect(allocator.allocate(bytes)).toBe(address);
    }
  });

  it("takes the best fitting hole", () => {
    const allocator = new Allocator(new Counted(64 << 20), base);
    const blocks = [9, 1, 5, 1, 7, 1].map((granules) => allocator.allocate(granules * 16384));
    for (const i of [0, 2, 4]) allocator.free(blocks[i]);
    expect(allocator.allocate(6 * 16384)).toBe(blocks[4]);
    expect(allocator.allocate(5 * 16384)).toBe(blocks[2]);
  });

  it("takes nothing from the end of the memory while there is room before it", () => {
    const region = new Counted(64 << 20);
    const allocator = new Allocator(region, base);
    const blocks = Array.from({ length: 8 }, (_, i) => allocator.allocate(i < 7 ? 1 << 20 : 1 << 19));
    for (const block of blocks.slice(0, 7)) allocator.free(block);
    // What is left at the end would fit better than the hole of 7 MiB.
    expect(region.bytes - blocks[7] - (1 << 19)).toBeGreaterThan(1 << 18);
    for (let i = 0; i < 27; i++) expect(allocator.allocate(1 << 18)).toBeLessThan(blocks[7]);
  });

  it("wastes at most a quarter of a block beyond 64 bytes", () => {
    const allocator = new Allocator(new Counted(64 << 20), base);
    for (let bytes = 64; bytes <= 8192; bytes += 61) {
      const before = allocator.statistics().used;
      allocator.allocate(bytes);
      expect(allocator.statistics().used - before).toBeLessThan(bytes * 1.25 + 64);
    }
  });

  it("says how much was wanted and used when it is exhausted, and goes on working", () => {
    const allocator = new Allocator(new Counted(4 << 20), base);
    const small = allocator.allocate(100);
    const large = allocator.allocate(2 << 20);
    const { used, blocks } = allocator.statistics();
    let thrown: unknown;
    try {
      allocator.allocate(3 << 20);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(OutOfMemoryError);
    expect(thrown).toMatchObject({ wanted: 3 << 20, used });
    expect(allocator.statistics()).toMatchObject({ used, blocks });
    expect(() => allocator.allocate(2 ** 33)).toThrow(OutOfMemoryError);
    allocator.free(large);
    allocator.free(allocator.allocate(3 << 20));
    allocator.free(small);
  });

  it("refuses addresses that no block starts at", () => {
    const allocator = new Allocator(new Counted(64 << 20), base);
    const small = allocator.allocate(128);
    const large = allocator.allocate(100_000);
    for (const address of [
      0,
      64,
      base - 64,
      small + 64,
      small + 128,
      large + 4096,
      large + 64,
      2 ** 32,
      Number.NaN,
    ]) {
      expect(() => allocator.free(address)).toThrow(/no allocated block/);
    }
  });

  it("leaves blocks of the runtime's own out of the statistics", () => {
    const allocator = new Allocator(new Counted(64 << 20), base);
    const address = allocator.allocateUncounted(1 << 20);
    expect(allocator.statistics()).toMatchObject({ used: 0, blocks: 0 });
    allocator.freeUncounted(address);
    expect(allocator.statistics()).toMatchObject({ used: 0, blocks: 0, holes: 1 });
  });
});
