import { ArgumentError } from "@nomoat/core";
import type { Tokenizer } from "../tokenizer.js";
import type { Row } from "./batches.js";
import type { ChatExample } from "./examples.js";

export function encodeChat(_example: ChatExample, _tokenizer: Tokenizer): Row {
  throw new ArgumentError("chat examples are not supported yet");
}
