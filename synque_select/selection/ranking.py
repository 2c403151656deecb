"""Order scored candidates, with intervals, stability, and what can be distinguished."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.selector_names import selector_name
from synque_select.errors import ConfigError, ProxyError, did_you_mean
from synque_select.proxies.base import BaseProxy, Contributions, ProxyScores
from synque_select.selection.ask import AnswerReport, with_answers
from synque_select.selection.consensus import (
    CONSENSUS,
    borda,
    consensus_members,
    may_enter,
    midranks,
)
from synque_select.selection.decision import decided
from synque_select.selection.default_order import NOT_BY_TRANSFER, order_by
from synque_select.selection.farness import NOT_TESTED, measure_farness
from synque_select.selection.labels import unpredicted
from synque_select.selection.mixture import MixtureChoice, MixtureOptions, with_mixture
from synque_select.selection.scoring import Scoring
from synque_select.selection.sentences import never_reads_real
from synque_select.selection.uncertainty import (
    Influences,
    Separation,
    cluster_means,
    effective_size,
    influences,
    multinomial_weights,
    n_units,
    new_sample_scores,
    score_interval,
    separation,
    top_k_frequency,
)
from synque_select.types import (
    Evidence,
    Farness,
    LabelCheck,
    ProxyInfo,
    ProxyScore,
    RankedCandidate,
    Ranking,
    RankOrigin,
)
from synque_select.utils.versions import package_versions
from synque_select.utils.wording import counted, listed, places

__all__ = [
    "CONSENSUS",
    "BorderGap",
    "border_gap",
    "check_rank_by",
    "content_differences",
    "ranking_differences",
    "ranking_from",
    "redrawn_order",
    "with_origins",
]


def ranking_from(
    scoring: Scoring,
    *,
    rank_by: str | None = None,
    top_k: int | None = None,
    n_resamples: int = 2000,
    mixture: MixtureChoice = "equal",
    labels: Sequence[LabelCheck] = (),
    camps: Sequence[str] = (),
    answers: AnswerReport | None = None,
) -> Ranking:
    """Order scored candidates and decide; the arguments are those of `Scorer`, which checks them.

    Args:
        scoring: The result of `Scorer.score`.
        rank_by: As for `rank`.
        top_k: As for `rank`.
        n_resamples: Number of bootstrap resamples of the real sample.
        mixture: As for `rank`.
        labels: The label checks of the candidates, if they have labels.
        camps: Sentences on two camps of candidates whose labels contradict each other.
        answers: What labels of real examples say about the candidates.
    """
    options = MixtureOptions.of(mixture)
    ranking = _ordered(scoring, rank_by, top_k, n_resamples, labels, camps, answers)
    # the optimal mixture is chosen by weights, not cut off at a rank
    tie = None if options.kind == "mmd_optimal" else _tie_at_border(ranking)
    untested = NOT_TESTED if scoring.real.embeddings is None else None
    further = tuple(message for message in (tie, untested) if message is not None)
    ranking = dataclasses.replace(ranking, messages=ranking.messages + further)
    ranking = with_mixture(ranking, options, scoring)
    if not scoring.given:
        return ranking
    rows = tuple(ranking[name] for name in scoring.given)
    return dataclasses.replace(ranking, candidates=rows)


def _ordered(
    scoring: Scoring,
    rank_by: str | None,
    top_k: int | None,
    n_resamples: int,
    labels: Sequence[LabelCheck],
    camps: Sequence[str],
    answers: AnswerReport | None,
) -> Ranking:
    check_rank_by(rank_by, scoring.suite)
    members, left_out = consensus_members(scoring.suite, scoring.scores)
    wrong = () if answers is None else answers.evidence.wrong_camp
    rank_by, why_not = order_by(rank_by, scoring.suite, members, scoring, wrong)
    if why_not is not None:
        left_out += (f"{NOT_BY_TRANSFER}: {why_not}.",)
    n_real = len(scoring.real)
    weights = multinomial_weights(n_real, n_resamples, scoring.seed, scoring.groups)
    # from one group, nothing is known about the variation between groups
    is_varied = n_units(n_real, scoring.groups) > 1
    redrawn = {
        key: scores.resample(weights)
        for key, scores in scoring.scores.items()
        if scores.resample is not None and is_varied
    }
    n_effective = float(n_real) if scoring.groups is None else effective_size(scoring.groups)
    ranking = Ranking(
        candidates=_rows(scoring, members, redrawn, weights),
        proxies=_infos(scoring, members),
        rank_by=rank_by,
        top_k=top_k,
        n_real=n_real,
        real_sha256=scoring.real_sha256,
        modality=scoring.modality,
        encoder=scoring.encoder,
        seed=scoring.seed,
        packages=package_versions(),
        messages=scoring.messages + left_out,
        wall_s=scoring.wall_s,
        details={key: part.details for key, part in scoring.scores.items() if part.details},
        n_groups=n_units(n_real, scoring.groups),
        effective_n=n_effective,
    )
    if answers is not None:
        ranking = with_answers(ranking, answers)
    used = members if rank_by == CONSENSUS else (rank_by,)
    evidence = Evidence(
        rank_by,
        n_real,
        n_effective,
        undefined=tuple(r.name for r in ranking.candidates if math.isnan(r.ranks[rank_by])),
        copies=scoring.copies,
        contradicted=_contradicted(labels),
        unpredicted=unpredicted(labels),
        camps=tuple(camps),
        far=_farness(scoring, ranking),
        answers=None if answers is None else answers.evidence,
    )
    doubtful = [key for key in used if not scoring.scores[key].reliable]
    silent = [key for key in used if key not in redrawn]
    untested = _untested(ranking, evidence, doubtful, silent, is_varied)
    if untested or evidence.is_small:
        return _decided(ranking, dataclasses.replace(evidence, untested=untested), scoring)
    separated = separation(
        _influences(scoring, used),
        n_resamples=n_resamples,
        seed=scoring.seed,
        groups=scoring.groups,
    )
    new = {
        key: new_sample_scores(
            scoring.scores[key].values,
            _with_judges(redrawn[key], scoring.scores[key], scoring.seed + 1),
            n_real,
            scoring.groups,
        )
        for key in used
    }
    drawn = _order(rank_by, new, scoring.suite)
    compared = _compared(ranking, evidence, separated)
    return _with_stability(_decided(ranking, compared, scoring), drawn)


def _decided(ranking: Ranking, evidence: Evidence, scoring: Scoring) -> Ranking:
    """Add the candidates that were not scored after the others, and decide."""
    reasons = {part.candidate.name: part.reason for part in scoring.degenerate}
    columns = ranking.candidates[0]
    rows = [
        RankedCandidate(
            name=part.candidate.name,
            n=part.candidate.n_all,
            sha256=part.candidate.sha256_of_all,
            scores={key: ProxyScore(math.nan) for key in columns.scores},
            ranks={key: math.nan for key in columns.ranks},
        )
        for part in scoring.degenerate
    ]
    evidence = dataclasses.replace(
        evidence, undefined=(*evidence.undefined, *reasons), degenerate=reasons
    )
    return decided(dataclasses.replace(ranking, candidates=(*ranking.candidates, *rows)), evidence)


def _with_judges(redrawn: torch.Tensor, scores: ProxyScores, seed: int) -> torch.Tensor:
    """Add the variation of the judges, which comparisons count as well, to redrawn scores."""
    resample = scores.resample
    if not isinstance(resample, Contributions) or resample.judges is None:
        return redrawn
    n = len(resample.judges)
    # a bootstrap variance is (n - 1)/n of the unbiased one, and there are few judges
    factor = math.sqrt(n / max(1, n - 1))
    moved: torch.Tensor = multinomial_weights(n, len(redrawn), seed) @ resample.judges
    return redrawn + factor * moved


def _untested(
    ranking: Ranking,
    evidence: Evidence,
    doubtful: Sequence[str],
    silent: Sequence[str],
    is_varied: bool,
) -> str:
    """Return why the candidates cannot be compared; empty if they can."""
    by = evidence.rank_by
    never = never_reads_real(ranking.proxies.get(by))
    if never:
        return never
    if len(ranking) < 2:
        return "no difference was tested, as only one candidate can be compared"
    if doubtful:
        return f"no difference was tested, as {by} is not reliable on this input"
    if not is_varied:
        return "no difference can be tested, as all real examples are in one group"
    if silent:
        return f"no difference was tested, as {_why(silent)}"
    if evidence.undefined:
        return f"no difference was tested, as {by} is undefined for {listed(evidence.undefined)}"
    return ""


def _influences(scoring: Scoring, keys: Sequence[str]) -> list[Influences]:
    """Return what each real example adds to the scores of these proxies."""
    up = {proxy.key: proxy.higher_is_better for proxy in scoring.suite}
    n = len(scoring.real)
    return [influences(scoring.scores[key], n, higher_is_better=up[key]) for key in keys]


def judged_order(scoring: Scoring, rank_by: str | None) -> str | None:
    """Return the proxy that orders if it depends on judges, which vary as the real sample does.

    Args:
        scoring: The result of `Scorer.score`.
        rank_by: As in `rank`.
    """
    members, _ = consensus_members(scoring.suite, scoring.scores)
    by, _ = order_by(rank_by, scoring.suite, members, scoring)
    # none of those in a consensus has judges
    resample = None if by == CONSENSUS else scoring.scores[by].resample
    has_judges = isinstance(resample, Contributions) and resample.judges is not None
    return by if has_judges else None


def redrawn_order(
    scoring: Scoring, rank_by: str | None, weights: torch.Tensor
) -> torch.Tensor | None:
    """Compute what orders the candidates under weights of the real examples.

    Args:
        scoring: The result of `Scorer.score`.
        rank_by: A proxy's key or "consensus"; None as for `rank`.
        weights: (B, n) float64, rows sum to 1.

    Returns:
        (B, K) float64, lower is better: mean ranks for the consensus, else the proxy's score,
        negated if higher is better. None if a needed proxy has no contribution per real example.
    """
    members, _ = consensus_members(scoring.suite, scoring.scores)
    by, _ = order_by(rank_by, scoring.suite, members, scoring)
    used = members if by == CONSENSUS else (by,)
    redrawn = {}
    for key in used:
        resample = scoring.scores[key].resample
        if resample is None:
            return None
        redrawn[key] = resample(weights)
    return _order(by, redrawn, scoring.suite)


@dataclasses.dataclass(frozen=True)
class BorderGap:
    """How much better one candidate is than another, as a smooth function of the real sample.

    Args:
        columns: Proxy key to the function from weights to scores.
        signs: Proxy key to the factor of its difference: −1 if higher is better, else 1, over the
            standard error of the difference if there are several proxies.
        better: Position of the first candidate.
        worse: Position of the second candidate.
        unit: Unit of the gap, for tables.
    """

    columns: Mapping[str, Callable[[torch.Tensor], torch.Tensor]]
    signs: Mapping[str, float]
    better: int
    worse: int
    unit: str

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the gap under (B, n) weights of the real examples, (B,) float64."""
        total = torch.zeros(len(weights), dtype=torch.float64)
        for key, resample in self.columns.items():
            scores = resample(weights)
            total += self.signs[key] * (scores[:, self.worse] - scores[:, self.better])
        return total


