/** Optimizers and schedules. */
export {};
