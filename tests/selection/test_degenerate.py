"""A degenerate candidate is put last with its reason, and changes nothing for the others."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synque_select import rank
from synque_select.cli.main import main
from synque_select.data.candidate import Candidate, RealSample
from synque_select.selection.degenerate import split_degenerate
from synque_select.selection.example_scores import with_example_scores
from synque_select.selection.scorer import Scorer
from synque_select.types import Ranking

NEAR = tuple(f"near{i}" for i in range(16))
FAR = tuple(f"far{i}" for i in range(16))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path_factory.mktemp("cache")))


def records(n_far: int, n: int, seed: int) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    words = NEAR + FAR[:n_far]
    texts = [" ".join(rng.choice(words, rng.integers(5, 12))) for _ in range(n)]
    return [{"text": text, "label": "ab"["near0" in text.split()]} for text in texts]


REAL = [{"text": record["text"]} for record in records(0, 24, 1)]
SETS = {
    name: records(n_far, 40, seed) for name, n_far, seed in (("a", 1, 2), ("b", 6, 3), ("c", 15, 4))
}
ONE = [{"text": "how many users are there", "label": "a"}] * 200
FEW = [{"text": f"how many users {i}", "label": "ab"[i]} for i in range(2)]


def comparable(ranking: Ranking, leave_out: str) -> Any:
    decision = ranking.decision
    assert decision is not None
    evidence = dataclasses.replace(decision.evidence, degenerate={}, undefined=())
    rows = [row for row in ranking if row.name != leave_out]
    consensus = [key for key, info in ranking.proxies.items() if info.in_consensus]
    return rows, consensus, ranking.rank_by, evidence, decision.opening, decision.mixture.weights


@pytest.mark.parametrize(
    ("bad", "label", "mixture"),
    [
        (ONE, None, "proportional"),
        (ONE, "label", "equal"),
        (FEW, None, "mmd_optimal"),
    ],
)
def test_nothing_changes_for_the_others(bad: Any, label: str | None, mixture: Any):
    options: dict[str, Any] = {
        "view": "text",
        "label": label,
        "mixture": mixture,
        "progress": False,
    }
    without = rank(SETS, REAL, **options)
    first = rank({"bad": bad, **SETS}, REAL, **options)
    assert comparable(first, "bad") == comparable(without, "bad")
    assert [row.name for row in first.candidates] == ["bad", "a", "b", "c"]
    assert [row.name for row in first][-1] == "bad"
    assert "bad" in first.excluded
    assert first.decision is not None
    n = len(bad)
    reason = "only 1 of its 200 examples is distinct" if n == 200 else "it has only 2 examples"
    assert f"bad is not compared, as {reason}: not selected." in first.decision.sentence
    assert Ranking.from_dict(json.loads(json.dumps(first.to_dict()))).decision == first.decision


def test_small_candidates_of_one_size_are_compared():
    parts = [
        Candidate(name, list(texts)) for name, texts in (("a", "xy"), ("b", "zw"), ("c", "uv"))
    ]
    assert split_degenerate(parts) == (parts, ())


@pytest.mark.parametrize("top_k", [None, 1, 2])
@pytest.mark.parametrize("mixture", ["equal", "proportional", "mmd_optimal"])
def test_one_that_can_be_compared_is_selected_and_the_first_sentence_says_why(
    top_k: int | None, mixture: Any
):
    if top_k == 1 and mixture == "proportional":
        pytest.skip("as with 2")
    given = {"bad": ONE, "a": SETS["a"]}
    ranking = rank(given, REAL, view="text", top_k=top_k, mixture=mixture, progress=False)
    assert [row.name for row in ranking.order()] == ["a", "bad"]
    assert ranking.top().names == ("a",)
    assert ranking.decision is not None
    assert "bad is not compared, as only 1 of its" in ranking.decision.sentence
    assert math.isnan(ranking.order()[1].ranks["consensus"])


def test_where_none_can_be_compared_all_are():
    ranking = rank({"a": ONE, "b": ONE}, REAL, view="text", proxies=["ngram"], progress=False)
    assert all(not math.isnan(row.ranks["ngram"]) for row in ranking)


def test_top_k_selects_what_is_left():
    for k in (3, 4, 9):
        ranking = rank(
            {**SETS, "bad": ONE}, REAL, view="text", top_k=k, proxies=["ngram"], progress=False
        )
        assert sorted(ranking.top().names) == ["a", "b", "c"]


def test_findings_and_scores_of_examples(tmp_path: Path):
    candidates = [Candidate(n, r, "text", "label") for n, r in {"bad": ONE, **SETS}.items()]
    real = RealSample("real", REAL, "text")
    scorer = Scorer(progress=False, cache_dir=tmp_path, label_filter="auto")
    ranking, folder = scorer.cached_selection(candidates, real)
    assert {row.name for row in ranking} == {"bad", "a", "b", "c"}
    assert scorer.cached_selection(candidates, real) == (ranking, folder)
    scored = with_example_scores(candidates, scorer.score(candidates, real))
    assert [bool(part.example_scores) for part in scored] == [False, True, True, True]
    embedded = scorer.embeddings(candidates, real)
    assert embedded is not None
    assert list(embedded[1]) == ["bad", "a", "b", "c"]  # the map shows all


def test_the_command_says_so_and_its_page_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    for name, part in {"bad": ONE, **SETS}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "real.json").write_text(json.dumps(REAL))
    target = tmp_path / "real" / "ranking.json"
    inputs = ["--candidates", f"{tmp_path}/*.json", "--real", f"{tmp_path}/real/real.json"]
    assert main(["rank", *inputs, "--label", "label", "--json", str(target), "--details"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "bad is not compared, as only 1 of its 200 examples is distinct" in shown
    assert main(["report", str(target)]) == 0
