"""The benchmark of tasks of your own, on a small generated folder and, if given, on real tasks."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from synque_select.benchmark.task_folders import TestSet, find_labeled_tasks
from synque_select.benchmark.task_mixtures import ARMS, _equal_parts
from synque_select.benchmark.task_quality import drawing_order, score_predictions
from synque_select.benchmark.task_result import (
    COMPARED,
    ArmFigures,
    Recommendation,
    TaskFigures,
    TasksResult,
)
from synque_select.benchmark.tasks import render, run_tasks
from synque_select.cli.main import main
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError, NotSavedError, RecordError
from synque_select.selection import rank
from synque_select.utils.json_types import Json
from tests.benchmark.task_layout import FIRMS, WORDS, headlines, write, write_task

pytestmark = pytest.mark.usefixtures("own_cache")

VOCABULARY = [word for words in WORDS.values() for word in words] + list(FIRMS)
ENCODED: list[str] = []
PROXIES = ["ngram"]


class Bag(BaseEncoder):
    """Embeds a text as the words that it has."""

    id, modality = "bag", "text"

    def encode(self, views):
        ENCODED.extend(views)
        rows = [[float(word in view.split()) for word in VOCABULARY] for view in views]
        return torch.nn.functional.normalize(torch.tensor(rows) + 0.01, dim=1)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_task(tmp_path / "data" / "firms")
    write_task(tmp_path / "data" / "firms2", seeds=(7,))
    (tmp_path / "data" / ".hidden").mkdir()
    (tmp_path / "data" / "README.md").write_text("about")
    return tmp_path / "data"


def run(data: Path, **options: object) -> TasksResult:
    given: dict[str, object] = {"proxies": PROXIES, "encoder": Bag(), "progress": False, **options}
    return run_tasks(data, **given)  # type: ignore[arg-type]


def test_the_json_has_the_form_that_readers_expect(data: Path, tmp_path: Path):
    out = tmp_path / "out" / "tasks.json"
    result = run(data, out=out)
    state = json.loads(out.read_text())
    assert state["version"] == 1
    assert state["tasks"].keys() == {"firms", "firms2"}
    task = state["tasks"]["firms"]
    assert task["n_candidates"] == 6
    assert {"ngram", "mdm"} <= task["proxies"].keys()
    for row in task["proxies"].values():
        assert row.keys() == {"embedding", "tfidf"}
        assert all(each.keys() == {"spearman"} for each in row.values())
    assert {*ARMS} == task["mixtures"].keys()
    for arm in task["mixtures"].values():
        assert {"mean", "std", "n"} <= arm.keys()
        assert 0 <= arm["mean"] <= 1
        assert arm["n"] == 4
    for row in state["summary"]["proxies"].values():
        assert row["embedding"].keys() == row["tfidf"].keys() == {"mean", "low", "high", "n_tasks"}
    names = {"half_vs_all", "top3_vs_all", "all_filtered_vs_all", "half_filtered_vs_all"}
    assert names <= state["summary"]["comparisons"].keys()
    for comparison in state["summary"]["comparisons"].values():
        assert {"difference", "low", "high"} <= comparison.keys()
    assert state == json.loads(json.dumps(result.to_dict()))


def test_true_quality_falls_with_the_noise_in_the_labels(data: Path):
    # the baseline that is the number of examples rises from c0 to c5, as the noise does
    result = run(data, names=["firms"])
    for truth in ("embedding", "tfidf"):
        assert result.coefficients("baseline_n", truth)[0] < -0.7


def test_the_default_suite_reads_labels_and_chooses_by_transfer(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "160")  # a narrow terminal breaks the headers
    result = run(data, names=["firms2"], proxies=None)
    assert {"consensus", "transfer", "agreement", "baseline_spread"} <= {*result.keys}
    assert result.tasks["firms2"].ordered_by == "transfer"
    assert result.coefficients("transfer", "embedding")[0] > 0.7
    text = render(result)
    assert "spearman of transfer minus that of" in text
    assert "spearman of consensus minus that of" in text


def test_the_tables_show_baselines_mixtures_and_the_filter(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")  # a narrow table wraps its words
    text = render(run(data))
    for part in (
        "baseline_entropy",
        "Best baseline that never reads the real sample",
        "noise ceiling",
        "mixtures, tfidf learner",
        "half_filtered minus all",
        "label filter of all candidates",
    ):
        assert part in text


def test_the_default_decision_is_an_arm(data: Path):
    result = run(data, names=["firms"], proxies=None, encoder=Bag())
    task = result.tasks["firms"]
    for seed, recommended in task.recommended.items():
        folder = data / "firms"
        ranking = rank(
            str(folder / "candidates" / "*.jsonl"),
            str(folder / f"real_sample_seed{seed}.jsonl"),
            view="text",
            label="label",
            encoder=Bag(),
            progress=False,
        )
        assert recommended.rank_by == ranking.rank_by
        assert recommended.names == ranking.top().names
        assert recommended.sentence.startswith(ranking.decision.sentence)  # type: ignore[union-attr]
    state: Json = result.to_dict()
    comparisons = state["summary"]["comparisons"]  # type: ignore[index, call-overload]
    assert "recommended_vs_all" in comparisons  # type: ignore[operator]
    arms = task.mixtures["embedding"]
    if all(len(each.names) == task.n_candidates for each in task.recommended.values()):
        assert arms["recommended"] == arms["all"]


def test_what_is_chosen_on_other_tasks_is_reported_on_the_one_left_out():
    def task(first: float, second: float) -> TaskFigures:
        proxies = {"a": {"embedding": first}, "b": {"embedding": second}}
        return replace(figures(half=0.6), proxies=proxies)

    tasks = {"x": task(0.9, 0.1), "y": task(0.5, 0.4), "z": task(-0.9, 0.3)}
    result = TasksResult(0, "bag", "1", tasks)
    # a is best on average of x and y only
    expected = {"x": ("b", 0.1), "y": ("b", 0.4), "z": ("a", -0.9)}
    assert result.left_out("embedding") == expected
    assert (
        TasksResult(0, "bag", "1", {"x": tasks["x"], "y": tasks["y"]}).left_out("embedding") == {}
    )


def test_an_interrupted_run_resumes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = run(data, out=tmp_path / "tasks.json")
    before = len(ENCODED)
    monkeypatch.setattr("synque_select.benchmark.tasks._measure", None)  # must not be called
    again = run(data, out=tmp_path / "tasks.json")
    assert len(ENCODED) == before
    assert again.to_dict()["summary"] == first.to_dict()["summary"]


def test_changed_labels_are_measured_again(data: Path, tmp_path: Path):
    first = run(data, names=["firms"], out=tmp_path / "tasks.json")
    path = data / "firms" / "candidates" / "c0.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    write(path, [{**record, "label": "fall"} for record in records])
    again = run(data, names=["firms"], out=tmp_path / "tasks.json")
    assert again.coefficients("baseline_n", "tfidf") != first.coefficients("baseline_n", "tfidf")


def test_the_same_seed_gives_the_same_figures(data: Path):
    first, again = (run(data, names=["firms"]).to_dict()["summary"] for _ in range(2))
    assert first == again


def test_rearranged_rows_change_nothing(data: Path):
    first = run(data, names=["firms"]).arm_means("all", "tfidf")
    for path in (data / "firms" / "candidates").iterdir():
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert run(data, names=["firms"]).arm_means("all", "tfidf") == pytest.approx(first)


def test_test_examples_of_the_real_samples_are_left_out(data: Path):
    test = headlines(90, 100)
    write(data / "firms" / "real_sample_seed1.jsonl", [{"text": r["text"]} for r in test[:12]])
    task = find_labeled_tasks(data, ["firms"])[0]
    assert task.test is not None
    texts = {str(task.test.examples.views[int(i)]) for i in task.test.positions}
    reals = {str(view) for real in task.reals.values() for view in real.views}
    assert not texts & reals
    assert len(task.test.labels) == 78
    assert "12 of 90 test examples are also in a real sample" in " ".join(task.messages)


def test_the_labels_of_the_real_sample_are_never_read(data: Path):
    before = run(data, names=["firms"]).to_dict()
    path = data / "firms" / "real_sample_seed0.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    write(path, [{**record, "label": "a lie"} for record in records])
    after = run(data, names=["firms"]).to_dict()
    assert after["summary"] == before["summary"]


def test_a_task_may_be_given_alone_and_name_its_fields(tmp_path: Path):
    folder = write_task(tmp_path / "alone")
    for path in folder.rglob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        fields = [{"headline" if k == "text" else "tone": v for k, v in r.items()} for r in lines]
        write(path, fields)
    (folder / "task.yaml").write_text("view: headline\nlabel: tone\nmetric: accuracy\n")
    result = run(folder)
    assert [*result.tasks] == ["alone"]
    assert result.tasks["alone"].metric == "accuracy"


def test_measured_performance_is_a_truth_of_its_own(data: Path):
    rows = [f"c{i},{0.9 - i / 10}" for i in range(6)]
    path = data / "firms" / "performance.csv"
    path.write_text("\n".join(["candidate,performance", *rows]))
    assert run(data, names=["firms"]).coefficients("baseline_n", "performance") == [-1.0]
    (data / "firms" / "test.jsonl").unlink()
    result = run(data, names=["firms"])
    assert result.truths == ("performance",)
    assert result.tasks["firms"].mixtures == {}
    state = json.loads(json.dumps(result.to_dict()))
    assert state["tasks"]["firms"]["mixtures"] == {}
    # readers find both learners in every task
    row = {"embedding": {"spearman": None}, "tfidf": {"spearman": None}}
    assert state["tasks"]["firms"]["proxies"]["baseline_n"] == {
        **row,
        "performance": {"spearman": -1.0},
    }
    assert state["summary"]["proxies"]["ngram"]["tfidf"]["n_tasks"] == 0
    assert "mixtures over tasks" not in render(result)


BREAKS = {
    "no candidates": (
        lambda f: [p.unlink() for p in (f / "candidates").iterdir()],
        "candidates: found 0 files whose name ends in .jsonl",
    ),
    "one candidate": (
        lambda f: [p.unlink() for p in sorted((f / "candidates").iterdir())[1:]],
        "candidates: found 1 file whose name ends in .jsonl, a task needs 3 or more",
    ),
    "a label missing after a blank line": (
        lambda f: (f / "candidates" / "c1.jsonl").write_text(
            '{"text": "a", "label": "rise"}\n\n{"text": "b"}\n'
        ),
        "c1.jsonl, line 3: no label: its field 'label' is empty",
    ),
    "test classes that no candidate has": (
        lambda f: write(
            f / "test.jsonl", [{**r, "label": f"{r['label']}!"} for r in headlines(90, 100)]
        ),
        "test.jsonl: no candidate has any of its classes ('fall!', 'hold!', 'rise!'); the "
        "candidates have 'fall', 'hold', 'rise'",
    ),
    "no real sample": (
        lambda f: [p.unlink() for p in f.glob("real*")],
        "firms: no file real_sample",
    ),
    "no test": (lambda f: (f / "test.jsonl").unlink(), "test.jsonl: no such file, and no perf"),
    "test without labels": (
        lambda f: write(f / "test.jsonl", [{"text": f"a {i}"} for i in range(40)]),
        "test.jsonl",
    ),
    "an empty label": (
        lambda f: write(f / "test.jsonl", [*headlines(40, 1), {"text": "x", "label": None}]),
        "test.jsonl, line 41: no label: its field 'label' is empty",
    ),
    "a candidate without the view": (
        lambda f: write(f / "candidates" / "c1.jsonl", [{"body": "x", "label": "a"}] * 9),
        "c1.jsonl",
    ),
    "a candidate without labels": (
        lambda f: write(f / "candidates" / "c1.jsonl", [{"text": f"x {i}"} for i in range(9)]),
        "c1.jsonl",
    ),
    "a test set that is the real sample": (
        lambda f: write(f / "test.jsonl", headlines(12, 50)),
        "0 classes have 10 or more examples",
    ),
    "free text as label": (
        lambda f: write(
            f / "candidates" / "c1.jsonl", [{"text": f"x {i}", "label": f"{i}"} for i in range(120)]
        ),
        "120 different labels",
    ),
    "an unknown setting": (
        lambda f: (f / "task.yaml").write_text("lable: tone"),
        "task.yaml: unknown key 'lable'",
    ),
    "an unknown metric": (
        lambda f: (f / "task.yaml").write_text("metric: bleu"),
        "task.yaml: metric 'bleu'",
    ),
    "a candidate without performance": (
        lambda f: (f / "performance.csv").write_text("candidate,performance\nc0,0.5\n"),
        "performance.csv: no performance of c1, c2",
    ),
    "a performance that is not a share": (
        lambda f: (f / "performance.csv").write_text("candidate,performance\nc0,50\n"),
        "performance.csv, line 2",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_an_error_names_the_file(data: Path, name: str):
    damage, message = BREAKS[name]
    damage(data / "firms")
    with pytest.raises((DataError, ConfigError)) as caught:
        find_labeled_tasks(data)
    assert message in str(caught.value)
    assert "firms" in str(caught.value)


def test_a_folder_that_is_not_a_task_is_an_error(data: Path, tmp_path: Path):
    (data / "more").mkdir()
    with pytest.raises(DataError, match="more"):
        find_labeled_tasks(data)
    with pytest.raises(ConfigError, match="did you mean 'firms'"):
        find_labeled_tasks(data, ["firm"])
    with pytest.raises(DataError, match="no such folder"):
        find_labeled_tasks(tmp_path / "nowhere")


def test_macro_f1_is_that_of_scikit_learn_over_the_frequent_classes():
    rng = np.random.default_rng(0)
    labels, predicted = rng.choice(["a", "b", "c"], (2, 200))
    test = TestSet(None, np.arange(200), labels, ("a", "c"))  # type: ignore[arg-type]
    expected = f1_score(labels, predicted, labels=["a", "c"], average="macro")
    assert score_predictions(test, predicted, "macro_f1") == pytest.approx(expected)
    assert score_predictions(test, predicted, "accuracy") == pytest.approx(
        (labels == predicted).mean()
    )


@pytest.mark.parametrize(
    ("sizes", "total", "expected"),
    [
        ([9, 9, 9], 9, [3, 3, 3]),
        ([1, 9, 9], 9, [1, 4, 4]),
        ([2, 1], 9, [2, 1]),
        ([0, 5], 3, [0, 3]),
    ],
)
def test_what_a_small_candidate_lacks_the_others_give(
    sizes: list[int], total: int, expected: list[int]
):
    assert _equal_parts(sizes, total) == expected


def test_all_mixtures_have_a_total_that_no_arm_repeats_examples_for(data: Path):
    # c0, the smallest, has 36 examples; the filter leaves less than three times that of a half
    size = run(data, names=["firms"]).tasks["firms"].size
    assert 60 < size < 3 * 36


def figures(**means: float) -> TaskFigures:
    arms = {arm: ArmFigures(means.get(arm, 0.5), 0.0, 2) for arm in ARMS}
    return TaskFigures(
        6,
        ("0",),
        "macro_f1",
        90,
        {"pad": {"embedding": 0.5}},
        {},
        {},
        {"embedding": arms, "tfidf": arms},
        9,
        {},
        {"0": Recommendation("pad", ("a", "b"), "Train on all.")},
    )


def test_the_unit_of_an_interval_is_the_task():
    tasks = {"a": figures(half=0.6), "b": figures(half=0.7), "c": figures(half=0.65)}
    comparison = TasksResult(0, "bag", "1", tasks).comparison("half", "all", "embedding")
    # mean .15, sd .05, t(2) = 4.303
    assert comparison.difference == pytest.approx(0.15)
    assert comparison.high - comparison.low == pytest.approx(2 * 4.3027 * 0.05 / 3**0.5, rel=1e-3)


def test_an_interval_of_a_difference_stays_within_what_is_possible():
    tasks = {"a": figures(half=0.9, all=0.1), "b": figures(half=0.2, all=0.1)}
    for task, coefficient in zip(tasks.values(), (0.9, -0.3), strict=True):
        task.proxies.update(pad={"embedding": coefficient}, mmd={"embedding": -coefficient})
    result = TasksResult(0, "bag", "1", tasks)
    accuracies = result.comparison("half", "all", "embedding")
    assert (accuracies.low, accuracies.high) == (-1.0, 1.0)
    correlations = result.difference("pad", "mmd", "embedding")
    assert (correlations.low, correlations.high) == (-2.0, 2.0)
    mean = result.spearman("pad", "embedding")
    assert (mean.low, mean.high) == (-1.0, 1.0)


def test_a_single_task_has_no_interval():
    state: Json = TasksResult(0, "bag", "1", {"a": figures(half=0.6)}).to_dict()
    comparison = state["summary"]["comparisons"]["half_vs_all"]  # type: ignore[index, call-overload]
    assert comparison["difference"] == pytest.approx(0.1)  # type: ignore[index, call-overload]
    assert comparison["low"] is comparison["high"] is None  # type: ignore[index, call-overload]
    assert {arm for pair in COMPARED for arm in pair} <= {*ARMS}


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (data / "firms2" / "test.jsonl").unlink()
    command = ["benchmark", "tasks", "--data", str(data), "--proxies", "ngram", "--quiet"]
    assert main(command) == 1
    assert "firms2/test.jsonl: no such file" in capsys.readouterr().err
    assert main([*command, "--cross-group"]) == 1
    assert "--cross-group belongs to `benchmark released`" in capsys.readouterr().err


REAL = os.environ.get("SYNQUE_TASKS_DATA", "")


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="SYNQUE_TASKS_DATA does not name a folder of tasks")
def test_the_figures_of_a_real_task(tmp_path: Path):
    result = run_tasks(REAL, ["imdb"], proxies=PROXIES, progress=False, out=tmp_path / "t.json")
    task = result.tasks["imdb"]
    # published with the data: a mixture of all, and what the filter makes of it
    assert task.mixtures["embedding"]["all"].mean == pytest.approx(0.75, abs=0.03)
    assert all(record.is_open for record in task.label_filters.values())


def test_missing_labels_are_not_a_class_of_true_quality(tmp_path: Path):
    """They are counted, and neither trained on nor tested."""
    folder = write_task(tmp_path / "news")
    whole = find_labeled_tasks(tmp_path)[0]
    for path, n in ((folder / "candidates" / "c0.jsonl", 4), (folder / "test.jsonl", 3)):
        extra = [{"text": f"Nothing {i} of note", "label": " "} for i in range(n)]
        write(path, [*map(json.loads, path.read_text().splitlines()), *extra])
    task = find_labeled_tasks(tmp_path)[0]
    assert "4 examples have no label and no part in true quality: in c0." in task.messages
    assert "3 of 93 test examples have no label and are left out." in task.messages
    assert task.test is not None
    assert whole.test is not None
    assert task.test.scored == whole.test.scored
    assert len(task.test.labels) == len(whole.test.labels)
    order = drawing_order(task.candidates[0], [0, 0])
    assert sorted(order.tolist()) == list(range(36))


def test_figures_that_cannot_be_saved_are_printed_and_in_the_error(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, value: object) -> None:
        raise RecordError(f"cannot write {path}: no space left")

    monkeypatch.setattr("synque_select.benchmark.released.write_json", full)
    with pytest.raises(NotSavedError, match=r"t\.json: no space left") as caught:
        run(data, out=tmp_path / "t.json")
    result = caught.value.result
    assert isinstance(result, TasksResult)
    assert [*result.tasks] == ["firms"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("synque_select.cli.benchmark._run_tasks", lambda _: run(data, out="t.json"))
    assert main(["benchmark", "tasks", "--data", str(data), "--quiet"]) == 1
    output = capsys.readouterr()
    # the last lines say how long it took
    assert output.out.splitlines()[:5] == render(result).splitlines()[:5]
    assert output.err == "synque-select: error: cannot write t.json: no space left\n"
