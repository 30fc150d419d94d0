/** The output folder: all or nothing. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { checkOutput, stageOutput } from "../src/output.js";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nomoat-output-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function stage(target: string) {
  const staging = await stageOutput(target);
  mkdirSync(join(staging.folder, "adapter"));
  writeFileSync(join(staging.folder, "adapter", "weights"), "new");
  writeFileSync(join(staging.folder, "loss.svg"), "new");
  return staging;
}

describe("the output", () => {
  it("shows only when it is published, and leaves nothing else", async () => {
    const target = join(folder, "a/b/out");
    const staging = await stage(target);
    expect(existsSync(target)).toBe(false);
    await staging.publish();
    expect(readdirSync(target).sort()).toEqual(["adapter", "loss.svg"]);
    expect(readdirSync(join(folder, "a/b"))).toEqual(["out"]);
    await staging.discard();
    expect(readdirSync(target).length).toBe(2);
  });

  it("leaves not even empty folders when it is discarded", async () => {
    const staging = await stage(join(folder, "a/b/out"));
    await staging.discard();
    expect(readdirSync(folder)).toEqual([]);
  });

  it("replaces what has its names, and keeps the rest", async () => {
    mkdirSync(join(folder, "out/adapter"), { recursive: true });
    writeFileSync(join(folder, "out/adapter/weights"), "old");
    writeFileSync(join(folder, "out/adapter/stale"), "old");
    writeFileSync(join(folder, "out/notes"), "mine");
    const staging = await stage(join(folder, "out"));
    expect(readFileSync(join(folder, "out/adapter/weights"), "utf8")).toBe("old");
    await staging.publish();
    expect(readdirSync(join(folder, "out")).sort()).toEqual(["adapter", "loss.svg", "notes"]);
    expect(readdirSync(join(folder, "out/adapter"))).toEqual(["weights"]);
    expect(readFileSync(join(folder, "out/adapter/weights"), "utf8")).toBe("new");
    expect(readdirSync(folder)).toEqual(["out"]);
  });

  it("is refused early where it cannot be made, and makes nothing by asking", () => {
    writeFileSync(join(folder, "file"), "");
    expect(() => checkOutput(join(folder, "file"))).toThrow(/is a file, not a folder/);
    expect(() => checkOutput(join(folder, "file/below"))).toThrow(/file/);
    checkOutput(join(folder, "new/deep"));
    expect(readdirSync(folder)).toEqual(["file"]);
  });
});
