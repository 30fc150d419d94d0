// Fused operations: each is defined by a composition of primitives (its reference), which also gives it its gradients of
// any order; a backend's kernel, where there is one, takes its place.

import { requireFunction } from "../arguments.js";
import type { FusedKernels } from "../backend/types.js";
import { runtime } from "../runtime.js";
import type { Tensor } from "../tensor.js";

let forceReference = false;

/** Runs `fn` with every fused operation as its composition of primitives: what kernels are tested against. */
export function withReferenceOperations<T>(fn: () => T): T {
  requireFunction("withReferenceOperations", fn);
  const before = forceReference;
  forceReference = true;
  try {
    return fn();
  } finally {
    forceReference = before;
  }
}

/** The backend's kernels when they apply to these tensors (float32, kernel there); null for the composition. */
export function fusedKernels<K extends keyof FusedKernels>(
  tensors: readonly Tensor[],
  ...names: K[]
): Required<Pick<FusedKernels, K>> | null {
  if (forceReference) return null;
  const { fused } = tensors[0].storage.backend;
  for (const tensor of tensors) if (tensor.dtype !== "float32") return null;
  for (const name of names) if (!fused[name]) return null;
  return fused as Required<Pick<FusedKernels, K>>;
}

/** True while gradients are themselves recorded, so that a backward must be made of differentiable operations. */
export function recordsBackward(): boolean {
  return runtime.gradEnabled;
}
