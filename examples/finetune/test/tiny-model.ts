/** A LLaMA of a few thousand random weights with a tokenizer of bytes, as a Hugging Face folder. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Generator } from "@nomoat/core";
import { LlamaForCausalLM, saveLlama } from "@nomoat/llama";

/** The characters that byte-level tokenizers write bytes with (Radford et al. 2019). */
function byteCharacters(): string[] {
  const printable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

function tokenizerJson(): object {
  const special = ["<s>", "</s>"];
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries([...special, ...byteCharacters()].map((token, id) => [token, id])),
      merges: [],
    },
  };
}

/** Writes the model into an existing folder. The same on every call. */
export async function writeTinyModel(folder: string): Promise<void> {
  const model = LlamaForCausalLM.create(
    {
      vocabSize: 258,
      hiddenSize: 32,
      intermediateSize: 64,
      numLayers: 2,
      numHeads: 4,
      numKeyValueHeads: 2,
      headDim: 8,
      maxPositionEmbeddings: 64,
      rmsNormEps: 1e-5,
      ropeTheta: 10000,
      ropeScaling: null,
      tieWordEmbeddings: true,
      attentionBias: false,
      mlpBias: false,
      bosTokenId: 0,
      eosTokenIds: [1],
    },
    { generator: new Generator(20) },
  );
  await saveLlama(model, folder);
  model.dispose();
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(tokenizerJson()));
  writeFileSync(
    join(folder, "tokenizer_config.json"),
    JSON.stringify({
      bos_token: "<s>",
      eos_token: "</s>",
      add_bos_token: true,
      add_eos_token: false,
      clean_up_tokenization_spaces: false,
      model_max_length: 64,
    }),
  );
}
