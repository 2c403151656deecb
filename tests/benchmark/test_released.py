"""The benchmark on a folder of the released layout, with names, seeds and data of its own."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from synque_select.benchmark.case_scores import Case, CaseScorer
from synque_select.benchmark.corruptions import KINDS, Corruption, corrupted
from synque_select.benchmark.layout import find_tasks
from synque_select.benchmark.released import BenchmarkOptions, render, run_released
from synque_select.benchmark.result import BenchmarkResult
from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError, RecordError
from synque_select.proxies.sql_validity import SQLValidity
from synque_select.sql.text import write_empty_database

pytestmark = pytest.mark.usefixtures("own_cache")

NOUNS = ["boat", "river", "engine", "garden", "window", "bridge", "lamp", "forest"]
FAR = ["Quux", "zorp", "Blick", "vrim", "Klee", "wubb", "Snarf", "dweb"]


class Letters(BaseEncoder):
    id, modality = "letters", "text"

    def encode(self, views):
        rows = [[view.lower().count(chr(97 + i)) + 0.1 for i in range(26)] for view in views]
        return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


class NeverAsked(Letters):
    def encode(self, views):
        raise AssertionError("scoring began")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))


def texts(n: int, far: float, seed: int, topic: str = "") -> list[str]:
    """Questions, a share `far` of whose nouns the real ones never use."""
    draw = random.Random(f"{n} {far} {seed} {topic}")

    def noun() -> str:
        return draw.choice(FAR if draw.random() < far else NOUNS)

    def text() -> str:
        return f"How many {noun()}s has the {noun()} number {draw.randrange(99)} {topic}?"

    return [text() for _ in range(n)]


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def questions(lines: list[str]) -> list[dict[str, str]]:
    return [{"question": text, "SQL": f"SELECT {i}"} for i, text in enumerate(lines)]


def write_rows(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


GROUPS = {"zoo": "animal", "port": "ship"}
FARNESS = {"alpha": 0.0, "beta": 0.25, "gamma": 0.5, "delta": 0.75, "omega": 1.0}


@pytest.fixture
def text2sql(tmp_path: Path) -> Path:
    """Two databases, seeds 7 and 8, five candidates that get ever farther and ever worse."""
    root = tmp_path / "released" / "text2sql"
    rows: list[list[object]] = []
    for group, topic in GROUPS.items():
        for number, (name, far) in enumerate(FARNESS.items()):
            path = root / "data" / group / f"{name}.json"
            write(path, questions(texts(80, far, number, topic)))
            rows.append([name, group, round(100 * (60 - 7 * number) / 71, 2)])
        labeled = texts(60, 0.0, 50, topic)
        write(root / "data" / "real" / f"dev_{group}.json", questions(labeled))
        for seed in (7, 8):
            sample = random.Random(seed).sample(labeled, 24)
            path = root / "data" / "real" / f"dev_{group}_seed={seed}.json"
            write(path, questions(sample))
    path = root / "task_performance" / "any_name.csv"
    write_rows(path, ["dataset_name", "db_id", "accuracy"], rows)
    return root.parent


@pytest.fixture
def all_tasks(text2sql: Path) -> Path:
    web, sentiment = text2sql / "web_agent", text2sql / "sentiment_analysis"
    web_rows: list[list[object]] = []
    for site in ("some.site", "other"):
        for number, far in enumerate((0.0, 0.4, 0.6, 1.0)):
            name = f"nnetnav_live_site={site}_num_tasks=30_portion={number}.json"
            pages = dict(enumerate(texts(30, far, number, site)))
            write(web / "original" / "synthetic" / name, pages)
            web_rows.append([site, (20 - 3 * number) / 43, number])
        sample = dict(enumerate(texts(12, 0.0, 99, site)))
        write(web / "sampled" / "real" / f"{site}_seed=1.json", sample)
    write_rows(
        web / "task_performance" / "scores.csv", ["website", "success_rate", "partition"], web_rows
    )

    def headlines(lines: list[str]) -> list[dict[str, object]]:
        return [{"headline": text, "sentiment": i % 3} for i, text in enumerate(lines)]

    rows: list[list[object]] = []
    for number, far in enumerate((0.0, 0.3, 0.6, 1.0)):
        write(sentiment / "synthetic_data" / f"d{number}.json", headlines(texts(40, far, number)))
        rows += [[f"d{number}", 0.7123456 - 0.1 * number]] * 3
    write(sentiment / "real_data" / "balanced_real_seed=5.json", headlines(texts(20, 0.0, 77)))
    write(sentiment / "real_data" / "cleaned_ds_validation.json", headlines(texts(90, 0.0, 78)))
    path = sentiment / "task_performance" / "scores.csv"
    write_rows(path, ["dataset_name", "test_f1_mean"], rows)
    return text2sql


def run(data: Path, out: Path | None = None, **options):
    """Return the content of the result's file."""
    result = run_released(
        data, BenchmarkOptions(**options), encoder=Letters(), progress=False, out=out
    )
    return result.to_dict()


