// @nomoat/core/optim: optimizers, clipping, schedules.

export { Adafactor, type AdafactorOptions } from "./adafactor.js";
export { Adam, type AdamOptions } from "./adam.js";
export { AdamW, type AdamWOptions } from "./adamw.js";
export { AdamW8bit, type AdamW8bitOptions } from "./adamw8bit.js";
export { clipGradNorm, clipGradValue, clipScale, gradNorm, readGradNorm } from "./clip.js";
export { type WeightDecayGroup, weightDecayGroups } from "./groups.js";
export { Lion, type LionOptions } from "./lion.js";
export {
  Optimizer,
  type OptimizerState,
  type ParameterGroup,
  type SlotForm,
  type UpdateContext,
} from "./optimizer.js";
export {
  constantSchedule,
  cosineSchedule,
  linearSchedule,
  type OneCycleOptions,
  oneCycleSchedule,
  polynomialSchedule,
  type ScheduleOptions,
} from "./schedule.js";
export { SGD, type SGDOptions } from "./sgd.js";
