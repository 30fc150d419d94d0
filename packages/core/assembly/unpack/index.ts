// Decompression of LZMA (I. Pavlov, LZMA specification), with which the kernels' modules are packed by scripts/lzma.mjs: 3 bits of
// literal context, none of position, no header. A module of its own, which unpacks the others; module.ts puts them together then.

export { assemble } from "./module";

// Where each family of probabilities begins, in uint16 from address 0 on; the first six have one for each of 12 states.
const IS_REP: i32 = 12;
const IS_REP_0: i32 = 24;
const IS_REP_1: i32 = 36;
const IS_REP_2: i32 = 48;
const IS_REP_0_LONG: i32 = 60;
const SLOTS: i32 = 72;
const SPECIAL: i32 = SLOTS + 4 * 64;
const ALIGN: i32 = SPECIAL + 115;
const LENGTHS: i32 = ALIGN + 16;
const REP_LENGTHS: i32 = LENGTHS + 274;
const LITERALS: i32 = REP_LENGTHS + 274;
const COUNT: i32 = LITERALS + 8 * 0x300;

let position: usize = 0;
let range: u32 = 0;
let code: u32 = 0;

function normalize(): void {
  if (range >= 0x1000000) return;
  range <<= 8;
  code = (code << 8) | load<u8>(position++);
}

function bit(index: i32): i32 {
  const place = (<usize>index) << 1;
  const chance = <u32>load<u16>(place);
  const bound = (range >> 11) * chance;
  const one = code >= bound;
  if (one) {
    range -= bound;
    code -= bound;
    store<u16>(place, chance - (chance >> 5));
  } else {
    range = bound;
    store<u16>(place, chance + ((2048 - chance) >> 5));
  }
  normalize();
  return i32(one);
}

function tree(base: i32, count: i32): i32 {
  let node = 1;
  for (let i = 0; i < count; i++) node = node * 2 + bit(base + node);
  return node - (1 << count);
}

function reverseTree(base: i32, count: i32): i32 {
  let node = 1;
  let value = 0;
  for (let i = 0; i < count; i++) {
    const one = bit(base + node);
    node = node * 2 + one;
    value |= one << i;
  }
  return value;
}

function length(base: i32): i32 {
  if (!bit(base)) return 2 + tree(base + 2, 3);
  return bit(base + 1) ? 18 + tree(base + 18, 8) : 10 + tree(base + 10, 3);
}

function distance(matchLength: i32): i32 {
  const slot = tree(SLOTS + 64 * min(matchLength - 2, 3), 6);
  if (slot < 4) return slot;
  const footer = (slot >> 1) - 1;
  const base = (2 | (slot & 1)) << footer;
  if (slot < 14) return base + reverseTree(SPECIAL + base - slot, footer);
  let value = 0;
  for (let i = footer; i > 4; i--) {
    range >>= 1;
    const one = code >= range;
    if (one) code -= range;
    value = value * 2 + i32(one);
    normalize();
  }
  return base + value * 16 + reverseTree(ALIGN, 4);
}

/**
 * Decompresses `size` bytes to `output` from the stream at `source`, which may go on; returns where in the stream it stopped, 0 when
 * the stream is damaged. The first 16 KiB of the memory are its own.
 */
export function unpack(source: usize, output: usize, size: usize): usize {
  for (let i = 0; i < COUNT; i++) store<u16>((<usize>i) << 1, 1024);
  position = source + 5;
  range = 0xffffffff;
  code = bswap<u32>(load<u32>(source, 1));
  let state = 0;
  let rep0: usize = 0;
  let rep1: usize = 0;
  let rep2: usize = 0;
  let rep3: usize = 0;
  const end = output + size;
  for (let at = output; at < end; ) {
    if (!bit(state)) {
      const base = LITERALS + 0x300 * (at > output ? <i32>load<u8>(at - 1) >> 5 : 0);
      let like = state < 7 ? -1 : <i32>load<u8>(at - rep0 - 1);
      let node = 1;
      while (node < 256) {
        if (like < 0) node = node * 2 + bit(base + node);
        else {
          const expected = (like >> 7) & 1;
          const one = bit(base + ((1 + expected) << 8) + node);
          like = expected == one ? (like << 1) & 255 : -1;
          node = node * 2 + one;
        }
      }
      store<u8>(at++, node);
      state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
      continue;
    }
    let count = 1;
    if (!bit(IS_REP + state)) {
      count = length(LENGTHS);
      rep3 = rep2;
      rep2 = rep1;
      rep1 = rep0;
      rep0 = distance(count);
      state = state < 7 ? 7 : 10;
    } else {
      let short = false;
      if (!bit(IS_REP_0 + state)) short = !bit(IS_REP_0_LONG + state);
      else {
        let back = rep1;
        if (bit(IS_REP_1 + state)) {
          back = rep2;
          if (bit(IS_REP_2 + state)) {
            back = rep3;
            rep3 = rep2;
          }
          rep2 = rep1;
        }
        rep1 = rep0;
        rep0 = back;
      }
      if (!short) count = length(REP_LENGTHS);
      state = state < 7 ? (short ? 9 : 8) : 11;
    }
    if (rep0 >= at - output) return 0;
    for (const stop = min(at + <usize>count, end); at < stop; at++) store<u8>(at, load<u8>(at - rep0 - 1));
  }
  return position;
}