def tables(state) -> str:
    """Return the tables that are made from the content of a result's file."""
    return render(BenchmarkResult.from_dict(json.loads(json.dumps(state))))


def test_layouts_of_all_three_tasks_are_found(all_tasks: Path):
    tasks = {task.name: task for task in find_tasks(all_tasks)[0]}
    assert list(tasks) == ["sentiment_analysis", "text2sql", "web_agent"]
    assert [group.name for group in tasks["text2sql"].groups] == ["port", "zoo"]
    assert tasks["text2sql"].seeds == ("7", "8")
    assert [group.name for group in tasks["web_agent"].groups] == ["other", "some.site"]
    sentiment = tasks["sentiment_analysis"].groups[0]
    assert [candidate.name for candidate in sentiment.candidates] == ["d0", "d1", "d2", "d3"]
    assert sentiment.performance[1] == pytest.approx(0.6123456)


def test_the_size_of_the_test_set_is_found_or_counted(all_tasks: Path):
    sizes = {g.name: g.n_test for task in find_tasks(all_tasks)[0] for g in task.groups}
    assert sizes["zoo"] == 71
    assert sizes["sentiment_analysis"] == 90
    web = find_tasks(all_tasks, ["web_agent"])[0][0].groups[0]
    assert (web.n_test, web.n_test_source[:12]) == (43, "the smallest")


def test_what_is_absent_is_said(text2sql: Path):
    root = text2sql / "text2sql" / "data"
    (root / "zoo" / "gamma.json").unlink()
    write(root / "zoo" / "extra.json", questions(texts(40, 0.0, 1)))
    (root / "real" / "dev_port_seed=8.json").unlink()
    task = find_tasks(text2sql)[0][0]
    assert task.absent == (
        "port: no real sample of seed 8.",
        "zoo: no data for gamma.",
        "zoo: no measured performance of extra.",
    )
    assert len(task.groups[1].candidates) == 4
    result = run(text2sql, proxies=["ngram"])
    assert "zoo: no data for gamma." in tables(result)
    assert "sentiment_analysis: no such folder." in tables(result)


def test_fewer_than_five_candidates_get_no_coefficient(text2sql: Path):
    (text2sql / "text2sql" / "data" / "zoo" / "gamma.json").unlink()
    result = run(text2sql)
    task = result["tasks"]["text2sql"]
    assert "zoo: 4 candidates, too few for a coefficient (at least 5)." in tables(result)
    for row in task["proxies"].values():
        assert row["by_group"]["zoo"] == {"pearson": None, "spearman": None}
    alone = task["proxies"]["consensus"]
    assert alone["n_groups"] == 1
    assert alone["spearman"] == alone["by_group"]["port"]["spearman"]
    assert alone["top3"]["p"] is not None
    (text2sql / "text2sql" / "data" / "port" / "gamma.json").unlink()
    actual = run(text2sql)["tasks"]["text2sql"]
    assert actual["proxies"]["consensus"]["spearman"] is None
    assert actual["groups_below_the_median_proxy"] == []


