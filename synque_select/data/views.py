"""Views: the part of an example that a proxy sees, a text or an image."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from synque_select.errors import ConfigError, DataError, DependencyError, did_you_mean
from synque_select.types.modality import Modality
from synque_select.utils.unicode_forms import normalized
from synque_select.utils.wording import counted
from synque_select.utils.written_number import replace_written

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = [
    "FieldsView",
    "Selector",
    "View",
    "as_view",
    "describe",
    "digest",
    "fields_view",
    "modality_of",
    "select",
]

View: TypeAlias = "str | Image"
# The order matters to the parser of configs, which takes the first type that fits: any value fits
# str, so int comes first. Functions come last; `find_selector` imports them by their dotted names.
Selector: TypeAlias = int | list[int | str] | tuple[int | str, ...] | str | Callable[[Any], Any]


def select(example: object, selector: Selector) -> Any:
    """Return the part of an example that a selector names.

    Args:
        example: A mapping (record), a sequence (such as the tuple of a torch Dataset), or
            anything that the selector function accepts.
        selector: A field name, a position, a path of both such as "turns.0.text", or a function of
            the example.

    Raises:
        DataError: The field or position does not exist; the message lists those that do.

    Example:
        >>> select({"question": "How many?", "SQL": "SELECT 1"}, "question")
        'How many?'
        >>> select(("text", 1), 0), select({"turns": [{"text": "Hi"}]}, "turns.0.text")
        ('text', 'Hi')
    """
    if callable(selector):
        return selector(example)
    if isinstance(selector, list | tuple):
        return FieldsView(tuple(map(str, selector)))(example)
    if isinstance(selector, str):
        return _field(example, selector)
    return _position(example, selector)


def _field(example: object, name: str) -> Any:
    if isinstance(example, Mapping) and name in example:
        return example[name]
    head, _, rest = name.partition(".")
    if isinstance(example, Mapping):
        if rest and head in example:
            return _inside(example[head], name, rest)
        raise DataError(f"no field {name!r}; {did_you_mean(name, map(str, example))}")
    if _NUMBER.fullmatch(head) and isinstance(example, Sequence) and not isinstance(example, str):
        part = _position(example, int(head))
        return _inside(part, name, rest) if rest else part
    raise DataError(
        f"field {name!r} requested from an example of type {type(example).__name__}, "
        "which has no fields: give a position or a function as view"
    )


def _inside(value: object, path: str, rest: str) -> Any:
    try:
        return _field(value, rest)
    except DataError as error:
        raise DataError(f"the path {path!r} ends before {rest!r}: {error}") from None


def _position(example: object, position: int) -> Any:
    if isinstance(example, str) or not isinstance(example, Sequence):
        raise DataError(
            f"position {position} requested from an example of type {type(example).__name__}, "
            "which has no positions: give a field name or a function as view"
        )
    if not -len(example) <= position < len(example):
        raise DataError(f"no position {position}: the example has {counted(len(example), 'part')}")
    return example[position]


_NUMBER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class FieldsView:
    """View of several fields of a record as the text of a JSON object; see `fields_view`."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.names)

    def __call__(self, example: object) -> str:
        """Return the text of one example."""
        kept = {name: select(example, name) for name in self.names}
        # JSON would write the digits of the float
        return json.dumps(replace_written(kept, str), ensure_ascii=False, default=str)


def fields_view(*names: str) -> Callable[[object], str]:
    """Return a view that shows several fields of a record as the text of a JSON object.

    LENS prompts that name fields, such as "web_page" with `task` and `page`, parse that object.
    Of a CSV or TSV file, these fields are texts, also where they look like numbers, so that the
    view of a row does not depend on other rows.

    Args:
        names: Names of the fields, in the order in which they are shown. Every record must have
            all of them, but a value may be None.

    Raises:
        ConfigError: No name is given, or a name is empty.

    Example:
        >>> fields_view("task", "page")({"page": "Shop", "task": "Buy tea", "id": 7})
        '{"task": "Buy tea", "page": "Shop"}'
    """
    if not names or not all(names):
        raise ConfigError(f"fields {names!r}: allowed are one or more names that are not empty")
    return FieldsView(names)


