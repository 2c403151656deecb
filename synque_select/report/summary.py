"""The top of a report: what was decided, how sure that is, whether it paid, and what to do next."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from synque_select.functional.correlation import Correlation
from synque_select.functional.paired import MIN_PAIRS
from synque_select.records.correlation import KeyCorrelations
from synque_select.records.experiment_result import ExperimentResult
from synque_select.report.correlation_tables import short_units
from synque_select.report.experiment_tables import arm_words, verdict_words
from synque_select.report.formats import (
    figure_decimals,
    format_interval,
    format_number,
    format_signed,
)
from synque_select.report.ranking_tables import reliability_words
from synque_select.report.run_content import RunContent
from synque_select.report.study_tables import trials_of
from synque_select.report.untrained import UNTRAINED_NAME, untrained_notes
from synque_select.types import LabelChecks, Ranking, is_surrogate
from synque_select.types.decision import LEAST_REAL
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.wording import counted, listed, percent

__all__ = [
    "INPUTS_ONLY",
    "NOTES_ARE_BELOW",
    "Point",
    "Summary",
    "measured_reliability",
    "notes_on_data",
    "summary_of",
]

INPUTS_ONLY = (
    "Proxies read inputs only: they cannot see wrong labels. A candidate with good inputs and "
    "false labels can rank high."
)
NOTES_ARE_BELOW = "under Ranking."
_RUN_FOLDER = re.compile(r"(\d{8}T\d{6}Z)-(.+)")
# as `Sentences` writes them
_PAIRS = re.compile(
    r"[\d,]+ of [\d,]+ pairs of candidates (is|are) distinguished by .+ \((?P<how>[^()]+)\)\."
    r"(?P<rest>.*)"
)
_ADVICE = ("Train on ", "Check the labels ", "No candidate ", "No other candidate ")
# the arms that a reader asks for first
_ARMS = ("random_k", "all", "none")


@dataclass(frozen=True)
class Point:
    """One answer at the top of the page.

    Args:
        title: The question.
        figure: The number that answers it; may be empty.
        caption: What the number is.
        lines: Sentences.
    """

    title: str
    figure: str
    caption: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """What a reader must know before anything else.

    Args:
        name: Name of the run, with its time if the name has it.
        headline: The decision in a sentence.
        more: The sentences that follow it.
        weights: Candidate to its weight; empty without a ranking.
        points: How sure, did it pay, what next.
    """

    name: str
    headline: str
    more: str
    weights: Mapping[str, float]
    points: tuple[Point, ...]


def summary_of(content: RunContent) -> Summary:
    """Return the summary of a run.

    Args:
        content: The content of the run.
    """
    ranking = content.ranking
    headline, more = _headline(content)
    points = [] if ranking is None else [_sure(ranking, content)]
    paid = _paid(content)
    if paid is not None:
        points.append(paid)
    steps = tuple(_next_steps(content))[:4]
    if steps:
        points.append(Point("What to do next", "", "", steps))
    return Summary(
        _name(content.name),
        headline,
        more,
        {} if ranking is None else ranking.top().weights,
        tuple(points),
    )


def measured_reliability(content: RunContent) -> Correlation | None:
    """Return the measured correlation of what the ranking is ordered by with validation.

    Probes come before mixtures. What was measured on a surrogate does not count: agreement with it
    says nothing of errors that the candidates share.

    Args:
        content: The content of a run.
    """
    ranking, result = content.ranking, content.result
    if ranking is None:
        return None
    for kind in ("probe", "mixture"):
        for entry in content.correlations:
            measured = entry.proxies.get(ranking.rank_by)
            if is_surrogate(entry.monitor) or entry.kind != kind or measured is None:
                continue
            if not math.isnan(measured.spearman.value):
                return measured
    return None if result is None else result.correlations.proxies.get(ranking.rank_by)


def _name(name: str) -> str:
    """Write the time in the name of a run's directory as people do."""
    folder = name.rpartition(" / ")[2]
    match = _RUN_FOLDER.fullmatch(folder)
    if match is None:
        return name
    time = datetime.strptime(match[1], "%Y%m%dT%H%M%SZ")
    recipe = name.removesuffix(f" / {folder}")
    return f"{recipe}, {match[2]}, {time.day} {time:%B %Y, %H:%M} UTC"


