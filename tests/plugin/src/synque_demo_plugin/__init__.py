"""A proxy, an encoder, an engine and a reader as another package would bring them."""

from __future__ import annotations

import torch

from synque_demo_plugin.words import words
from synque_select import BaseEncoder, BaseLLM, BaseProxy, BaseReader, ProxyScores


class WordOverlap(BaseProxy):
    """Share of a candidate's distinct words that the real sample has too."""

    key, family, unit, source = "word_overlap", "lexical", "share of words", "none"
    higher_is_better, needs_embeddings = True, False
    modalities = frozenset({"text"})

    def __init__(self, min_length: int = 1) -> None:
        self.min_length = min_length

    def score(self, real, candidates, *, seed, device):
        known = words(real.views, self.min_length)
        drawn = [words(candidate.views, self.min_length) for candidate in candidates]
        shares = [len(own & known) / max(len(own), 1) for own in drawn]
        return ProxyScores(torch.tensor(shares, dtype=torch.float64))


class Letters(BaseEncoder):
    """How often a text has each of the first letters of the alphabet."""

    modality, revision = "text", "1"

    def __init__(self, n: int = 26) -> None:
        self.n = n
        self.id = f"letters:n={n}"

    def encode(self, views):
        alphabet = [chr(ord("a") + i) for i in range(self.n)]
        return torch.tensor([[float(view.count(c)) for c in alphabet] for view in views])


class LengthLLM(BaseLLM):
    """The longer the prompt, the more probable the first choice."""

    def __init__(self, scale: float = 1000.0) -> None:
        self.id = "length"
        self.scale = scale

    def options(self):
        return {"scale": self.scale}

    def generate(self, prompts, *, choices=None, schema=None, **options):
        yield from ((i, (choices or ["a text"])[0]) for i in range(len(prompts)))

    def choice_probabilities(self, shared_prefix, items, suffixes, choices):
        for i, item in enumerate(items):
            first = len(item) / (len(item) + self.scale)
            rest = [(1 - first) / (len(choices) - 1)] * (len(choices) - 1)
            yield i, [[first, *rest] for _ in suffixes]


class NoteReader(BaseReader):
    """Files of lines "label | text"."""

    suffixes = (".note",)

    def read(self, path):
        pairs = [line.split(" | ") for line in path.read_text(encoding="utf-8").splitlines()]
        return [{"label": int(label), "text": text} for label, text in pairs]
