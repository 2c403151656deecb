"""Prompts for language models: text, or text with images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError
from synque_select.utils.data_uri import data_uri

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "Prompt",
    "PromptLike",
    "data_url",
    "estimated_tokens",
    "has_images",
    "image_sha256",
    "join_prompts",
    "prompt_parts",
    "prompt_text",
]

_PIXELS_PER_TOKEN = 28 * 28
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Prompt:
    """One user turn of texts and images, in the order in which they are shown.

    Wherever a prompt is expected, a plain `str` is a prompt without images. Images are not
    resized.

    Args:
        parts: Texts and PIL images.

    Raises:
        ConfigError: A part is neither a text nor an image.

    Example:
        >>> from PIL import Image
        >>> dot = Image.new("RGB", (1, 1))
        >>> len(Prompt(("What is this? ", dot)).parts)
        2
        >>> Prompt(("a", 1))
        Traceback (most recent call last):
        ...
        synque_select.errors.ConfigError: part 1 of a prompt has type int: allowed are texts and ...
    """

    parts: tuple[str | Image, ...]

    def __post_init__(self) -> None:
        for i, part in enumerate(self.parts):
            if not isinstance(part, str) and not hasattr(part, "tobytes"):
                raise ConfigError(
                    f"part {i} of a prompt has type {type(part).__name__}: allowed are texts and "
                    "PIL images"
                )


PromptLike = str | Prompt


def prompt_parts(prompt: PromptLike) -> tuple[str | Image, ...]:
    """Return the texts and images of a prompt.

    Example:
        >>> prompt_parts("a")
        ('a',)
    """
    return (prompt,) if isinstance(prompt, str) else prompt.parts


def has_images(prompt: PromptLike) -> bool:
    """Return whether a prompt contains an image.

    Example:
        >>> has_images("a")
        False
    """
    return any(not isinstance(part, str) for part in prompt_parts(prompt))


def join_prompts(*prompts: PromptLike) -> PromptLike:
    """Concatenate prompts.

    Args:
        *prompts: Prompts to join, in order; neighboring texts become one.

    Returns:
        A `str` for prompts without images, otherwise a `Prompt`.

    Example:
        >>> from PIL import Image
        >>> dot = Image.new("RGB", (1, 1))
        >>> join_prompts("a", "b")
        'ab'
        >>> [type(p).__name__ for p in join_prompts("a", Prompt((dot, "b")), "c").parts]
        ['str', 'Image', 'str']
    """
    parts = tuple(_merged(part for prompt in prompts for part in prompt_parts(prompt)))
    if all(isinstance(part, str) for part in parts):
        return "".join(part for part in parts if isinstance(part, str))
    return Prompt(parts)


def _merged(parts: Iterable[str | Image]) -> Iterator[str | Image]:
    """Yield the parts, with neighboring texts joined into one."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            yield text
        text = ""
        yield part
    if text:
        yield text


def prompt_text(prompt: PromptLike) -> str:
    """Return the text that identifies a prompt in cache keys; images enter by a hash of pixels.

    Prompts with equal texts and pixels have equal keys, however they were built.

    Args:
        prompt: Any prompt.

    Example:
        >>> from PIL import Image
        >>> prompt_text("Is it red?")
        'Is it red?'
        >>> red, blue = (Image.new("RGB", (2, 2), colour) for colour in ("red", "blue"))
        >>> prompt_text(Prompt((red,))) == prompt_text(Prompt((red.copy(),)))
        True
        >>> prompt_text(Prompt((red,))) == prompt_text(Prompt((blue,)))
        False
    """
    joined = join_prompts(prompt)
    if isinstance(joined, str):
        return joined
    rows = [
        part if isinstance(part, str) else {"image": image_sha256(part)} for part in joined.parts
    ]
    return json.dumps(rows)


def image_sha256(image: Image) -> str:
    """Return the SHA-256 of an image's size and RGB pixels, in hexadecimal.

    Example:
        >>> from PIL import Image
        >>> image_sha256(Image.new("RGB", (1, 1)))[:8]
        '0d5f1f43'
    """
    digest = hashlib.sha256(f"{image.width}x{image.height}\0".encode())
    digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def data_url(image: Image) -> str:
    """Return a data URL that contains an image as a PNG.

    Example:
        >>> from PIL import Image
        >>> data_url(Image.new("RGB", (1, 1)))[:30]
        'data:image/png;base64,iVBORw0K'
    """
    return data_uri(image.convert("RGB"))


def estimated_tokens(prompt: PromptLike) -> int:
    """Estimate the number of tokens of a prompt: one per 4 bytes of text and per 28 x 28 pixels.

    Example:
        >>> estimated_tokens("Is it likely?")
        4
    """
    n_bytes, n_pixels = 0, 0
    for part in prompt_parts(prompt):
        if isinstance(part, str):
            n_bytes += len(part.encode("utf-8", "replace"))
        else:
            n_pixels += part.width * part.height
    return -(-n_bytes // _BYTES_PER_TOKEN) + -(-n_pixels // _PIXELS_PER_TOKEN)
