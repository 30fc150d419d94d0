// How far a run is.

import { SingleBar } from "cli-progress";
import { formatTimeLeft } from "../present.js";
import type { Step } from "../run.js";

export interface ProgressDisplay {
  step(step: Step): void;
  stop(): void;
}

/** A bar with the time left on a terminal; elsewhere a line for each tenth. */
export function progressDisplay(): ProgressDisplay {
  if (process.stderr.isTTY !== true) return tenths();
  const bar = new SingleBar({
    format: "{bar} {percentage} % · {left} · {what}",
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    barsize: 24,
  });
  let started = false;
  return {
    step({ share, secondsLeft, what }) {
      const left = `${formatTimeLeft(secondsLeft)} left`;
      const done = Math.round(1000 * share);
      if (started) bar.update(done, { what, left });
      else bar.start(1000, done, { what, left });
      started = true;
    },
    stop() {
      if (started) bar.stop();
    },
  };
}

function tenths(): ProgressDisplay {
  let shown = 0;
  return {
    step({ share, secondsLeft }) {
      const now = Math.floor(10 * share);
      if (now > shown) process.stderr.write(`${now * 10} %, ${formatTimeLeft(secondsLeft)} left\n`);
      shown = Math.max(shown, now);
    },
    stop: () => undefined,
  };
}
