// @nomoat/core/extend: what packages that bring kernels and operations of their own need besides `defineFunction`, and operations that
// only their layers are made of; checks of arguments, with the same messages everywhere. Users of tensors need nothing of it.

export {
  describe,
  requireFunction,
  requireList,
  requireMap,
  requireOptions,
  requirePath,
  use,
} from "./arguments.js";
export {
  defineJointFunction,
  type JointFunctionDefinition,
} from "./autograd/function.js";
export type { Backend, ElementScope, Operand, PackedWeight } from "./backend/types.js";
export { wasmRuntime } from "./backend/wasm/access.js";
export { allocate, commonBackend, empty, hostValues, operand } from "./ops/dispatch.js";
export { withReferenceOperations } from "./ops/fused.js";
export {
  type GroupedMatmulArguments,
  type GroupedTarget,
  groupedMatmul,
  groupedWeightGradients,
  productsTogether,
  type RowGroup,
} from "./ops/grouped.js";
