// Bookkeeping on the host: positions, masks, targets. A primitive on integers and booleans whose operands the host all knows is
// computed there, exactly, by the reference backend's code. Such results are known to the host in turn, so that they can be read at
// once and checked. Floats are always computed on the device.

import { bytesPerElement, isFloat } from "../../dtype.js";
import { sizeOf } from "../../size.js";
import type { ReferenceBuffer } from "../reference/strided.js";
import type { Operand } from "../types.js";
import { bufferOf, hostBytes, setHost } from "./buffer.js";
import type { Device } from "./device.js";

/** Most elements of one operand; larger ones are worth the device's threads. */
const maxElements = 2 ** 18;

/** The operand over a copy of its bytes, as the reference backend takes it; null when the host does not know them. */
function onHost(operand: Operand): Operand | null {
  const bytes = hostBytes(operand.buffer);
  if (!bytes) return null;
  const buffer: ReferenceBuffer = { bytes: bytes.length, data: bytes.slice().buffer };
  return { ...operand, buffer };
}

/** Runs `fn` on the host when that knows all operands, `out` among them; false when the device has to. */
export function computeOnHost(
  device: Device,
  inputs: readonly Operand[],
  out: Operand,
  fn: (inputs: Operand[], out: Operand) => void,
): boolean {
  for (const each of [...inputs, out]) {
    if (isFloat(each.dtype) || each.buffer.bytes > maxElements * bytesPerElement(each.dtype)) return false;
    if (sizeOf(each.shape) > maxElements) return false;
  }
  const known = inputs.map(onHost);
  if (known.includes(null)) return false;
  const result = onHost(out) ?? (coversAll(out) ? { ...out, buffer: blank(out) } : null);
  if (!result) return false;
  fn(known as Operand[], result);
  setHost(device, bufferOf(out.buffer), new Uint8Array((result.buffer as ReferenceBuffer).data!));
  return true;
}

function coversAll(out: Operand): boolean {
  return sizeOf(out.shape) * bytesPerElement(out.dtype) === out.buffer.bytes;
}

function blank(out: Operand): ReferenceBuffer {
  return { bytes: out.buffer.bytes, data: new ArrayBuffer(out.buffer.bytes) };
}
