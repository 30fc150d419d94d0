// Regular expressions of adapter configurations, in Python's syntax as PEFT reads them, matched in bounded time: the pattern becomes
// a nondeterministic automaton whose states are followed side by side, so nothing backtracks. It answers whether a whole text
// matches; it has no captures. Not supported, and refused by name: backreferences, lookbehind, inline flags, possessive quantifiers.

import { ArgumentError } from "@nomoat/core";

/** Characters of a pattern at most. */
const maxPatternLength = 10_000;
/** States of the automaton at most; counted repetitions multiply them. */
const maxStates = 10_000;
/** Characters of a text at most. */
const maxTextLength = 2_000;
/** Transitions that one pattern may take over its lifetime; some tenths of a second. */
const maxSteps = 5_000_000;
/** Groups within one another at most. */
const maxDepth = 100;

type CharTest = (char: string) => boolean;
type Assertion = "start" | "end" | "boundary" | "notBoundary";

type Node =
  | { kind: "chars"; test: CharTest }
  | { kind: "assert"; what: Assertion }
  | { kind: "look"; negative: boolean; body: Node }
  | { kind: "sequence"; parts: Node[] }
  | { kind: "either"; options: Node[] }
  | { kind: "repeat"; body: Node; least: number; most: number };

type State =
  | { op: "chars"; test: CharTest }
  | { op: "assert"; what: Assertion }
  | { op: "look"; negative: boolean; body: number }
  | { op: "split"; other: number }
  | { op: "jump"; to: number }
  | { op: "match" };

const wordChar: CharTest = (char) => /[\p{L}\p{N}_]/u.test(char);
const classes: Readonly<Record<string, CharTest>> = {
  d: (char) => /\p{Nd}/u.test(char),
  w: wordChar,
  s: (char) => /\s/.test(char),
};
const controls: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", f: "\f", v: "\v", a: "\x07" };

class Parser {
  readonly #source: string;
  #position = 0;
  #depth = 0;

  constructor(source: string) {
    this.#source = source;
  }

  fail(reason: string): ArgumentError {
    const shown = this.#source.length > 100 ? `${this.#source.slice(0, 100)}…` : this.#source;
    return new ArgumentError(`pattern ${JSON.stringify(shown)}: ${reason} (at ${this.#position})`);
  }

  parse(): Node {
    const node = this.#either();
    if (this.#position < this.#source.length) throw this.fail('")" without "("');
    return node;
  }

  #peek(text: string): boolean {
    return this.#source.startsWith(text, this.#position);
  }

  #accept(text: string): boolean {
    if (!this.#peek(text)) return false;
    this.#position += text.length;
    return true;
  }

