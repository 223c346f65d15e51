"""Tokenizers in CLIP's and in BERT's format in which every word of the world is one token and any other is spelt."""

import itertools
import string
from collections import Counter
from pathlib import Path

from transformers import BertTokenizer, CLIPTokenizer

from miniature.drawing import LOOKS, world

# Words that users write about pictures, beside those of the drawn world.
OF_ART = """art drawing picture image photo painting portrait style watercolor watercolour oil pixel pencil ink
sketch stained glass woodblock pointillism of by and a an the with in on at to"""
LENGTH = 32  # tokens of a prompt, its two ends included


def words() -> list[str]:
    """Every word of the world's captions and OF_ART, once, in a fixed order."""
    texts = [*world.COLOURS, *world.OBJECTS, "small big left right middle", *LOOKS, OF_ART]
    texts += [phrase for phrase, _, _ in world.BACKGROUNDS.values()] + list(world.EXTRAS.values())
    return list(dict.fromkeys(w for text in texts for w in text.split()))


def byte_letters() -> list[str]:
    """The 256 printable stand-ins for bytes of byte-level BPE (GPT-2's table, as CLIP uses it)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def build_tokenizer(of_words: list[str]) -> CLIPTokenizer:
    """Byte-pair merges, commonest pair first, until each of `of_words` is whole."""
    letters = byte_letters()
    vocab = {t: i for i, t in enumerate([*letters, *(c + "</w>" for c in letters)])}
    spelt, merges = [[*w[:-1], w[-1] + "</w>"] for w in of_words], []
    while any(len(s) > 1 for s in spelt):
        pairs = Counter(pair for s in spelt for pair in itertools.pairwise(s))
        a, b = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append((a, b))
        vocab.setdefault(a + b, len(vocab))
        spelt = [_merge(s, a, b) for s in spelt]
    for end in ("<|startoftext|>", "<|endoftext|>"):
        vocab[end] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def _merge(parts, a, b):
    out = []
    for part in parts:
        if out and out[-1] == a and part == b:
            out[-1] = a + b
        else:
            out.append(part)
    return out


def build_word_pieces(of_words: list[str]) -> BertTokenizer:
    """BLIP's kind: BERT's tokens, [DEC] where a caption begins, [ENC], the words, and letters to spell others."""
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    own = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
    vocab = dict.fromkeys([*own, *of_words, *letters, *(f"##{c}" for c in letters)])
    vocab = {token: i for i, token in enumerate(vocab)}
    return BertTokenizer(vocab, bos_token="[DEC]", additional_special_tokens=["[ENC]"], model_max_length=LENGTH)


def save(folder: Path) -> CLIPTokenizer:
    """Build the tokenizer, save it, and return it."""
    tokenizer = build_tokenizer(words())
    tokenizer.save_pretrained(folder)
    return tokenizer