def _headline(content: RunContent) -> tuple[str, str]:
    ranking = content.ranking
    if ranking is None:
        kinds = {
            "result.json": "Result of an experiment",
            "study.json": "Search for a mixture",
            "correlations.json": "Proxies against validation",
            "weights.json": "Weights that changed in training",
            "influence.json": "Influence of the candidates on validation",
        }
        return next((w for f, w in kinds.items() if f in content.files), "Candidates"), ""
    if ranking.decision is None:
        mixture = ranking.top()
        return f"Train on {listed(mixture.names, 12)}: {mixture.source}.", ""
    sentence = ranking.decision.sentence
    first, stop, rest = sentence.partition(". ")
    what, colon, why = first.partition(": ")
    if colon and what.startswith(_ADVICE):  # what to do is the headline, why is not
        return f"{what}.", f"{_capital(why)}{stop}{rest}"
    return f"{first}{stop.rstrip()}", rest


def notes_on_data(content: RunContent) -> tuple[str, ...]:
    """Return the messages of the ranking that do not stand under Labels.

    Args:
        content: The content of a run.
    """
    labels = content.findings.labels
    of_labels = () if labels is None else labels.messages
    messages = () if content.ranking is None else content.ranking.messages
    return tuple(message for message in messages if message not in of_labels)


def _sure(ranking: Ranking, content: RunContent) -> Point:
    trust = reliability_words(ranking.rank_by, measured_reliability(content))
    lines = [f"{trust[0].upper()}{trust[1:]}."]
    weights = ranking.top().weights
    stable = [
        row.selection_stability
        for row in ranking.candidates
        if row.name in weights and row.selection_stability is not None
    ]
    if stable and len(weights) < len(ranking):
        low, high = percent(min(stable)), percent(max(stable))
        share = low if low == high else f"{low} to {high}"
        lines.append(
            f"A selected candidate is in the top {ranking.stability_k} in {share} of redrawn real "
            "samples: an estimate, which is too high near ties, and not the chance of being truly "
            "best."
        )
    decision = ranking.decision
    if decision is not None:
        lines = [*_without_pairs(decision.reasons), *lines]
    n_notes = len(notes_on_data(content))
    if n_notes:
        verb = "stands" if n_notes == 1 else "stand"
        lines.append(f"{counted(n_notes, 'note')} on these data {verb} {NOTES_ARE_BELOW}")
    if decision is None:
        return Point("How sure is that?", "", "", tuple(lines))
    evidence = decision.evidence
    # of two candidates, a sentence says it
    if evidence.n_apart is None or evidence.n_pairs < 2:
        return Point("How sure is that?", "", "", tuple(lines))
    how = next((f" ({m['how']})" for r in decision.reasons if (m := _PAIRS.match(r))), "")
    return Point(
        "How sure is that?",
        f"{evidence.n_apart:,} of {evidence.n_pairs:,}",
        f"pairs of candidates distinguished by {evidence.rank_by}{how}",
        tuple(lines),
    )


def _without_pairs(reasons: Sequence[str]) -> list[str]:
    """Leave out of the sentence on pairs what the figure and its caption say."""
    left = [reason if (m := _PAIRS.match(reason)) is None else m["rest"] for reason in reasons]
    return [text.strip() for text in left if text.strip()]


def _paid(content: RunContent) -> Point | None:
    """Say whether training on the mixture paid; None if nothing can be said."""
    title = "Did it pay?"
    if content.result is not None and content.result.chosen_against:
        return _compared(title, content.result)
    if content.study is not None:
        return _searched(title, JsonFields(content.study))
    for kind in ("mixture", "probe"):
        for entry in content.correlations:
            if entry.kind == kind and entry.points:
                return _validated(title, entry)
    return None


def _compared(title: str, result: ExperimentResult) -> Point:
    pairs = result.chosen_against
    order = [*(arm for arm in _ARMS if arm in pairs), *(arm for arm in pairs if arm not in _ARMS)]
    metric = result.metric.name
    first = pairs[order[0]]
    # of fewer pairs than a verdict needs, the interval is as wide as the metric: it says nothing
    intervals = {
        arm: "" if pair.verdict == "hint only" else format_interval(pair.low, pair.high, 3)
        for arm, pair in pairs.items()
    }
    lines = [f"95 % interval {intervals[order[0]]}."] if intervals[order[0]] else []
    for arm in order[1:3]:
        shown = " ".join(filter(None, (format_signed(pairs[arm].difference, 3), intervals[arm])))
        lines.append(f"Against {arm_words(arm)}: {shown}, {verdict_words(pairs[arm])}.")
    if any(pair.verdict == "hint only" for pair in pairs.values()):
        lines.append(f"A verdict needs {MIN_PAIRS} pairs.")
    return Point(
        title,
        format_signed(first.difference, 3),
        f"{metric} against {arm_words(order[0])}: {verdict_words(first)}",
        tuple(lines),
    )


