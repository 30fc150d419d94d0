// Strict JSON (RFC 8259) out of untrusted bytes, pulled value by value: nothing is built, so a format can refuse before memory is
// taken. Unlike JSON.parse it refuses duplicate keys, byte order marks, invalid UTF-8, lone surrogates and deep nesting, tells `4`
// from `4e0`, and says where it failed. json.ts builds plain data with it.

import { FormatError } from "../errors.js";
import { decodeUtf8 } from "./reader.js";

/** What a value is. */
export type JsonKind = "object" | "array" | "string" | "number" | "boolean" | "null";

export interface JsonOptions {
  /** Name of the file for error messages. */
  file?: string;
  /** Offset of the first byte in that file. */
  offset?: number;
  /** Arrays and objects within one another at most. Default 64. */
  maxDepth?: number;
  /** Keys of one object at most. Default: as many as there are. */
  maxKeys?: number;
}

const quote = 0x22;
const backslash = 0x5c;

const simpleEscapes: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/** Shortens a name out of a file for an error message. */
export function printable(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
}

/** The value of an ASCII hexadecimal digit; −1 for any other byte. */
function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte & ~0x20;
  return letter >= 0x41 && letter <= 0x46 ? letter - 0x37 : -1;
}

/** Reads one JSON text value by value. Every method throws a {@link FormatError} with the offset and the path of the fault. */
export class JsonScanner {
  readonly #bytes: Uint8Array;
  readonly #options: JsonOptions;
  readonly #maxDepth: number;
  readonly #maxKeys: number;
  #position = 0;
  /** Keys and indices that lead here. */
  readonly #path: (string | number)[] = [];

  constructor(bytes: Uint8Array, options: JsonOptions = {}) {
    this.#bytes = bytes;
    this.#options = options;
    this.#maxDepth = options.maxDepth ?? 64;
    this.#maxKeys = options.maxKeys ?? Number.POSITIVE_INFINITY;
  }

  /** Offset of the next byte within the JSON text. */
  get position(): number {
    return this.#position;
  }

  /** A {@link FormatError} at `position`, by default here; to be thrown. */
  error(reason: string, position = this.#position): FormatError {
    const { file, offset = 0 } = this.#options;
    const field = this.#path
      .map((part) => {
        if (typeof part === "number") return `[${part}]`;
        return /^[\w-]{1,80}$/.test(part) ? `.${part}` : `[${printable(part)}]`;
      })
      .join("")
      .replace(/^\./, "");
    return new FormatError(reason, {
      ...(file === undefined ? {} : { file }),
      offset: offset + position,
      ...(field === "" ? {} : { field }),
    });
  }

