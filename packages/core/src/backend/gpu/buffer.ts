// The memory blocks of the gpu backend. A block has at most one of these contents: bytes that the host wrote and the device has not
// seen, one value for all elements, or an array on the device. Small blocks that the host wrote keep their bytes beside the array,
// so that what the host wrote can be read at once. Bytes for kernels of packed weights lie three in a float, for 24 bits are exact.

import { bytesPerElement, type DType, isFloat, viewAs } from "../../dtype.js";
import { BackendError } from "../../errors.js";
import { encoder } from "../reference/elementwise.js";
import { fromBfloat16Bits, fromFloat16Bits } from "../reference/half.js";
import type { BufferHandle, Operand } from "../types.js";
import type { Device, DeviceArray } from "./device.js";

/** Largest block whose bytes the host keeps once the device has them. */
const keptBytes = 2 ** 20;

/** Integers up to this magnitude are exact in the device's floats. */
export const exactIntegers = 2 ** 24;

export class GpuBuffer implements BufferHandle {
  readonly bytes: number;
  /** What the host wrote; never changed in place, because reads share it. */
  host: Uint8Array | null = null;
  /** The value of every element, of `dtype`. */
  constant: number | null = null;
  array: DeviceArray | null = null;
  /** The bytes, three in a float, beside or in the place of `host`. */
  packed: DeviceArray | null = null;
  /** Of `constant`, `array` or `packed`. */
  dtype: DType | null = null;
  freed = false;

  constructor(bytes: number) {
    this.bytes = bytes;
  }
}

/** Our own kind of block. @throws {BackendError} after it was freed */
export function bufferOf(handle: BufferHandle): GpuBuffer {
  const buffer = handle as GpuBuffer;
  if (buffer.freed) throw new BackendError("gpu: a kernel was given a buffer that was freed");
  return buffer;
}

/** Elements of `operand`'s dtype in its whole block. */
export function extentOf(operand: Operand): number {
  return operand.buffer.bytes / bytesPerElement(operand.dtype);
}

/** Forgets the contents. */
export function clear(device: Device, buffer: GpuBuffer): void {
  if (buffer.array) device.release(buffer.array);
  if (buffer.packed) device.release(buffer.packed);
  buffer.packed = null;
  buffer.host = null;
  buffer.constant = null;
  buffer.array = null;
  buffer.dtype = null;
}

/** Takes over `array`, one reference included. */
export function setArray(device: Device, buffer: GpuBuffer, array: DeviceArray, dtype: DType): void {
  clear(device, buffer);
  buffer.array = array;
  buffer.dtype = dtype;
}

export function setConstant(device: Device, buffer: GpuBuffer, value: number, dtype: DType): void {
  clear(device, buffer);
  buffer.constant = value;
  buffer.dtype = dtype;
}

export function setHost(device: Device, buffer: GpuBuffer, bytes: Uint8Array): void {
  clear(device, buffer);
  buffer.host = bytes;
}

function decode(dtype: DType, bytes: Uint8Array): Float32Array {
  const elements = viewAs(dtype, bytes.slice().buffer, 0, bytes.length / bytesPerElement(dtype));
  if (dtype === "float32") return elements as Float32Array;
  if (dtype === "float16") return Float32Array.from(elements, fromFloat16Bits);
  if (dtype === "bfloat16") return Float32Array.from(elements, fromBfloat16Bits);
  if (dtype === "int32") {
    for (const value of elements) {
      if (Math.abs(value) > exactIntegers) {
        throw new BackendError(
          `gpu: int32 ${value} does not fit the device, whose integers are exact up to ±2²⁴; compute with it on another backend`,
        );
      }
    }
  }
  return Float32Array.from(elements);
}

/** The bytes of device values as `dtype`. */
export function encode(dtype: DType, values: Float32Array): Uint8Array {
  if (dtype === "float32") return new Uint8Array(values.slice().buffer);
  const elements = viewAs(dtype, new ArrayBuffer(values.length * bytesPerElement(dtype)), 0, values.length);
  const toElement = encoder(dtype);
  for (let i = 0; i < values.length; i++) elements[i] = toElement(values[i]);
  return new Uint8Array(elements.buffer);
}

