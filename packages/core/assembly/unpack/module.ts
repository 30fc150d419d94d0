// Puts a module together from its packed parts, as scripts/pack-kernels.mjs takes it apart: the numbers of locals stand apart from all
// else, since both repeat better alone, and sizes of functions are left out. On the way it can do without relaxed SIMD.

/** Where the next bytes are read that are no numbers of locals, where those numbers are, and where the module is written. */
let code: usize = 0;
let locals: usize = 0;
let output: usize = 0;
/** One more than the number of the v128 local that keeps the last operand of a fused multiply-add; 0 where relaxed instructions stay. */
let spare: i32 = 0;
/** What `number` read. */
let last: i32 = 0;

function put(byte: i32): void {
  store<u8>(output++, byte);
}

function byte(): i32 {
  const value = <i32>load<u8>(code++);
  put(value);
  return value;
}

/** Copies an integer in LEB128; returns where it ends. */
function number(from: usize): usize {
  last = 0;
  let shift = 0, part = 0;
  do {
    part = <i32>load<u8>(from++);
    put(part);
    last |= (part & 127) << shift;
    shift += 7;
  } while (part > 127);
  return from;
}

function copy(count: i32): void {
  for (; count > 0; count--) byte();
}

/** `local.get`, or `local.set`, of the spare local. */
function useSpare(operation: i32): void {
  const local = spare - 1;
  put(operation);
  put(local | 128);
  put(local >> 7);
}

function simd(operation: i32): void {
  put(0xfd);
  put(operation);
  put(1);
}

/** a·b + c in the place of the fused instruction, `i8x16.swizzle` in that of the relaxed one. */
function plain(relaxed: i32): void {
  output -= 3;
  if (relaxed == 0x100) {
    put(0xfd);
    put(14);
    return;
  }
  useSpare(0x21);
  simd(0xe6);
  useSpare(0x20);
  simd(0xe4);
}

/** Copies one instruction; returns by how much blocks are nested deeper after it. */
function instruction(): i32 {
  const operation = byte();
  if (operation == 0x0b) return -1;
  // Numbers that follow, and bytes after these.
  let numbers = i32(operation == 0x10 || operation == 0x0c || operation == 0x0d || (operation >= 0x23 && operation < 0x43));
  let bytes = 0;
  if (operation == 0x11 || (operation >= 0x28 && operation < 0x3f)) numbers = 2;
  else if (operation >= 0x20 && operation < 0x23) locals = number(locals);
  else if (operation >= 0x02 && operation < 0x05) {
    byte();
    return 1;
  } else if (operation == 0x0e) {
    code = number(code);
    numbers = last + 1;
  } else if (operation == 0x43) bytes = 4;
  else if (operation == 0x44) bytes = 8;
  else if (operation >= 0xfc) {
    code = number(code);
    const second = last;
    if (operation == 0xfe) numbers = 2;
    else if (operation == 0xfc) numbers = max(0, 12 - second) & -i32(second >= 10);
    else if (second >= 0x100) {
      if (spare) plain(second);
    } else {
      if (second < 12 || (second >= 84 && second < 94)) numbers = 2;
      if (second == 12 || second == 13) bytes = 16;
      else if ((second >= 21 && second < 35) || (second >= 84 && second < 92)) bytes = 1;
    }
  }
  for (; numbers > 0; numbers--) code = number(code);
  copy(bytes);
  return 0;
}

/** Room for a size of five bytes, told afterwards; returns where what it counts begins. */
function reserve(): usize {
  output += 5;
  return output;
}

function tell(start: usize): void {
  const size = output - start;
  store<u32>(start - 5, (size & 0x7f) | ((size & 0x3f80) << 1) | ((size & 0x1fc000) << 2) | ((size & 0xfe00000) << 3) | 0x80808080);
  store<u8>(start - 1, size >> 28);
}

function body(fallback: bool): void {
  // What `spare` is comes first, and is not part of the module.
  const start = reserve();
  code = number(code);
  output = start;
  spare = fallback ? last : 0;
  code = number(code);
  if (spare) store<u8>(start, last + 1);
  for (let runs = last; runs > 0; runs--) {
    code = number(code);
    byte();
  }
  if (spare) {
    put(1);
    put(0x7b);
  }
  for (let depth = 1; depth > 0; ) depth += instruction();
  tell(start);
}

/**
 * Writes a module to `target` from the numbers of locals at `numbers` and the rest of it at `start`, up to `end`; with `fallback`
 * without relaxed SIMD. Returns its end.
 */
export function assemble(numbers: usize, start: usize, end: usize, target: usize, fallback: bool): usize {
  locals = numbers;
  code = start;
  output = target;
  copy(8);
  while (code < end) {
    if (byte() != 10) {
      code = number(code);
      copy(last);
      continue;
    }
    const functions = reserve();
    code = number(code);
    for (let count = last; count > 0; count--) body(fallback);
    tell(functions);
  }
  return output;
}
