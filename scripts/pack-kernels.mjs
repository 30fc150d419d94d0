// How a compiled kernel module is packed into a TypeScript file: the numbers of locals apart from all else, both as one LZMA stream, and
// functions beside those that they are alike. Sizes of functions are left out, and what a host without relaxed SIMD needs to know is put in. packages/core/assembly/unpack undoes it.

import { compress } from "./lzma.mjs";
import { bySimilarity } from "./order-functions.mjs";

const sections = { type: 1, function: 3, export: 7, start: 8, element: 9, code: 10 };

/** Unsigned LEB128. */
function leb(value) {
  return value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)];
}

/**
 * A module that imports no functions taken apart: numbers of locals, and the rest. Its functions come in the order of their numbers
 * in `order`.
 */
function split(module, order) {
  let at = 0;
  /** Where what is read goes. */
  let code = [];
  let locals = [];
  const fail = (what) => {
    throw new Error(`pack-kernels: ${what} at byte ${at}`);
  };
  const read = () => (at < module.length ? module[at++] : fail("the module ends too early"));
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
  const functionNumber = () => {
    const value = number();
    code.push(...leb(order ? order.indexOf(value) : value));
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
    } else if (operation === 0x10) functionNumber();
    else if ([0x0c, 0x0d, 0x23, 0x24, 0x3f, 0x40, 0x41, 0x42].includes(operation)) number(code);
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
  let types = [];
  let bodies = [];
  const contents = {
    [sections.type](end) {
      const start = at;
      for (let count = number(); count > 0; count--) {
        if (read() !== 0x60) fail("an unknown type");
        parameters.push(number());
        at += parameters.at(-1);
        const results = number();
        at += results;
      }
      at = start;
      copy(end - start);
    },
    [sections.function]() {
      types = Array.from({ length: number(code) }, () => number());
      for (const which of order ?? types.keys()) code.push(...leb(types[which]));
    },
    [sections.export]() {
      for (let count = number(code); count > 0; count--) {
        copy(number(code));
        code.push(read());
        if (code.at(-1) === 0) functionNumber();
        else number(code);
      }
    },
    [sections.start]: () => fail("no way to pack a start section"),
    [sections.element]() {
      for (let count = number(code); count > 0; count--) {
        copy(2);
        if (code.at(-2) !== 0 || code.at(-1) !== 0x41) fail("unknown elements");
        number(code);
        copy(1);
        for (let functions = number(code); functions > 0; functions--) functionNumber();
      }
    },
  };

  function body(type) {
    const end = number() + at;
    // One more than the number of the first free local, where it is needed.
    let free = parameters[type] + 1;
    for (let runs = number(code); runs > 0; runs--) {
      free += number(code);
      copy(1);
    }
    const uses = { relaxed: false };
    for (let depth = 1; depth > 0; ) depth += instruction(uses);
    if (at !== end) fail("a function does not end where it should");
    if (free >= 2 ** 14) fail("a function has too many locals");
    code.unshift(...(uses.relaxed ? leb(free) : [0]));
  }

  copy(8);
  while (at < module.length) {
    const whole = [code, locals];
    const id = read();
    const size = number();
    const end = at + size;
    if (id === sections.code) {
      const count = number();
      bodies = types.map((type) => {
        [code, locals] = [[], []];
        body(type);
        return { code, locals };
      });
      [code, locals] = whole;
      code.push(id, ...leb(count));
      for (const which of order ?? types.keys()) {
        for (const byte of bodies[which].code) code.push(byte);
        for (const byte of bodies[which].locals) locals.push(byte);
      }
    } else {
      code = [];
      if (contents[id]) contents[id](end);
      else copy(size);
      const content = code;
      code = whole[0];
      code.push(id, ...leb(content.length));
      for (const byte of content) code.push(byte);
    }
    if (at !== end) fail("a section does not end where it should");
  }
  return { locals: Buffer.from(locals), code: Buffer.from(code), bodies };
}

/** A module taken apart: numbers of locals, and the rest. */
export function takeApart(module) {
  return split(module);
}

/** A compiled module as core's `PackedBuilds`. */
export function packKernels(module) {
  const { locals, code } = split(module, bySimilarity(split(module).bodies.map((body) => body.code)));
  return {
    locals: locals.length,
    code: code.length,
    data: compress(Buffer.concat([locals, code])).toString("base64"),
  };
}
