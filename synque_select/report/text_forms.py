"""A report as Markdown, as JSON, and as a block for the card of a dataset or a model."""

from __future__ import annotations

import math
import re

from synque_select.errors import RecordError
from synque_select.records.influence_file import INFLUENCE_FILE
from synque_select.report.blocks import limited
from synque_select.report.experiment_tables import arm_words
from synque_select.report.formats import format_ranks
from synque_select.report.influence_tables import influence_table
from synque_select.report.ranking_tables import ranking_table, reliability_words
from synque_select.report.run_content import RunContent
from synque_select.report.sections import command_of, weight_rows
from synque_select.report.summary import (
    INPUTS_ONLY,
    NOTES_ARE_BELOW,
    Point,
    measured_reliability,
    summary_of,
)
from synque_select.report.table import Column, Table, markdown_prose
from synque_select.types import Ranking
from synque_select.utils.json_fields import null_if_undefined
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted

__all__ = ["report_card", "report_json", "report_markdown"]

_MOST_ROWS = 20


def report_markdown(content: RunContent) -> str:
    """Return the summary of a run as Markdown: the top of its page, and the ranking as a table.

    Args:
        content: The content of the run.
    """
    summary = summary_of(content)
    parts = [f"## {markdown_prose(summary.headline)}"]
    if summary.more:
        parts.append(markdown_prose(summary.more))
    parts += [_point(point) for point in summary.points]
    if content.ranking is not None:
        table = ranking_table(content.ranking, reliability=measured_reliability(content))
        short = limited(table, "ranking.csv", _MOST_ROWS)
        notes = tuple(note for note in short.notes if note not in content.ranking.messages)
        parts.append(Table(short.title, short.columns, short.rows, notes).markdown())
    if content.influence is not None:
        influence = influence_table(content.influence)
        parts.append(limited(influence, INFLUENCE_FILE, _MOST_ROWS).markdown())
    parts.append(f"Made by synque-select ({markdown_prose(summary.name)}).")
    return "\n\n".join(parts) + "\n"


def _point(point: Point) -> str:
    figure = f"{point.figure} {point.caption}".strip()
    lines = [f"**{point.title}**" + (f" {markdown_prose(figure)}" if figure else "")]
    return "\n".join([*lines, "", *(f"- {markdown_prose(line)}" for line in _off_page(point))])


def _off_page(point: Point) -> list[str]:
    """Return the lines of a point; no line names a section of the page."""
    lines = [re.sub(r" \(see [A-Z]\w+\)", "", line) for line in point.lines]
    below = re.compile(rf" stands? {re.escape(NOTES_ARE_BELOW)}$")
    return [below.sub(" in the report.", line) for line in lines]


def report_json(content: RunContent) -> dict[str, Json]:
    """Return what a run decided and measured as JSON values, None for undefined ones.

    Args:
        content: The content of the run.
    """
    summary, ranking = summary_of(content), content.ranking
    decision = None if ranking is None else ranking.decision
    sentence = " ".join(filter(None, (summary.headline, summary.more)))
    state: dict[str, Json] = {
        "version": 1,
        "name": summary.name,
        "decision": sentence if decision is None else decision.sentence,
        "points": [
            {"title": p.title, "figure": p.figure, "caption": p.caption, "lines": _off_page(p)}
            for p in summary.points
        ],
        "command": command_of(content),
    }
    if ranking is not None:
        state |= _ranking_state(content, ranking)
    if content.result is not None:
        state["comparisons"] = [
            {
                "against": arm_words(arm),
                "difference": null_if_undefined(pair.difference),
                "low": null_if_undefined(pair.low),
                "high": null_if_undefined(pair.high),
                "pairs": pair.n,
                "verdict": pair.verdict,
            }
            for arm, pair in content.result.chosen_against.items()
        ]
    return state


def _ranking_state(content: RunContent, ranking: Ranking) -> dict[str, Json]:
    measured = measured_reliability(content)
    reliability: Json = None
    if measured is not None and not math.isnan(measured.spearman.value):
        spearman = measured.spearman
        reliability = {
            "spearman": spearman.value,
            "low": spearman.low,
            "high": spearman.high,
            "n": measured.n,
            "verdict": measured.verdict,
        }
    order, weights = ranking.order(), ranking.top().weights
    places = format_ranks([row.ranks[ranking.rank_by] for row in order])
    return {
        "rank_by": ranking.rank_by,
        "reliability": reliability,
        "real": {"n": ranking.n_real, "sha256": ranking.real_sha256},
        "messages": list(ranking.messages),
        "seed": ranking.seed,
        "packages": dict(ranking.packages),
        "candidates": [
            {
                "name": row.name,
                "place": place.strip(),
                "weight": weights.get(row.name, 0.0),
                "selection_stability": row.selection_stability,
                "n": row.n,
                "sha256": row.sha256,
                "scores": {key: null_if_undefined(s.value) for key, s in row.scores.items()},
            }
            for row, place in zip(order, places, strict=True)
        ],
    }


def report_card(content: RunContent) -> str:
    """Return a block for the card of a dataset or a model: what was selected, and from what.

    Args:
        content: The content of the run.

    Raises:
        RecordError: The run has no ranking.
    """
    ranking = content.ranking
    if ranking is None:
        raise RecordError(f"{content.name} has no ranking.json: a card needs a ranking")
    rows = weight_rows(ranking)
    columns = (
        Column("dataset", is_name=True),
        Column("weight"),
        Column("examples"),
        Column("sha256", is_name=True),
    )
    version = ranking.packages.get("synque-select", "")
    encoder = ranking.encoder
    summary = summary_of(content)
    sentence = f"{summary.headline} {summary.more}".strip()
    facts = [
        f"Decision: {sentence if ranking.decision is None else ranking.decision.sentence}",
        f"Real sample: {ranking.real_words}, unlabeled, sha256 {ranking.real_sha256}.",
        f"Ranked {ranking.by_words}; proxies: {', '.join(ranking.proxies)}.",
        *([f"Encoder: {encoder.id}, revision {encoder.revision}."] if encoder else []),
        f"Seed {ranking.seed}; "
        + ", ".join(f"{package} {number}" for package, number in ranking.packages.items())
        + ".",
        f"{_capital(reliability_words(ranking.rank_by, measured_reliability(content)))}.",
    ]
    if not any(info.reads_labels for info in ranking.proxies.values()):
        facts.append(INPUTS_ONLY)
    table = Table("", columns, rows, tuple(facts)).markdown()
    intro = (
        f"The training data is a mixture of {counted(len(rows), 'dataset')}, selected from "
        f"{counted(len(ranking), 'candidate')} with synque-select {version}".rstrip()
    )
    return f"## Training data\n\n{intro}. A weight is a share of {content.share_of}.\n\n{table}\n"


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
