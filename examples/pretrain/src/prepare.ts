/**
 * Makes what training reads: the vocabulary and the token ids of the corpus, in `.cache`.
 *
 *     tsx src/prepare.ts [vocabulary size]
 *
 * `train.u16` and `held-out.u16` are token ids as little-endian 16-bit integers, with a bos before
 * each document; `meta.json` tells what they were made from.
 */
import { createHash } from "node:crypto";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import {
  BOS_ID,
  BpeEncoder,
  EOS_ID,
  PAD_ID,
  tokenizerConfig,
  tokenizerJson,
  tokenStrings,
  trainBpe,
} from "./bpe.js";
import { CACHE_FOLDER } from "./cache.js";
import { type CorpusDocument, type CorpusSource, loadCorpus } from "./corpus.js";

export { CACHE_FOLDER };

export interface PreparedText {
  file: string;
  documents: number;
  /** UTF-8 bytes of text. */
  bytes: number;
  /** Token ids in the file, bos included. */
  tokens: number;
  /** Bytes of text for one token; a loss in nats per token is `loss / ln 2 / bytesPerToken` bits per byte. */
  bytesPerToken: number;
  sha256: string;
}

/** The content of `meta.json`. */
export interface PreparedMeta {
  vocabSize: number;
  bosTokenId: number;
  eosTokenId: number;
  padTokenId: number;
  train: PreparedText;
  heldOut: PreparedText;
  sources: CorpusSource[];
}

/** The context length that `tokenizer_config.json` tells; the model may have any. */
const MODEL_MAX_LENGTH = 256;

/** A program that is training reads these files: each appears whole or not at all. */
function writeWhole(name: string, content: string | Uint8Array): void {
  const path = join(CACHE_FOLDER, name);
  writeFileSync(`${path}.tmp`, content);
  renameSync(`${path}.tmp`, path);
}

function writeTokens(file: string, documents: readonly CorpusDocument[], encoder: BpeEncoder): PreparedText {
  const chunks = documents.map((document) => [BOS_ID, ...encoder.encode(document.text)]);
  const tokens = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const content = new Uint8Array(2 * tokens);
  const view = new DataView(content.buffer);
  let offset = 0;
  for (const chunk of chunks) {
    for (const id of chunk) {
      view.setUint16(offset, id, true);
      offset += 2;
    }
  }
  writeWhole(file, content);
  const bytes = documents.reduce((sum, document) => sum + Buffer.byteLength(document.text), 0);
  return {
    file,
    documents: documents.length,
    bytes,
    tokens,
    bytesPerToken: bytes / tokens,
    sha256: createHash("sha256").update(content).digest("hex"),
  };
}

/** Writes the cache and returns what `meta.json` says. The same packages give the same bytes. */
export function prepare(vocabSize = 2048): PreparedMeta {
  const corpus = loadCorpus();
  // From training documents alone: held-out text has no say in the vocabulary.
  const vocabulary = trainBpe(
    corpus.trainDocuments.map((document) => document.text),
    vocabSize,
  );
  const encoder = new BpeEncoder(vocabulary);
  mkdirSync(CACHE_FOLDER, { recursive: true });
  writeWhole("tokenizer.json", `${JSON.stringify(tokenizerJson(vocabulary), null, 1)}\n`);
  writeWhole("tokenizer_config.json", `${JSON.stringify(tokenizerConfig(MODEL_MAX_LENGTH), null, 2)}\n`);
  const meta: PreparedMeta = {
    vocabSize: tokenStrings(vocabulary).length,
    bosTokenId: BOS_ID,
    eosTokenId: EOS_ID,
    padTokenId: PAD_ID,
    train: writeTokens("train.u16", corpus.trainDocuments, encoder),
    heldOut: writeTokens("held-out.u16", corpus.heldOutDocuments, encoder),
    sources: corpus.sources,
  };
  writeWhole("meta.json", `${JSON.stringify(meta, null, 2)}\n`);
  return meta;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const started = performance.now();
  const meta = prepare(process.argv[2] === undefined ? undefined : Number(process.argv[2]));
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  for (const source of meta.sources) {
    console.log(`${source.package} ${source.version}: ${source.documents} documents, ${source.bytes} bytes`);
  }
  for (const text of [meta.train, meta.heldOut]) {
    console.log(`${text.file}: ${text.tokens} tokens, ${text.bytesPerToken.toFixed(3)} bytes per token`);
  }
  console.log(`vocabulary ${meta.vocabSize}, ${seconds} s`);
}
