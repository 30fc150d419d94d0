// The page: what to measure, how far it is, the results as a table and as a file. The address may say it all:
// ?suites=gemm,quant&effort=quick&threads=1,2&backends=wasm&sizes=…&formats=…&dtypes=…&filter=…&label=…&run

import { failureLines, formatTimeLeft, peakLines, rowCells, rowHeads, rowsOf } from "../present.js";
import { parseResultFile, type Run } from "../results/schema.js";
import { portableSuites } from "../suites/portable.js";
import { describeBrowser } from "./machine.js";
import type { PageReply, PageRequest } from "./request.js";

const find = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const form = find<HTMLFormElement>("form");
const state = find("state");
const bar = find<HTMLProgressElement>("bar");
const stop = find<HTMLButtonElement>("stop");
const download = find<HTMLAnchorElement>("download");
const asked = new URLSearchParams(location.search);

/** What a program that drives the page waits for. */
const outcome = globalThis as { nomoatResult?: string; nomoatError?: string };

function make<K extends keyof HTMLElementTagNameMap>(
  name: K,
  text = "",
  ...children: Node[]
): HTMLElementTagNameMap[K] {
  const one = document.createElement(name);
  one.textContent = text;
  one.append(...children);
  return one;
}

function show({ text, failed = false }: { text: string; failed?: boolean }): void {
  state.textContent = text;
  state.className = failed ? "failed" : "";
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): HTMLElement {
  const cells = (list: readonly string[], kind: "th" | "td"): HTMLElement =>
    make("tr", "", ...list.map((text) => make(kind, text)));
  const body = make("tbody", "", ...rows.map((row) => cells(row, "td")));
  const whole = make("table", "", make("thead", "", cells(head, "th")), body);
  const box = make("div", "", whole);
  box.className = "scroll";
  return box;
}

function showRun(run: Run): void {
  const rows = rowsOf(run).filter((row) => row.summary);
  const parts: HTMLElement[] = [
    make("ul", "", ...[...peakLines(run), ...failureLines(run)].map((line) => make("li", line))),
  ];
  for (const suite of new Set(rows.map(({ result }) => result.suite))) {
    const of = rows.filter(({ result }) => result.suite === suite);
    parts.push(make("h3", suite));
    parts.push(
      table(
        ["case", ...rowHeads],
        of.map((row) => [row.result.name, ...rowCells(row)]),
      ),
    );
  }
  find("results").replaceChildren(...parts);
}

function finish(text: string): void {
  const [run] = parseResultFile(text, "the result").runs;
  showRun(run);
  URL.revokeObjectURL(download.href);
  download.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  download.hidden = false;
  show({ text: `${run.results.length} cases in ${Math.round(run.seconds)} s` });
  outcome.nomoatResult = text;
}

function fail(reason: string): void {
  show({ text: reason, failed: true });
  outcome.nomoatError = reason;
}

function list(text: string | null): string[] {
  return (text ?? "")
    .split(",")
    .map((one) => one.trim())
    .filter((one) => one !== "");
}

function requested(): PageRequest {
  const data = new FormData(form);
  const text = (name: string): string => String(data.get(name) ?? "").trim();
  const orNull = <T>(values: T[]): T[] | null => (values.length > 0 ? values : null);
  const threads = list(text("threads")).map(Number);
  if (threads.length === 0 || threads.some((count) => !Number.isInteger(count) || count < 1)) {
    throw new Error("threads: give positive integers, separated by commas");
  }
  return {
    suites: data.getAll("suite").map(String),
    effort: text("effort") as PageRequest["effort"],
    threads,
    backends: orNull(list(asked.get("backends"))) ?? ["wasm"],
    sizes: orNull(list(asked.get("sizes")).map(Number)),
    formats: orNull(list(asked.get("formats"))),
    dtypes: orNull(list(asked.get("dtypes"))),
    filter: text("filter") || null,
    label: text("label"),
  };
}

function run(): void {
  let request: PageRequest;
  try {
    request = requested();
  } catch (error) {
    fail((error as Error).message);
    return;
  }
  if (request.suites.length === 0) {
    fail("choose a suite");
    return;
  }
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  const running = (on: boolean): void => {
    for (const element of form.elements) (element as HTMLInputElement).disabled = on;
    stop.disabled = false;
    stop.hidden = !on;
    bar.hidden = !on;
    bar.removeAttribute("value");
  };
  const end = (): void => {
    worker.terminate();
    running(false);
  };
  running(true);
  download.hidden = true;
  stop.onclick = () => {
    end();
    show({ text: "stopped" });
  };
  worker.onmessage = ({ data }: MessageEvent<PageReply>) => {
    if (data.kind === "step") {
      const { share, secondsLeft, what } = data.step;
      bar.value = share;
      show({ text: `${formatTimeLeft(secondsLeft)} left · ${what}` });
      return;
    }
    end();
    if (data.kind === "result") finish(data.text);
    else fail(data.reason);
  };
  worker.onerror = (event) => {
    end();
    fail(event.message || "the worker does not start");
  };
  worker.postMessage(request);
}

const wanted = list(asked.get("suites"));
for (const { name, about } of portableSuites) {
  const box = make("input");
  Object.assign(box, { type: "checkbox", name: "suite", value: name });
  box.checked = wanted.length === 0 ? name === "gemm" : wanted.includes(name) || wanted.includes("all");
  const label = make("label", "", box, document.createTextNode(` ${name}`));
  label.title = about;
  find("suites").append(label);
}
const field = (name: string): HTMLInputElement => form.elements.namedItem(name) as HTMLInputElement;
const threads = crossOriginIsolated && navigator.hardwareConcurrency > 1 ? "1,2" : "1";
for (const [name, fallback] of Object.entries({ effort: "quick", threads, filter: "", label: "" })) {
  field(name).value = asked.get(name) ?? fallback;
}
const { runtime, processors, simd, gpu } = await describeBrowser();
find("machine").textContent = [
  runtime,
  `${processors} processors`,
  `${simd} SIMD`,
  gpu ?? "no WebGPU",
  crossOriginIsolated ? "cross-origin isolated" : "not cross-origin isolated: one thread",
].join(" · ");
form.onsubmit = (event) => {
  event.preventDefault();
  run();
};
if (asked.has("run")) run();
