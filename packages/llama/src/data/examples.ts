// What can be learnt from: the kinds of examples, and files of them.

import { ArgumentError, FormatError } from "@nomoat/core";
import { type JsonValue, openSource, parseJson } from "@nomoat/core/io";

export interface ChatMessage {
  /** Most often "system", "user" or "assistant"; the tokenizer's template decides. */
  role: string;
  content: string;
}

/** Text of which every token is learnt. */
export interface TextExample {
  text: string;
}

/** `completion` is learnt, `prompt` only read. */
export interface CompletionExample {
  prompt: string;
  completion: string;
}

/** A conversation through the tokenizer's chat template; what the assistant says is learnt. */
export interface ChatExample {
  messages: readonly ChatMessage[];
}

/** Token ids as they are; labels as Hugging Face's (not shifted, −100 where nothing is learnt), by default the ids. */
export interface TokenExample {
  ids: ArrayLike<number>;
  labels?: ArrayLike<number>;
}

export type Example = TextExample | CompletionExample | ChatExample | TokenExample;

/** A path (.txt, .jsonl), a Blob or File, the content of either, or examples in memory (a string is a text). */
export type DataSource =
  | string
  | URL
  | Blob
  | { readonly content: string | Uint8Array; readonly name?: string }
  | readonly (Example | string)[];

/** A string in JavaScript ends at about this many bytes. */
const maxFileBytes = 2 ** 29;
const maxLineBytes = 2 ** 26;
const maxExamples = 10_000_000;

type Fail = (field: string | undefined, reason: string) => never;

function requireText(value: unknown, field: string, fail: Fail, empty: boolean): string {
  if (typeof value !== "string") fail(field, value === undefined ? "is missing" : "must be a string");
  if (!empty && value === "") fail(field, "is empty");
  return value;
}

function checkMessages(value: unknown, fail: Fail): ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0)
    fail("messages", "must be a list of messages, and not empty");
  const messages = value.map((message: unknown, i): ChatMessage => {
    const at = `messages[${i}]`;
    if (typeof message !== "object" || message === null || Array.isArray(message))
      fail(at, "must be an object with role and content");
    const { role, content } = message as Record<string, unknown>;
    return {
      role: requireText(role, `${at}.role`, fail, false),
      content: requireText(content, `${at}.content`, fail, true),
    };
  });
  if (!messages.some(({ role }) => role === "assistant"))
    fail("messages", 'has no message of the role "assistant": there is nothing to learn');
  return messages;
}

function checkIds(value: unknown, field: string, fail: Fail): Int32Array {
  if (typeof value !== "object" || value === null || !("length" in value))
    fail(field, "must be a list of token ids");
  return Int32Array.from(value as ArrayLike<number>, (id, i) => {
    const allowed = Number.isInteger(id) && (id >= 0 || (field === "labels" && id === -100));
    if (!allowed || id >= 2 ** 31) fail(`${field}[${i}]`, `${String(id).slice(0, 40)} is no token id`);
    return id;
  });
}

const kinds = [["text"], ["prompt", "completion"], ["messages"], ["ids", "labels"]] as const;

/** An example out of unknown data; fields that belong to no kind are left out. */
function checkExample(value: unknown, fail: Fail): Example {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    fail(undefined, 'expected an object with "text", with "prompt" and "completion", or with "messages"');
  }
  const fields = value as Record<string, unknown>;
  const given = kinds.filter((names) => names.some((name) => fields[name] !== undefined));
  if (given.length !== 1) {
    const names = given.map((kind) => `"${kind[0]}"`).join(" and ");
    fail(
      undefined,
      `${given.length === 0 ? "has none of" : `has ${names}; expected one of`} "text", "prompt" with "completion", "messages"`,
    );
  }
  switch (given[0][0]) {
    case "text":
      return { text: requireText(fields.text, "text", fail, false) };
    case "prompt":
      return {
        prompt: requireText(fields.prompt, "prompt", fail, true),
        completion: requireText(fields.completion, "completion", fail, false),
      };
    case "messages":
      return { messages: checkMessages(fields.messages, fail) };
    case "ids": {
      const ids = checkIds(fields.ids, "ids", fail);
      if (fields.labels === undefined) return { ids };
      const labels = checkIds(fields.labels, "labels", fail);
      if (labels.length !== ids.length) fail("labels", `has ${labels.length} entries for ${ids.length} ids`);
      return { ids, labels };
    }
  }
}

