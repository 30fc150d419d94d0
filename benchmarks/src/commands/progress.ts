// How far a run is.

import { SingleBar } from "cli-progress";

export interface ProgressDisplay {
  step(done: number, total: number, what: string): void;
  stop(): void;
}

/** A bar with the time left on a terminal; elsewhere a line for each tenth. */
export function progressDisplay(): ProgressDisplay {
  if (process.stderr.isTTY !== true) return tenths();
  const bar = new SingleBar({
    format: "{bar} {percentage} % · {eta_formatted} left · {what}",
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    barsize: 24,
    etaBuffer: 50,
  });
  let started = false;
  return {
    step(done, total, what) {
      if (started) bar.update(done, { what });
      else bar.start(total, done, { what });
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
    step(done, total) {
      const now = Math.floor((10 * done) / total);
      if (now > shown) process.stderr.write(`${now * 10} %\n`);
      shown = now;
    },
    stop: () => undefined,
  };
}
