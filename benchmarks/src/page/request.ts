// What the page and its worker say to each other.

import type { Effort } from "../measure/timing.js";
import type { Step } from "../run.js";

export interface PageRequest {
  readonly suites: readonly string[];
  readonly effort: Effort["name"];
  readonly threads: readonly number[];
  readonly backends: readonly string[];
  readonly sizes: readonly number[] | null;
  readonly formats: readonly string[] | null;
  readonly dtypes: readonly string[] | null;
  readonly filter: string | null;
  readonly label: string;
}

export type PageReply =
  | { readonly kind: "step"; readonly step: Step }
  /** The text of a result file. */
  | { readonly kind: "result"; readonly text: string }
  | { readonly kind: "error"; readonly reason: string };
