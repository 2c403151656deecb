"""The decision of a ranking: which rule holds, the sentence that says so, and the mixture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from synque_select.errors import ConfigError, DataError
from synque_select.types import Mixture, Ranking
from synque_select.types.decision import Decision, Evidence, Opening, Weighting
from synque_select.utils.wording import listed

__all__ = ["decided", "redecided", "tuned", "with_weights"]

# The simulations of the uncertainty (docs/calibration.md) start at 20 real examples: below that,
# nothing is known about how often a difference is found where there is none.
_LEAST_REAL = 20


def decided(ranking: Ranking, evidence: Evidence) -> Ranking:
    """Return the ranking with its decision, for its own `top_k`.

    Args:
        ranking: The ranking, without a decision.
        evidence: What the data say about the choice.

    Raises:
        DataError: Every candidate is a copy of the real sample.
        ConfigError: No candidate has a score, or `top_k` is not in 1..K.
    """
    left_out = {*evidence.copies, *evidence.undefined}
    names = [row.name for row in ranking.order(evidence.rank_by) if row.name not in left_out]
    _check_left(ranking, names, evidence)
    if ranking.top_k is not None and not 1 <= ranking.top_k <= len(ranking):
        raise ConfigError(
            f"top_k={ranking.top_k}: allowed is 1 to {len(ranking)}, the number of candidates"
        )
    opening = _opening(evidence, len(names))
    if ranking.top_k is None:
        chosen = _recommended(opening, names, evidence)
        sentence = _advice(opening, names, chosen, evidence)
        source = _source(names, chosen)
    else:
        chosen = names[: ranking.top_k]
        if evidence.undefined and len(chosen) < ranking.top_k:
            ranking.top(ranking.top_k, evidence.rank_by)  # says which are undefined, and why
        sentence = _obeyed(opening, names, chosen, evidence, ranking.top_k)
        source = f"top {len(chosen)} by {evidence.rank_by}"
    decision = Decision(
        opening,
        " ".join([sentence, *_left_out(evidence)]),
        Mixture.equal(chosen, source),
        _reasons(opening, evidence),
        evidence,
    )
    return dataclasses.replace(ranking, mixture=None, decision=decision)


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
        evidence = Evidence(by, ranking.n_real, ranking.effective_n or float(ranking.n_real))
    elif evidence.rank_by != by:
        evidence = dataclasses.replace(
            evidence, rank_by=by, n_apart=None, n_pairs=0, worse=(), clear_at=()
        )
    undefined = tuple(row.name for row in ranking.order(by) if math.isnan(row.ranks[by]))
    rows = ranking.candidates
    if (by, top_k or ranking.top_k) != (ranking.rank_by, ranking.top_k):
        # known only for the column and the number of places that the ranking was made with
        rows = tuple(dataclasses.replace(row, selection_stability=None) for row in rows)
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
    action = f"The weights are those of mixture={weighting!r}: {_weights(mixture)}."
    decision = dataclasses.replace(
        decision,
        sentence=" ".join([_finding(decision.opening, ranking, decision.evidence), action]),
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
    decision = dataclasses.replace(
        decision,
        opening="tuned",
        sentence=f"Train on {_weights(mixture)}: {how}.",
        mixture=mixture,
        reasons=(f"Without the search: {decision.sentence}", *decision.reasons),
        weighting="tuned",
    )
    return dataclasses.replace(ranking, decision=decision, mixture=None)


def _decision_of(ranking: Ranking) -> Decision:
    decision = ranking.decision or redecided(ranking).decision
    assert decision is not None
    return decision


def _check_left(ranking: Ranking, names: Sequence[str], evidence: Evidence) -> None:
    if names:
        return
    if evidence.undefined:
        reasons = [message for message in ranking.messages if "undefined" in message]
        undefined = f"{evidence.rank_by} is undefined for {', '.join(evidence.undefined)}"
        raise ConfigError("; ".join([undefined, *reasons]))
    raise DataError(
        f"every candidate ({listed(evidence.copies)}) is the real sample or a near copy of it: "
        "there is nothing to select; give candidates that were generated without it"
    )


def _opening(evidence: Evidence, n_left: int) -> Opening:
    """Decide which rule holds; the first that does is the one to say."""
    if evidence.far is not None and evidence.far.is_far:
        return "far"
    if evidence.answers is not None and evidence.answers.left_out:
        return "answers"
    if evidence.contradicted or evidence.camps:
        return "labels"
    if evidence.n_effective < _LEAST_REAL:
        return "small"
    if evidence.n_apart is None or n_left < 2:
        return "untested"
    return "clear" if evidence.worse else "tie"


def _recommended(opening: Opening, names: Sequence[str], evidence: Evidence) -> list[str]:
    """Keep all candidates, minus those that the rule gives a reason to leave out."""
    out: set[str] = set()
    if opening in ("clear", "labels", "answers") and evidence.n_effective >= _LEAST_REAL:
        out |= set(evidence.worse)
    # of two camps, the smaller may be right: a majority must not decide whose labels stand out
    if opening in ("labels", "answers") and not evidence.camps:
        out |= set(evidence.contradicted)
    if opening == "answers" and evidence.answers is not None:
        out |= set(evidence.answers.left_out)
    kept = [name for name in names if name not in out]
    return kept or list(names)


def _advice(
    opening: Opening, names: Sequence[str], chosen: Sequence[str], evidence: Evidence
) -> str:
    """Say what to do, where no `top_k` was given."""
    everything = _everything(names, evidence)
    real = _real(evidence)
    if opening == "far":
        return f"{_far(evidence)}: generate again."
    if opening == "answers" and evidence.answers is not None:
        dropped = [name for name in names if name not in chosen]
        few = len(dropped) <= len(chosen)
        selected = f"all but {listed(dropped)}" if few else listed(chosen)
        return f"Train on {selected}: {evidence.answers.finding}."
    if opening == "labels":
        until = f"train on {listed(chosen)}" if len(chosen) < len(names) else "all are selected"
        return f"{_labels(evidence)} Until then, {until}."
    if opening == "small":
        return f"{real} are too few to choose: train on {everything}, or collect more."
    if opening == "untested":
        if len(names) == 1:
            return f"Train on {names[0]}: no other candidate can be selected."
        return f"Train on {everything}: {_unknown(evidence)}."
    if opening == "tie":
        return f"Train on {everything}: your real sample {_tie(evidence, 'them')}."
    if len(chosen) in evidence.clear_at:
        return f"Train on {listed(chosen)}: {_closer(chosen, evidence)}."
    dropped = [name for name in names if name not in chosen]
    worse = f"farther from your {real} than at least half of the others, beyond chance"
    if len(dropped) <= len(chosen):
        verb = "this file is" if len(dropped) == 1 else "these files are"
        return f"Train on all but {listed(dropped)}: by {evidence.rank_by}, {verb} {worse}."
    return f"Train on {listed(chosen)}: by {evidence.rank_by}, each other file is {worse}."


def _obeyed(
    opening: Opening,
    names: Sequence[str],
    chosen: Sequence[str],
    evidence: Evidence,
    top_k: int,
) -> str:
    """Say what the data say, and that `top_k` decided; says nothing else to train on."""
    if opening in ("clear", "tie") and len(chosen) in evidence.clear_at:
        finding = f"{listed(chosen)}: {_closer(chosen, evidence)}."
    else:
        finding = _found(opening, len(names), evidence)
    selected = f"The top {len(chosen)} are" if len(chosen) > 1 else "The best one is"
    return f"{finding} {selected} selected because top_k={top_k} was given."


def _finding(opening: Opening, ranking: Ranking, evidence: Evidence) -> str:
    n_left = len(ranking) - len({*evidence.copies, *evidence.undefined})
    return " ".join([_found(opening, n_left, evidence), *_left_out(evidence)])


def _found(opening: Opening, n_left: int, evidence: Evidence) -> str:
    """Say what the data say, without what to train on."""
    if opening == "far":
        return f"{_far(evidence)}: generate again."
    if opening == "answers" and evidence.answers is not None:
        return _sentence(evidence.answers.finding)
    if opening == "labels":
        return _labels(evidence)
    if opening == "small":
        return f"{_real(evidence)} are too few to choose: collect more."
    if opening == "clear":
        worse = f"{listed(evidence.worse)} {'is' if len(evidence.worse) == 1 else 'are'}"
        return (
            f"By {evidence.rank_by}, {worse} farther from your {_real(evidence)} than at least "
            "half of the others, beyond chance."
        )
    if opening == "tie":
        return f"Your real sample {_tie(evidence, f'the {n_left} candidates')}."
    return _sentence(_unknown(evidence))


def _sentence(finding: str) -> str:
    return f"{finding[0].upper()}{finding[1:]}."


def _tie(evidence: Evidence, candidates: str) -> str:
    if evidence.n_apart:
        return f"shows none of {candidates} to be worse than at least half of the others"
    return f"does not separate {candidates}"


def _everything(names: Sequence[str], evidence: Evidence) -> str:
    n_left_out = len({*evidence.copies, *evidence.undefined})
    return f"all {len(names)}{' others' if n_left_out else ''}"


def _real(evidence: Evidence) -> str:
    n, effective = evidence.n_real, evidence.n_effective
    clusters = f" that count as {effective:.0f}" if effective < n - 0.5 else ""
    return f"{n:,} real examples{clusters}"


def _closer(chosen: Sequence[str], evidence: Evidence) -> str:
    these = "this file is" if len(chosen) == 1 else "these files are"
    return (
        f"by {evidence.rank_by}, {these} closer to your {_real(evidence)} than every other "
        "candidate, beyond chance"
    )


def _far(evidence: Evidence) -> str:
    far = evidence.far
    assert far is not None
    return (
        f"No candidate resembles your real data (a linear classifier is right {far.accuracy:.0%} "
        "of the time)"
    )


def _labels(evidence: Evidence) -> str:
    if evidence.camps:
        return f"Check the labels first: {evidence.camps[0]}"
    (first, share), *rest = sorted(evidence.contradicted.items(), key=lambda item: -item[1])
    if not rest:
        return (
            f"Check the labels of {first} first: the other candidates contradict {share:.0%} of "
            "them."
        )
    names = listed([first, *(name for name, _ in rest)])
    return (
        f"Check the labels of {names} first: the other candidates contradict up to {share:.0%} "
        "of them."
    )


def _unknown(evidence: Evidence) -> str:
    return f"whether your real sample separates them by {evidence.rank_by} is unknown"


def _left_out(evidence: Evidence) -> list[str]:
    """Say which candidates are never selected."""
    sentences = []
    if evidence.copies:
        one = len(evidence.copies) == 1
        copies = "is a copy or near copy" if one else "are copies or near copies"
        not_selected = "is not selected" if one else "are not selected"
        sentences.append(
            f"{listed(evidence.copies)} {copies} of your real sample and {not_selected}."
        )
    if evidence.undefined:
        has = "has" if len(evidence.undefined) == 1 else "have"
        sentences.append(
            f"{listed(evidence.undefined)} {has} no score by {evidence.rank_by}: not selected."
        )
    return sentences


def _reasons(opening: Opening, evidence: Evidence) -> tuple[str, ...]:
    reasons = [] if opening == "answers" else list(evidence.camps[1:])
    if opening != "answers" and evidence.answers is not None:
        reasons.insert(0, _sentence(evidence.answers.finding))
    if evidence.n_effective < _LEAST_REAL:
        reasons.append(f"Differences are not tested with fewer than {_LEAST_REAL} real examples.")
    elif evidence.n_apart is not None:
        reasons.append(
            f"{evidence.n_apart} of {evidence.n_pairs} pairs of candidates are distinguished by "
            f"{evidence.rank_by} (simultaneous 95 % over all pairs, {_real(evidence)}). That says "
            "nothing of the quality of their labels."
        )
    if opening == "far" and evidence.far is not None:
        far = evidence.far
        halves = "" if math.isnan(far.halves) else f"; between two halves of it, {far.halves:.0%}"
        reasons.append(
            f"The classifier separates {far.candidate} least well from your real sample: it is "
            f"right {far.accuracy:.0%} of the time, at least {far.low:.0%} (95 %){halves}. Real "
            "examples are nearer to each other than to any candidate."
        )
        reasons.append(
            "Candidates are selected all the same, so that a training run can start; training on "
            "them is not advised."
        )
    return tuple(reasons)


def _source(names: Sequence[str], chosen: Sequence[str]) -> str:
    if len(chosen) == len(names):
        return "recommended: all candidates"
    return f"recommended: {len(chosen)} of {len(names)} candidates"


def _weights(mixture: Mixture) -> str:
    order = sorted(mixture.weights.items(), key=lambda item: -item[1])
    return listed([f"{name} {weight:.3g}" for name, weight in order])
