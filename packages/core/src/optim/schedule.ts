// Learning-rate schedules: factors of the base rate by step.

import { describe, requireFinite, requireOptions, requireProbability } from "../arguments.js";
import { ArgumentError } from "../errors.js";

export interface ScheduleOptions {
  /** Steps of linear growth from 0 (default 0). */
  warmupSteps?: number;
  /** Steps in all. */
  totalSteps: number;
  /** Factor that the schedule ends at (default 0). */
  minFactor?: number;
}

/** What one schedule or another takes: a program may choose one by name, with the options of all. */
const known = ["warmupSteps", "totalSteps", "minFactor", "cycles", "power"];

function warmup(
  operation: string,
  options: ScheduleOptions,
  decay: (progress: number) => number,
): (step: number) => number {
  const { warmupSteps = 0, totalSteps, minFactor = 0 } = options;
  for (const [name, value] of [
    ["warmupSteps", warmupSteps],
    ["totalSteps", totalSteps],
    ["minFactor", minFactor],
  ] as const) {
    if (!(Number.isFinite(value) && value >= 0))
      throw new ArgumentError(
        `${operation}: ${name} must be finite and not negative, not ${describe(value)}`,
      );
  }
  return (step) => {
    if (step < warmupSteps) return step / Math.max(1, warmupSteps);
    const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
    return minFactor + (1 - minFactor) * decay(progress);
  };
}

/**
 * Linear warm-up, then a cosine down (half a period, or as many as `cycles` says), as Hugging Face's
 * get_cosine_schedule_with_warmup. `step` counts from 0.
 */
export function cosineSchedule(options: ScheduleOptions & { cycles?: number }): (step: number) => number {
  requireOptions("cosineSchedule", options, known);
  const { cycles = 0.5 } = options;
  requireFinite("cosineSchedule", "cycles", cycles);
  const wave = (progress: number) => Math.max(0, 0.5 * (1 + Math.cos(2 * Math.PI * cycles * progress)));
  return warmup("cosineSchedule", options, wave);
}

/** Linear warm-up, then (1 − progress)^power down, as Hugging Face's get_polynomial_decay_schedule_with_warmup. */
export function polynomialSchedule(options: ScheduleOptions & { power?: number }): (step: number) => number {
  requireOptions("polynomialSchedule", options, known);
  const { power = 1 } = options;
  if (!(Number.isFinite(power) && power > 0))
    throw new ArgumentError(`polynomialSchedule: power must be finite and above 0, not ${describe(power)}`);
  return warmup("polynomialSchedule", options, (progress) => (1 - progress) ** power);
}

export interface OneCycleOptions {
  /** Steps in all. */
  totalSteps: number;
  /** Share of the steps in which the rate grows (default 0.3). */
  warmupShare?: number;
  /** The rate starts at 1/initialDivisor of the highest (default 25). */
  initialDivisor?: number;
  /** It ends at 1/finalDivisor of where it started (default 10,000). */
  finalDivisor?: number;
}

/** Up by a cosine to the base rate, then down by another, as torch.optim.lr_scheduler.OneCycleLR. The factor stays after the last step. */
export function oneCycleSchedule(options: OneCycleOptions): (step: number) => number {
  const names = ["totalSteps", "warmupShare", "initialDivisor", "finalDivisor"];
  requireOptions("oneCycleSchedule", options, names);
  const { totalSteps, warmupShare = 0.3, initialDivisor = 25, finalDivisor = 1e4 } = options;
  for (const [name, value] of Object.entries({ totalSteps, initialDivisor, finalDivisor })) {
    if (!(Number.isFinite(value) && value > 0))
      throw new ArgumentError(`oneCycleSchedule: ${name} must be finite and above 0, not ${describe(value)}`);
  }
  requireProbability("oneCycleSchedule", "warmupShare", warmupShare);
  const top = warmupShare * totalSteps - 1;
  const last = totalSteps - 1;
  const between = (from: number, to: number, progress: number) =>
    to + ((from - to) / 2) * (1 + Math.cos(Math.PI * progress));
  const first = 1 / initialDivisor;
  return (step) => {
    const at = Math.min(step, last);
    if (at <= top) return between(first, 1, top > 0 ? at / top : 1);
    return between(1, first / finalDivisor, last > top ? (at - top) / (last - top) : 1);
  };
}

/** Linear warm-up, then linear decay, as Hugging Face's get_linear_schedule_with_warmup. */
export function linearSchedule(options: ScheduleOptions): (step: number) => number {
  requireOptions("linearSchedule", options, known);
  return warmup("linearSchedule", options, (progress) => 1 - progress);
}

/** Linear warm-up, then constant. */
export function constantSchedule(
  options: Pick<ScheduleOptions, "warmupSteps"> = {},
): (step: number) => number {
  requireOptions("constantSchedule", options, known);
  return warmup("constantSchedule", { ...options, totalSteps: options.warmupSteps ?? 0 }, () => 1);
}
