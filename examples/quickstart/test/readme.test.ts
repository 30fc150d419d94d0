/** The TypeScript in the READMEs runs as it stands, in a folder with the files that it names. */
import { execFile } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { writeTinyModel } from "../../finetune/test/tiny-model.js";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const example = fileURLToPath(new URL("../", import.meta.url));

const readmes = [
  "README.md",
  ...["packages", "examples"].flatMap((group) => inner(group)),
  "docs/architecture.md",
  "docs/gpu.md",
];

function inner(group: string): string[] {
  return readdirSync(join(root, group)).map((name) => `${group}/${name}/README.md`);
}

const blocks = readmes
  .filter((path) => existsSync(join(root, path)))
  .flatMap((path) => {
    const text = readFileSync(join(root, path), "utf8");
    const found = Array.from(text.matchAll(/^```(?:ts|typescript)\n([\s\S]*?)^```/gm), (match) => match[1]);
    return found.map((code, i): [name: string, code: string] => [`${path}, block ${i + 1}`, code]);
  });

let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "nomoat-readme-"));
  mkdirSync(join(folder, "models/tiny"), { recursive: true });
  await writeTinyModel(join(folder, "models/tiny"));
  writeFileSync(join(folder, "notes.jsonl"), readFileSync(join(example, "notes.jsonl")));
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  symlinkSync(join(example, "node_modules"), join(folder, "node_modules"), "junction");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("the root README has examples", () => {
  expect(blocks.filter(([name]) => name.startsWith("README.md")).length).toBeGreaterThanOrEqual(2);
});

it.each(blocks)("%s runs", async (_, code) => {
  const file = join(folder, "block.ts");
  writeFileSync(file, code);
  const loader = pathToFileURL(fileURLToPath(import.meta.resolve("tsx"))).href;
  const seeded = new URL("../../../scripts/seeded-randomness.mjs", import.meta.url).href;
  const args = ["--conditions=@nomoat/source", `--import=${loader}`, `--import=${seeded}`, file];
  const failure = await new Promise<string>((resolve) => {
    execFile(process.execPath, args, { cwd: folder }, (error, _stdout, stderr) =>
      resolve(error ? stderr || error.message : ""),
    );
  });
  expect(failure).toBe("");
});
