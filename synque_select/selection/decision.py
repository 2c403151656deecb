"""The decision of a ranking: which candidates the rules select, with the sentence that says why."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from synque_select.errors import ConfigError, DataError
from synque_select.selection.sentences import Sentences, never_reads_real
from synque_select.types import Mixture, Ranking
from synque_select.types.decision import Decision, Evidence, Opening, Weighting
from synque_select.utils.wording import counted, listed

__all__ = ["decided", "redecided", "tuned", "with_weights"]

_ABOVE = re.compile(r"top_k=(\d+) is more than there are candidates")


def decided(ranking: Ranking, evidence: Evidence) -> Ranking:
    """Return the ranking with its decision, for its own `top_k`; above K, that means all.

    Args:
        ranking: The ranking, without a decision.
        evidence: What the data say about the choice.

    Raises:
        DataError: Every candidate is a copy of the real sample.
        ConfigError: No candidate has a score, or `top_k` is less than 1.
    """
    names = _names_left(ranking, evidence)
    _check_left(ranking, names, evidence)
    given = ranking.top_k
    ranking, is_all = _limited(ranking)
    sentences = Sentences(ranking, evidence, names)
    if ranking.top_k is None:
        chosen = _recommended(sentences)
        sentence = sentences.advice(chosen)
        source = _source(ranking, names, chosen, sentences.opening)
        closest = sentences.closest(chosen)
    else:
        chosen = names[: ranking.top_k]
        unscored = {*evidence.undefined} - {*evidence.degenerate}
        if unscored and len(chosen) < ranking.top_k and not is_all:
            ranking.top(ranking.top_k, evidence.rank_by)  # says which are undefined, and why
        sentence = sentences.obeyed(chosen, given or ranking.top_k)
        source = f"top {len(chosen)} by {evidence.rank_by}"
        closest = ()
    decision = Decision(
        sentences.opening,
        " ".join([sentence, *sentences.left_out()]),
        Mixture.equal(chosen, source),
        (*closest, *sentences.reasons()),
        evidence,
    )
    return dataclasses.replace(ranking, mixture=None, decision=decision)


def _limited(ranking: Ranking) -> tuple[Ranking, bool]:
    """Limit `top_k` to K, with a message; return whether it was above."""
    given, n = ranking.top_k, len(ranking)
    if given is None or 1 <= given <= n:
        return ranking, False
    if given < 1:
        raise ConfigError(f"top_k={given}: allowed is 1 to {n}, the number of candidates")
    message = (
        f"top_k={given} is more than there are candidates ({n}): all that can be selected are."
    )
    return dataclasses.replace(ranking, top_k=n, messages=(*ranking.messages, message)), True


def _given_top_k(ranking: Ranking) -> int | None:
    """Return the `top_k` that was given, which is not the ranking's own where it was above K."""
    above = (_ABOVE.match(message) for message in ranking.messages)
    given = [int(match[1]) for match in above if match and ranking.top_k == len(ranking)]
    return given[-1] if given else ranking.top_k


def redecided(ranking: Ranking, *, rank_by: str | None = None, top_k: int | None = None) -> Ranking:
    """Return a ranking with its decision made again for another column or number of candidates.

    Which pairs are distinguished is known only for the column that the ranking was made with.

    Args:
        ranking: A ranking, perhaps from a file; one from an old file has no decision.
        rank_by: A proxy's key or "consensus"; None to keep the ranking's own.
        top_k: Number of candidates to select; None to keep the ranking's own.
    """
    by = ranking.rank_by if rank_by is None else rank_by
    evidence = None if ranking.decision is None else ranking.decision.evidence
    if evidence is None:
        evidence = Evidence(
            by,
            ranking.n_real,
            ranking.effective_n or float(ranking.n_real),
            untested=never_reads_real(ranking.proxies.get(by))
            or "an older version made this ranking, and its comparison of candidates is not used",
        )
    elif evidence.rank_by != by:
        evidence = dataclasses.replace(
            evidence,
            rank_by=by,
            n_apart=None,
            n_pairs=0,
            worse=(),
            clear_at=(),
            shown_better={},
            untested=never_reads_real(ranking.proxies.get(by))
            or f"no difference by {by} was tested, as this ranking compares by {evidence.rank_by}",
        )
    undefined = tuple(row.name for row in ranking.order(by) if math.isnan(row.ranks[by]))
    rows = ranking.candidates
    if (by, top_k or ranking.top_k) != (ranking.rank_by, ranking.top_k):
        # known only for the column and the number of places that the ranking was made with
        rows = tuple(dataclasses.replace(row, selection_stability=None) for row in rows)
        evidence = dataclasses.replace(evidence, stability_k=None)
    changed = dataclasses.replace(
        ranking,
        candidates=rows,
        rank_by=by,
        top_k=ranking.top_k if top_k is None else top_k,
        decision=None,
        mixture=None,
    )
    return decided(changed, dataclasses.replace(evidence, undefined=undefined))


