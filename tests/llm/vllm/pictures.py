"""Prompts with images."""

from __future__ import annotations

from PIL import Image

from synque_select.llm.prompt import Prompt


def picture(colour: str, corner: str | None = None, width: int = 112):
    """An image of the model's input size: only the view of the whole is resized."""
    shown = Image.new("RGB", (width, 112), colour)
    if corner is not None:
        shown.paste(corner, (0, 0, 56, 56))
    return shown


PREFIX = Prompt(("Compare with ", picture("green"), ". "))
ITEMS = (
    Prompt(("Sample: ", picture("red"))),
    Prompt(("Sample: ", picture("blue"))),
    Prompt(("Sample: ", picture("red", corner="white"), " and ", picture("white"), ".")),
    "Sample: none",
)
