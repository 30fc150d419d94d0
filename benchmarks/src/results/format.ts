// The text of a result file.

import { type ResultFile, type Run, schemaName, schemaVersion } from "./schema.js";

/** The file's text; samples with six digits, which is finer than any clock tells. */
export function formatResults(runs: readonly Run[]): string {
  const file: ResultFile = { schema: schemaName, version: schemaVersion, runs: [...runs] };
  const rounded = (key: string, value: unknown): unknown =>
    key === "rounds"
      ? (value as number[][]).map((round) => round.map((one) => Number(one.toPrecision(6))))
      : value;
  const text = JSON.stringify(file, rounded, 1);
  // One line a round of samples.
  return `${text.replace(/\[\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]/g, (_, list: string) => `[${list.replace(/\s+/g, " ")}]`)}\n`;
}