def test_a_task_that_cannot_be_scored_does_not_stop_the_others(all_tasks: Path):
    for path in (all_tasks / "web_agent" / "sampled" / "real").iterdir():
        path.unlink()
    for path in sorted((all_tasks / "sentiment_analysis" / "synthetic_data").iterdir())[2:]:
        path.unlink()
    tasks, absent = find_tasks(all_tasks)
    assert [task.name for task in tasks] == ["text2sql"]
    assert "left out, measured candidates with data: 2; a group needs 3 or more" in absent[0]
    assert "some.site: no real sample." in absent[1]


def test_a_result_comes_back_from_its_file_as_it_was(text2sql: Path, tmp_path: Path):
    out = tmp_path / "released.json"
    options = BenchmarkOptions(
        proxies=["ngram"], cross_group=True, sample_sizes=[8, 200], corrupt=["truncated"]
    )
    result = run_released(text2sql, options, encoder=Letters(), progress=False, out=out)
    again = BenchmarkResult.from_dict(json.loads(out.read_text()))
    assert again.to_dict() == result.to_dict()
    assert render(again) == render(result)
    task = again.tasks["text2sql"]
    assert task.proxies["ngram"].spearman == result.tasks["text2sql"].proxies["ngram"].spearman
    assert "has 200 examples" in task.sample_sizes["200"]
    assert task.analysis.comparison is None


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([], "the file must be an object, found a list"),
        ({"version": 2}, "version must be 1, found 2"),
        (
            {"version": 1, "seed": 0, "encoder": {"id": "a", "revision": "1"}, "tasks": {"a": 3}},
            "tasks.a must be an object, found a number",
        ),
    ],
)
def test_a_broken_result_is_named_by_its_field(state, words: str):
    with pytest.raises(RecordError, match=words):
        BenchmarkResult.from_dict(state)


def test_the_format_of_the_result(text2sql: Path, tmp_path: Path):
    out = tmp_path / "out" / "released.json"
    result = run(text2sql, out=out)
    assert json.loads(out.read_text()) == result
    assert result["version"] == 1
    task = result["tasks"]["text2sql"]
    assert task["groups"] == ["port", "zoo"]
    assert task["seeds"] == [7, 8]
    assert 0 < task["noise_ceiling"] <= 1
    baselines = {"distinct", "entropy", "length", "spread", "n", "vocabulary"}
    expected = {"consensus", "pad", "mmd", "coverage", "ngram", "mdm"}
    assert set(task["proxies"]) == expected | {f"baseline_{name}" for name in baselines}
    row = task["proxies"]["consensus"]
    assert {"pearson", "spearman", "low", "high", "by_group", "top3"} <= set(row)
    assert set(row["by_group"]["zoo"]) == {"pearson", "spearman"}
    assert {"chosen", "blind", "oracle", "share", "p"} <= set(row["top3"])
    assert task["cost"]["judge_calls"] == 0


def test_candidates_in_true_order_are_put_in_true_order(text2sql: Path):
    task = run(text2sql)["tasks"]["text2sql"]
    for key in ("consensus", "ngram"):
        row = task["proxies"][key]
        assert row["spearman"] > 0.95
        assert row["top3"]["share"] == pytest.approx(1)
        # the best triple of 10 in both groups
        assert row["top3"]["p"] == pytest.approx(0.01)
    assert task["groups_below_the_median_proxy"] == []
    same_size = task["proxies"]["baseline_n"]
    assert same_size["spearman"] is None
    assert same_size["top3"]["share"] == pytest.approx(0)
    assert task["consensus_minus"]["baseline_n"]["verdict"] == "undefined"