def border_gap(scoring: Scoring, rank_by: str | None, better: int, worse: int) -> BorderGap:
    """Return the function that measures the gap between two candidates in what ranks.

    Of one proxy, it is the difference of the scores. Of the consensus, it is the sum over the
    proxies of the difference over its standard error, as mean ranks are not smooth.

    Args:
        scoring: The result of `Scorer.score`; every proxy that ranks has `resample`.
        rank_by: As in `rank`.
        better: Position of the candidate that ranks higher.
        worse: Position of the other.

    Raises:
        ProxyError: A needed proxy has no contribution per real example.
    """
    members, _ = consensus_members(scoring.suite, scoring.scores)
    by, _ = order_by(rank_by, scoring.suite, members, scoring)
    used = members if by == CONSENSUS else (by,)
    columns = {
        key: resample for key in used if (resample := scoring.scores[key].resample) is not None
    }
    if len(columns) < len(used):
        raise ProxyError(f"no gap can be measured: {_why([k for k in used if k not in columns])}")
    up = {proxy.key: proxy.higher_is_better for proxy in scoring.suite}
    signs = {key: -1.0 if up[key] else 1.0 for key in used}
    unit = next((_unit(scoring, proxy) for proxy in scoring.suite if proxy.key == by), "")
    if by == CONSENSUS:
        for key, part in zip(used, _influences(scoring, used), strict=True):
            means = cluster_means(part.each, scoring.groups)
            error = float((means[:, worse] - means[:, better]).std()) / len(means) ** 0.5
            signs[key] = signs[key] / error if error > 0 else 0.0
        unit = f"standard errors at n = {len(scoring.real):,}, summed over {', '.join(used)}"
    return BorderGap(columns, signs, better, worse, unit)


