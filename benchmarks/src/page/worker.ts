// The page's worker measures, so that the page can show how far it is.

import { shutdown } from "@nomoat/core";
import { efforts } from "../measure/timing.js";
import { BenchError } from "../model.js";
import { formatResults } from "../results/format.js";
import { measureRun } from "../run.js";
import { selectEntries, suitesByName } from "../select.js";
import { portableSuites } from "../suites/portable.js";
import { reasonOf } from "../titles.js";
import { describeBrowser, ownVersion } from "./machine.js";
import type { PageReply, PageRequest } from "./request.js";

const send = (reply: PageReply): void => postMessage(reply);

async function measure(request: PageRequest): Promise<string> {
  const { suites, threads, backends, filter, label, effort, sizes, formats, dtypes } = request;
  const chosen = suitesByName(portableSuites, suites);
  const sweep = { effort, sizes, formats, dtypes };
  const entries = selectEntries(chosen, { sweep, threads, backends, filter }, ownVersion());
  if (entries.length === 0) throw new BenchError("no case is left: loosen the filter");
  const machine = await describeBrowser();
  const run = await measureRun({
    ...{ entries, effort: efforts[effort], options: { effort, suites, filter }, label },
    describe: () => machine,
    onStep: (step) => send({ kind: "step", step }),
  });
  return formatResults([run]);
}

addEventListener("message", async ({ data }: MessageEvent<PageRequest>) => {
  try {
    send({ kind: "result", text: await measure(data) });
  } catch (error) {
    send({ kind: "error", reason: reasonOf(error) });
  } finally {
    shutdown();
  }
});
