"""The runs of a folder: what each was, what it found, and that a damaged one hides no other."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from synque_select.errors import ConfigError, RecordError
from synque_select.records.correlation import Correlations, correlate
from synque_select.records.correlation_file import save_correlations
from synque_select.records.experiment_result import save_result
from synque_select.records.influence_file import load_influence, save_influence
from synque_select.records.ranking_file import save_ranking
from synque_select.records.run_info import save_run_info
from synque_select.records.runs import Run, Runs
from synque_select.records.weights_file import save_weights
from synque_select.report.run_list import find_run, list_runs, runs_table
from synque_select.types import WeightPoint, WeightTrajectory
from tests.records.records_data import SCRIPT, make_ranking, make_record
from tests.records.test_experiment_result import RESULT

OLD = Path(__file__).parents[1] / "fixtures" / "v0_1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an experiment, a sweep, a ranking and what is not a run, made in this order."""
    root = tmp_path / "runs"
    for i, name in enumerate(("shades/1", "digits/2", "digits/3")):
        (root / name).mkdir(parents=True)
        save_ranking(make_ranking(names=(SCRIPT, "b", "c", "d")), root / name)
        os.utime(root / name / "ranking.json", (1000.0 * i, 1000.0 * i))
    save_result(root / "shades/1", RESULT)
    os.utime(root / "shades/1/result.json", (0.0, 0.0))
    records = [make_record(name, 0.1 * i, seed=0) for i, name in enumerate("abcdef")]
    save_correlations(correlate(records), root / "digits/2")
    os.utime(root / "digits/2/correlations.json", (1000.0, 1000.0))
    (root / "notes").mkdir()
    return root


def test_runs_are_listed_with_their_results_the_newest_last(folder: Path):
    runs = Runs(folder)
    assert [run.name for run in runs] == ["shades/1", "digits/2", "digits/3"]
    assert [run.kind for run in runs] == ["experiment", "correlation", "ranking"]
    frame = runs.to_frame()
    assert frame.loc["shades/1", ["metric", "value", "n"]].tolist() == ["test_acc", 0.5, 2]
    assert frame.loc["digits/2", "n"] == 6
    assert frame["n_candidates"].tolist() == [4, 4, 4]
    assert frame["selected"].tolist() == [f"{SCRIPT}, b"] * 3
    assert not frame["problem"].any()
    assert repr(runs) == f"<Runs: 3 runs in {folder}>"
    assert "experiment" in str(runs)


def test_a_run_has_its_results(folder: Path):
    runs = Runs(folder)
    assert runs["shades/1"].result == RESULT
    assert runs["1"] is runs[0]
    assert runs["shades/1"].to_frame().index.tolist() == ["chosen", "oracle_k"]
    assert len(runs["digits/2"].correlations[0].to_frame()) == 6
    assert runs["digits/3"].to_frame().index[0] == SCRIPT
    assert runs["digits/3"].tuning is None


def test_runs_with_one_file_alone_are_listed(folder: Path):
    points = (WeightPoint(0, 0, {"a": 0.5, "b": 0.5}), WeightPoint(8, 64, {"a": 0.9, "b": 0.1}))
    trajectory = WeightTrajectory("odm", 8, 0.02, 16, points, 2, 0.1, 9.0)
    influence = load_influence(OLD.parent / "influence_v1")
    for name in ("changed", "gradients", "digits/3"):
        (folder / name).mkdir(exist_ok=True)
    save_weights(folder / "changed", trajectory)
    save_influence(influence, folder / "gradients")
    save_weights(folder / "digits/3", trajectory)  # beside a ranking
    runs = Runs(folder)
    frame = runs.to_frame()
    assert frame.loc[["changed", "gradients", "digits/3"], "kind"].tolist() == [
        "reselection", "influence", "ranking",
    ]  # fmt: skip
    assert frame.loc[["changed", "gradients", "digits/3"], "n_candidates"].tolist() == [2, 5, 4]
    assert not frame["problem"].any()
    assert runs["changed"].weights == runs["digits/3"].weights == trajectory
    assert runs["gradients"].influence == influence
    assert runs["gradients"].to_frame()["value"].tolist() == sorted(
        influence.values.values(), reverse=True
    )
    assert runs["changed"].to_frame().loc[8].tolist() == [64, 0.9, 0.1]
    assert "by the policy odm: 1 change in 16 steps" in str(runs["changed"])
    assert "surrogate validation loss: 0 would lower it, 0 would raise it, 5 unclear" in str(
        runs["gradients"]
    )
    assert "odd" in runs["gradients"]._repr_html_()
    entries = {run.name: run for run in list_runs(folder)}
    rows = {row[0]: row for row in runs_table(list(entries.values())).rows}
    assert rows["changed"][2:] == ("fit", "2", "-", "-")
    assert rows["gradients"][2:] == ("influence", "5", "-", "-")
    assert find_run("gradients", folder) == folder / "gradients"
    (folder / "gradients/influence.json").write_text("{")
    (folder / "changed/weights.json").write_text("[]")
    problems = Runs(folder).to_frame()["problem"]
    assert "influence.json" in problems["gradients"]
    assert "weights.json" in problems["changed"]


