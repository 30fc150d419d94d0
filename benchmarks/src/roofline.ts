// The roofline (Williams, Waterman and Patterson, 2009): a kernel that does `operations` over `bytes` can take no less time
// than the slower of its two parts at the machine's measured rates.

import type { Bandwidth, Peaks } from "./measure/peaks.js";
import type { Work } from "./model.js";

export interface Roof {
  readonly bound: "compute" | "memory";
  /** Least seconds of one call. */
  readonly seconds: number;
}

/** The bandwidth that a working set of `bytes` can have at best: of the measured size that is nearest by ratio. */
export function bandwidthFor(peaks: Peaks, bytes: number): Bandwidth {
  const distance = (one: Bandwidth): number => Math.abs(Math.log(one.bytes / bytes));
  return peaks.bandwidth.reduce((nearest, one) => (distance(one) < distance(nearest) ? one : nearest));
}

/** What bounds `work` on a machine; null where nothing was counted. */
export function roofOf(work: Work, peaks: Peaks): Roof | null {
  const rate = work.arithmetic === "int8" ? peaks.int8 : peaks.float32;
  const compute = work.operations / rate;
  const memory = work.bytes > 0 ? work.bytes / bandwidthFor(peaks, work.bytes).rate : 0;
  if (compute === 0 && memory === 0) return null;
  return compute >= memory ? { bound: "compute", seconds: compute } : { bound: "memory", seconds: memory };
}
