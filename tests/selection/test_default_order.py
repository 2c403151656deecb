"""What orders the candidates if the user names nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder
from synque_select.errors import ProxyError
from synque_select.report.ranking_tables import ranking_table
from synque_select.selection.default_order import why_not_by_transfer
from synque_select.selection.sample_size import sample_size_analysis
from synque_select.selection.scorer import Scorer
from synque_select.types import Ranking

WORDS = ("apple", "zebra", "query")


class WordEncoder(BaseEncoder):
    """Numbers written in the text, so that a test decides where an example is."""

    id, revision, modality = "words", "1", "text"

    def encode(self, views: Sequence[object], batch_size: int = 64) -> torch.Tensor:
        return torch.tensor([[float(x) for x in str(view).split()] for view in views])


def texts(n: int, seed: int, shift: float = 0.0) -> tuple[list[str], np.ndarray]:
    """Points around three centers, and the center of each."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, 3, n)
    rows = np.eye(3, 8)[classes] * 2 + generator.normal(size=(n, 8))
    rows[:, -1] += shift
    return [" ".join(f"{x:.5f}" for x in row) for row in rows], classes


def again(candidate: Candidate, name: str) -> Candidate:
    """The candidate under another name."""
    return dataclasses.replace(candidate, name=name)


def pool(k: int = 6, n: int = 80, swapped: Sequence[int] = (), noisy: Sequence[int] = ()):
    """Candidates ever farther from the real sample; some with labels that are wrong."""
    candidates = []
    for i in range(k):
        views, classes = texts(n, i, shift=0.3 * i)
        if i in swapped:
            classes = np.array([1, 0, 2])[classes]
        if i in noisy:
            classes = np.random.default_rng(i).permutation(classes)
        records = [
            {"text": view, "label": WORDS[c]} for view, c in zip(views, classes, strict=True)
        ]
        candidates.append(Candidate(f"c{i}", records, "text", "label"))
    return candidates


REAL = RealSample("real", texts(40, 99)[0])


def scorer(folder: Path, **options: object) -> Scorer:
    proxies = options.pop("proxies", ["pad", "mmd", "transfer"])
    return Scorer(proxies, encoder=WordEncoder(), cache_dir=folder, progress=False, **options)  # type: ignore[arg-type]


def why_not(ranking: Ranking) -> list[str]:
    return [m for m in ranking.messages if m.startswith("The order is by consensus, not")]


def test_where_labels_can_judge_transfer_orders(tmp_path: Path):
    # the nearest by its inputs has labels without meaning
    ranking = scorer(tmp_path).rank(pool(noisy=[0]), REAL)
    assert ranking.rank_by == "transfer"
    assert ranking.order()[-1].name == "c0"
    assert ranking["c0"].ranks["consensus"] < 3
    table = ranking_table(ranking)
    assert [column.name for column in table.columns][-2:] == ["transfer", "consensus"]
    assert any(note.startswith("consensus: mean of the ranks by pad, mmd") for note in table.notes)
    assert why_not(ranking) == []
    named = scorer(tmp_path, rank_by="consensus").rank(pool(noisy=[0]), REAL)
    assert named.rank_by == "consensus"
    assert why_not(named) == []


def test_without_labels_it_is_the_consensus_and_nothing_is_said(tmp_path: Path):
    ranking = scorer(tmp_path, proxies=["pad", "mmd"]).rank(pool(), REAL)
    assert (ranking.rank_by, why_not(ranking)) == ("consensus", [])


@pytest.mark.parametrize("swapped", [(0, 1, 2), (0, 1, 2, 3)], ids=["half", "most"])
def test_of_two_camps_the_majority_does_not_order(tmp_path: Path, swapped: tuple[int, ...]):
    ranking = scorer(tmp_path).rank(pool(swapped=swapped), REAL)
    assert ranking.rank_by == "consensus"
    assert "two camps of candidates" in why_not(ranking)[0]