def test_each_part_of_a_run_shows_itself(folder: Path):
    sweep = Runs(folder)["digits/2"]
    assert len(sweep.correlations.to_frame()) == 6
    assert "Proxies against" in str(sweep.correlations)
    assert "<table" in sweep.correlations._repr_html_()
    two = Correlations((*sweep.correlations, *sweep.correlations))
    assert two.to_frame().columns[:2].tolist() == ["kind", "key"]
    assert len(two.to_frame()) == 12
    nothing = Runs(folder)["digits/3"].correlations
    assert (len(nothing), len(nothing.to_frame())) == (0, 0)
    assert "No correlations" in str(nothing)
    save_run_info(folder / "digits/2")
    info = Runs(folder)["digits/2"].info
    assert info is not None
    assert str(info).startswith(info.command)
    assert info.to_frame()["command"].tolist() == [info.command]
    assert "version: 1" not in repr(info)


def test_runs_at_any_depth_up_to_five(folder: Path):
    root = folder.parent
    deep = root / "a" / "b" / "c" / "d" / "e"
    for place in (deep, deep / "f", root / ".hidden" / "x", root / "env" / "lib"):
        save_ranking(make_ranking(), place)
    (root / "env" / "pyvenv.cfg").write_text("")
    names = {run.name for run in Runs(root)}
    assert names == {"runs/shades/1", "runs/digits/2", "runs/digits/3", "a/b/c/d/e"}


def test_hostile_names_stay_text(folder: Path):
    for shown in (Runs(folder), *Runs(folder)):
        assert "<script" not in shown._repr_html_()
    assert "&lt;script&gt;" in Runs(folder)._repr_html_()


def test_a_damaged_run_is_listed_with_its_problem(folder: Path):
    (folder / "digits/3/ranking.json").write_text("{")
    (folder / "shades/1/run.json").write_text(json.dumps({"version": 1, "created": "x"}))
    frame = Runs(folder).to_frame()
    assert "ranking.json" in frame.loc["digits/3", "problem"]
    assert "run.json is damaged" in frame.loc["shades/1", "problem"]
    assert frame.loc["digits/2", "problem"] == ""
    assert "ranking.json" in str(Runs(folder)["3"])


def test_runs_of_older_versions_are_read(tmp_path: Path):
    for name in ("experiment_run", "tune_run", "sweep_run"):
        shutil.copytree(OLD / name, tmp_path / name)
    runs = Runs(tmp_path)
    assert not any(run.problem for run in runs)
    tuning = runs["tune_run"].tuning
    assert tuning is not None
    assert tuning.to_frame().loc[0, "weight of near"] == 0.5
    assert "7 complete trials" in repr(tuning)


def test_what_is_not_there_is_named(folder: Path):
    with pytest.raises(RecordError, match="is not a folder: give the folder of your runs"):
        Runs(folder / "none")
    with pytest.raises(ConfigError, match="0 runs named 'digits/33'; did you mean 'digits/3'"):
        Runs(folder)["digits/33"]
    assert len(Runs(folder / "notes")) == 0
    assert str(Runs(folder / "notes")).startswith("0 runs in")


def test_plots_of_results(folder: Path):
    pytest.importorskip("matplotlib").use("agg")
    runs = Runs(folder)
    ax = RESULT.plot()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["chosen", "oracle_k"]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in dots] == [[0.4, 0.6], [0.75, 0.75]]
    assert dots[0].get_color() != dots[1].get_color()  # one uses labels of real data

    entry = runs["digits/2"].correlations[0]
    ax = entry.plot("pad")
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines} == {
        (point.scores["pad"], point.validation) for point in entry.points
    }
    assert ax.xaxis_inverted()  # lower is better
    assert "over 6 units" in ax.get_title()
    with pytest.raises(ConfigError, match="unknown proxy 'pat': did you mean 'pad'"):
        entry.plot("pat")

    tuning = Runs(OLD)["tune_run"].tuning
    assert tuning is not None
    ax = tuning.plot()
    values = [trial.value for trial in tuning.trials if trial.state == "complete"]
    assert ax.lines[0].get_ydata().tolist() == values
    assert "lower is better" in ax.get_ylabel()


def test_a_link_to_nowhere_and_a_folder_are_problems_of_their_run(tmp_path: Path):
    for name in ("link", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "link" / "ranking.json").symlink_to("none.json")
    (tmp_path / "folder" / "ranking.json").mkdir()
    (run,) = Runs(tmp_path)
    assert "ranking.json: Is a directory" in run.problem
    assert run.row()["kind"] == "ranking"
    link = Run(tmp_path / "link", "link")
    assert "ranking.json: No such file" in link.problem
    assert link.headlines[0].startswith("link: ranking, ")