def _order(
    rank_by: str, columns: Mapping[str, torch.Tensor], suite: Sequence[BaseProxy]
) -> torch.Tensor:
    """Turn (..., K) scores into what orders the candidates, lower is better."""
    orientation = {proxy.key: proxy.higher_is_better for proxy in suite}
    if rank_by == CONSENSUS:
        return borda(columns, orientation)
    return -columns[rank_by] if orientation[rank_by] else columns[rank_by]


def check_rank_by(rank_by: str | None, suite: Sequence[BaseProxy]) -> None:
    """Refuse, before anything is scored, a column that the scores could not be ordered by.

    Raises:
        ConfigError: It is neither a proxy of the suite nor "consensus", or no proxy of the suite
            may enter a consensus.
    """
    allowed = (*(proxy.key for proxy in suite), CONSENSUS)
    if rank_by is not None and rank_by not in allowed:
        hint = did_you_mean(str(rank_by), allowed)
        raise ConfigError(f"rank_by={rank_by!r} is not a column: {hint}")
    order_by(rank_by, suite, [proxy.key for proxy in suite if may_enter(proxy)])


def _rows(
    scoring: Scoring,
    members: Sequence[str],
    redrawn: Mapping[str, torch.Tensor],
    weights: torch.Tensor,
) -> tuple[RankedCandidate, ...]:
    ranks = {
        proxy.key: midranks(
            scoring.scores[proxy.key].values, higher_is_better=proxy.higher_is_better
        )
        for proxy in scoring.suite
    }
    mean_rank = None
    if members:
        mean_rank = torch.stack([ranks[key] for key in members]).mean(dim=0)
        ranks[CONSENSUS] = midranks(mean_rank, higher_is_better=False)
    scores = {
        key: _proxy_scores(part, redrawn.get(key), weights, scoring.groups)
        for key, part in scoring.scores.items()
    }
    return tuple(
        RankedCandidate(
            name=candidate.name,
            n=candidate.n_all,
            sha256=scoring.sha256[i],
            scores={key: column[i] for key, column in scores.items()},
            ranks={key: float(column[i]) for key, column in ranks.items()},
            mean_rank=None if mean_rank is None else float(mean_rank[i]),
        )
        for i, candidate in enumerate(scoring.candidates)
    )