def test_a_second_run_computes_nothing_and_gives_the_same(text2sql: Path, tmp_path: Path):
    out = tmp_path / "released.json"
    first = run(text2sql, out=out)
    parts = sorted((tmp_path / "released.parts").rglob("*.json"))
    stamps = [path.stat().st_mtime_ns for path in parts]
    second = run(text2sql, out=out)
    cost = second["tasks"]["text2sql"]["cost"]
    assert cost["scores_resumed"] == len(parts)
    assert cost["encoder_calls"] == 0
    assert [path.stat().st_mtime_ns for path in parts] == stamps
    for result in (first, second):
        del result["tasks"]["text2sql"]["cost"]
    assert first == second


def test_a_run_that_was_broken_off_goes_on(text2sql: Path, tmp_path: Path):
    class Fails(Letters):
        def encode(self, views):
            if any("ship" not in view for view in views):
                raise KeyboardInterrupt
            return super().encode(views)

    out = tmp_path / "released.json"
    with pytest.raises(KeyboardInterrupt):
        run_released(text2sql, encoder=Fails(), progress=False, out=out)
    done = len(list((tmp_path / "released.parts").rglob("*-ngram-*.json")))
    assert done == 2
    again = run(text2sql, out=out)["tasks"]["text2sql"]["cost"]
    assert again["scores_resumed"] >= done


def test_a_changed_candidate_is_scored_again(text2sql: Path, tmp_path: Path):
    out = tmp_path / "released.json"
    run(text2sql, out=out, proxies=["ngram"])
    path = text2sql / "text2sql" / "data" / "zoo" / "alpha.json"
    write(path, questions(texts(40, 1.0, 12, "animal")))
    changed = run(text2sql, out=out, proxies=["ngram"])["tasks"]["text2sql"]
    assert changed["proxies"]["ngram"]["by_group"]["zoo"]["spearman"] < 0.5
    assert changed["proxies"]["ngram"]["by_group"]["port"]["spearman"] > 0.9


def test_the_consensus_is_the_default_one_or_none(text2sql: Path):
    some = run(text2sql, proxies=["ngram", "coverage"])
    assert "consensus" not in some["tasks"]["text2sql"]["proxies"]
    assert "No consensus" in tables(some)
    released = {"key": "mmd", "protocol": "released"}
    other = run(text2sql, proxies=["pad", released, "coverage", "ngram"])
    assert "consensus" not in other["tasks"]["text2sql"]["proxies"]


def test_decoys_of_other_groups(text2sql: Path):
    result = run(text2sql, cross_group=True, proxies=["ngram"])["tasks"]["text2sql"]
    assert result["cross_group"]["ngram"]["auc"] > 0.7
    # the candidates of both groups have one size: no baseline can tell them apart by it
    assert result["cross_group"]["baseline_n"]["auc"] == 0.5
    assert set(result["cross_group"]["ngram"]["by_group"]) == {"port", "zoo"}


def test_smaller_real_samples(text2sql: Path):
    result = run(text2sql, sample_sizes=[4, 8, 24, 200], proxies=["ngram"])["tasks"]["text2sql"]
    assert result["sample_sizes"]["24"]["proxies"].keys() == result["proxies"].keys()
    assert result["sample_sizes"]["8"]["proxies"]["ngram"]["spearman"] > 0.5
    assert "has 200 examples" in result["sample_sizes"]["200"]["message"]
    whole = result["proxies"]["baseline_entropy"]["spearman"]
    assert result["sample_sizes"]["4"]["proxies"]["baseline_entropy"]["spearman"] == whole


def test_reactions_to_spoilt_twins(text2sql: Path):
    result = run(text2sql, corrupt=["off_topic:1", "shuffled_labels"])
    reactions = result["tasks"]["text2sql"]["corruptions"]
    assert reactions["off_topic:1"]["ngram"]["noticed"] > 0.7
    assert reactions["off_topic:1"]["ngram"]["shift"] < 0
    # labels are not in the view: no proxy over inputs can notice
    for key in ("consensus", "pad", "mmd", "coverage", "ngram", "mdm"):
        assert reactions["shuffled_labels:0.5"][key] == {
            "noticed": 0.5,
            "shift": 0.0,
            "by_group": {g: {"noticed": 0.5, "shift": 0.0} for g in ("port", "zoo")},
        }