function checkDType(held: DType | null, wanted: DType): void {
  const bytes = (dtype: DType) => dtype === "bool" || dtype === "uint8";
  if (held !== null && held !== wanted && !(bytes(held) && bytes(wanted))) {
    throw new BackendError(`gpu: a buffer of ${held} cannot be seen as ${wanted}`);
  }
}

/** `value` as an element of `dtype` holds it. */
export function storable(dtype: DType, value: number): number {
  return isFloat(dtype) ? decode(dtype, repeated(dtype, value, 1))[0] : encoder(dtype)(value);
}

/** `count` elements of `value` as bytes. */
export function repeated(dtype: DType, value: number, count: number): Uint8Array {
  const size = bytesPerElement(dtype);
  const elements = viewAs(dtype, new ArrayBuffer(count * size), 0, count);
  elements.fill(encoder(dtype)(value));
  return new Uint8Array(elements.buffer);
}

/** The constant that all elements are, or null. A block that nobody wrote, or that has no elements, counts as zeros. */
export function constantOf(operand: Operand): number | null {
  const buffer = bufferOf(operand.buffer);
  if (buffer.bytes === 0) return 0;
  if (buffer.array || buffer.host || buffer.packed) return null;
  if (buffer.constant === null) return 0;
  checkDType(buffer.dtype, operand.dtype);
  return buffer.constant;
}

/** The block's array on the device, uploaded if the device has none; still the block's own. */
export function arrayOf(device: Device, operand: Operand): DeviceArray {
  const buffer = bufferOf(operand.buffer);
  if (buffer.array) {
    checkDType(buffer.dtype, operand.dtype);
    return buffer.array;
  }
  const value = constantOf(operand);
  const values =
    value === null ? decode(operand.dtype, buffer.host!) : new Float32Array(extentOf(operand)).fill(value);
  buffer.array = device.upload(values);
  buffer.dtype = operand.dtype;
  buffer.constant = null;
  if (buffer.host && buffer.bytes > keptBytes) buffer.host = null;
  return buffer.array;
}

/** Bytes in one float of a packed array. */
export const bytesOfFloat = 3;

/** Bytes that the host wrote, three in a float; null for other contents. */
export function packedBytesOf(device: Device, operand: Operand): DeviceArray | null {
  const buffer = bufferOf(operand.buffer);
  if (buffer.packed) return buffer.packed;
  const { host } = buffer;
  if (!host || (operand.dtype !== "uint8" && operand.dtype !== "int8")) return null;
  const words = new Float32Array(Math.ceil(host.length / bytesOfFloat));
  for (let i = 0; i < words.length; i++) {
    const at = i * bytesOfFloat;
    words[i] = host[at] + 256 * (host[at + 1] ?? 0) + 65536 * (host[at + 2] ?? 0);
  }
  buffer.packed = device.upload(words);
  buffer.dtype = operand.dtype;
  if (buffer.bytes > keptBytes) buffer.host = null;
  return buffer.packed;
}

/** `count` of the bytes in `words`, from number `from` on. */
export function unpackBytes(words: Float32Array, from: number, count: number): Uint8Array {
  const result = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const word = Math.floor((from + i) / bytesOfFloat);
    result[i] = words[word] >>> (8 * (from + i - word * bytesOfFloat));
  }
  return result;
}

/** The bytes as far as the host knows them without asking the device, or null. */
export function hostBytes(handle: BufferHandle): Uint8Array | null {
  const buffer = bufferOf(handle);
  if (buffer.host) return buffer.host;
  if (buffer.array || buffer.packed) return null;
  if (buffer.constant === null) return new Uint8Array(buffer.bytes);
  return repeated(buffer.dtype!, buffer.constant, buffer.bytes / bytesPerElement(buffer.dtype!));
}
