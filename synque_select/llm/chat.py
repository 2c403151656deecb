"""Prompts as a model reads them: in its chat template, as tokens, with answers joined on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synque_select.errors import ConfigError
from synque_select.llm.prompt import PromptLike, has_images, join_prompts, prompt_parts

__all__ = ["ChatFormat"]

_TAIL = 32  # characters at a prompt's end that decide how an answer joins it


class ChatFormat:
    """How one model's prompts are written and split into tokens.

    A model without a chat template reads the prompt and a line break.

    Args:
        model_id: For errors.
        tokenizer: Of transformers.
        processor: Of transformers, for a model that reads images; it has the template then.
    """

    def __init__(self, model_id: str, tokenizer: Any, processor: Any = None) -> None:
        self._id = model_id
        self._tokenizer = tokenizer
        self._processor = processor
        self._template = processor if processor is not None else tokenizer
        self._templated = bool(getattr(self._template, "chat_template", None))

    def text(self, prompt: PromptLike) -> str:
        """Return what the model reads, images as the template's placeholders.

        Raises:
            ConfigError: There are images, and the model reads none.
        """
        if has_images(prompt) and self._processor is None:
            raise ConfigError(f"{self._id} reads no images, and a prompt has one")
        if not self._templated:
            return f"{self._without_template(prompt)}\n"
        return str(
            self._template.apply_chat_template(
                [{"role": "user", "content": self._content(prompt)}],
                tokenize=False,
                add_generation_prompt=True,
            )
        )

    def _without_template(self, prompt: PromptLike) -> str:
        if has_images(prompt):
            raise ConfigError(f"{self._id} has no chat template, which says where images stand")
        return str(join_prompts(prompt))

    def _content(self, prompt: PromptLike) -> Any:
        if self._processor is None:
            return str(join_prompts(prompt))
        return [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in prompt_parts(prompt)
        ]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of what the model reads."""
        # the template writes the special tokens itself
        return list(self._tokenizer(list(texts), add_special_tokens=not self._templated).input_ids)

    def continuations(
        self, texts: Sequence[str], tokens: Sequence[list[int]], choices: Sequence[str]
    ) -> list[list[list[int]]]:
        """Return the tokens of every choice behind every text.

        How text joins is decided by the characters before it, so texts of one ending share it.
        """
        known: dict[str, list[list[int]]] = {}
        found = []
        for text, row in zip(texts, tokens, strict=True):
            tail = text[-_TAIL:]
            if tail not in known:
                known[tail] = [self._continuation(text, row, choice) for choice in choices]
            found.append(known[tail])
        return found

    def _continuation(self, text: str, tokens: list[int], choice: str) -> list[int]:
        (whole,) = self.tokens([text + choice])
        if whole[: len(tokens)] == tokens and len(whole) > len(tokens):
            return list(whole[len(tokens) :])
        # the tokenizer would melt the end of the prompt into the answer: keep them apart
        return list(self._tokenizer(choice, add_special_tokens=False).input_ids)