def test_the_tables_of_everything(all_tasks: Path):
    result = run(
        all_tasks, cross_group=True, sample_sizes=[5], corrupt=["truncated", "shuffled_labels"]
    )
    text = tables(result)
    for word in ("some.site", "noise ceiling", "own before decoys", "truncated:0.5", "top 3"):
        assert word in text
    assert "nan" not in text
    assert "sentiment_analysis has one group: no decoys" in text
    assert "web_agent, shuffled_labels:0.5: shuffling needs labels" in text


def test_scores_of_records_are_those_of_these_records(tmp_path: Path):
    """The same questions, so the same content hash, with other SQL."""
    database = tmp_path / "apps.sqlite"
    write_empty_database(database, {"apps": ["name"]})
    real = RealSample("real", ["How many?", "Which one?"])

    def score(query: str, scorer: CaseScorer) -> list[float]:
        records = [{"q": question, "SQL": query} for question in ("How many?", "Who?")]
        candidates = [Candidate(name, records, "q") for name in ("a", "b")]
        case = Case("t", "g", "1", query, candidates, real)
        return scorer.scores(case).values["sql_validity"].tolist()

    def make() -> CaseScorer:
        suite = [SQLValidity(str(database))]
        return CaseScorer(suite, Letters(), tmp_path / "kept", None, seed=0, progress=False)

    scorer = make()
    assert score("SELECT name FROM apps", scorer) == [1.0, 1.0]
    assert score("SELECT size FROM apps", scorer) == [0.0, 0.0]
    assert score("SELECT name FROM apps", scorer) == [1.0, 1.0]
    write_empty_database(database, {"apps": ["size"]})
    assert score("SELECT size FROM apps", make()) == [1.0, 1.0]


RECORDS = [
    {"q": f"How many apps did Google ship in {1990 + i}, and Apple?", "y": str(i)}
    for i in range(20)
]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_corruption_changes_its_share(kind: str, share: float):
    clean = Candidate("c", RECORDS, "q", "y")
    twin = corrupted(clean, Corruption(kind, share), ["Is it raining?"], seed=3)
    changed = sum(twin[i] != RECORDS[i] for i in range(20))
    assert len(twin) == 20
    assert 0 < changed <= share * 20
    if kind in ("off_topic", "truncated", "false_facts"):
        assert changed == share * 20
    again = corrupted(clean, Corruption(kind, share), ["Is it raining?"], seed=3)
    assert again.sha256 == twin.sha256


def test_false_facts_keep_the_sentence():
    twin = corrupted(Candidate("c", RECORDS, "q", "y"), Corruption("false_facts", 1.0), [], seed=0)
    for text, record in zip(twin.views, RECORDS, strict=True):
        assert text.startswith("How many apps did ")
        assert len(text.split()) == len(record["q"].split())


