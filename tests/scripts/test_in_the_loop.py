"""The table of policies: verdicts over all rows, what the sentences count and name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import in_the_loop
from scripts.in_the_loop import FolderTask, rows_of, text
from synque_select.benchmark.task_folders import find_labeled_tasks
from synque_select.functional.paired import compare_paired
from synque_select.recipes.options import FitOptions
from synque_select.records.experiment_result import (
    ArmResult,
    ExperimentBudget,
    ExperimentData,
    ExperimentResult,
    Metric,
    save_result,
)

STATIC = [0.70, 0.71, 0.69, 0.72, 0.70]


def result(policy: list[float]) -> ExperimentResult:
    arms = {"chosen": STATIC, "all": STATIC, "policy:odm": policy}
    pair = compare_paired(policy, STATIC, mode="max")
    return ExperimentResult(
        Metric("test_acc", "max"),
        5,
        budget=ExperimentBudget(100, 80, 16, 3, 5),
        data=ExperimentData(4, 20, 30, 200),
        arms={
            name: ArmResult(sum(values) / 5, 0.01, 5, False, tuple(values))
            for name, values in arms.items()
        },
        comparisons={"policy:odm_vs_all": pair},
    )


BETTER = result([0.80, 0.82, 0.79, 0.81, 0.81])
HARDLY = result([0.72, 0.72, 0.72, 0.73, 0.71])


def test_verdicts_are_holms_over_all_rows():
    alone = rows_of({("digits", "all"): HARDLY})
    assert alone[0].pair.verdict == "beats"
    many = {(f"task {i}", "all"): HARDLY for i in range(8)}
    assert {row.pair.verdict for row in rows_of(many)} == {"no difference shown"}


def test_the_text_counts_verdicts_and_names_what_is_missing():
    shown = text({("digits", "all"): BETTER, ("digits", "chosen"): BETTER})
    # the comparison of the start "chosen" with the mixture of all is not with its control
    assert "in 1 comparison on 1 task: a policy beats it in 1." in shown
    assert "Not measured: sentiment-small; text2sql-small; ag_news; atis; imdb; surrogate" in shown
    assert "surrogate on digits from the mixture of all (under 35 examples" in shown
    assert "aioli on digits from the selected mixture (not run)" in shown
    assert "| digits | selected | odm | all | 0.806 | 0.704 | +0.1020 |" in shown
    assert "`digits`: 4 candidates, 100 distinct examples, 80 steps of 16" in shown


def test_a_start_that_was_not_run_is_named():
    shown = text({("digits", "chosen"): BETTER})
    assert "all policies on digits from the mixture of all (not run)" in shown


def test_a_lower_loss_is_better():
    loss = replace(BETTER, metric=Metric("test_loss", "min"))
    results = {("text2sql-small", "all"): loss, ("digits", "all"): BETTER}
    shown = text(results)
    assert {row.task: row.pair.verdict for row in rows_of(results)} == {
        "text2sql-small": "is beaten by",
        "digits": "beats",
    }
    assert "a policy beats it in 1, a policy is beaten by it in 1." in shown
    assert "| text2sql-small | all | odm | all | 0.806 | 0.704 | +0.1020 |" in shown
    assert "test_loss, a loss: lower is better; policies are asked every 2 steps, and" in shown


def test_nothing_measured_is_said():
    assert text({}).startswith("Not measured: digits")
    assert "|" not in text({})


def test_finished_experiments_are_written_between_the_markers(tmp_path: Path, monkeypatch):
    save_result(tmp_path / "runs" / "digits-all", BETTER)
    page = tmp_path / "page.md"
    begin, end = "<!-- measured: in-the-loop -->", "<!-- end of in-the-loop -->"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    arguments = ["--write-only", "--root", str(tmp_path / "runs"), "--page", str(page)]
    monkeypatch.setattr("sys.argv", ["in_the_loop", *arguments])
    assert in_the_loop.main() == 0
    written = page.read_text()
    assert written.startswith(f"before\n{begin}\nAgainst the static")
    assert "old" not in written
    assert written.endswith(f"{end}\nafter\n")


def test_a_folder_of_a_task_is_a_task_of_experiments(tmp_path: Path):
    folder = tmp_path / "films"
    (folder / "candidates").mkdir(parents=True)
    words = {"0": "dull slow bad", "1": "fine quick good"}

    def write(path: Path, n: int, start: int, labeled: bool = True) -> None:
        rows = [
            {"text": f"a {words[str(i % 2)]} film {start + i}", "label": str(i % 2)}
            for i in range(n)
        ]
        kept = rows if labeled else [{"text": row["text"]} for row in rows]
        path.write_text("\n".join(map(json.dumps, kept)))

    for i, name in enumerate("abc"):
        write(folder / "candidates" / f"{name}.jsonl", 20, 1000 * i)
    write(folder / "real_sample_seed0.jsonl", 10, 5000, labeled=False)
    write(folder / "real_sample_seed1.jsonl", 10, 6000, labeled=False)
    write(folder / "test.jsonl", 60, 7000)
    (labeled,) = find_labeled_tasks(tmp_path, ["films"])
    task = FolderTask(labeled, FitOptions(max_steps=3, batch_size=4))
    assert task.name == "films"
    assert [len(task.real_sample(replicate)) for replicate in range(3)] == [10, 10, 10]
    # the first samples are those of the folder
    assert task.real_sample(1).views[0] == "a dull slow bad film 6000"
    assert len(task.validation) + len(task.test) == 60
    assert task.n_distinct == 20


@pytest.mark.parametrize("name", ["digits"])
def test_recipes_are_read_from_their_configs(name: str):
    task = in_the_loop._task(name, None)
    assert task is not None
    assert task.name == name


def test_a_task_without_its_data_is_left_out(monkeypatch):
    monkeypatch.delenv("SYNQUE_BENCHMARK_DATA", raising=False)
    monkeypatch.delenv("SYNQUE_TASKS_DATA", raising=False)
    assert in_the_loop._task("sentiment-small", None) is None
    assert in_the_loop._task("ag_news", None) is None
