"""Scoring prompts with images: each is read in full once, and what follows from the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from synque_select.llm.prompt import PromptLike, prompt_parts
from synque_select.llm.transformers.kv_cache import cache_arguments, cache_of, drop_last
from synque_select.llm.transformers.prefix_tree import common_length

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import Cache, PreTrainedModel, ProcessorMixin

__all__ = ["ImagePromptScorer", "images_of", "reset_image_positions"]


def images_of(prompt: PromptLike) -> list[Image]:
    """Return the images of a prompt, converted to RGB."""
    return [part.convert("RGB") for part in prompt_parts(prompt) if not isinstance(part, str)]


class ImagePromptScorer:
    """A vision-language model with the cache of the prompt that it read last.

    A prompt that differs from the last one only after the images, such as the second question
    about an example, is read only from there on.

    Args:
        model: A model of transformers' `AutoModelForImageTextToText`.
        processor: Its processor.
        can_rewind: Whether the last tokens can be removed from the model's cache.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, can_rewind: bool) -> None:
        self._model = model
        self._processor = processor
        self._can_rewind = can_rewind
        self._image_token: int | None = getattr(model.config, "image_token_id", None)
        self._tokens: list[int] = []
        self._images: list[Image] = []
        self._cache: Cache | None = None

    def inputs(self, text: str, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for a prompt.

        Args:
            text: Text of the prompt from `ChatFormat.text`.
            images: Images of the prompt, in order.
        """
        inputs = self._processor(
            text=[text],
            images=list(images) or None,
            # the template contains the special tokens already
            add_special_tokens=False,
            return_tensors="pt",
        )
        dtype, device = self._model.dtype, self._model.device
        return {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    @torch.inference_mode()
    def scores(
        self,
        inputs: Mapping[str, torch.Tensor],
        images: Sequence[Image],
        answers: Sequence[Sequence[int]],
    ) -> list[float]:
        """Return the log-probability of each answer, the sum over its tokens.

        Args:
            inputs: Result of `inputs`.
            images: Images of the prompt.
            answers: Tokens of each answer.
        """
        first = self._read(inputs, images)
        steps: dict[tuple[int, ...], torch.Tensor] = {(): first}
        for answer in answers:
            beginning = tuple(answer[:-1])
            if beginning not in steps:
                steps[beginning] = torch.cat([first, self._after(inputs, images, beginning)])
        return [
            sum(float(steps[tuple(a[:-1])][i, token]) for i, token in enumerate(a)) for a in answers
        ]

    def _after(
        self, inputs: Mapping[str, torch.Tensor], images: Sequence[Image], tokens: Sequence[int]
    ) -> torch.Tensor:
        """Return log-probabilities after each of some tokens that follow the prompt."""
        log_p = self._feed(tokens)
        if self._can_rewind and self._cache is not None:
            drop_last(self._cache, len(tokens))
        else:
            self._read_in_full(inputs, images)
        return log_p

    def _read(self, inputs: Mapping[str, torch.Tensor], images: Sequence[Image]) -> torch.Tensor:
        tokens: list[int] = inputs["input_ids"][0].tolist()
        # the last token is read in any case, because it predicts the answer
        n_common = min(common_length([self._tokens, tokens]), len(tokens) - 1)
        rest = tokens[n_common:]
        # equal placeholders do not mean equal images
        same_images = len(images) == len(self._images) and all(
            a is b or a.tobytes() == b.tobytes() for a, b in zip(images, self._images, strict=True)
        )
        reusable = same_images and n_common and self._can_rewind
        if self._cache is None or not reusable or self._image_token in (None, *rest):
            return self._read_in_full(inputs, images)
        drop_last(self._cache, len(self._tokens) - n_common)
        log_p = self._feed(rest)[-1:]
        self._tokens = tokens
        return log_p

    def _read_in_full(
        self, inputs: Mapping[str, torch.Tensor], images: Sequence[Image]
    ) -> torch.Tensor:
        reset_image_positions(self._model)
        out = self._model(**inputs, use_cache=True)
        self._cache = cache_of(out)
        self._tokens, self._images = inputs["input_ids"][0].tolist(), list(images)
        return torch.log_softmax(out.logits[0, -1:].float(), dim=-1).cpu()

    def _feed(self, tokens: Sequence[int]) -> torch.Tensor:
        ids = torch.tensor([list(tokens)], device=self._model.device)
        out = self._model(input_ids=ids, **cache_arguments(self._model, self._cache))
        self._cache = cache_of(out)
        return torch.log_softmax(out.logits[0].float(), dim=-1).cpu()


def reset_image_positions(model: PreTrainedModel) -> None:
    """Clear the offsets that a model has stored for the image positions of the last prompt."""
    for module in model.modules():
        if getattr(module, "rope_deltas", None) is not None:
            # Module's attributes are declared as tensors and modules only
            setattr(module, "rope_deltas", None)  # noqa: B010