def test_shuffled_labels_are_the_same_labels():
    spoilt = Corruption("shuffled_labels", 1.0)
    twin = corrupted(Candidate("c", RECORDS, "q", "y"), spoilt, [], seed=0)
    assert sorted(r["y"] for r in twin.dataset) == sorted(r["y"] for r in RECORDS)
    assert [r["y"] for r in twin.dataset] != [r["y"] for r in RECORDS]
    assert [r["q"] for r in twin.dataset] == [r["q"] for r in RECORDS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["text2sq"]}, "did you mean 'text2sql'"),
        ({"proxies": ["padd"]}, "did you mean 'pad'"),
        ({"corrupt": ["truncate"]}, "did you mean 'truncated'"),
        ({"corrupt": ["truncated:2"]}, "above 0 and up to 1"),
        ({"corrupt": ["truncated:half"]}, "'half' is not a number"),
        ({"sample_sizes": [1]}, "2 or more"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_arguments_are_named(text2sql: Path, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        run(text2sql, **options)


def test_folders_without_the_benchmark(tmp_path: Path, text2sql: Path):
    with pytest.raises(DataError, match="none of sentiment_analysis"):
        run(tmp_path / "cache")
    with pytest.raises(DataError, match="web_agent: no such folder"):
        run(text2sql, tasks=["web_agent"])
    (text2sql / "text2sql" / "task_performance" / "any_name.csv").unlink()
    with pytest.raises(DataError, match="nothing can be scored"):
        run(text2sql)


@pytest.mark.parametrize("figure", ["n/a", "inf", "101", "-1", "40%"])
def test_a_performance_that_is_no_share_is_named(text2sql: Path, figure: str):
    path = text2sql / "text2sql" / "task_performance" / "any_name.csv"
    path.write_text(path.read_text() + f"alpha,zoo,{figure}\n")
    message = (
        f"any_name.csv, line 12, column accuracy: found '{figure}'; allowed is a number from 0"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        run(text2sql)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"alpha,zoo\n", "line 12: found 2 fields"), (b"caf\xe9,zoo,3\n", "line 12: not UTF-8")],
)
def test_a_table_of_performances_that_cannot_be_read(text2sql: Path, content: bytes, message: str):
    path = text2sql / "text2sql" / "task_performance" / "any_name.csv"
    path.write_bytes(path.read_bytes() + content)
    with pytest.raises(DataError, match=message):
        find_tasks(text2sql)


@pytest.mark.parametrize("figure", ["", "NaN"])
def test_an_empty_performance_was_not_measured(text2sql: Path, figure: str):
    path = text2sql / "text2sql" / "task_performance" / "any_name.csv"
    path.write_text("\ufeff" + path.read_text() + f"extra,zoo,{figure}\n")
    write(text2sql / "text2sql" / "data" / "zoo" / "extra.json", questions(texts(20, 0.0, 1)))
    task = find_tasks(text2sql)[0][0]
    assert task.absent == ("zoo: no measured performance of extra.",)
    assert all(np.isfinite(group.performance).all() for group in task.groups)


def test_one_task_a_link_and_what_systems_leave_behind(text2sql: Path, tmp_path: Path):
    expected = find_tasks(text2sql)[0][0]
    root = text2sql / "text2sql"
    for folder in (text2sql, root / "task_performance", root / "data" / "zoo", root / "data/real"):
        for name in (".DS_Store", "._any.csv", "._alpha.json", "._dev_zoo_seed=7.json"):
            (folder / name).write_bytes(b"\x00\xff")
        (folder / "folder.json").mkdir()
    (text2sql / "image_classification" / "task_performance").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(root)
    for data in (text2sql, text2sql.parent / "released", root, link):
        tasks, absent = find_tasks(data)
        assert [task.name for task in tasks] == ["text2sql"]
        assert tasks[0].absent == expected.absent
        assert [g.name for g in tasks[0].groups] == [g.name for g in expected.groups]
        assert list(absent) == [
            "sentiment_analysis: no such folder.",
            "web_agent: no such folder.",
            "image_classification: left out, its layout is not known.",
        ]


def test_a_record_without_its_view_is_named_before_anything_is_scored(text2sql: Path):
    path = text2sql / "text2sql" / "data" / "zoo" / "omega.json"
    records = json.loads(path.read_text())
    del records[17]["question"]
    write(path, records)
    with pytest.raises(DataError, match=r"omega\.json\), example 17"):
        find_tasks(text2sql)


def test_labels_are_needed_by_no_ranking(text2sql: Path):
    path = text2sql / "text2sql" / "data" / "zoo" / "omega.json"
    write(path, [{"question": text} for text in texts(80, 1.0, 4, "animal")])
    result = run(text2sql, proxies=["ngram"], corrupt=["shuffled_labels"])["tasks"]["text2sql"]
    assert result["proxies"]["ngram"]["by_group"]["zoo"]["spearman"] > 0.5
    message = result["corruptions"]["shuffled_labels:0.5"]["message"]
    assert "shuffling needs labels" in message