  #unexpected(wanted: string): FormatError {
    const byte = this.#bytes[this.#position];
    if (byte === undefined) return this.error(`JSON ends where ${wanted} should stand`);
    const found =
      byte > 0x20 && byte < 0x7f ? `"${String.fromCharCode(byte)}"` : `byte 0x${byte.toString(16)}`;
    return this.error(`JSON has ${found} where ${wanted} should stand`);
  }

  #skipSpace(): void {
    for (;;) {
      const byte = this.#bytes[this.#position];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
      this.#position++;
    }
  }

  /** Skips space and then `char`, if it stands there. */
  #accept(char: string): boolean {
    this.#skipSpace();
    if (this.#bytes[this.#position] !== char.charCodeAt(0)) return false;
    this.#position++;
    return true;
  }

  #word(word: string): void {
    for (let i = 0; i < word.length; i++) {
      if (this.#bytes[this.#position] !== word.charCodeAt(i)) throw this.#unexpected(word);
      this.#position++;
    }
  }

  /** The kind of the value that comes next. */
  kind(): JsonKind {
    this.#skipSpace();
    const byte = this.#bytes[this.#position];
    switch (byte) {
      case 0x7b:
        return "object";
      case 0x5b:
        return "array";
      case quote:
        return "string";
      case 0x74: // t
      case 0x66: // f
        return "boolean";
      case 0x6e: // n
        return "null";
      default:
        if (byte === 0x2d || (byte >= 0x30 && byte <= 0x39)) return "number";
        throw this.#unexpected("a value");
    }
  }

  #expect(kind: JsonKind): void {
    const found = this.kind();
    if (found !== kind) throw this.error(`expected ${kind}, found ${found}`);
  }

  #enter(): void {
    if (this.#path.length >= this.#maxDepth) {
      throw this.error(`JSON is nested deeper than ${this.#maxDepth}`);
    }
    this.#position++;
  }

  /** Reads an object. `read` is called at every value with its key, and must read it. */
  object(read: (key: string) => void): void {
    this.#expect("object");
    this.#enter();
    if (this.#accept("}")) return;
    const seen = new Set<string>();
    const place = this.#path.length;
    do {
      this.#skipSpace();
      const start = this.#position;
      const key = this.string();
      this.#path[place] = key;
      if (seen.has(key)) throw this.error("JSON has this key twice", start);
      if (seen.size === this.#maxKeys)
        throw this.error(`JSON has more than ${this.#maxKeys} keys here`, start);
      seen.add(key);
      if (!this.#accept(":")) throw this.#unexpected('":"');
      read(key);
      this.#path.length = place;
    } while (this.#accept(","));
    if (!this.#accept("}")) throw this.#unexpected('"," or "}"');
  }

  /** Reads an array. `read` is called at every element with its index, and must read it. */
  array(read: (index: number) => void): void {
    this.#expect("array");
    this.#enter();
    if (this.#accept("]")) return;
    const place = this.#path.length;
    let index = 0;
    do {
      this.#path[place] = index;
      read(index++);
      this.#path.length = place;
    } while (this.#accept(","));
    if (!this.#accept("]")) throw this.#unexpected('"," or "]"');
  }

  string(): string {
    this.#expect("string");
    const bytes = this.#bytes;
    const opening = this.#position;
    let text = "";
    let escaped = false;
    let start = ++this.#position;
    for (;;) {
      const byte = bytes[this.#position];
      if (byte === quote || byte === backslash) {
        if (start < this.#position) text += this.#decode(start, this.#position);
        this.#position++;
        if (byte === quote) break;
        text += this.#escape();
        escaped = true;
        start = this.#position;
      } else if (byte === undefined || byte < 0x20) {
        throw this.#unexpected("the rest of a string");
      } else {
        this.#position++;
      }
    }
    // Only escapes can make one: the UTF-8 was checked.
    if (escaped && /\p{Surrogate}/u.test(text)) {
      throw this.error("JSON string has half a surrogate pair", opening);
    }
    return text;
  }

  #decode(start: number, end: number): string {
    // Names are short and plain: a decoder costs more than they do.
    if (end - start <= 64) {
      let text = "";
      let i = start;
      for (; i < end && this.#bytes[i] < 0x80; i++) text += String.fromCharCode(this.#bytes[i]);
      if (i === end) return text;
    }
    try {
      return decodeUtf8(this.#bytes.subarray(start, end));
    } catch {
      throw this.error("JSON string is not valid UTF-8", start);
    }
  }

  /** The character of the escape whose backslash was read. */
  #escape(): string {
    const char = String.fromCharCode(this.#bytes[this.#position] ?? 0);
    if (char !== "u") {
      if (!Object.hasOwn(simpleEscapes, char)) throw this.#unexpected("an escape");
      this.#position++;
      return simpleEscapes[char];
    }
    let code = 0;
    for (let i = 1; i <= 4; i++) {
      const digit = hexDigit(this.#bytes[this.#position + i]);
      if (digit < 0) throw this.error("JSON has \\u without four digits", this.#position - 1);
      code = code * 16 + digit;
    }
    this.#position += 5;
    return String.fromCharCode(code);
  }

  /** A number's spelling, checked against the grammar. */
  #spelling(): string {
    this.#expect("number");
    const start = this.#position;
    const digits = () => {
      const first = this.#position;
      while (this.#bytes[this.#position] >= 0x30 && this.#bytes[this.#position] <= 0x39) this.#position++;
      if (this.#position === first) throw this.#unexpected("a digit");
    };
    const accept = (chars: string) => {
      const byte = this.#bytes[this.#position];
      if (byte === undefined || !chars.includes(String.fromCharCode(byte))) return false;
      this.#position++;
      return true;
    };
    accept("-");
    const zero = this.#bytes[this.#position] === 0x30;
    const first = this.#position;
    digits();
    if (zero && this.#position > first + 1) throw this.error("JSON number has a leading zero", start);
    if (accept(".")) digits();
    if (accept("eE")) {
      accept("+-");
      digits();
    }
    return this.#decode(start, this.#position);
  }

  /**
   * A number, and whether it is spelled as an integer (`4`, not `4.0` or `4e0`). Integers beyond 2⁵³ are rounded; a number
   * beyond float64 is refused.
   */
  number(): { value: number; integer: boolean } {
    this.#skipSpace();
    const start = this.#position;
    const spelling = this.#spelling();
    const value = Number(spelling);
    if (!Number.isFinite(value)) throw this.error("JSON number is beyond the range of float64", start);
    return { value, integer: !/[.eE]/.test(spelling) };
  }

  /** A count or size: an integer, spelled as one, within 0 … `most`. */
  size(most = Number.MAX_SAFE_INTEGER): number {
    this.#skipSpace();
    const start = this.#position;
    const bytes = this.#bytes;
    let plain = 0;
    let end = start;
    for (; bytes[end] >= 0x30 && bytes[end] <= 0x39; end++) plain = 10 * plain + bytes[end] - 0x30;
    // Up to 15 digits are exact; what follows a number otherwise (a point, an exponent) is for the grammar to judge.
    const ends = bytes[end] === 0x2c || bytes[end] === 0x5d || bytes[end] === 0x7d;
    if (
      ends &&
      end > start &&
      end - start <= 15 &&
      (bytes[start] !== 0x30 || end === start + 1) &&
      plain <= most
    ) {
      this.#position = end;
      return plain;
    }
    const spelling = this.#spelling();
    if (!/^\d+$/.test(spelling))
      throw this.error(`expected an integer ≥ 0, found ${spelling.slice(0, 40)}`, start);
    // Above 2⁵³ rounding cannot bring a value back below it, so the comparison is exact.
    const value = Number(spelling);
    if (value > most) throw this.error(`${spelling.slice(0, 40)} is more than ${most}`, start);
    return value;
  }

  boolean(): boolean {
    this.#expect("boolean");
    const value = this.#bytes[this.#position] === 0x74;
    this.#word(value ? "true" : "false");
    return value;
  }

  null(): null {
    this.#expect("null");
    this.#word("null");
    return null;
  }

  /** Reads a value of any kind and forgets it. */
  skip(): void {
    switch (this.kind()) {
      case "object":
        this.object(() => this.skip());
        break;
      case "array":
        this.array(() => this.skip());
        break;
      case "string":
        this.string();
        break;
      case "number":
        this.number();
        break;
      case "boolean":
        this.boolean();
        break;
      case "null":
        this.null();
    }
  }

  /** Checks that nothing but space follows. */
  end(): void {
    this.#skipSpace();
    if (this.#position < this.#bytes.length) throw this.#unexpected("the end");
  }
}
