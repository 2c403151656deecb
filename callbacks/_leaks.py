"""Detection of candidate examples that are also in the validation or test data."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from synque_select.data.candidate import Candidate
from synque_select.data.contamination import contamination_messages
from synque_select.data.examples import Examples
from synque_select.data.iterables import is_map_style
from synque_select.errors import ConfigError, DataError
from synque_select.training.lightning_compat import flattened_loaders

__all__ = ["leak_messages"]

_log = logging.getLogger(__name__)


def leak_messages(
    what: str, dataloaders: object, candidates: Sequence[Candidate]
) -> tuple[str, ...]:
    """Return a sentence about each candidate that shares examples with the dataloaders.

    A dataset can be compared only if the candidates' view applies to its examples. If it does not,
    for example because the dataset returns tensors for the model, the log says so.

    Args:
        what: Name of the data in the sentence, such as "validation data".
        dataloaders: The trainer's dataloaders.
        candidates: The candidates that are trained on.
    """
    messages: list[str] = []
    for loader in flattened_loaders(dataloaders):
        dataset = getattr(loader, "dataset", None)
        if not is_map_style(dataset):
            continue
        try:
            other = Examples(what, dataset, view=candidates[0].selector)
            messages += contamination_messages(candidates, {what: other})
        except (ConfigError, DataError) as error:
            _log.info("candidates were not compared with the %s: %s", what, error)
    return tuple(messages)
