"""Writes packages/llama/test/fixtures/tokenizers.json: token ids of texts by SentencePiece's two algorithms, BPE and Unigram.

Standard library alone, from the published descriptions: BPE merges, again and again, the neighbours whose piece has the highest
score (the leftmost of equals); Unigram takes the segmentation with the highest sum of scores (Viterbi). Both put U+2581 before the text
and in the place of spaces; what no piece covers becomes bytes (BPE, as LLaMA's) or <unk> (Unigram). The vocabularies are trained
here, on a paragraph of Carroll's, and are as small as that.
"""

import json
import math
import pathlib
from collections import Counter

TEXT = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or twice she "
    "had peeped into the book her sister was reading, but it had no pictures or conversations in it, and what is the use of a "
    "book, thought Alice, without pictures or conversation?"
)
CASES = [
    "Alice was sitting by her sister",
    "the use of a book",
    " leading and  double spaces ",
    "conversations, conversation: converse!",
    "",
    " ",
    "x",
    "naïve café",
    "日本 🙂",
    "newline\nand\ttab",
    "tttttttttttt",
    "nothingnothing",
]
SPACE = "\u2581"


def pretokenized(text):
    return SPACE + text.replace(" ", SPACE)


def train_bpe(size):
    words = [list(SPACE + word) for word in TEXT.split(" ")]
    pieces, merges = sorted({c for word in words for c in word}), []
    for _ in range(size):
        pairs = Counter(pair for word in words for pair in zip(word, word[1:]))
        # Ties by text: the order must not depend on that of a set.
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [word[i] + word[i + 1]]
                i += 1
    return pieces, merges


def all_merges(scores, ids):
    """As Hugging Face converts a SentencePiece model: every split of a piece into two, best piece first."""
    found = []
    for piece, score in scores.items():
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in ids and right in ids:
                found.append((-score, ids[left], ids[right], [left, right]))
    return [pair for *_, pair in sorted(found)]


def bpe(text, scores, ids):
    if text == "":
        return []
    symbols = list(pretokenized(text))
    while True:
        best = None
        for i in range(len(symbols) - 1):
            piece = symbols[i] + symbols[i + 1]
            if piece in scores and (best is None or scores[piece] > best[0]):
                best = (scores[piece], i)
        if best is None:
            break
        i = best[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    out = []
    for symbol in symbols:
        if symbol in ids:
            out.append(ids[symbol])
        else:
            out += [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return out


def unigram(text, pieces, unknown):
    """Segmentation with the highest sum of log probabilities; an unknown character costs 10 below the least score."""
    if text == "":
        return []
    chars = pretokenized(text)
    scores = {piece: score for piece, score in pieces[3:]}
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    penalty = min(scores.values()) - 10
    best = [(0.0, 0, None)] + [(-math.inf, 0, None)] * len(chars)
    for end in range(1, len(chars) + 1):
        for start in range(end):
            piece = chars[start:end]
            score = scores.get(piece)
            if score is None and end - start == 1:
                score, piece = penalty, None
            if score is not None and best[start][0] + score > best[end][0]:
                best[end] = (best[start][0] + score, start, piece)
    out, end = [], len(chars)
    while end > 0:
        _, start, piece = best[end]
        out.append(unknown if piece is None else ids[piece])
        end = start
    out.reverse()
    # Unknown neighbours are one.
    return [token for i, token in enumerate(out) if token != unknown or i == 0 or out[i - 1] != unknown]


def main():
    characters, merges = train_bpe(60)
    control = ["<unk>", "<s>", "</s>"]
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    made = ["".join(merge) for merge in merges]
    tokens = control + octets + made + characters
    # Two ways may lead to one piece: the first is its score.
    scores = {piece: -float(made.index(piece)) for piece in made}
    ids = {token: i for i, token in enumerate(tokens)}
    counts = Counter(pretokenized(TEXT))
    words = Counter(SPACE + word for word in TEXT.split(" "))
    parts = Counter(word[i : i + 3] for word in words.elements() for i in range(len(word) - 2))
    known = counts + words + parts
    total = sum(known.values())
    pieces = [(token, 0.0) for token in control]
    pieces += [(piece, math.log(known[piece] / total)) for piece in sorted(known)]
    fixture = {
        "bpe": {
            "tokens": tokens,
            "scores": [0.0] * (len(control) + 256) + [scores[p] for p in made] + [-float(len(made) + i) for i in range(len(characters))],
            "types": [2, 3, 3] + [6] * 256 + [1] * (len(made) + len(characters)),
            "merges": all_merges(scores, ids),
            "cases": [{"text": text, "ids": bpe(text, scores, ids)} for text in CASES],
        },
        "unigram": {
            "vocab": [list(piece) for piece in pieces],
            "cases": [{"text": text, "ids": unigram(text, pieces, 0)} for text in CASES],
        },
    }
    assert len(set(tokens)) == len(tokens)
    path = pathlib.Path(__file__).resolve().parents[2] / "packages/llama/test/fixtures/tokenizers.json"
    path.write_text(json.dumps(fixture, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
