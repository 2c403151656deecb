"""Generating token by token with a causal language model that can be rewound."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from synque_select.llm.transformers.kv_cache import cache_arguments, cache_of, drop_last

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["IncrementalDecoder", "OutOfTokens"]

# most probable tokens that are searched for one with a letter
_MAX_CANDIDATES = 256
# characters that end a JSON string, or would have to be escaped in it
_ENDS = re.compile(r'["\\\n]')


class OutOfTokens(Exception):
    """Raised when the answer reaches its maximum length."""


class IncrementalDecoder:
    """A model that has read a prompt and continues it.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        prompt: Tokens of the prompt.
        temperature: Sampling temperature; 0 takes the most probable token.
        seed: Random seed for sampling.
        max_tokens: Maximum length of the answer.
        inputs: Inputs of the prompt for a model that reads images; None for text.
        n_at_once: Number of tokens of a text that are read in one forward pass; None for all.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Sequence[int],
        temperature: float,
        seed: int,
        max_tokens: int,
        inputs: Mapping[str, torch.Tensor] | None = None,
        n_at_once: int | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._temperature = temperature
        # on the CPU, so that a seed gives the same draws on every device
        self._generator = torch.Generator(device="cpu").manual_seed(seed)
        self._cache: Cache | None = None
        self._n_read = 0
        self._logits = torch.empty(0)
        self._n_prompt = len(prompt)
        self._limit = len(prompt) + max_tokens
        self._n_at_once = n_at_once
        if inputs is None:
            self._read_tokens(prompt)
        else:
            self._forward(len(prompt), inputs)

    @property
    def n_written(self) -> int:
        """Number of tokens after the prompt, including the JSON syntax written for the model."""
        return self._n_read - self._n_prompt

    def _feed(self, tokens: Sequence[int]) -> None:
        if not tokens:
            return
        if self._n_read + len(tokens) > self._limit:
            raise OutOfTokens
        self._read_tokens(tokens)

    def _read_tokens(self, tokens: Sequence[int]) -> None:
        step = self._n_at_once or len(tokens)
        for start in range(0, len(tokens), step):
            piece = tokens[start : start + step]
            self._forward(len(piece), {"input_ids": self._ids(piece)})

    def _ids(self, tokens: Sequence[int]) -> torch.Tensor:
        return torch.tensor([list(tokens)], device=self._model.device)

    def _forward(self, n_tokens: int, inputs: Mapping[str, torch.Tensor]) -> None:
        out = self._model(**inputs, **cache_arguments(self._model, self._cache))
        self._cache = cache_of(out)
        self._n_read += n_tokens
        self._logits = out.logits[0, -1].float().cpu()

    def read(self, text: str) -> None:
        """Append text that the model did not write."""
        self._feed(self._tokenizer(text, add_special_tokens=False).input_ids)

    def mark(self) -> tuple[int, torch.Tensor]:
        """Return the current state, for `rewind`."""
        return self._n_read, self._logits

    def rewind(self, mark: tuple[int, torch.Tensor]) -> None:
        """Return to the state of a mark."""
        n_read, self._logits = mark
        if self._cache is not None:
            drop_last(self._cache, self._n_read - n_read)
        self._n_read = n_read

    def write(self, ends: Collection[int]) -> str:
        """Write until a token that ends the turn, or until the maximum length.

        Args:
            ends: Tokens that end the turn.
        """
        written: list[int] = []
        while self._n_read < self._limit:
            token = self._next(self._temperature)
            if token in ends:
                break
            written.append(token)
            self._feed([token])
        return str(self._tokenizer.decode(written, skip_special_tokens=True))

    def write_string(self, max_length: int, temperature: float | None) -> str:
        """Write a JSON string, up to a quotation mark, backslash, line break or end of the turn.

        Args:
            max_length: Maximum number of characters.
            temperature: Sampling temperature; None for that of the answer.
        """
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

    def write_choice(self, choices: Sequence[str]) -> str:
        """Write one of some texts, by the probability of each followed by a quotation mark.

        Args:
            choices: The texts.
        """
        scores = torch.tensor([self._log_probability(f'{choice}"') for choice in choices])
        if self._temperature == 0:
            chosen = choices[int(scores.argmax())]
        else:
            probabilities = torch.softmax(scores / self._temperature, dim=-1)
            chosen = choices[int(torch.multinomial(probabilities, 1, generator=self._generator))]
        self.read(chosen)
        return chosen

    def _log_probability(self, text: str) -> float:
        start, total = self.mark(), 0.0
        for token in self._tokenizer(text, add_special_tokens=False).input_ids:
            total += float(torch.log_softmax(self._logits, dim=-1)[token])
            self._feed([token])
        self.rewind(start)
        return total

    def _next(self, temperature: float, *, need_letter: bool = False) -> int:
        logits = self._logits
        if need_letter:
            logits = self._with_letters(logits)
        if temperature == 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits / temperature, dim=-1)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def _with_letters(self, logits: torch.Tensor) -> torch.Tensor:
        """Exclude all but likely tokens that contain a letter and do not end the string."""
        # small models often write an empty string, or punctuation only, as the first item
        best = logits.topk(min(_MAX_CANDIDATES, len(logits))).indices.tolist()
        pieces = [str(self._tokenizer.decode([t], skip_special_tokens=True)) for t in best]
        allowed = [
            token
            for token, piece in zip(best, pieces, strict=True)
            if any(c.isalpha() for c in piece) and not _ENDS.search(piece)
        ]
        masked = torch.full_like(logits, -torch.inf)
        masked[allowed] = logits[allowed]
        return masked if allowed else logits