def with_origins(ranking: Ranking, candidates: Sequence[Candidate], origin: RankOrigin) -> Ranking:
    """Return the ranking with the source, view and label of each candidate.

    Args:
        ranking: A ranking; one from the cache may have been made where the data was elsewhere.
        candidates: The candidates, which have the names of the ranking.
        origin: Where and how the ranking is made now.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    rows = tuple(
        dataclasses.replace(
            row,
            source=by_name[row.name].source,
            view=selector_name(by_name[row.name].selector),
            label=selector_name(by_name[row.name].label),
        )
        for row in ranking.candidates
    )
    return dataclasses.replace(ranking, candidates=rows, origin=origin)


def _proxy_scores(
    given: ProxyScores,
    redrawn: torch.Tensor | None,
    weights: torch.Tensor,
    groups: NDArray[np.int64] | None,
) -> list[ProxyScore]:
    values = given.values.tolist()
    nothing = [None] * len(values)
    spread = nothing if given.spread is None else given.spread.tolist()
    p_values = nothing if given.p_values is None else given.p_values.tolist()
    low, high = nothing, nothing
    if redrawn is not None:
        ends = score_interval(given, weights, redrawn, groups)
        low, high = (end.tolist() for end in ends)
    rows = zip(values, low, high, spread, p_values, strict=True)
    return [ProxyScore(row[0]) if math.isnan(row[0]) else ProxyScore(*row) for row in rows]


def _infos(scoring: Scoring, members: Sequence[str]) -> dict[str, ProxyInfo]:
    return {
        proxy.key: ProxyInfo(
            key=proxy.key,
            higher_is_better=proxy.higher_is_better,
            options=proxy.options(),
            unit=_unit(scoring, proxy),
            family=proxy.family,
            in_consensus=proxy.key in members,
            seconds=round(scoring.seconds[proxy.key], 4),
            reference=scoring.reference.get(proxy.key),
            version=proxy.version,
        )
        for proxy in scoring.suite
    }


def _unit(scoring: Scoring, proxy: BaseProxy) -> str:
    """Return the unit of a proxy's scores, which may depend on the data."""
    return str(scoring.scores[proxy.key].details.get("unit", proxy.unit))


