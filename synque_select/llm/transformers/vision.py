"""Reading prompts with images: once each in full, and what follows by the model's cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from synque_select.llm.prompt import PromptLike, prompt_parts
from synque_select.llm.transformers.kv_cache import cache_of, forget, going_on
from synque_select.llm.transformers.prefix_tree import common_length

__all__ = ["PictureReader", "fresh_positions", "images_of"]


def images_of(prompt: PromptLike) -> list[Any]:
    """Return the images of a prompt, in RGB."""
    return [part.convert("RGB") for part in prompt_parts(prompt) if not isinstance(part, str)]


class PictureReader:
    """A vision-language model with the prompt that it read last.

    A prompt that differs from it only behind its images, as the second question about a sample
    does, is not read again up to there.

    Args:
        model: Of transformers' `AutoModelForImageTextToText`.
        processor: Its processor.
        can_rewind: Whether the last tokens can be dropped from its cache.
    """

    def __init__(self, model: Any, processor: Any, can_rewind: bool) -> None:
        self._model = model
        self._processor = processor
        self._can_rewind = can_rewind
        self._image_token = getattr(model.config, "image_token_id", None)
        self._tokens: list[int] = []
        self._images: list[Any] = []
        self._cache: Any = None

    def inputs(self, text: str, images: Sequence[Any]) -> dict[str, Any]:
        """Return what the model takes for a prompt in its template."""
        found = self._processor(
            text=[text],
            images=list(images) or None,
            # the template writes the special tokens itself
            add_special_tokens=False,
            return_tensors="pt",
        )
        dtype, device = self._model.dtype, self._model.device
        return {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in found.items()
        }

    @torch.inference_mode()
    def scores(
        self, inputs: Mapping[str, Any], images: Sequence[Any], answers: Sequence[Sequence[int]]
    ) -> list[float]:
        """Return the log-probability of each answer, by all of its tokens."""
        first = self._read(inputs, images)
        steps: dict[tuple[int, ...], torch.Tensor] = {(): first}
        for answer in answers:
            beginning = tuple(answer[:-1])
            if beginning not in steps:
                steps[beginning] = torch.cat([first, self._behind(inputs, images, beginning)])
        return [
            sum(float(steps[tuple(a[:-1])][i, token]) for i, token in enumerate(a)) for a in answers
        ]

    def _behind(
        self, inputs: Mapping[str, Any], images: Sequence[Any], tokens: Sequence[int]
    ) -> torch.Tensor:
        """Return log-probabilities behind each of some tokens after the prompt."""
        found = self._feed(tokens)
        if self._can_rewind:
            forget(self._cache, len(tokens))
        else:
            self._fresh(inputs, images)
        return found

    def _read(self, inputs: Mapping[str, Any], images: Sequence[Any]) -> torch.Tensor:
        tokens = inputs["input_ids"][0].tolist()
        # the last token is read in any case: it predicts
        n_kept = min(common_length([self._tokens, tokens]), len(tokens) - 1)
        rest = tokens[n_kept:]
        same = len(images) == len(self._images) and all(
            a is b or a.tobytes() == b.tobytes() for a, b in zip(images, self._images, strict=True)
        )
        if not (same and n_kept and self._can_rewind) or self._image_token in (None, *rest):
            return self._fresh(inputs, images)
        forget(self._cache, len(self._tokens) - n_kept)
        found = self._feed(rest)[-1:]
        self._tokens = tokens
        return found

    def _fresh(self, inputs: Mapping[str, Any], images: Sequence[Any]) -> torch.Tensor:
        fresh_positions(self._model)
        out = self._model(**inputs, use_cache=True)
        self._cache = cache_of(out)
        self._tokens, self._images = inputs["input_ids"][0].tolist(), list(images)
        return torch.log_softmax(out.logits[0, -1:].float(), dim=-1).cpu()

    def _feed(self, tokens: Sequence[int]) -> torch.Tensor:
        ids = torch.tensor([list(tokens)], device=self._model.device)
        out = self._model(input_ids=ids, **going_on(self._model, self._cache))
        self._cache = cache_of(out)
        return torch.log_softmax(out.logits[0].float(), dim=-1).cpu()


def fresh_positions(model: Any) -> None:
    """Have a model forget where the images of the prompt before stood."""
    for module in model.modules():
        if getattr(module, "rope_deltas", None) is not None:
            module.rope_deltas = None