  #next(what: string): string {
    const char = this.#source[this.#position];
    if (char === undefined) throw this.fail(`ends where ${what} should stand`);
    this.#position++;
    return char;
  }

  #either(): Node {
    if (++this.#depth > maxDepth) throw this.fail(`groups are nested deeper than ${maxDepth}`);
    const options = [this.#sequence()];
    while (this.#accept("|")) options.push(this.#sequence());
    this.#depth--;
    return options.length === 1 ? options[0] : { kind: "either", options };
  }

  #sequence(): Node {
    const parts: Node[] = [];
    while (this.#position < this.#source.length && !this.#peek("|") && !this.#peek(")")) {
      const atom = this.#atom();
      parts.push(this.#quantified(atom));
    }
    return { kind: "sequence", parts };
  }

  #quantified(atom: Node): Node {
    const counts = this.#quantifier();
    if (!counts) return atom;
    if (atom.kind === "assert" || atom.kind === "look") throw this.fail("an assertion cannot be repeated");
    if (this.#accept("+")) throw this.fail("possessive quantifiers are not supported");
    // Greedy or lazy makes no difference to whether the whole text matches.
    this.#accept("?");
    if (this.#peek("*") || this.#peek("+") || this.#peek("?")) throw this.fail("multiple repeat");
    return { kind: "repeat", body: atom, least: counts[0], most: counts[1] };
  }

  #quantifier(): [least: number, most: number] | null {
    if (this.#accept("*")) return [0, Number.POSITIVE_INFINITY];
    if (this.#accept("+")) return [1, Number.POSITIVE_INFINITY];
    if (this.#accept("?")) return [0, 1];
    // As in Python, a brace that opens no count is an ordinary character.
    const counted = /^\{(\d{0,6})(?:(,)(\d{0,6}))?\}/.exec(
      this.#source.slice(this.#position, this.#position + 20),
    );
    if (!counted || (counted[1] === "" && counted[2] === undefined)) return null;
    this.#position += counted[0].length;
    const least = counted[1] === "" ? 0 : Number(counted[1]);
    const most =
      counted[2] === undefined ? least : counted[3] === "" ? Number.POSITIVE_INFINITY : Number(counted[3]);
    if (most < least) throw this.fail(`{${least},${most}} counts backwards`);
    return [least, most];
  }

  #atom(): Node {
    const char = this.#next("an expression");
    switch (char) {
      case "(":
        return this.#group();
      case "[":
        return { kind: "chars", test: this.#set() };
      case ".":
        return { kind: "chars", test: (c) => c !== "\n" };
      case "^":
        return { kind: "assert", what: "start" };
      case "$":
        return { kind: "assert", what: "end" };
      case "*":
      case "+":
      case "?":
        throw this.fail("nothing to repeat");
      case "\\":
        return this.#escaped();
      default:
        return { kind: "chars", test: (c) => c === char };
    }
  }

  #group(): Node {
    let look: "positive" | "negative" | null = null;
    if (this.#accept("?")) {
      if (this.#accept("=")) look = "positive";
      else if (this.#accept("!")) look = "negative";
      else if (this.#accept("P<")) {
        const name = /^[A-Za-z_]\w{0,99}>/.exec(this.#source.slice(this.#position, this.#position + 101));
        if (!name) throw this.fail("bad group name");
        this.#position += name[0].length;
      } else if (!this.#accept(":")) {
        throw this.fail(`(?${this.#source[this.#position] ?? ""} is not supported`);
      }
    }
    const body = this.#either();
    if (!this.#accept(")")) throw this.fail('"(" without ")"');
    return look === null ? body : { kind: "look", negative: look === "negative", body };
  }

  #escaped(): Node {
    const char = this.#next("an escape");
    if (char === "A") return { kind: "assert", what: "start" };
    if (char === "Z") return { kind: "assert", what: "end" };
    if (char === "b") return { kind: "assert", what: "boundary" };
    if (char === "B") return { kind: "assert", what: "notBoundary" };
    if (/[1-9]/.test(char)) throw this.fail("backreferences are not supported");
    return { kind: "chars", test: this.#escapedChars(char).test };
  }

  /** The character or class that `\char` stands for. */
  #escapedChars(char: string): { test: CharTest; single: string | null } {
    const lower = char.toLowerCase();
    if (Object.hasOwn(classes, lower)) {
      const test = classes[lower];
      return { test: char === lower ? test : (c) => !test(c), single: null };
    }
    let single = char;
    if (Object.hasOwn(controls, char)) single = controls[char];
    else if (char === "x" || char === "u") {
      const length = char === "x" ? 2 : 4;
      const digits = this.#source.slice(this.#position, this.#position + length);
      if (digits.length !== length || !/^[\da-fA-F]+$/.test(digits)) throw this.fail(`bad escape \\${char}`);
      this.#position += length;
      single = String.fromCharCode(Number.parseInt(digits, 16));
    } else if (char === "0") single = "\0";
    else if (/[A-Za-z0-9]/.test(char)) throw this.fail(`bad escape \\${char}`);
    return { test: (c) => c === single, single };
  }

  #set(): CharTest {
    const negative = this.#accept("^");
    const tests: CharTest[] = [];
    for (let first = true; first || !this.#peek("]"); first = false) {
      const low = this.#setItem();
      if (low.single !== null && this.#peek("-") && this.#source[this.#position + 1] !== "]") {
        this.#position++;
        const high = this.#setItem();
        const [from, to] = [low.single, high.single];
        if (to === null || from > to) throw this.fail("bad character range");
        tests.push((c) => c >= from && c <= to);
      } else tests.push(low.test);
    }
    this.#position++;
    return (c) => tests.some((test) => test(c)) !== negative;
  }

  #setItem(): { test: CharTest; single: string | null } {
    const char = this.#next('"]"');
    if (char !== "\\") return { test: (c) => c === char, single: char };
    const escaped = this.#next("an escape");
    return escaped === "b" ? { test: (c) => c === "\b", single: "\b" } : this.#escapedChars(escaped);
  }
}

/** A compiled pattern. */
export class Pattern {
  readonly source: string;
  readonly #states: State[] = [];
  #steps = 0;

  /**
   * @param source - in the syntax of Python's `re`
   * @throws {ArgumentError} for what is no pattern, or is beyond the limits of this module
   */
  constructor(source: string) {
    this.source = source;
    if (source.length > maxPatternLength) {
      throw new ArgumentError(
        `pattern: ${source.length} characters, more than the ${maxPatternLength} allowed`,
      );
    }
    this.#emit(new Parser(source).parse());
    this.#push({ op: "match" });
  }

  #fail(reason: string): ArgumentError {
    const shown = this.source.length > 100 ? `${this.source.slice(0, 100)}…` : this.source;
    return new ArgumentError(`pattern ${JSON.stringify(shown)}: ${reason}`);
  }

  #push<S extends State>(state: S): S {
    if (this.#states.length >= maxStates) throw this.#fail(`needs more than ${maxStates} states`);
    this.#states.push(state);
    return state;
  }

  #emit(node: Node): void {
    switch (node.kind) {
      case "chars":
        this.#push({ op: "chars", test: node.test });
        return;
      case "assert":
        this.#push({ op: "assert", what: node.what });
        return;
      case "look": {
        this.#push({ op: "look", negative: node.negative, body: this.#states.length + 2 });
        const jump = this.#push({ op: "jump", to: 0 });
        this.#emit(node.body);
        this.#push({ op: "match" });
        jump.to = this.#states.length;
        return;
      }
      case "sequence":
        for (const part of node.parts) this.#emit(part);
        return;
      case "either": {
        const exits: { op: "jump"; to: number }[] = [];
        node.options.forEach((option, i) => {
          if (i === node.options.length - 1) {
            this.#emit(option);
            return;
          }
          const split = this.#push({ op: "split", other: 0 });
          this.#emit(option);
          exits.push(this.#push({ op: "jump", to: 0 }));
          split.other = this.#states.length;
        });
        for (const exit of exits) exit.to = this.#states.length;
        return;
      }
      case "repeat": {
        for (let i = 0; i < node.least; i++) this.#emit(node.body);
        if (node.most === Number.POSITIVE_INFINITY) {
          const start = this.#states.length;
          const split = this.#push({ op: "split", other: 0 });
          this.#emit(node.body);
          this.#push({ op: "jump", to: start });
          split.other = this.#states.length;
          return;
        }
        const splits: { op: "split"; other: number }[] = [];
        for (let i = node.least; i < node.most; i++) {
          splits.push(this.#push({ op: "split", other: 0 }));
          this.#emit(node.body);
        }
        for (const split of splits) split.other = this.#states.length;
      }
    }
  }

  /**
   * Whether the whole of `text` matches, as Python's `re.fullmatch`.
   * @throws {ArgumentError} when text or work exceed the limits
   */
  test(text: string): boolean {
    if (text.length > maxTextLength)
      throw this.#fail(`a name of ${text.length} characters exceeds ${maxTextLength}`);
    return this.#run(text, 0, 0, true, new Map());
  }

  /** Follows the automaton from `start` at `position`; `whole`: to the end of the text, else until any match. */
  #run(
    text: string,
    start: number,
    position: number,
    whole: boolean,
    looks: Map<number, Map<number, boolean>>,
  ): boolean {
    let current: number[] = [start];
    // Position after which a state was last seen.
    const seen = new Int32Array(this.#states.length);
    for (let at = position; ; at++) {
      const stack = current.reverse();
      const following: number[] = [];
      for (let index = stack.pop(); index !== undefined; index = stack.pop()) {
        if (seen[index] === at + 1) continue;
        seen[index] = at + 1;
        if (++this.#steps > maxSteps) throw this.#fail("takes too long to match");
        const state = this.#states[index];
        switch (state.op) {
          case "match":
            if (!whole || at === text.length) return true;
            break;
          case "jump":
            stack.push(state.to);
            break;
          case "split":
            stack.push(state.other, index + 1);
            break;
          case "assert":
            if (holds(state.what, text, at)) stack.push(index + 1);
            break;
          case "look": {
            const known = looks.get(state.body) ?? new Map<number, boolean>();
            looks.set(state.body, known);
            let found = known.get(at);
            if (found === undefined) {
              found = this.#run(text, state.body, at, false, looks);
              known.set(at, found);
            }
            if (found !== state.negative) stack.push(index + 1);
            break;
          }
          case "chars":
            if (at < text.length && state.test(text[at])) following.push(index + 1);
        }
      }
      if (following.length === 0) return false;
      current = following;
    }
  }
}

function holds(what: Assertion, text: string, at: number): boolean {
  if (what === "start") return at === 0;
  if (what === "end") return at === text.length;
  const before = at > 0 && wordChar(text[at - 1]);
  const after = at < text.length && wordChar(text[at]);
  return (before !== after) === (what === "boundary");
}
