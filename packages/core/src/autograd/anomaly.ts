// Anomaly mode: find the operation that first makes a NaN or an infinity. Slow: it reads every result.

import { requireFunction } from "../arguments.js";
import { runtime } from "../runtime.js";

/** Runs `fn` and throws an AutogradError that names the first operation to turn finite inputs into a NaN or an infinity. */
export function anomalyMode<T>(fn: () => T): T {
  requireFunction("anomalyMode", fn);
  const before = runtime.anomalyMode;
  runtime.anomalyMode = true;
  try {
    return fn();
  } finally {
    runtime.anomalyMode = before;
  }
}