def with_weights(ranking: Ranking, mixture: Mixture, weighting: Weighting) -> Ranking:
    """Return the ranking whose decision trains on weights that were asked for.

    Args:
        ranking: A ranking with a decision.
        mixture: The weights.
        weighting: How they were made.
    """
    decision = _decision_of(ranking)
    if weighting == "equal":
        return ranking
    sentences = _sentences(ranking, decision)
    sentence = sentences.weighted(mixture, weighting, ranking.top_k, _given_top_k(ranking))
    decision = dataclasses.replace(
        decision,
        sentence=" ".join([sentence, *sentences.left_out()]),
        mixture=mixture,
        weighting=weighting,
    )
    return dataclasses.replace(ranking, decision=decision)


def tuned(ranking: Ranking, mixture: Mixture, how: str) -> Ranking:
    """Return the ranking whose decision is the mixture that a search found.

    Args:
        ranking: The ranking that the search started from.
        mixture: The best mixture.
        how: What it is the best by, such as "the best of 20 trials by val_acc".
    """
    decision = _decision_of(ranking)
    sentences = _sentences(ranking, decision)
    decision = dataclasses.replace(
        decision,
        opening="tuned",
        sentence=f"Train on {sentences.searched(mixture, how)}.",
        mixture=mixture,
        reasons=(f"Without the search: {decision.sentence}", *decision.reasons),
        weighting="tuned",
    )
    return dataclasses.replace(ranking, decision=decision, mixture=None)


def _decision_of(ranking: Ranking) -> Decision:
    decision = ranking.decision or redecided(ranking).decision
    assert decision is not None
    return decision


def _names_left(ranking: Ranking, evidence: Evidence) -> list[str]:
    left_out = {*evidence.copies, *evidence.undefined}
    names = [row.name for row in ranking.order(evidence.rank_by) if row.name not in left_out]
    if ranking.top_k is not None:
        return names
    return [name for name in names if name not in evidence.dissimilar] or names


def _sentences(ranking: Ranking, decision: Decision) -> Sentences:
    return Sentences(ranking, decision.evidence, _names_left(ranking, decision.evidence))


def _check_left(ranking: Ranking, names: Sequence[str], evidence: Evidence) -> None:
    if names:
        return
    if evidence.undefined:
        reasons = [message for message in ranking.messages if "undefined" in message]
        undefined = f"{evidence.rank_by} is undefined for {listed(evidence.undefined)}"
        raise ConfigError("; ".join([undefined, *reasons]))
    raise DataError(
        f"every candidate ({listed(evidence.copies)}) is the real sample or a near copy of it: "
        "there is nothing to select; give candidates that were generated without it"
    )


def _recommended(sentences: Sentences) -> list[str]:
    """Keep all candidates, minus those that the rules give a reason to leave out."""
    opening = sentences.opening
    if opening not in ("clear", "labels", "answers"):
        return list(sentences.names)
    worse = () if sentences.evidence.is_small else sentences.worse
    return [name for name in sentences.trusted if name not in worse]


def _source(ranking: Ranking, names: Sequence[str], chosen: Sequence[str], opening: Opening) -> str:
    """Say which candidates the rules select, and whether that is advised."""
    left = " that can be selected" if len(names) < len(ranking) else ""
    if len(chosen) == len(names):
        all_of = {1: "the one candidate", 2: "both candidates"}
        which = all_of.get(len(names), f"all {counted(len(names), 'candidate')}")
    else:
        which = f"{len(chosen)} of {counted(len(names), 'candidate')}"
    return f"{which}{left}, {'not advised' if opening == 'far' else 'as recommended'}"
