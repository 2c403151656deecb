"""Examples of the candidates that are also in what is measured on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pytorch_lightning.utilities import CombinedLoader

from synque_select.data.candidate import Candidate
from synque_select.data.contamination import contamination_messages
from synque_select.data.examples import Examples
from synque_select.data.iterables import is_map_style
from synque_select.errors import ConfigError, DataError

__all__ = ["leak_messages"]

_log = logging.getLogger(__name__)


def leak_messages(what: str, dataloaders: Any, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Say which candidates share examples with the datasets behind dataloaders.

    A dataset is looked at where the candidates' view can be taken of its examples. One that gives
    tensors for the model, say, cannot be compared, which is noted in the log.

    Args:
        what: What the data is called in the sentence: "validation data".
        dataloaders: As the trainer has them.
        candidates: What is trained on.
    """
    messages: list[str] = []
    for loader in CombinedLoader([] if dataloaders is None else dataloaders).flattened:
        dataset = getattr(loader, "dataset", None)
        if not is_map_style(dataset):
            continue
        try:
            other = Examples(what, dataset, view=candidates[0].selector)
            messages += contamination_messages(candidates, {what: other})
        except (ConfigError, DataError) as error:
            _log.info("candidates were not compared with the %s: %s", what, error)
    return tuple(messages)
