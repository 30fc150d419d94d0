/** Progress of the training: a bar on a terminal, a line now and then in a log. */
import type { StepInfo } from "@nomoat/llama";
import { SingleBar } from "cli-progress";
import { formatCount } from "./report.js";

export interface Progress {
  update(info: StepInfo): void;
  /** Leaves the terminal as it was; idempotent. */
  stop(): void;
}

/** Milliseconds between lines where there is no terminal. */
const LINE_INTERVAL = 10_000;

/** Seconds as `1:05` or `1:02:03`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = String(whole % 60).padStart(2, "0");
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

function details(info: StepInfo) {
  return {
    loss: info.loss.toFixed(3),
    speed: formatCount(info.tokensPerSecond),
    left: formatSeconds(info.secondsLeft),
  };
}

/** A line now and then. */
function startLines(stream: NodeJS.WriteStream): Progress {
  let nextLine = performance.now();
  return {
    update(info) {
      const now = performance.now();
      const last = info.step === info.steps;
      if (now < nextLine && !last) return;
      nextLine = now + LINE_INTERVAL;
      const { loss, speed, left } = details(info);
      const end = last ? "" : `  ${left} left`;
      stream.write(`step ${info.step}/${info.steps}  loss ${loss}  ${speed} tokens/s${end}\n`);
    },
    stop() {},
  };
}

/** Shows how far the training is, of `steps` steps, on `stream`. */
export function startProgress(steps: number, stream: NodeJS.WriteStream = process.stdout): Progress {
  if (!stream.isTTY) return startLines(stream);
  const bar = new SingleBar({
    stream,
    format: "{bar} {value}/{total}  loss {loss}  {speed} tokens/s  {left} left",
    barsize: 28,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    hideCursor: true,
    // Ctrl-C is the caller's to answer.
    gracefulExit: false,
  });
  bar.start(steps, 0, { loss: "–", speed: "–", left: "–" });
  return {
    update: (info) => bar.update(info.step, details(info)),
    stop: () => bar.stop(),
  };
}