def modality_of(value: object) -> Modality | None:
    """Return the modality of a value, or None if it is neither a text nor an image.

    A str is a text; a PIL image and an array or tensor with 2 or 3 dimensions are images.

    Example:
        >>> modality_of("a headline"), modality_of(3.5)
        ('text', None)
    """
    if isinstance(value, str):
        return "text"
    if hasattr(value, "getpixel"):
        return "image"
    return "image" if getattr(value, "ndim", 0) in (2, 3) else None


def as_view(value: object, modality: Modality, *, example: object = None) -> View:
    """Return a value as a text or as a PIL image.

    The text that is returned is always valid Unicode: surrogate pairs are joined, and a lone
    surrogate, which tokenizers reject, becomes U+FFFD. It is in composed form (NFC), so that texts
    that read the same are the same, whichever system wrote them. An image is decoded and keeps its
    mode.

    Args:
        value: A str; or a PIL image, an array (H, W) or (H, W, C), or a tensor (H, W) or
            (C, H, W), uint8 in 0..255 or float in 0..1.
        modality: The modality that the value must have.
        example: The example from which the value was taken, for the error message.

    Raises:
        DataError: The value has another modality, or is not a valid image.
        DependencyError: An array or tensor is given and Pillow is not installed.

    Example:
        >>> as_view("Shares rise", "text")
        'Shares rise'
    """
    if modality_of(value) != modality:
        raise DataError(
            f"expected {_ARTICLE[modality]} {modality}, found {describe(value, example)}"
        )
    if isinstance(value, str):
        return normalized(_valid_text(value))
    if not hasattr(value, "getpixel"):
        return _image_from_array(value)
    image = cast("Image", value)  # by duck typing: Pillow need not be installed
    image.load()  # Image.open reads only the header: the pixels may still turn out to be broken
    return image


_ARTICLE = {"text": "a", "image": "an"}


def _valid_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def describe(value: object, example: object = None) -> str:
    """Describe a value in an error message by its type and, if it has one, its shape.

    Args:
        value: Any value.
        example: The example from which the value was taken; if the value is None, its fields that
            have a value are listed.

    Example:
        >>> describe(3.5)
        'float'
        >>> describe(None, {"text": None, "headline": "Shares rise"})
        'nothing (None); fields with a value: headline'
    """
    if value is None:
        fields = example.items() if isinstance(example, Mapping) else ()
        held = ", ".join(str(field) for field, part in fields if part is not None)
        return "nothing (None)" + (f"; fields with a value: {held}" if held else "")
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")


def _image_from_array(value: object) -> Image:
    import numpy as np

    try:
        from PIL import Image
    except ImportError as error:
        raise DependencyError("pillow", extra="image", purpose="a view of images") from error
    is_tensor = hasattr(value, "detach")
    array = _array_from_tensor(cast("torch.Tensor", value)) if is_tensor else np.asarray(value)
    if array.size == 0:
        raise DataError(f"an image must have pixels, found the shape {array.shape}")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise DataError(
                "an image of floats must lie in 0..1; "
                f"found {np.nanmin(array):.3g} to {np.nanmax(array):.3g} (is it normalized?)"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(f"an image must be uint8 or float, found {array.dtype}")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[-1] not in (3, 4):
        raise DataError(
            f"an image must have 1, 3 or 4 channels, found {array.shape[-1]} "
            "(an array is (H, W, C), a tensor (C, H, W))"
        )
    return Image.fromarray(array)


def _array_from_tensor(tensor: torch.Tensor) -> NDArray[Any]:
    import numpy as np

    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16
    array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def digest(view: View) -> bytes:
    """Return the SHA-256 of the content of a view, 32 bytes.

    Hashed are the UTF-8 of a text, and the mode, size, palette, transparency and pixels of an
    image, but not its file format or metadata.

    Example:
        >>> digest("a") == digest("a"), len(digest("a"))
        (True, 32)
    """
    if isinstance(view, str):
        return hashlib.sha256(b"text\0" + view.encode("utf-8", "surrogatepass")).digest()
    head = f"image\0{view.mode}\0{view.size[0]}x{view.size[1]}\0".encode()
    # the pixels of a palette image are indices into its palette, and one color or index may be
    # declared transparent
    palette = bytes(view.getpalette() or ()) if view.mode in ("P", "PA") else b""
    clear = repr(view.info["transparency"]).encode() if "transparency" in view.info else b""
    return hashlib.sha256(head + palette + clear + view.tobytes()).digest()
