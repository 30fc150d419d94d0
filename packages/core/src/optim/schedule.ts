// Learning-rate schedules: factors of the base rate by step.

import { ArgumentError } from "../errors.js";

export interface ScheduleOptions {
  /** Steps of linear growth from 0 (default 0). */
  warmupSteps?: number;
  /** Steps in all. */
  totalSteps: number;
  /** Factor that the schedule ends at (default 0). */
  minFactor?: number;
}

function warmup(options: ScheduleOptions, decay: (progress: number) => number): (step: number) => number {
  const { warmupSteps = 0, totalSteps, minFactor = 0 } = options;
  for (const [name, value] of [
    ["warmupSteps", warmupSteps],
    ["totalSteps", totalSteps],
    ["minFactor", minFactor],
  ] as const) {
    if (!(Number.isFinite(value) && value >= 0))
      throw new ArgumentError(`schedule: ${name} must be finite and not negative, not ${value}`);
  }
  return (step) => {
    if (step < warmupSteps) return step / Math.max(1, warmupSteps);
    const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
    return minFactor + (1 - minFactor) * decay(progress);
  };
}

/** Linear warm-up, then half a cosine down, as Hugging Face's get_cosine_schedule_with_warmup. `step` counts from 0. */
export function cosineSchedule(options: ScheduleOptions): (step: number) => number {
  return warmup(options, (progress) => Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress))));
}

/** Linear warm-up, then linear decay, as Hugging Face's get_linear_schedule_with_warmup. */
export function linearSchedule(options: ScheduleOptions): (step: number) => number {
  return warmup(options, (progress) => 1 - progress);
}

/** Linear warm-up, then constant. */
export function constantSchedule(
  options: Pick<ScheduleOptions, "warmupSteps"> = {},
): (step: number) => number {
  return warmup({ ...options, totalSteps: options.warmupSteps ?? 0 }, () => 1);
}
