/** The program runs, and says what its comments promise. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const folder = fileURLToPath(new URL("..", import.meta.url));

function run(): string {
  const args = ["--import=tsx", "--conditions=@nomoat/source", "src/main.ts"];
  return execFileSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
}

it("computes, differentiates, learns exclusive or, and leaks nothing", () => {
  const output = run();
  expect(output).toContain("a · aᵀ = [ [ 14, 32 ], [ 32, 77 ] ]");
  expect(output).toContain("Σ a² = 91, its gradient = [ [ 2, 4, 6 ], [ 8, 10, 12 ] ]");
  expect(output).toContain("d(Σ a · w) / dw = [ 5, 7, 9 ]");
  expect(output).toContain("0⊕0, 0⊕1, 1⊕0, 1⊕1 = [ 0, 1, 1, 0 ]");
  const live = Array.from(output.matchAll(/(\d+) live tensors/g), (match) => match[1]);
  expect(live.length).toBe(5);
  expect(new Set(live).size).toBe(1);
});

it("prints the same numbers again", () => {
  expect(run()).toBe(run());
});
