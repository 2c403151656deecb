"""What a language model is asked: text, or text with images in it."""

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

_PIXELS_A_TOKEN = 28 * 28
_BYTES_A_TOKEN = 4


@dataclass(frozen=True)
class Prompt:
    """One user turn of texts and images, in the order in which they are shown.

    Wherever a prompt is taken, a plain `str` is a prompt without images. Images are shown as they
    are: who makes the prompt resizes them.

    Args:
        parts: Texts and PIL images.

    Raises:
        ConfigError: A part is neither.

    Example:
        >>> from PIL import Image
        >>> dot = Image.new("RGB", (1, 1))
        >>> len(Prompt(("What is this? ", dot)).parts)
        2
        >>> Prompt(("a", 1))
        Traceback (most recent call last):
        ...
        synque_select.errors.ConfigError: part 1 of a prompt is a int: allowed are texts and ...
    """

    parts: tuple[str | Image, ...]

    def __post_init__(self) -> None:
        for i, part in enumerate(self.parts):
            if not isinstance(part, str) and not hasattr(part, "tobytes"):
                raise ConfigError(
                    f"part {i} of a prompt is a {type(part).__name__}: allowed are texts and PIL "
                    "images"
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
    """Return whether an image is among the parts of a prompt."""
    return any(not isinstance(part, str) for part in prompt_parts(prompt))


def join_prompts(*prompts: PromptLike) -> PromptLike:
    """Put prompts one behind the other; without images, the result is a `str`.

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
    """Yield the parts, neighbouring texts as one."""
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
    """Return the text that stands for a prompt in keys: an image is there by its pixels' hash.

    Prompts of equal text and equal pixels are equal here, however they were put together.

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
    """Return the SHA-256 of an image's size and RGB pixels, in hexadecimal."""
    found = hashlib.sha256(f"{image.width}x{image.height}\0".encode())
    found.update(image.convert("RGB").tobytes())
    return found.hexdigest()


def data_url(image: Image) -> str:
    """Return an image as a PNG in a data URL.

    Example:
        >>> from PIL import Image
        >>> data_url(Image.new("RGB", (1, 1)))[:30]
        'data:image/png;base64,iVBORw0K'
    """
    return data_uri(image.convert("RGB"))


def estimated_tokens(prompt: PromptLike) -> int:
    """Return about how many tokens a prompt has: 4 bytes of text, or 28 x 28 pixels, a token."""
    n_bytes, n_pixels = 0, 0
    for part in prompt_parts(prompt):
        if isinstance(part, str):
            n_bytes += len(part.encode("utf-8", "replace"))
        else:
            n_pixels += part.width * part.height
    return -(-n_bytes // _BYTES_A_TOKEN) + -(-n_pixels // _PIXELS_A_TOKEN)
