// How a compiled kernel module is packed into a TypeScript file: the numbers of locals apart from all else, both as one LZMA stream. Sizes
// of functions are left out, and what a host without relaxed SIMD needs to know is put in. packages/core/assembly/unpack undoes it.

import { compress } from "./lzma.mjs";

/** A module taken apart: numbers of locals, and the rest. */
export function takeApart(module) {
  let at = 0;
  const code = [];
  const locals = [];
  const read = () => {
    if (at >= module.length) throw new Error("pack-kernels: the module ends too early");
    return module[at++];
  };
  const number = (out) => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const part = read();
      out?.push(part);
      value += (part & 127) * 2 ** shift;
      if (part < 128) return value;
    }
  };
  const copy = (count) => {
    for (let i = 0; i < count; i++) code.push(read());
  };
  const fail = (what) => {
    throw new Error(`pack-kernels: ${what} at byte ${at}`);
  };

  /** Copies an instruction; returns by how much blocks are nested deeper after it. */
  function instruction(uses) {
    const operation = read();
    code.push(operation);
    if (operation === 0x0b) return -1;
    if (operation >= 0x02 && operation <= 0x04) {
      copy(1);
      return 1;
    }
    if (operation >= 0x20 && operation <= 0x22) number(locals);
    else if (operation === 0x11 || (operation >= 0x28 && operation <= 0x3e)) {
      number(code);
      number(code);
    } else if ([0x0c, 0x0d, 0x10, 0x23, 0x24, 0x3f, 0x40, 0x41, 0x42].includes(operation)) number(code);
    else if (operation === 0x0e) for (let count = number(code) + 1; count > 0; count--) number(code);
    else if (operation === 0x43) copy(4);
    else if (operation === 0x44) copy(8);
    else if (operation >= 0xfc) {
      const second = number(code);
      if (operation === 0xfc && second < 8) return 0;
      if (operation === 0xfc && second < 12 && second > 9) copy(12 - second);
      else if (operation === 0xfe) {
        number(code);
        number(code);
      } else if (operation === 0xfd) {
        if (second < 12 || (second >= 84 && second < 94)) {
          number(code);
          number(code);
        }
        if (second === 12 || second === 13) copy(16);
        else if ((second >= 21 && second < 35) || (second >= 84 && second < 92)) copy(1);
        // Swizzle, fused multiply-adds of float32, and the dot product that never runs without relaxed SIMD.
        if (second >= 0x100 && ![0x100, 0x105, 0x113].includes(second))
          fail("an unknown relaxed instruction");
        if (second >= 0x100) uses.relaxed = true;
      } else fail(`no way to pack the instruction ${operation} ${second}`);
    } else if ((operation > 0x05 && operation < 0x0b) || [0x12, 0x13, 0x1c].includes(operation))
      fail(`no way to pack the instruction ${operation}`);
    return 0;
  }

  const parameters = [];
  let functions = [];
  copy(8);
  while (at < module.length) {
    const id = read();
    code.push(id);
    if (id !== 10) {
      const size = number(code);
      const end = at + size;
      const start = at;
      copy(size);
      at = start;
      if (id === 1) {
        for (let types = number(); types > 0; types--) {
          if (read() !== 0x60) fail("an unknown type");
          const count = number();
          parameters.push(count);
          at += count;
          const results = number();
          at += results;
        }
      } else if (id === 3) functions = Array.from({ length: number() }, () => parameters[number()]);
      at = end;
      continue;
    }
    number();
    number(code);
    for (const count of functions) {
      const end = number() + at;
      // One more than the number of the first free local, where it is needed.
      const place = code.length;
      let free = count + 1;
      for (let runs = number(code); runs > 0; runs--) {
        free += number(code);
        copy(1);
      }
      const uses = { relaxed: false };
      for (let depth = 1; depth > 0; ) depth += instruction(uses);
      if (at !== end) fail("a function does not end where it should");
      if (free >= 2 ** 14) fail("a function has too many locals");
      code.splice(
        place,
        0,
        ...(uses.relaxed ? (free < 128 ? [free] : [(free & 127) | 128, free >> 7]) : [0]),
      );
    }
  }
  return { locals: Buffer.from(locals), code: Buffer.from(code) };
}

/** A compiled module as core's `PackedBuilds`. */
export function packKernels(module) {
  const { locals, code } = takeApart(module);
  return {
    locals: locals.length,
    code: code.length,
    data: compress(Buffer.concat([locals, code])).toString("base64"),
  };
}
