"""How figures are written in tables, pages and plots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from synque_select.utils.wording import UNDEFINED, places

__all__ = [
    "UNDEFINED",
    "decimals_of",
    "figure_decimals",
    "format_interval",
    "format_number",
    "format_p",
    "format_ranks",
    "format_signed",
    "format_signed_estimate",
]


def decimals_of(values: Iterable[float | None]) -> int:
    """Return the number of decimals that shows three digits of the range of the values.

    Example:
        >>> decimals_of([0.1234, 0.1301]), decimals_of([812.0, 15.0])
        (5, 0)
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return 2
    scale = max(finite) - min(finite) or max(map(abs, finite)) or 1.0
    return min(6, max(0, 2 - math.floor(math.log10(scale))))


def figure_decimals(values: Iterable[float | None]) -> int:
    """Return the number of decimals of validation figures: two digits of their range, at least 3.

    Example:
        >>> figure_decimals([0.83, 0.79])
        3
    """
    return max(3, decimals_of(values) - 1)


def format_number(value: float | None, decimals: int = 2) -> str:
    """Return a figure with these decimals, in scientific notation if they cannot show it.

    Example:
        >>> format_number(0.5), format_number(2.5e-9, 6), format_number(float("nan"))
        ('0.50', '2.5e-09', '-')
    """
    if value is None or not math.isfinite(value):
        return UNDEFINED
    if value != 0 and not 0.5 * 10**-decimals <= abs(value) < 1e7:
        return f"{value:.3g}" if decimals >= 6 or abs(value) >= 1e7 else f"{0:.{decimals}f}"
    return f"{value:.{decimals}f}"


def format_interval(low: float | None, high: float | None, decimals: int = 2) -> str:
    """Return "[low, high]", or an empty text if an end is missing or undefined."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{format_number(low, decimals)}, {format_number(high, decimals)}]"


def format_signed(value: float | None, decimals: int = 2) -> str:
    """Return a figure with its sign.

    Example:
        >>> format_signed(0.5), format_signed(-0.5), format_signed(None)
        ('+0.50', '-0.50', '-')
    """
    text = format_number(value, decimals)
    return text if text == UNDEFINED or text.startswith("-") else f"+{text}"


def format_signed_estimate(
    value: float | None, low: float | None, high: float | None, decimals: int = 2
) -> str:
    """Return a signed value with its interval, if it has one.

    Example:
        >>> format_signed_estimate(0.83, 0.41, 0.96), format_signed_estimate(-0.5, None, None)
        ('+0.83 [0.41, 0.96]', '-0.50')
    """
    interval = format_interval(low, high, decimals)
    return " ".join(filter(None, (format_signed(value, decimals), interval)))


def format_p(value: float | None) -> str:
    """Return a p-value with three decimals."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def format_ranks(ranks: Sequence[float]) -> list[str]:
    """Return ranks as places, with "=" where several share one.

    Args:
        ranks: Ranks of all candidates, 1 is best; ties are averaged, NaN is undefined.

    Example:
        >>> format_ranks([1.5, 3.0, 1.5, float("nan")])
        ['1=', '3 ', '1=', '-']
    """
    shown = places(ranks)
    # a blank, so that digits stay below digits where cells are aligned to the right
    alone = " " if any(place.endswith("=") for place in shown) else ""
    return [
        place if place.endswith("=") or place == UNDEFINED else place + alone for place in shown
    ]