def test_two_files_for_one_candidate(all_tasks: Path):
    folder = all_tasks / "web_agent" / "original" / "synthetic"
    first = "nnetnav_live_site=other_num_tasks=30_portion=2.json"
    second = first.replace("=30", "=31")
    write(folder / second, json.loads((folder / first).read_text()))
    absent = find_tasks(all_tasks, ["web_agent"])[0][0].absent
    assert absent == (f"other: {first} left out, {second} is portion=2 too.",)


def test_equal_performances_gain_nothing(text2sql: Path):
    path = text2sql / "text2sql" / "task_performance" / "any_name.csv"
    rows = [[name, group, "40.0"] for group in GROUPS for name in FARNESS]
    write_rows(path, ["dataset_name", "db_id", "accuracy"], rows)
    result = run(text2sql, proxies=["ngram"])["tasks"]["text2sql"]
    row = result["proxies"]["ngram"]
    assert (row["pearson"], row["spearman"], row["top3"]["share"]) == (None, None, None)
    assert "zoo: all performances are equal, so no coefficient is defined." in result["absent"]


def test_no_more_than_three_candidates_leave_no_choice(text2sql: Path):
    for group in GROUPS:
        for name in ("gamma", "omega"):
            (text2sql / "text2sql" / "data" / group / f"{name}.json").unlink()
    result = run(text2sql, proxies=["ngram"])
    top = result["tasks"]["text2sql"]["proxies"]["ngram"]["top3"]
    assert top == dict.fromkeys(("chosen", "blind", "oracle", "share", "p"))
    assert "3 candidates, too few for a coefficient" in tables(result)


def test_seeds_of_some_groups_only_are_no_spread_of_seeds(text2sql: Path):
    real = text2sql / "text2sql" / "data" / "real"
    (real / "dev_zoo_seed=8.json").rename(real / "dev_zoo_seed=100.json")
    result = run(text2sql, proxies=["ngram"])["tasks"]["text2sql"]
    assert result["seeds"] == [7, 8, 100]
    # one seed alone is in both groups
    assert result["proxies"]["baseline_entropy"]["seed_spread"] is None
    assert result["absent"][:2] == [
        "port: no real sample of seed 100.",
        "zoo: no real sample of seed 8.",
    ]


def test_a_proxy_undefined_for_a_candidate_is_named(text2sql: Path):
    path = text2sql / "text2sql" / "data" / "zoo" / "omega.json"
    write(path, questions(["How many boats?"] * 40))
    result = run(text2sql)["tasks"]["text2sql"]
    assert result["proxies"]["pad"]["by_group"]["zoo"] == {"pearson": None, "spearman": None}
    assert result["proxies"]["consensus"]["by_group"]["zoo"]["spearman"] is not None
    messages = result["absent"]
    assert "pad: no coefficient in zoo; its scores are equal or undefined." in messages
    thinner = (
        "pad: undefined for a candidate, so not in the consensus of zoo (seed 7), zoo (seed 8)."
    )
    assert thinner in messages


def test_the_best_baseline_is_defined_in_most_groups(text2sql: Path):
    for number, name in enumerate(FARNESS):
        path = text2sql / "text2sql" / "data" / "zoo" / f"{name}.json"
        write(path, json.loads(path.read_text())[: 60 - 5 * number])
    result = run(text2sql)["tasks"]["text2sql"]
    assert result["proxies"]["baseline_n"]["spearman"] == pytest.approx(1)
    assert result["proxies"]["baseline_n"]["n_groups"] == 1
    assert result["best_baseline"] != "baseline_n"


def test_the_result_is_refused_a_place_before_anything_is_scored(text2sql: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for out, error in (
        (tmp_path, ConfigError),
        (tmp_path / "a.parts", ConfigError),
        (tmp_path / "file" / "a.json", RecordError),
    ):
        with pytest.raises(error, match=re.escape(str(out))):
            run_released(text2sql, encoder=NeverAsked(), progress=False, out=out)