function decode(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FormatError("is not UTF-8 text; convert it first", { file });
  }
}

const places = new WeakMap<Example, string>();

/** `file:line` of an example that was read from JSON Lines, else its number. */
export function placeOf(example: Example, index: number): string {
  return places.get(example) ?? `data[${index}]`;
}

/** Examples of a JSON Lines file: one object a line, empty lines between them allowed. */
function parseJsonLines(bytes: Uint8Array, file: string): Example[] {
  const examples: Example[] = [];
  let line = 0;
  for (let start = 0; start < bytes.length; ) {
    const newline = bytes.indexOf(0x0a, start);
    const end = newline < 0 ? bytes.length : newline;
    const content = bytes.subarray(start, end);
    const place = `${file}:${++line}`;
    start = end + 1;
    if (content.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d)) continue;
    if (content.length > maxLineBytes)
      throw new FormatError(`the line has ${content.length} bytes, more than ${maxLineBytes}`, {
        file: place,
      });
    if (examples.length >= maxExamples)
      throw new FormatError(`more than ${maxExamples} examples`, { file: place });
    const value: JsonValue = parseJson(content, { file: place, maxBytes: maxLineBytes });
    const example = checkExample(value, (field, reason) => {
      throw new FormatError(reason, { file: place, field });
    });
    places.set(example, place);
    examples.push(example);
  }
  if (examples.length === 0) throw new FormatError("holds no example", { file });
  return examples;
}

/** Whether a file is JSON Lines: by its name, else by its first character that is not white space. */
function isJsonLines(name: string, bytes: Uint8Array): boolean {
  if (/\.(?:jsonl|ndjson)$/i.test(name)) return true;
  if (/\.(?:txt|text|md)$/i.test(name)) return false;
  const first = bytes.find((byte) => byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d);
  if (/\.json$/i.test(name) && first === 0x5b)
    throw new FormatError("is one JSON array; expected JSON Lines: one object a line", { file: name });
  return first === 0x7b;
}

function parseFile(bytes: Uint8Array, name: string): Example[] {
  if (bytes.length > maxFileBytes)
    throw new FormatError(`has ${bytes.length} bytes, more than ${maxFileBytes}; split it`, { file: name });
  if (isJsonLines(name, bytes)) return parseJsonLines(bytes, name);
  const text = decode(bytes, name);
  if (text.trim() === "") throw new FormatError("holds no text", { file: name });
  return [{ text }];
}

/**
 * Reads examples: a text file is one example, a JSON Lines file has one a line, as `{"text"}`, `{"prompt", "completion"}` or
 * `{"messages": [{"role", "content"}, …]}`. Which it is, the extension tells (.txt, .md; .jsonl, .ndjson), or else the content.
 *
 * @throws {FormatError} with `file:line: field: reason`
 * @throws {ArgumentError} for examples in memory that are none, with their index
 * @throws {NomoatError} with code "IO" when a path cannot be read
 */
export async function loadData(source: DataSource): Promise<Example[]> {
  if (Array.isArray(source)) {
    const examples = source.map((value: unknown, i) =>
      checkExample(typeof value === "string" ? { text: value } : value, (field, reason) => {
        throw new ArgumentError(`data[${i}]${field ? `.${field}` : ""}: ${reason}`);
      }),
    );
    if (examples.length === 0) throw new ArgumentError("data: there are no examples");
    return examples;
  }
  if (typeof source === "object" && source !== null && "content" in source) {
    const { content, name = "data" } = source;
    return parseFile(typeof content === "string" ? new TextEncoder().encode(content) : content, name);
  }
  const opened = await openSource(source as string | URL | Blob, "data");
  try {
    if (opened.size > maxFileBytes)
      throw new FormatError(`has ${opened.size} bytes, more than ${maxFileBytes}; split it`, {
        file: opened.name,
      });
    return parseFile(await opened.read(0, opened.size), opened.name);
  } finally {
    await opened.close();
  }
}