def _searched(title: str, fields: JsonFields) -> Point | None:
    trials, metric = trials_of(fields), fields.text("metric")
    values = [trial.value for trial in trials if trial.state == "complete"]
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return None
    best = max(values) if fields.text("mode") == "max" else min(values)
    lines = ["It is the best on the data that chose it: measure it on other data."]
    untrained = fields.optional_number("untrained")
    if untrained is not None:
        lines.append(f"{_capital(UNTRAINED_NAME)}: {format_number(untrained, 3)}.")
    caption = f"{metric} of the best of {counted(len(values), 'complete trial')}"
    return Point(title, format_number(best, 3), caption, tuple(lines))


def _validated(title: str, entry: KeyCorrelations) -> Point:
    names = short_units([point.unit for point in entry.points])
    values = {n: p.validation for n, p in zip(names, entry.points, strict=True)}
    decimals = figure_decimals(values.values())
    low, high = (format_number(v, decimals) for v in (min(values.values()), max(values.values())))
    unit = "candidate" if entry.kind == "probe" else "mixture"
    of_all = counted(len(values), unit)
    lines = ["Nothing else was trained at the same budget, so that is not known."]
    if entry.kind == "probe":
        lines = ["The mixture itself was not compared: `synque-select experiment` does."]
    notes = untrained_notes(
        values,
        entry.untrained,
        entry.monitor,
        entry.mode,
        unit="candidate" if entry.kind == "probe" else "mixture",
    )
    lines += [f"{_capital(note)}." for note in notes]
    return Point(
        title,
        low if low == high else f"{low} to {high}",
        f"{entry.monitor} of {of_all}",
        tuple(lines),
    )


def _next_steps(content: RunContent) -> Iterator[str]:
    """Yield what to do, the most important first."""
    ranking, findings = content.ranking, content.findings
    if ranking is None:
        return
    if ranking.decision is not None:
        yield from _steps_of_decision(ranking, findings.labels)
    gaps = findings.gaps
    if gaps is not None and gaps.n_uncovered:
        verb = "is" if gaps.n_uncovered == 1 else "are"
        yield (
            f"Generate examples like the {gaps.n_uncovered:,} of "
            f"{counted(gaps.n_real, 'real example')} that {verb} not covered by any candidate "
            "(see Gaps)."
        )
    yield from _steps_of_training(content, ranking)
    analysis = findings.real_size
    if analysis is not None and analysis.gap > 0:
        enough = [n for n, error in analysis.extrapolated.items() if error <= analysis.gap / 2]
        if enough and analysis.measured[-1].border_error > analysis.gap / 2:
            yield (
                f"Collect about {counted(min(enough), 'real example')}: the gap at the border "
                "would then be twice its standard error (extrapolated as 1/√n)."
            )


def _steps_of_decision(ranking: Ranking, labels: LabelChecks | None) -> Iterator[str]:
    decision = ranking.decision
    assert decision is not None
    evidence = decision.evidence
    if decision.opening == "far":
        yield "Generate candidates that are closer to your real data before you train."
    elif decision.opening == "labels" and evidence.camps:
        yield (
            "Read the contested examples under Labels. `synque-select ask` asks for the labels of "
            "the real examples that settle best which camp is right."
        )
    elif decision.opening == "labels":
        shares = evidence.contradicted  # in the order of the headline
        names = sorted(shares, key=lambda name: -shares[name])
        is_shown = labels is not None and any(check.doubtful for check in labels.checks)
        where = " (see Labels)" * is_shown
        yield f"Read some labels of {listed(names, is_sentence=True)} before you train{where}."
    elif decision.opening == "answers" and evidence.answers and evidence.answers.is_open:
        yield "Answer more questions of `synque-select ask`."
    elif decision.opening == "small":
        yield f"Collect real examples: below {LEAST_REAL}, no difference is tested."


def _steps_of_training(content: RunContent, ranking: Ranking) -> Iterator[str]:
    result, by = content.result, ranking.rank_by
    is_far = ranking.decision is not None and ranking.decision.opening == "far"
    if result is not None and result.chosen_against:
        if all(pair.verdict == "hint only" for pair in result.chosen_against.values()):
            yield f"Run at least {MIN_PAIRS} replicates for a verdict (now {result.replicates})."
        return
    is_trained = any(entry.kind == "mixture" for entry in content.correlations)
    if not is_trained and content.study is None and not is_far:
        yield (
            "Train on this mixture: `SelectionCallback(ranking=…)` in a script or a config, or "
            "`synque-select export` for another trainer."
        )
    if measured_reliability(content) is None:
        yield (
            f"Measure whether {by} predicts your task: `synque-select sweep` trains briefly on "
            "each candidate alone."
        )


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
