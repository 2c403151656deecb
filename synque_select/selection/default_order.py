"""What orders the candidates if the user names nothing: `transfer` where labels can judge."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from synque_select.data.families import judging_families
from synque_select.errors import ConfigError
from synque_select.proxies.base import BaseProxy
from synque_select.selection.consensus import CONSENSUS
from synque_select.selection.label_filter import scored_camps
from synque_select.selection.scoring import Scoring
from synque_select.utils.wording import counted, listed

__all__ = ["NOT_BY_TRANSFER", "TRANSFER", "order_by", "why_not_by_transfer"]

TRANSFER = "transfer"
# how the message begins that says why the order is not by `transfer`, although that was scored
NOT_BY_TRANSFER = "The order is by consensus, not by transfer"

# What labels mean cannot be seen from inputs, so that where the candidates' labels can judge, they
# do. These conditions say where they can. All come from reasoning; none was fitted to data.
#
# Judged by one other family alone, two that contradict each other get the same score, and nothing
# says which of them is wrong. The label filter asks for as many judges.
_MIN_FAMILIES = 3
# The score is a mean over classes of weighted shares. With fewer effective examples than this, one
# example moves the share of a class by more than ten points.
_MIN_PER_CLASS = 10


def order_by(
    rank_by: str | None,
    suite: Sequence[BaseProxy],
    members: Sequence[str],
    scoring: Scoring | None = None,
    wrong_camp: Sequence[str] = (),
) -> tuple[str, str | None]:
    """Return what orders the candidates, and why it is not `transfer` although that was scored.

    Args:
        rank_by: What the user named, which is obeyed; None for the default.
        suite: The proxies.
        members: Keys of the proxies in the consensus.
        scoring: The scores; None before anything is scored, when only the consensus is checked.
        wrong_camp: Of two camps, the one that answers speak against.

    Returns:
        A proxy's key or "consensus"; and a part of a sentence, None if there is nothing to say.

    Raises:
        ConfigError: It would be the consensus, and no proxy may enter that.
    """
    keys = [proxy.key for proxy in suite]
    reason = None
    if rank_by is None and len(keys) == 1:
        rank_by = keys[0]
    if rank_by is None and TRANSFER in keys and scoring is not None:
        reason = why_not_by_transfer(scoring, wrong_camp)
        rank_by = None if reason else TRANSFER
    rank_by = CONSENSUS if rank_by is None else rank_by
    if rank_by == CONSENSUS and not members:
        # only the scores say whether `transfer` can order instead
        if scoring is None and TRANSFER in keys:
            return TRANSFER, None
        why = f" ({reason})" if reason else ""
        raise ConfigError(
            f"rank_by='consensus', but none of {', '.join(keys)} may enter a consensus here{why}: "
            "name the proxy to rank by"
        )
    return rank_by, reason


def why_not_by_transfer(scoring: Scoring, wrong_camp: Sequence[str] = ()) -> str | None:
    """Return why the scores of `transfer` must not order these candidates; None if they may.

    Args:
        scoring: Scores by a suite with `transfer`.
        wrong_camp: Of two camps, the one that answers speak against.
    """
    scores = scoring.scores[TRANSFER]
    if not scores.reliable or not bool(torch.isfinite(scores.values).all()):
        return "it is undefined for a candidate"
    n_families = len(set(judging_families(scoring.candidates)))
    if n_families < _MIN_FAMILIES:
        what = counted(n_families, "candidate")
        if any(part.family for part in scoring.candidates):
            what = f"{counted(n_families, 'family', 'families')} of candidates"
        elif n_families < len(scoring.candidates):
            what = f"{what} (copies and near copies count as one)"
        return (
            f"with {what}, each is judged by one other alone; at least {_MIN_FAMILIES} are needed"
        )
    if scores.details["labels"] != "classes":
        return (
            "whether two camps of candidates contradict each other can be checked only where each "
            "example has one class"
        )
    n_classes, size = scores.details["n_classes"], min(scores.details["effective_size"].values())
    if size < _MIN_PER_CLASS * n_classes:
        return (
            f"after weighting towards the real sample, the labeled examples that judge a candidate "
            f"count as {size:.0f}; at least {_MIN_PER_CLASS} for each of the "
            f"{counted(n_classes, 'class', 'classes')} are needed"
        )
    if wrong_camp:
        return (
            f"the candidates that your answers speak against ({listed(wrong_camp)}) are among its "
            "judges; rank again without them"
        )
    if scored_camps(scoring) is not None:
        return (
            "two camps of candidates contradict each other's labels, and the larger need not be "
            "right"
        )
    return None
