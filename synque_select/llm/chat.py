"""Prompts as a model reads them: in its chat template, as tokens, with answers appended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, cast

from synque_select.errors import ConfigError
from synque_select.llm.prompt import PromptLike, has_images, join_prompts, prompt_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

__all__ = ["ChatFormat", "ControlTokens", "control_tokens_of"]

# number of characters at the end of a prompt that decide how an answer is tokenized behind it
_TAIL = 32


class ChatFormat:
    """How the prompts of one model are formatted and split into tokens.

    A model without a chat template reads the prompt followed by a line break.

    Args:
        model_id: Id of the model, for error messages.
        tokenizer: Tokenizer of the model.
        processor: Processor of a model that reads images, which then has the chat template; None
            for a model that reads text only.
    """

    def __init__(
        self,
        model_id: str,
        tokenizer: PreTrainedTokenizerBase,
        processor: ProcessorMixin | None = None,
    ) -> None:
        self._id = model_id
        self._tokenizer = tokenizer
        self._processor = processor
        self._template = processor if processor is not None else tokenizer
        self._has_template = bool(getattr(self._template, "chat_template", None))

    def text(self, prompt: PromptLike) -> str:
        """Return the text that the model reads, with the template's placeholders for images.

        Raises:
            ConfigError: The prompt has images, and the model cannot read them.
        """
        if has_images(prompt) and self._processor is None:
            raise ConfigError(
                f"{self._id} reads text only, but a prompt has an image: choose a model that reads "
                "images"
            )
        if not self._has_template:
            return f"{self._without_template(prompt)}\n"
        # transformers declares the content as a text only, but accepts a list of parts
        turn = cast("dict[str, str]", {"role": "user", "content": self._content(prompt)})
        return str(
            self._template.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        )

    def _without_template(self, prompt: PromptLike) -> str:
        if has_images(prompt):
            raise ConfigError(
                f"{self._id} has no chat template, which would say where images go: prompts with "
                "images need one"
            )
        return str(join_prompts(prompt))

    def _content(self, prompt: PromptLike) -> str | list[dict[str, str]]:
        if self._processor is None:
            return str(join_prompts(prompt))
        return [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in prompt_parts(prompt)
        ]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts from `text`."""
        # a template contains the special tokens already
        add_special_tokens = not self._has_template
        return list(self._tokenizer(list(texts), add_special_tokens=add_special_tokens).input_ids)

    def continuations(
        self, texts: Sequence[str], tokens: Sequence[list[int]], choices: Sequence[str]
    ) -> list[list[list[int]]]:
        """Return the tokens of every choice as the continuation of every text.

        Args:
            texts: Texts from `text`.
            tokens: Their tokens from `tokens`.
            choices: Possible answers.

        Returns:
            For each text, the tokens of each choice.
        """
        # only the characters before a choice affect how it is tokenized, and prompts of one
        # ranking end alike: most are looked up here
        by_tail: dict[str, list[list[int]]] = {}
        continuations = []
        for text, row in zip(texts, tokens, strict=True):
            tail = text[-_TAIL:]
            if tail not in by_tail:
                by_tail[tail] = [self._continuation(text, row, choice) for choice in choices]
            continuations.append(by_tail[tail])
        return continuations

    def _continuation(self, text: str, tokens: list[int], choice: str) -> list[int]:
        (whole,) = self.tokens([text + choice])
        if whole[: len(tokens)] == tokens and len(whole) > len(tokens):
            return list(whole[len(tokens) :])
        # the tokenizer would merge the end of the prompt with the answer, but the model has read
        # the prompt's own tokens: tokenize the answer by itself
        return list(self._tokenizer(choice, add_special_tokens=False).input_ids)


class ControlTokens(frozenset[str]):
    """Texts that a tokenizer reads as one special or added token, and where it reads them.

    Attributes:
        tokenizer: The tokenizer; None if it does not tell the places of its tokens.
    """

    tokenizer: PreTrainedTokenizerBase | None = None

    def spans(self, text: str, besides: Collection[str] = ()) -> list[tuple[int, int]]:
        """Return the places in a text that the tokenizer reads as a token that is not in `besides`.

        The tokenizer may change a text before it looks for them: lower its case, drop characters.
        Runs of spaces, and what it does not know, are left out.
        """
        if self.tokenizer is None:
            return []
        read = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids, places = cast("list[int]", read.input_ids), read["offset_mapping"]
        added = {i: str(token) for i, token in self.tokenizer.added_tokens_decoder.items()}
        added.pop(cast("int", self.tokenizer.unk_token_id), None)
        return [
            (first, max(last, first + 1))
            for i, (first, last) in zip(ids, places, strict=True)
            if i in added and added[i] not in besides and added[i].replace("▁", " ").strip()
        ]


def control_tokens_of(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """Return the texts that a tokenizer reads as one special or added token.

    Args:
        tokenizer: A tokenizer of transformers.
    """
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    added |= {str(token) for token in tokenizer.get_added_vocab()}
    added |= {str(token) for token in tokenizer.all_special_tokens}
    tokens = ControlTokens(added - {""})
    tokens.tokenizer = tokenizer if tokenizer.is_fast else None
    return tokens
