// Chat templates: conversations as the one text that a model was trained to read. They come in files and are programs (Jinja), so they
// run under limits: steps, time, lengths of strings and lists.

import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";
import { ArgumentError, FormatError } from "@nomoat/core";
import { requireList, requireOptions } from "@nomoat/core/extend";
import type { ChatMessage } from "./data/examples.js";
import { requireTokenizer } from "./options.js";
import type { Tokenizer } from "./tokenizer.js";

/** The longest in use (gpt-oss) has 17,000 characters. */
const longestTemplate = 1 << 16;
/** The lexer takes time in the square of the length of a run of white space. */
const longestBlank = 1000;
const mostSteps = 1_000_000;
const mostMilliseconds = 2000;
/** Of one value. */
const longestString = 1 << 22;
/** Of all values together. */
const mostCharacters = 1 << 27;
const longestList = 1 << 16;

class Limit extends Error {}

type Evaluate = Interpreter["evaluate"];

/** An interpreter that gives up when a template takes too long or makes too much. */
class BoundedInterpreter extends Interpreter {
  #steps = 0;
  #characters = 0;
  readonly #deadline = performance.now() + mostMilliseconds;

  override evaluate(...input: Parameters<Evaluate>): ReturnType<Evaluate> {
    if (++this.#steps > mostSteps) throw new Limit(`takes more than ${mostSteps} steps`);
    if (performance.now() > this.#deadline) throw new Limit(`takes more than ${mostMilliseconds} ms`);
    const result = super.evaluate(...input);
    const { value } = result;
    if (typeof value === "string") {
      this.#characters += value.length;
      if (value.length > longestString || this.#characters > mostCharacters)
        throw new Limit("makes too much text");
    } else if (Array.isArray(value) && value.length > longestList) {
      throw new Limit(`makes a list of more than ${longestList} entries`);
    }
    return result;
  }
}

/** Python's range, of bounded length. */
function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const length = step === 0 ? Number.NaN : Math.max(0, Math.ceil((to - from) / step));
  if (!(length <= longestList)) throw new Limit(`range() of ${length} numbers`);
  return Array.from({ length }, (_, i) => from + i * step);
}

/** What a template complains about (`raise_exception`): roles out of order, most often. */
class Complaint extends Error {}

const globals: Readonly<Record<string, unknown>> = {
  ...{ true: true, false: false, none: null, True: true, False: false, None: null },
  range,
  raise_exception: (message: unknown) => {
    throw new Complaint(String(message));
  },
};

type Program = ReturnType<typeof parse>;

const parsed = new Map<string, Program>();

function parseTemplate(template: string): Program {
  let program = parsed.get(template);
  if (program) return program;
  if (template.length > longestTemplate)
    throw new Limit(`has ${template.length} characters, more than ${longestTemplate}`);
  if (new RegExp(`\\s{${longestBlank + 1}}`).test(template))
    throw new Limit(`has more than ${longestBlank} characters of white space in a row`);
  program = parse(tokenize(template, { lstrip_blocks: true, trim_blocks: true }));
  parsed.clear();
  parsed.set(template, program);
  return program;
}

/** The template in a tokenizer_config.json: a string, or the one named "default" of a list. */
function templateOf(tokenizer: Tokenizer): string {
  const given = tokenizer.config.chat_template;
  const list = Array.isArray(given) ? (given as unknown[]) : [];
  const named = list.find((item) => (item as { name?: unknown } | null)?.name === "default");
  const template = named === undefined ? given : (named as { template?: unknown }).template;
  if (typeof template === "string") return template;
  throw new ArgumentError(
    "the tokenizer has no chat template (chat_template in tokenizer_config.json, or chat_template.jinja); use prompt and completion instead",
  );
}

/** Text of a special token, as tokenizer_config.json names it. */
function tokenText(tokenizer: Tokenizer, name: string): string {
  const token = tokenizer.config[name];
  const content =
    typeof token === "object" && token !== null ? (token as { content?: unknown }).content : token;
  return typeof content === "string" ? content : "";
}

export interface ChatTemplateOptions {
  /** Ends the text with what opens the assistant's turn, for generation (default false). */
  addGenerationPrompt?: boolean;
}

/**
 * A conversation as text, by the tokenizer's chat template. Special tokens stand in the text: encode it with
 * `addSpecialTokens: false`.
 *
 * The template is bounded: 65,536 characters, a million steps, two seconds, four million characters of text, lists of 65,536 entries.
 * Templates that ask for today's date (`strftime_now`) find it undefined and use the one they hold for that case, so that the same
 * messages always give the same text.
 *
 * @throws {FormatError} for a template that is malformed, complains about the messages, or goes beyond a limit
 * @throws {ArgumentError} when there is no template
 */
export function applyChatTemplate(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: ChatTemplateOptions = {},
): string {
  requireTokenizer("applyChatTemplate", tokenizer);
  requireList("applyChatTemplate", "messages", messages);
  requireOptions("applyChatTemplate", options);
  const template = templateOf(tokenizer);
  try {
    const environment = new Environment();
    const variables = {
      ...globals,
      messages: messages.map(({ role, content }) => ({ role, content })),
      add_generation_prompt: options.addGenerationPrompt ?? false,
      bos_token: tokenText(tokenizer, "bos_token"),
      eos_token: tokenText(tokenizer, "eos_token"),
      pad_token: tokenText(tokenizer, "pad_token"),
      unk_token: tokenText(tokenizer, "unk_token"),
    };
    for (const [name, value] of Object.entries(variables)) environment.set(name, value);
    return String(new BoundedInterpreter(environment).run(parseTemplate(template)).value);
  } catch (error) {
    const reason = error instanceof Error ? error.message.slice(0, 300) : String(error);
    const what = error instanceof Complaint ? `refuses the messages: ${reason}` : reason;
    throw new FormatError(what, { file: "chat_template" }, { cause: error });
  }
}
