// The process whose memory `nomoat-bench memory` measures: makes a model, trains it for some steps, prints the most that it held.
//
//   node program.mjs MODEL THREADS STEPS

import { memoryStats } from "@nomoat/core";
import { forgetValues } from "../inputs.js";
import { activate } from "../suites/suite.js";
import { stepsOf } from "./steps.js";

const [model, threads, steps] = process.argv.slice(2);
await activate("wasm", Number(threads));
const { run } = await stepsOf(model).prepare();
// What weights were made of is no part of training.
forgetValues();
for (let i = 0; i < Number(steps); i++) await run();
const { peak, reserved } = memoryStats().backend;
const resident = 1024 * process.resourceUsage().maxRSS;
process.stdout.write(`${JSON.stringify({ process: resident, peak, reserved })}\n`, () => process.exit(0));
