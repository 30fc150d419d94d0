/** Progress of the training: a bar on a terminal, a line now and then in a log. */
import { SingleBar } from "cli-progress";

/** What is shown of one step. */
export interface StepReport {
  /** Steps done. */
  step: number;
  /** Loss of the step, in nats a token. */
  loss: number;
  /** Tokens read so far. */
  tokens: number;
}

export interface Progress {
  update(report: StepReport): void;
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

const formatCount = (value: number): string => Math.round(value).toLocaleString("en-US");

/** Shows `total` steps on `stream`. */
export function startProgress(total: number, stream: NodeJS.WriteStream = process.stdout): Progress {
  const started = performance.now();
  const details = ({ step, loss, tokens }: StepReport) => {
    const seconds = (performance.now() - started) / 1000;
    return {
      loss: loss.toFixed(3),
      speed: formatCount(tokens / Math.max(seconds, 1e-3)),
      left: formatSeconds((seconds / step) * (total - step)),
    };
  };

  if (!stream.isTTY) {
    let nextLine = started + 1000;
    return {
      update(report) {
        const now = performance.now();
        if (now < nextLine && report.step !== total) return;
        nextLine = now + LINE_INTERVAL;
        const { loss, speed, left } = details(report);
        stream.write(
          `step ${report.step}/${total}  loss ${loss}  ${speed} tokens/s${report.step < total ? `  ${left} left` : ""}\n`,
        );
      },
      stop() {},
    };
  }
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
  bar.start(total, 0, { loss: "–", speed: "–", left: "–" });
  return {
    update: (report) => bar.update(report.step, details(report)),
    stop: () => bar.stop(),
  };
}
