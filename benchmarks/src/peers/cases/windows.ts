// Convolutions and pooling of the windows suite as peers are asked for them.

import type { Sweep } from "../../suites/suite.js";
import { checkOf, commonTasks, describeTask, prepareTask } from "../../suites/windows.js";
import type { PeerCase } from "./case.js";

export function windowCases(sweep: Sweep): PeerCase[] {
  return commonTasks(sweep).map((task) => {
    const { places, compare } = checkOf(task);
    return {
      ...describeTask(task),
      kind: task.kind,
      prepare: () => prepareTask(task),
      task: () => task,
      places,
      check: compare,
    };
  });
}
