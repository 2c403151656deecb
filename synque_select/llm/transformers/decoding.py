"""Writing token by token with a causal language model, with a place to go back to."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from synque_select.llm.transformers.kv_cache import cache_of, forget, going_on

__all__ = ["IncrementalDecoder", "OutOfTokens"]

_MAX_LOOKED_AT = 256
_ENDS = re.compile(r'["\\\n]')


class OutOfTokens(Exception):
    """The answer is longer than it may be."""


class IncrementalDecoder:
    """A model that has read a prompt, and writes on.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        prompt: Tokens of the prompt.
        temperature: 0 for the most probable token.
        seed: Of sampling.
        max_tokens: Length of the answer, at most.
        inputs: What a model that reads images takes for the prompt.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompt: Sequence[int],
        temperature: float,
        seed: int,
        max_tokens: int,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._temperature = temperature
        self._generator = torch.Generator(device="cpu").manual_seed(seed)
        self._cache: Any = None
        self._n_read = 0
        self._logits = torch.empty(0)
        self._n_prompt = len(prompt)
        self._limit = len(prompt) + max_tokens
        self._forward(len(prompt), inputs or {"input_ids": self._ids(prompt)})

    @property
    def n_written(self) -> int:
        """Tokens behind the prompt, the frame of JSON among them."""
        return self._n_read - self._n_prompt

    def _feed(self, tokens: Sequence[int]) -> None:
        if not tokens:
            return
        if self._n_read + len(tokens) > self._limit:
            raise OutOfTokens
        self._forward(len(tokens), {"input_ids": self._ids(tokens)})

    def _ids(self, tokens: Sequence[int]) -> torch.Tensor:
        return torch.tensor([list(tokens)], device=self._model.device)

    def _forward(self, n_tokens: int, inputs: Mapping[str, Any]) -> None:
        out = self._model(**inputs, **going_on(self._model, self._cache))
        self._cache = cache_of(out)
        self._n_read += n_tokens
        self._logits = out.logits[0, -1].float().cpu()

    def read(self, text: str) -> None:
        """Append text that was not written by the model."""
        self._feed(self._tokenizer(text, add_special_tokens=False).input_ids)

    def mark(self) -> tuple[int, torch.Tensor]:
        """Return the place that `rewind` goes back to."""
        return self._n_read, self._logits

    def rewind(self, mark: tuple[int, torch.Tensor]) -> None:
        """Forget what came after a mark."""
        n_read, self._logits = mark
        forget(self._cache, self._n_read - n_read)
        self._n_read = n_read

    def write(self, ends: Collection[int]) -> str:
        """Write until a token that ends the turn, or as long as the answer may be."""
        written: list[int] = []
        while self._n_read < self._limit:
            token = self._next(self._temperature)
            if token in ends:
                break
            written.append(token)
            self._feed([token])
        return str(self._tokenizer.decode(written, skip_special_tokens=True))

    def write_string(self, max_length: int, temperature: float | None) -> str:
        """Write up to a quotation mark, backslash, line break or the end of the turn."""
        temperature = self._temperature if temperature is None else temperature
        text = ""
        while len(text) < max_length:
            token = self._next(temperature, need_letter=not text)
            piece = str(self._tokenizer.decode([token], skip_special_tokens=True))
            inside = _ENDS.split(piece)[0]
            if inside != piece or not piece:
                self.read(inside)
                text += inside
                break
            text += piece
            self._feed([token])
        return " ".join(text[:max_length].split()).rstrip(" ,;")

    def _next(self, temperature: float, *, need_letter: bool = False) -> int:
        logits = self._logits
        if need_letter:
            logits = self._with_letters(logits)
        if temperature == 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits / temperature, dim=-1)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def _with_letters(self, logits: torch.Tensor) -> torch.Tensor:
        """Keep only likely tokens that put a letter inside the string."""
        best = logits.topk(min(_MAX_LOOKED_AT, len(logits))).indices.tolist()
        pieces = [str(self._tokenizer.decode([t], skip_special_tokens=True)) for t in best]
        good = [
            token
            for token, piece in zip(best, pieces, strict=True)
            if any(c.isalpha() for c in piece) and not _ENDS.search(piece)
        ]
        kept = torch.full_like(logits, -torch.inf)
        kept[good] = logits[good]
        return kept if good else logits
