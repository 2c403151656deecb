"""Groups of the real sample on their way from the user to the ranking, its file and its table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synque_select
from synque_select import SynqueDataModule
from synque_select.cli.main import main
from synque_select.data.candidate import RealSample
from synque_select.errors import ConfigError, DataError
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.report.ranking_tables import ranking_table
from synque_select.selection.gaps import gap_map
from synque_select.selection.ranking import ranking_from
from synque_select.selection.scorer import Scorer
from tests.training.tiny import LetterEncoder, candidates, real_sample

SUITE = ["pad", "mmd", "coverage", "ngram"]


def with_threads(n_threads: int = 20, n: int = 60) -> list[dict[str, Any]]:
    """Examples of threads that repeat most of their words."""
    texts = [record["text"] for record in real_sample(n_threads).dataset]  # type: ignore[attr-defined]
    sizes = np.bincount(np.r_[np.arange(n_threads), np.arange(n - n_threads) % (n_threads // 2)])
    thread = np.repeat(np.arange(n_threads), sizes)
    return [
        {"text": f"{texts[t]} extra{i} more{i} word{i}", "thread": f"t{t}"}
        for i, t in enumerate(thread)
    ]


def real(group_by: Any = "thread", n_threads: int = 20) -> RealSample:
    return RealSample("real", with_threads(n_threads), view="text", group_by=group_by)


def scorer(folder: Path, **options: Any) -> Scorer:
    given = {"proxies": SUITE, "encoder": LetterEncoder(), "top_k": 2, **options}
    return Scorer(**given, cache_dir=folder, progress=False, keep_models=True)


def test_the_ranking_its_file_and_its_table_say_the_groups(tmp_path):
    ranking = scorer(tmp_path).rank(candidates(), real())
    assert (ranking.n_real, ranking.n_groups) == (60, 20)
    assert ranking.effective_n == pytest.approx(60**2 / (10 * 25 + 10))  # 10 threads of 5, 10 of 1
    assert ranking.real_words == "60 real examples in 20 groups (effective n 13.8)"
    assert ranking.real_words in ranking_table(ranking).title
    path = save_ranking(ranking, tmp_path / "run")
    state = json.loads(path.read_text())["real"]
    assert state["n_groups"] == 20
    assert state["effective_n"] == pytest.approx(13.846, abs=1e-3)
    assert load_ranking(path) == ranking


def test_independent_examples_are_groups_of_one_each(tmp_path):
    ranking = scorer(tmp_path).rank(candidates(), real_sample())
    assert (ranking.n_groups, ranking.effective_n) == (30, 30.0)
    assert ranking.real_words == "30 real examples"


def test_a_file_without_groups_is_still_read(tmp_path):
    ranking = scorer(tmp_path, proxies=["ngram"]).rank(candidates(), real_sample())
    path = save_ranking(ranking, tmp_path)
    state = json.loads(path.read_text())
    del state["real"]["n_groups"], state["real"]["effective_n"]
    path.write_text(json.dumps(state))
    old = load_ranking(path)
    assert (old.n_groups, old.effective_n) == (None, None)
    assert old.real_words == "30 real examples"


def test_intervals_of_groups_are_wider(tmp_path):
    known = scorer(tmp_path).rank(candidates(), real())
    ignored = scorer(tmp_path).rank(candidates(), real(False))
    for key in SUITE:
        widths = [
            np.mean([row.scores[key].high - row.scores[key].low for row in r.candidates])  # type: ignore[operator]
            for r in (known, ignored)
        ]
        assert widths[0] > 1.2 * widths[1], key


def test_kept_scores_and_rankings_are_those_of_the_same_groups(tmp_path):
    scorer(tmp_path).score(candidates(), real())
    assert scorer(tmp_path).score(candidates(), real()).reused == tuple(SUITE)
    # another name of the same groups is the same data
    same = dataclasses.replace(real(), group_by=lambda post: post["thread"])
    assert scorer(tmp_path).score(candidates(), same).reused == tuple(SUITE)
    assert scorer(tmp_path).score(candidates(), real(False)).reused == ()
    assert scorer(tmp_path).score(candidates(), real(n_threads=10)).reused == ()
    cached = [scorer(tmp_path).cached_ranking(candidates(), real(by)) for by in ("thread", False)]
    assert [ranking.n_groups for ranking in cached] == [20, 60]
    assert len(list((tmp_path / "rankings").glob("*.json"))) == 2


def test_one_group_of_copies_has_scores_but_no_interval(tmp_path):
    copies = RealSample("real", ["apple banana cherry"] * 15 + ["Apple banana cherry!"] * 15)
    ranking = scorer(tmp_path, proxies=["coverage", "ngram"]).rank(candidates(), copies)
    assert all(s.low is None for row in ranking.candidates for s in row.scores.values())
    assert ranking.decision is not None
    assert any("all real examples are in one group" in m for m in ranking.decision.reasons)
    assert any("no interval and no comparison" in m for m in ranking.messages)
    assert all(row.selection_stability is None for row in ranking.candidates)


def test_a_copy_in_the_real_sample_covers_nothing(tmp_path):
    scoring = scorer(tmp_path, proxies=["coverage"]).score(candidates(), real())
    groups = scoring.groups
    assert groups is not None
    points = scoring.embeddings("this")[0].double()
    for gap in gap_map(scoring):
        others = points[groups != groups[gap.real]]
        distances = (others - points[gap.real]).norm(dim=1).sort().values
        assert gap.radius == pytest.approx(float(distances[4]), abs=1e-5)


@pytest.mark.parametrize("group_by", ["label", lambda post: post["label"]])
def test_groups_are_not_the_labels(tmp_path, group_by):
    posts = [{**post, "label": i % 2} for i, post in enumerate(with_threads())]
    sample = RealSample("real", posts, view="text", group_by=group_by)
    if callable(group_by):  # what a function reads cannot be seen
        assert scorer(tmp_path).prepare(candidates(), sample)
        return
    with pytest.raises(ConfigError, match="labels of the real sample are never read"):
        scorer(tmp_path).prepare(candidates(), sample)


def test_a_late_example_without_its_group_is_refused_before_anything_is_scored(tmp_path):
    posts = [*with_threads(), {"text": "no thread here"}]
    encoder = LetterEncoder()
    with pytest.raises(DataError, match="example 60"):
        scorer(tmp_path, encoder=encoder).rank(
            candidates(), RealSample("real", posts, view="text", group_by="thread")
        )
    assert encoder.n_encoded == 0


def test_rank_takes_them(tmp_path):
    ranking = synque_select.rank(
        {c.name: list(c) for c in candidates()},
        with_threads(),
        view="text",
        real_groups="thread",
        proxies=["ngram"],
        cache_dir=tmp_path,
        progress=False,
    )
    assert ranking.n_groups == 20


@pytest.mark.parametrize("rank_by", [None, "ngram"])
def test_too_few_groups_for_a_sample_size_analysis_do_not_cost_the_ranking(tmp_path, rank_by):
    posts = [{**post, "thread": i % 8} for i, post in enumerate(with_threads())]
    ranking = synque_select.rank(
        {c.name: list(c) for c in candidates()},
        posts,
        view="text",
        real_groups="thread",
        proxies=["ngram"],
        rank_by=rank_by,
        top_k=1,
        sample_size_analysis=True,
        cache_dir=tmp_path,
        progress=False,
    )
    assert ranking.findings.real_size is None
    assert any("at least 20 groups of real examples" in message for message in ranking.messages)


def test_a_datamodule_takes_them():
    pool = candidates()
    dm = SynqueDataModule(pool, with_threads(), view="text", label="label", real_groups="thread")
    assert dm.real is not None
    assert dm.real.groups is not None
    assert dm.real.groups.max() == 19


@pytest.mark.parametrize(
    ("value", "expected"),
    [("thread", "thread"), ("false", False), ("1", 1), ("os.path.basename", "os.path.basename")],
)
def test_a_config_gives_them(value, expected):
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SynqueDataModule, "data", skip={"wraps"})
    config = parser.parse_args(["--data.candidates", "x", "--data.real_groups", value])
    assert config.data.real_groups == expected
    assert type(config.data.real_groups) is type(expected)


def files(folder: Path) -> list[str]:
    for candidate in candidates():
        (folder / f"{candidate.name}.json").write_text(json.dumps(list(candidate)))
    (folder / "sub").mkdir()
    (folder / "sub" / "real.json").write_text(json.dumps(with_threads()))
    return [
        *("rank", "--candidates", str(folder / "*.json"), "--real", str(folder / "sub/real.json")),
        *("--view", "text", "--proxies", "ngram", "--cache-dir", str(folder / "cache")),
    ]


def test_the_command_line_takes_them(tmp_path, capsys):
    command = files(tmp_path)
    assert main([*command, "--real-groups", "thread"]) == 0
    assert "60 real examples in 20 groups (effective n 13.8)" in capsys.readouterr().out
    assert main([*command, "--real-groups", "false"]) == 0
    assert "against 60 real examples\n" in capsys.readouterr().out
    assert main([*command, "--real-groups", "tread"]) != 0
    assert "no field 'tread'" in capsys.readouterr().err
    assert main([*command, "--real-groups", "label", "--label", "label"]) != 0
    capsys.readouterr()


def test_near_duplicates_are_found_counted_and_reported(tmp_path, capsys):
    command = files(tmp_path)
    posts = with_threads()
    posts += [{"text": post["text"].upper() + "!", "thread": "x"} for post in posts[:10]]
    (tmp_path / "sub" / "real.json").write_text(json.dumps(posts))
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "70 real examples in 60 groups (effective n 54.4)" in shown
    assert "20 of the 70 real examples have a copy or near copy among them" in shown


def test_ranking_of_found_and_of_given_groups_is_the_same(tmp_path):
    posts = with_threads()
    posts += [{**post, "text": post["text"].upper()} for post in posts[::5]]
    key = [post["text"].lower() for post in posts]
    given = [{**post, "key": k} for post, k in zip(posts, key, strict=True)]
    detected = RealSample("real", posts, view="text")
    named = RealSample("real", given, view="text", group_by="key")
    assert detected.groups is not None
    assert named.groups is not None
    assert detected.groups.tolist() == named.groups.tolist()
    first, second = (
        ranking_from(scorer(tmp_path).score(candidates(), sample), top_k=2)
        for sample in (detected, named)
    )
    assert [row.scores for row in first] == [row.scores for row in second]
