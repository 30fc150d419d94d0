// Conversations as rows: what the assistant says is learnt, the rest only read.

import { FormatError } from "@nomoat/core";
import { applyChatTemplate } from "../chat-template.js";
import type { Tokenizer } from "../tokenizer.js";
import { commonPrefix, type Row } from "./batches.js";
import type { ChatExample } from "./examples.js";

/**
 * Token ids of a conversation, with labels for the assistant's turns: from what opens a turn (which generation is given, and does not
 * learn) to what closes it. Turns are found by rendering the conversation up to there, so the template must render what comes first the
 * same way whatever follows.
 *
 * @throws {FormatError} when it does not, or refuses the messages
 */
export function encodeChat(example: ChatExample, tokenizer: Tokenizer): Row {
  const { messages } = example;
  const full = applyChatTemplate(tokenizer, messages);
  const ids = tokenizer.encode(full, { addSpecialTokens: false });
  const labels = new Int32Array(ids.length).fill(-100);
  /** Tokens before the end of `text`, which `full` begins with; a token that crosses it does not count. */
  const tokensOf = (text: string, message: number): number => {
    if (text === full) return ids.length;
    if (!full.startsWith(text)) {
      throw new FormatError(
        `renders messages up to messages[${message}] in another way when more follow, so the assistant's turns cannot be found; end the conversation there, or use prompt and completion`,
        { file: "chat_template" },
      );
    }
    return commonPrefix(tokenizer.encode(text, { addSpecialTokens: false }), ids);
  };
  messages.forEach(({ role }, i) => {
    if (role !== "assistant") return;
    const start = tokensOf(
      applyChatTemplate(tokenizer, messages.slice(0, i), { addGenerationPrompt: true }),
      i,
    );
    const end = tokensOf(applyChatTemplate(tokenizer, messages.slice(0, i + 1)), i);
    labels.set(ids.subarray(start, end), start);
  });
  return { ids, labels };
}
