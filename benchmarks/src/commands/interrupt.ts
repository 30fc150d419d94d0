// Ctrl+C: what was measured is written, and the exit code is that of a program that was interrupted.

/** Two signals within this many milliseconds are one: a terminal sends one to every process, and a parent sends it on. */
const together = 1000;

export const interruptedCode = 130;

export interface Interrupt {
  readonly signal: AbortSignal;
  /** Leaves signals to the system again. */
  release(): void;
}

/** Turns SIGINT and SIGTERM into an abort; the second one ends the process at once. */
export function interruptible(): Interrupt {
  const controller = new AbortController();
  let first = 0;
  const listen = (signal: NodeJS.Signals): void => {
    if (first > 0 && Date.now() - first > together) process.exit(interruptedCode);
    first ||= Date.now();
    controller.abort(signal);
  };
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) process.on(signal, listen);
  return {
    signal: controller.signal,
    release() {
      for (const signal of signals) process.removeListener(signal, listen);
    },
  };
}