def _tie_at_border(ranking: Ranking) -> str | None:
    """Say which candidates were selected if several share the rank at the border of the top k."""
    excluded = set(ranking.excluded)
    order = [row for row in ranking.order() if row.name not in excluded]
    if ranking.top_k is None or ranking.top_k >= len(order):
        return None
    rank = order[ranking.top_k - 1].ranks[ranking.rank_by]
    tied = [row.name for row in order if row.ranks[ranking.rank_by] == rank]
    inside = [row.name for row in order[: ranking.top_k] if row.name in tied]
    if len(inside) == len(tied):
        return None
    ranks = [row.ranks[ranking.rank_by] for row in ranking.candidates]
    place = places(ranks)[ranks.index(rank)]
    are = "is" if len(inside) == 1 else "are"
    return (
        f"{listed(tied)} share place {place} by {ranking.rank_by} at the border of the top "
        f"{ranking.top_k}: {listed(inside)} {are} selected by the order of the candidates, not by "
        "a score."
    )


def _why(silent: Sequence[str]) -> str:
    return f"{', '.join(silent)} cannot be scored again for redrawn real examples"


def _farness(scoring: Scoring, ranking: Ranking) -> Farness | None:
    rows = [row for row in ranking.candidates if row.name not in scoring.copies]
    pad = ranking.proxies.get("pad")
    if pad is None or pad.options.get("protocol") != "default":
        return measure_farness(scoring, {row.name: ProxyScore(math.nan) for row in rows})
    return measure_farness(scoring, {row.name: row.scores["pad"] for row in rows})


def _contradicted(labels: Sequence[LabelCheck]) -> dict[str, float]:
    """Return the candidates whose labels stand out, and the share that the others contradict."""
    return {
        check.name: check.contradicted
        for check in labels
        if check.outlier and check.contradicted is not None
    }


def _compared(ranking: Ranking, evidence: Evidence, separated: Separation) -> Evidence:
    """Add to the evidence which candidates are shown worse.

    Args:
        ranking: The ranking.
        evidence: The evidence without comparisons.
        separated: The pairs that are distinguished.
    """
    column = {row.name: i for i, row in enumerate(ranking.candidates)}
    # a copy of the real sample is better than any candidate: only the others are compared
    copies = set(evidence.copies)
    places_of = {row.name: column[row.name] for row in ranking.order() if row.name not in copies}
    left = list(places_of.values())
    ranks = torch.tensor([row.ranks[ranking.rank_by] for row in ranking.candidates])[left]
    # The order of a consensus is by mean ranks, the comparison by sums of standardized differences.
    # Where they point in opposite directions, neither is a reason to prefer one of the two.
    agrees = ranks.unsqueeze(1) < ranks
    block = (separated.better[left][:, left] & agrees).double()  # best first
    n_others = len(left) - 1
    n_better = block.sum(dim=0)
    return dataclasses.replace(
        evidence,
        n_apart=int(block.sum()),
        n_pairs=len(left) * n_others // 2,
        shown_better=_shown_better(list(places_of), block),
        worse=tuple(
            name
            for name, count in zip(places_of, n_better.tolist(), strict=True)
            if n_others and count >= n_others / 2
        ),
        clear_at=_clear_at(block),
    )


