// Kernels that misbehave, for tests of the pool. Compiled as core's are, with --memoryBase 65536, from:
//
//   export function scratchOf(args: usize, begin: i32, end: i32, scratch: usize): void {
//     store<u32>(load<u32>(args), <u32>scratch);
//   }
//   export function trap(args: usize, begin: i32, end: i32, scratch: usize): void {
//     if (begin == load<i32>(args)) unreachable();
//   }
//   export function mark(args: usize, begin: i32, end: i32, scratch: usize): void {
//     for (let i = begin; i < end; i++) atomic.add<i32>(load<u32>(args) + (<usize>i) * 4, 1);
//   }
//   // Every thread but the caller, whose scratch is the second argument, stays for ever; the caller waits for one.
//   export function hang(args: usize, begin: i32, end: i32, scratch: usize): void {
//     const flag: usize = load<u32>(args);
//     if (scratch == load<u32>(args, 4)) { while (atomic.load<i32>(flag) == 0) {} return; }
//     atomic.store<i32>(flag, 1);
//     while (true) { if (atomic.load<i32>(flag) == 2) unreachable(); }
//   }

import { packKernels } from "../../../../scripts/pack-kernels.mjs";

const wasm =
  "AGFzbQEAAAABCAFgBH9/f38AAhIBA2VudgZtZW1vcnkCAxCAgAQDBQQAAAAABysFCXNjcmF0Y2hPZgABBHRyYXAAAARtYXJrAAIEaGFuZwADBm1lbW9yeQIACn8EDgAgASAAKAIARgRAAAsLDAAgACgCACADNgIACygAA0AgASACSARAIAAoAgAgAUECdGpBAf4eAgAaIAFBAWohAQwBCwsLOAAgACgCACEBIAMgACgCBEYEQANAIAH+EAIARQ0ACw8LIAFBAf4XAgADQCAB/hACAEECRw0ACwAL";

export const testKernelBytes = Buffer.from(wasm, "base64");

export const testKernels = packKernels(testKernelBytes);
