"""The loss of single examples by classifiers that were trained on the other candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate, check_not_drawn
from synque_select.data.families import judging_families, no_other_family
from synque_select.data.label_sets import LabelSets, labeled_positions
from synque_select.encoders import BaseEncoder, embed, get_encoder
from synque_select.errors import ConfigError
from synque_select.functional.label_consistency import judge_panel
from synque_select.functional.surrogate_loss import surrogate_loss
from synque_select.functional.transfer import fit_heads
from synque_select.selection.labels import check_common_classes, check_labeled
from synque_select.utils.process_state import preserved_state
from synque_select.utils.progress import ProgressBar

__all__ = ["check_surrogate_labels", "surrogate_example_losses"]

_READER = "a surrogate loss"
_MAX_HEAD_ROWS = 1000  # larger candidates add no accuracy to a linear head, only time
_MAX_JUDGES = 64  # candidates whose heads judge, so that the time is linear in their number


def check_surrogate_labels(candidates: Sequence[Candidate]) -> None:
    """Refuse candidates whose labels cannot be predicted by classifiers of the others.

    Raises:
        ConfigError: A candidate has no labels or fewer than two, they are not classes, only some of
            its examples were drawn, or all candidates are of one family.
    """
    check_not_drawn(candidates, _READER)
    missing = [candidate.where for candidate in candidates if candidate.label is None]
    if missing:
        raise ConfigError(
            f"{_READER} reads the candidates' labels: give label=, the field that holds them. "
            f"Without it: {', '.join(missing)}"
        )
    check_common_classes(candidates, _READER)
    check_labeled(candidates, _READER)
    alone = no_other_family(candidates)
    if alone is not None:
        raise ConfigError(f"{_READER}: {alone}")


def surrogate_example_losses(
    candidates: Sequence[Candidate],
    *,
    encoder: str | BaseEncoder | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> dict[str, NDArray[np.float64]]:
    """Return how hard each example is for classifiers of the other families: `surrogate_loss`.

    The classifiers are one linear head per candidate on frozen embeddings, trained on its own
    labels, at most 1,000 of them. No real example is read. Of more than 64 candidates, 64 are drawn
    to train heads on.

    Args:
        candidates: Candidates with labels that are classes.
        encoder: Model id or encoder of the embeddings; None for the default of the modality.
        seed: Random seed for the examples and the candidates that heads are trained on.
        cache_dir: Directory of cached embeddings; None for the default one.
        progress: Whether to show progress that takes more than two seconds.

    Returns:
        Candidate name to (N,) float64; higher is harder. An example without a label has the median
        of its candidate.

    Raises:
        ConfigError: As in `check_surrogate_labels`.
        EncoderError: The encoder cannot be loaded, or returned embeddings that are not finite.
    """
    check_surrogate_labels(candidates)
    chosen = get_encoder(encoder, candidates[0].modality)
    try:
        rows = [labeled_positions(candidate.labels) for candidate in candidates]
        features = [
            embed(chosen, candidate, cache_dir=cache_dir, progress=progress)
            .embeddings[torch.from_numpy(at)]
            .float()
            for candidate, at in zip(candidates, rows, strict=True)
        ]
    finally:
        chosen.close()
    with preserved_state():
        losses = _losses(candidates, rows, features, seed, progress)
    return {
        candidate.name: _at_all(each, at, len(candidate))
        for candidate, at, each in zip(candidates, rows, losses, strict=True)
    }


def _losses(
    candidates: Sequence[Candidate],
    rows: Sequence[NDArray[np.int64]],
    features: Sequence[torch.Tensor],
    seed: int,
    progress: bool,
) -> list[NDArray[np.float64]]:
    labels = [
        [part.labels[i] for i in at.tolist()] for part, at in zip(candidates, rows, strict=True)
    ]
    targets = LabelSets.read(labels, "classes").targets
    families = np.unique(judging_families(candidates), return_inverse=True)[1].astype(np.int64)
    panel = judge_panel(families, _MAX_JUDGES, seed=seed)
    size = min(_MAX_HEAD_ROWS, *map(len, labels))
    heads = fit_heads(
        [features[i] for i in panel], [targets[i] for i in panel], size=size, seed=seed
    )
    bar = ProgressBar(
        range(len(candidates)), "surrogate loss", delay=2, unit="candidate", disable=not progress
    )
    return [
        surrogate_loss(
            heads,
            features[k],
            targets[k].long().argmax(1).numpy(),
            families=families[panel],
            own=int(families[k]),
        )
        for k in bar
    ]


def _at_all(losses: NDArray[np.float64], rows: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Return a loss for all n examples: the median for those without a label."""
    everywhere = np.full(n, float(np.median(losses)))
    everywhere[rows] = losses
    return everywhere