def _clear_at(block: torch.Tensor) -> tuple[int, ...]:
    """Return each k for which all of the first k candidates are shown better than all others.

    Args:
        block: (K, K) nonzero where the candidate of the row is shown better than the other.
    """
    n = len(block)
    # of each candidate, the last one that it is not shown better than, or itself: k must be above
    # those of the first k
    last = torch.where(block == 0, torch.arange(n), -1).amax(dim=1)
    above = last.cummax(dim=0).values
    return tuple(k for k, reached in enumerate(above[:-1].tolist(), start=1) if reached < k)


def _shown_better(names: Sequence[str], block: torch.Tensor) -> dict[str, tuple[str, ...]]:
    """Return each candidate with those that it is shown better than.

    Args:
        names: The candidates, best first.
        block: (K, K) nonzero where the candidate of the row is shown better than the other.
    """
    rows = {
        name: tuple(names[i] for i in row.nonzero().flatten().tolist())
        for name, row in zip(names, block, strict=True)
    }
    return {name: worse for name, worse in rows.items() if worse}


def _with_stability(ranking: Ranking, redrawn: torch.Tensor) -> Ranking:
    """Add `selection_stability`.

    Args:
        ranking: The ranking with its decision, still without stability.
        redrawn: (B, K) what orders the candidates in new real samples, lower is better.
    """
    decision = ranking.decision
    assert decision is not None
    excluded = set(ranking.excluded)
    # the places are for those that can be selected: one that cannot be would hold a place in vain
    left = [i for i, row in enumerate(ranking.candidates) if row.name not in excluded]
    if len(left) < 2:
        return ranking
    ranks = midranks(redrawn[:, left], higher_is_better=False)
    k = min(ranking.stability_k, len(left))
    by_place = dict(zip(left, top_k_frequency(ranks, k).tolist(), strict=True))
    rows = tuple(
        dataclasses.replace(row, selection_stability=by_place.get(i))
        for i, row in enumerate(ranking.candidates)
    )
    evidence = dataclasses.replace(decision.evidence, stability_k=k)
    decision = dataclasses.replace(decision, evidence=evidence)
    return dataclasses.replace(ranking, candidates=rows, decision=decision)


def ranking_differences(
    ranking: Ranking, candidates: Sequence[Candidate], real: RealSample | None
) -> list[str]:
    """List the differences between the data that was ranked and this data; empty if there are none.

    Args:
        ranking: An existing ranking.
        candidates: The DataModule's candidates.
        real: The DataModule's real sample; None if it has none, which is not a difference.
    """
    rows = {row.name: row for row in ranking.candidates}
    here = {candidate.name: candidate for candidate in candidates}
    return [
        *_named("in the ranking, but no candidate here", rows.keys() - here.keys()),
        *_named("candidate here, but not in the ranking", here.keys() - rows.keys()),
        *content_differences([row for name, row in rows.items() if name in here], here),
        *_real_difference(ranking, real),
    ]


def content_differences(
    rows: Iterable[RankedCandidate], candidates: Mapping[str, Candidate]
) -> list[str]:
    """List the candidates that have other content than when they were ranked.

    Args:
        rows: Rows of the ranking.
        candidates: Name to candidate, for all of these rows.
    """
    here = [(row, candidates[row.name]) for row in rows]
    return [
        f"{row.name}: {candidate.where} has {counted(candidate.n_all, 'example')} with sha256 "
        f"{candidate.sha256_of_all[:12]}…, the ranking saw {row.n} with {row.sha256[:12]}…"
        for row, candidate in here
        if candidate.sha256_of_all != row.sha256
    ]


def _named(what: str, names: Iterable[str]) -> list[str]:
    text = ", ".join(sorted(names))
    return [f"{what}: {text}"] if text else []


def _real_difference(ranking: Ranking, real: RealSample | None) -> list[str]:
    if real is None or real.sha256 == ranking.real_sha256:
        return []
    return [
        f"real sample: {real.where} has {counted(len(real), 'example')} with sha256 "
        f"{real.sha256[:12]}…, the ranking saw {ranking.n_real} with {ranking.real_sha256[:12]}…"
    ]