def test_once_answers_settle_which_camp_is_right_the_message_says_what_to_do(tmp_path: Path):
    scoring = scorer(tmp_path).score(pool(swapped=(0, 1, 2)), REAL)
    reason = why_not_by_transfer(scoring, ("c0", "c1", "c2"))
    assert reason == (
        "the candidates that your answers speak against (c0, c1, c2) are among its judges; rank "
        "again without them"
    )


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (pool(2), "with 2 candidates, each"),
        (
            [dataclasses.replace(c, family=str(i % 2)) for i, c in enumerate(pool())],
            "2 families of",
        ),
        (
            [*pool(2), again(pool(2)[0], "again")],
            "2 candidates (copies and near copies count as one)",
        ),
        (pool(3, n=10), "at least 10 for each of the 3 classes"),
    ],
    ids=["two", "two families", "a copy", "few examples"],
)
def test_too_few_to_judge(tmp_path: Path, candidates: list[Candidate], message: str):
    ranking = scorer(tmp_path).rank(candidates, REAL)
    assert ranking.rank_by == "consensus"
    assert len(why_not(ranking)) == 1
    assert message in why_not(ranking)[0]


@pytest.mark.parametrize("family", [None, "one"], ids=["copies", "one family"])
def test_if_nobody_can_judge_the_default_suite_reads_no_labels(tmp_path: Path, family: str | None):
    copy = pool(1)[0]
    candidates = pool(3) if family else [again(copy, name) for name in "abc"]
    candidates = [dataclasses.replace(part, family=family) for part in candidates]
    ranking = scorer(tmp_path, proxies=None).rank(candidates, REAL)
    assert ranking.rank_by == "consensus"
    assert "transfer" not in ranking.proxies
    assert len(why_not(ranking)) == 1
    assert "each is judged by the other families" in why_not(ranking)[0]
    with pytest.raises(ProxyError, match="transfer: all candidates are"):
        scorer(tmp_path).rank(candidates, REAL)


def test_a_candidate_listed_twice_does_not_rise(tmp_path: Path):
    # it has wrong labels, and a copy of it would support them
    candidates = pool(noisy=[0])
    once = scorer(tmp_path).rank(candidates, REAL)
    twice = scorer(tmp_path).rank([*candidates, again(candidates[0], "again")], REAL)
    values = [ranking["c0"].scores["transfer"].value for ranking in (once, twice)]
    assert values[1] < values[0] + 0.01
    assert {row.name for row in twice.order()[-2:]} == {"c0", "again"}


def test_lists_of_classes_do_not_order(tmp_path: Path):
    """Whether camps contradict each other is not known of them."""
    candidates = [
        dataclasses.replace(c, label=lambda record: [record["label"], "all"]) for c in pool()
    ]
    ranking = scorer(tmp_path).rank(candidates, REAL)
    assert ranking.rank_by == "consensus"
    assert "each example has one class" in why_not(ranking)[0]


def test_the_sample_size_analysis_is_that_of_the_order(tmp_path: Path):
    scoring = scorer(tmp_path).score(pool(noisy=[0]), REAL)
    # halves of the real sample share the judges, and more real examples do not replace them
    for by in (None, "transfer"):
        with pytest.raises(ProxyError, match="do not make them better judges"):
            sample_size_analysis(scoring, rank_by=by)
    assert sample_size_analysis(scoring, rank_by="pad").measured
    swapped = scorer(tmp_path).score(pool(swapped=(0, 1, 2)), REAL)
    default, named = (sample_size_analysis(swapped, rank_by=by) for by in (None, "consensus"))
    assert default == named


def test_camps_are_found_in_a_sample_of_large_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("synque_select.selection.label_filter._MAX_OFFERED", 100)
    monkeypatch.setattr("synque_select.selection.label_filter._MAX_HEAD_ROWS", 60)
    ranking = scorer(tmp_path).rank(pool(swapped=(0, 1)), REAL)
    assert ranking.rank_by == "consensus"
    assert ranking.decision is not None
    assert ranking.decision.opening == "labels"
