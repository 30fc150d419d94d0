// @nomoat/core/optim: optimizers, clipping, schedules.

export { AdamW, type AdamWOptions } from "./adamw.js";
export { clipGradNorm, clipScale, gradNorm } from "./clip.js";
export { Optimizer, type OptimizerState, type ParameterGroup } from "./optimizer.js";
export { constantSchedule, cosineSchedule, linearSchedule, type ScheduleOptions } from "./schedule.js";
