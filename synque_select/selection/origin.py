"""Where and how a ranking was made, for its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.data.candidate import RealSample
from synque_select.data.selector_names import selector_name
from synque_select.selection.mixture import MixtureOptions
from synque_select.types.ranking import RankOrigin
from synque_select.utils.json_types import Json

if TYPE_CHECKING:
    from synque_select.selection.scorer import Scorer

__all__ = ["origin_of"]


def origin_of(scorer: Scorer, real: RealSample, read_with: Mapping[str, Json]) -> RankOrigin:
    """Return the origin of a ranking by a scorer.

    Args:
        scorer: The scorer.
        real: The real sample.
        read_with: Options of `rank` that neither of them has, such as "family".
    """
    mixture = MixtureOptions.of(scorer.mixture)
    options: dict[str, Json] = {
        **read_with,
        "real_groups": selector_name(real.group_by),
        "mixture": None if mixture.kind == "equal" else mixture.kind,
        "temperature": mixture.temperature,
        "label_filter": None if scorer.label_filter == "off" else scorer.label_filter,
        "relabel": scorer.relabel or None,
        "answers": None if scorer.answers is None else os.fspath(scorer.answers),
    }
    return RankOrigin(
        _working_dir(),
        real.source,
        selector_name(real.selector),
        {name: value for name, value in options.items() if value is not None},
    )


def _working_dir() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return ""
