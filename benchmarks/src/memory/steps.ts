// The training steps whose memory is measured: those of the train-step suite with adapters on dense weights.

import { BenchError } from "../model.js";
import type { Case } from "../suites/suite.js";
import { trainStep } from "../suites/train-step.js";

const everything = { effort: "long", sizes: null, formats: null, dtypes: null } as const;

/** @throws {BenchError} listing the models that there are */
export function stepsOf(model: string): Case {
  const cases = trainStep.cases(everything).filter(({ parameters }) => parameters.mode === "lora");
  const found = cases.find(({ parameters }) => parameters.model === model);
  if (found) return found;
  const known = cases.map(({ parameters }) => parameters.model).join(", ");
  throw new BenchError(`unknown model "${model}" (known: ${known})`);
}
