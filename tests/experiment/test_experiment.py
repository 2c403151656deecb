"""Experiments on a small real task: equal budgets, pairs, resuming, what is written and refused."""

from __future__ import annotations

import json
import math
import os
import signal
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import (
    ConfigError,
    DataError,
    LightningError,
    NotSavedError,
    RecordError,
)
from synque_select.experiment import (
    ARMS,
    BaseTask,
    Experiment,
    ExperimentOptions,
    run_experiment,
)
from synque_select.records.correlation import correlate
from synque_select.records.ranking_file import load_ranking
from synque_select.records.run_folder import read_json
from synque_select.records.store import RunStore
from synque_select.utils.process_state import seeded
from tests.training.shades import N_DISTINCT, Shades, Unlabeled

K = 6


def run(task: BaseTask, where: Path, **options: Any) -> Experiment:
    settings: dict[str, Any] = {"top_k": 2, "replicates": 2, "n_random": 2, "progress": False}
    paths = {"root": where / "runs", "store": where / "store.sqlite", "cache_dir": where / "cache"}
    return run_experiment(task, ExperimentOptions(**{**settings, **paths, **options}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shades, Experiment, Path]:
    where = tmp_path_factory.mktemp("experiment")
    task = Shades()
    return task, run(task, where), where


def trained(task: Shades) -> list[dict[str, Any]]:
    """Return the fits that took steps; other modules were only made to hash their weights."""
    return [fit for fit in task.fits if fit["steps"]]


def test_all_arms_have_equal_steps_and_distinct_examples(finished):
    task, _, _ = finished
    full = [fit for fit in trained(task) if fit["steps"] > 1]
    assert {fit["steps"] for fit in full} == {task.max_steps}
    distinct = [len(set(fit["ids"])) for fit in full]
    sizes = sum(len(candidate) for candidate in task.candidates)
    # six steps of eight are two passes over 24; the two of "all data, unequal size" see more
    assert sorted(set(distinct)) == [N_DISTINCT, min(sizes, task.max_steps * task.batch_size)]
    assert distinct.count(N_DISTINCT) == len(full) - 2


def test_only_fits_of_one_replicate_share_initial_weights(finished):
    task, _, _ = finished
    starts = torch.stack([fit["start"] for fit in trained(task)]).flatten(1)
    assert len(starts.unique(dim=0)) == 2


def test_result_json_has_the_documented_fields(finished):
    _task, experiment, _ = finished
    result = read_json(experiment.run_dir / "result.json")
    assert result["version"] == 1
    assert result["metric"] == {"name": "test_acc", "mode": "max"}
    assert result["replicates"] == 2
    assert set(result["arms"]) == set(ARMS) - {"tuned"}
    for arm in result["arms"].values():
        assert {"mean", "std", "n"} <= set(arm)
        assert arm["n"] == 2
    others = {arm for arm in ARMS if arm not in ("chosen", "tuned")}
    assert set(result["comparisons"]) == {f"chosen_vs_{arm}" for arm in others} | {
        f"{arm}_vs_none" for arm in others - {"none"}
    }
    for part in result["comparisons"].values():
        assert {"difference", "low", "high", "verdict"} <= set(part)
    assert set(result["wall_s"]) == {"encode", "score", "fit", "probes"}
    assert {"mmd", "coverage"} <= set(result["correlations"])
    part = result["correlations"]["mmd"]
    assert set(part["spearman"]) == {"value", "p", "low", "high"}
    assert set(part["pearson"]) == set(part["kendall"]) == {"value", "p"}


def test_arms_that_use_labels_are_marked(finished):
    arms = finished[1].result.arms
    marked = {name for name, arm in arms.items() if arm.uses_labels}
    assert marked == {"best_single_by_validation", "oracle_k", "probed_k"}


def test_the_arms_of_single_candidates_follow_from_the_fits_on_each_alone(finished):
    task, experiment, where = finished
    arms = experiment.result.arms
    probes = [
        record
        for record in RunStore(where / "store.sqlite").read(kind="probe")
        if record.key["optimizer_steps"] == task.max_steps
        and record.key["real_sha256"] == experiment.rankings[0].real_sha256
    ]
    for replicate in range(2):
        test = {
            record.mixture.names[0]: record.metrics["test_acc"]
            for record in probes
            if record.seed == replicate
        }
        assert len(test) == K
        best = experiment.rankings[replicate].order()[0].name
        mean = sum(test.values()) / K
        assert arms["mean_single"].values[replicate] == pytest.approx(mean)
        assert arms["best_single"].values[replicate] == test[best]
        singles = experiment.result.candidates
        assert all(min(test.values()) <= row.test <= 1 for row in singles.values())


def test_correlations_with_and_without_the_candidate_with_false_labels(finished):
    result = finished[1].result
    assert result.correlations.proxies["mmd"].n == K
    assert result.without_false_labels.proxies["mmd"].n == K - 1
    assert any("cannot distinguish the two" in message for message in result.messages)


def test_false_labels_train_a_worse_model_than_their_twin(finished):
    singles = finished[1].result.candidates
    assert singles["true"].test > 0.8
    assert singles["false"].test < 0.2


def test_a_probe_is_recorded_under_every_real_sample_and_apart_from_mixtures(finished):
    task, _experiment, where = finished
    records = RunStore(where / "store.sqlite").read()
    full = [r for r in records if r.key["optimizer_steps"] == task.max_steps]
    singles = [r for r in full if r.kind == "probe"]
    assert len(singles) == K * 2 * 2  # candidates, seeds, real samples
    assert len({r.key_hash for r in singles}) == 2
    assert all(not r.scores for r in full if r.kind == "mixture")


def test_the_run_directory_is_complete(finished):
    folder = finished[1].run_dir
    for name in ("ranking.json", "ranking.csv", "result.json", "report.html", "map.json"):
        assert (folder / name).is_file(), name
    assert load_ranking(folder) == load_ranking(folder / "rankings" / "replicate-1.json")
    # two replicates: no verdict, however clear the difference
    page = (folder / "report.html").read_text()
    assert "hint only (2 pairs)" in page
    assert not any(f"mixture {verdict}" in page for verdict in ("beats", "is beaten by"))


def test_the_closing_text_names_the_page_and_both_correlations(finished):
    text = str(finished[1])
    assert str(finished[1].run_dir / "report.html") in text
    assert "without false (false labels)" in " ".join(text.split())


def test_a_second_run_trains_nothing_and_gives_the_same_result(finished):
    _, experiment, where = finished
    task = Shades()
    again = run(task, where)
    assert not trained(task)
    assert again.result.arms == experiment.result.arms
    assert again.result.correlations == experiment.result.correlations
    assert again.run_dir != experiment.run_dir
    assert any("fits had finished before" in message for message in again.result.messages)


class Interrupted(Shades):
    """Stops in the middle of its fifth fit."""

    def model(self, seed: int) -> Any:
        module = super().model(seed)
        if sum(fit["steps"] > 0 for fit in self.fits) == 4:
            module.on_train_batch_end = self._stop  # type: ignore[method-assign]
        return module

    @staticmethod
    def _stop(*_: Any) -> None:
        raise RuntimeError("the power failed")


def test_an_interrupted_run_resumes(finished, tmp_path: Path):
    whole, experiment, _ = finished
    with pytest.raises(RuntimeError, match="power failed"):
        run(Interrupted(), tmp_path)
    task = Shades()
    resumed = run(task, tmp_path)
    assert len(trained(task)) == len(trained(whole)) - 4
    assert resumed.result.arms == experiment.result.arms


def test_side_by_side_the_result_is_equal_bit_by_bit(finished, tmp_path: Path):
    whole, experiment, where = finished
    task = Shades()
    again = run(task, tmp_path, n_workers=2)
    assert not trained(task)  # but in the two processes
    for part in ("arms", "comparisons", "candidates", "correlations", "messages"):
        # as texts: NaN is not equal to itself
        assert repr(getattr(again.result, part)) == repr(getattr(experiment.result, part)), part

    def records(folder: Path) -> dict[str, Any]:
        stored = RunStore(folder / "store.sqlite").read()
        return {r.run_id: (r.kind, r.key, dict(r.metrics), dict(r.scores)) for r in stored}

    assert records(tmp_path).items() <= records(where).items()
    resumed = run(whole, tmp_path, n_workers=2)
    assert resumed.result.arms == experiment.result.arms
    assert any("fits had finished before" in message for message in resumed.result.messages)


class Failing(Shades):
    """Fails on one of its candidates, or ends its process."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def train_transform(self, record: Any) -> Any:
        if record["id"].startswith("4-"):  # of candidate "d"
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("no such shade")
        return record


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("raises", DataError, "^d, example .* fails: RuntimeError: no such shade$"),
        ("killed", LightningError, r"the fit on .*\bd\b.* ended with status -9 \(killed, often"),
    ],
)
def test_side_by_side_a_failed_fit_is_named_and_the_others_are_kept(
    tmp_path: Path, how: str, error: type[Exception], message: str
):
    options = {"arms": ["chosen"], "single_replicates": 1}
    with pytest.raises(error, match=message):
        run(Failing(how), tmp_path, n_workers=2, **options)
    n = len({r.details["fit"] for r in RunStore(tmp_path / "store.sqlite").read()})
    assert n >= 1
    task = Shades()
    run(task, tmp_path, **options)
    assert len(trained(task)) == 1 + K + 1 - n


def test_a_task_that_cannot_be_sent_is_refused_before_any_fit(tmp_path: Path):
    class Local(Shades):
        pass

    with pytest.raises(LightningError, match=r"with n_workers=2, fits run in .*use n_workers=1"):
        run(Local(), tmp_path, n_workers=2)


def test_the_model_as_it_is_is_measured_without_training(finished):
    task, experiment, where = finished
    arm = experiment.result.arms["none"]
    assert not arm.uses_labels
    for seed in range(2):
        with seeded(seed):
            module = Shades().model(seed)
        images = torch.stack([task.test[i]["image"] for i in range(len(task.test))])
        labels = torch.tensor([task.test[i]["label"] for i in range(len(task.test))])
        right = (module(images).argmax(1) == labels).float().mean()
        assert arm.values[seed] == pytest.approx(float(right))
    chosen = experiment.result.arms["chosen"]
    pair = experiment.result.comparisons["chosen_vs_none"]
    assert pair.difference == pytest.approx(chosen.mean - arm.mean)
    records = RunStore(where / "store.sqlite").read()
    untrained = [record for record in records if record.details.get("untrained")]
    assert len(untrained) == 2
    assert {record.key["optimizer_steps"] for record in untrained} == {0}
    assert correlate(untrained) == []
    text = " ".join(str(experiment).split())
    assert "than the model as it is by test_acc (2 pairs; a verdict needs 5)" in text


def test_a_note_says_where_the_model_as_it_is_has_random_weights(finished):
    class SameWeights(Shades):
        def model(self, seed: int) -> Any:
            with seeded(0):
                return super().model(0)

    _, experiment, where = finished
    assert len(set(experiment.result.arms["none"].values)) == 2
    note = "some of its weights are random before training: read its result as chance"
    assert any(note in message for message in experiment.result.messages)
    same = run(SameWeights(), where, arms=["chosen", "none"], single_replicates=1).result
    assert len(set(same.arms["none"].values)) == 1
    assert not any(note in message for message in same.messages)


def test_a_model_that_needs_a_fit_has_no_arm_none(finished):
    class Unfit(Shades):
        def model(self, seed: int) -> Any:
            module = super().model(seed)
            measure = module.validation_step

            def validation_step(*given: Any) -> None:
                if not module.history["steps"]:
                    raise RuntimeError("fit me first")
                measure(*given)

            module.validation_step = validation_step  # type: ignore[method-assign]
            return module

        def fingerprint(self) -> Any:
            return {**super().fingerprint(), "needs": "a fit"}

    options = {"arms": ["chosen", "none"], "single_replicates": 1}
    result = run(Unfit(), finished[2], **options).result
    assert list(result.arms) == ["chosen"]
    assert not result.comparisons
    left_out = [message for message in result.messages if "arm none is left out" in message]
    assert left_out == [
        "the arm none is left out, as the model cannot be measured before a fit: RuntimeError: "
        "fit me first"
    ]


def test_changed_labels_are_trained_again(finished):
    class Relabeled(Shades):
        def fingerprint(self) -> Any:
            return {**super().fingerprint(), "labels": "others"}

    task = Relabeled()
    run(task, finished[2], arms=["chosen"], single_replicates=1)
    assert len(trained(task)) == 2 + K


def test_models_are_built_once_per_seed_and_not_for_every_record(finished):
    class Counting(Shades):
        seeds: ClassVar[list[int]] = []

        def model(self, seed: int) -> Any:
            self.seeds.append(seed)
            return super().model(seed)

    task = Counting()
    result = run(task, finished[2], arms=["chosen", "all"]).result
    assert trained(task) == []
    n_records = sum(arm.n for arm in result.arms.values()) + K
    assert len(task.seeds) <= 2 * len(set(task.seeds)) < n_records


def test_only_the_requested_arms_are_in_the_result(finished):
    result = run(Shades(), finished[2], arms=["chosen", "all"]).result
    assert list(result.arms) == ["chosen", "all"]
    assert list(result.comparisons) == ["chosen_vs_all"]
    assert result.correlations.proxies["mmd"].n == K


def test_without_time_two_replicates_run_and_the_rest_is_named(tmp_path: Path):
    task = Shades()
    result = run(task, tmp_path, replicates=3, n_random=1, time_limit_s=0.0).result
    assert result.replicates == 2
    assert result.arms["chosen"].n == 2
    assert result.arms["mean_single"].n == 1
    assert math.isnan(result.arms["mean_single"].std)
    (message,) = [m for m in result.messages if m.startswith("left out")]
    assert "mixtures, replicate 3" in message
    assert message.count("single") <= 1
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_random_state_is_restored(finished):
    before = torch.get_rng_state()
    run(Shades(), finished[2], arms=["chosen"])
    assert torch.equal(before, torch.get_rng_state())


def test_messages_state_the_budget_and_the_overlap_of_real_samples(finished, tmp_path: Path):
    class Overlapping(Shades):
        step = 5

        def real_sample(self, replicate: int) -> RealSample:
            start = self.step * replicate
            records = Unlabeled(self.labeled[start : start + 20])
            return RealSample("squares", records, view="image")

    class Same(Overlapping):
        step = 0

    _, experiment, where = finished
    messages = experiment.result.messages
    assert messages[0] == (
        "every arm trains on 24 distinct examples for 6 steps of 8, except all data, which has "
        "more and none, which does not train"
    )
    assert messages[1] == "the random mixture is the mean of 4 draws, 2 per replicate"
    assert not any("real sample" in message for message in messages[:3])
    options = {"arms": ["chosen"], "single_replicates": 1}
    half = run(Overlapping(), where, **options).result.messages
    assert half[0] == "every arm trains on 24 distinct examples for 6 steps of 8"
    assert half[1].startswith("two real samples share 75 % of their examples on average")
    same = run(Same(), where, **options).result.messages
    assert same[1].startswith("all 2 replicates have the same real sample")


def test_too_few_candidates_for_a_correlation_are_reported_without_advice_to_train_more(finished):
    class Four(Shades):
        false_labels: ClassVar[dict[str, str]] = {}

        @cached_property
        def candidates(self) -> list[Candidate]:
            return super().candidates[:4]

    result = run(Four(), finished[2], arms=["chosen"], single_replicates=1).result
    assert result.correlations.messages == (
        "no correlation: 4 candidates, and a coefficient needs 5",
    )


def test_one_candidate_is_refused(tmp_path: Path):
    class Single(Shades):
        @cached_property
        def candidates(self) -> list[Candidate]:
            return super().candidates[:1]

    with pytest.raises(ConfigError, match=r"one candidate \(a\): an experiment compares two or"):
        run(Single(), tmp_path, top_k=1)


def test_a_leak_into_test_is_refused(tmp_path: Path):
    class Leaky(Shades):
        def real_sample(self, replicate: int) -> RealSample:
            return RealSample("squares", Unlabeled(self.labeled[130:150]), view="image")

    with pytest.raises(DataError, match="10 of the 40 validation examples are in a real sample"):
        run(Leaky(), tmp_path)


def test_a_candidate_that_is_too_small_is_refused(tmp_path: Path):
    class Greedy(Shades):
        n_distinct = 30

    with pytest.raises(DataError, match=r"a \(24\), d \(24\)"):
        run(Greedy(), tmp_path)


def test_a_budget_that_is_too_small_for_the_mixture_of_all_is_refused(tmp_path: Path):
    class Frugal(Shades):
        n_distinct = 11

    with pytest.raises(ConfigError, match="n_distinct=11; allowed is 12 or more"):
        run(Frugal(), tmp_path)


def test_a_model_without_the_metric_is_refused(tmp_path: Path):
    class Other(Shades):
        metric = "f1"

    with pytest.raises(LightningError, match="does not log 'val_f1'; logged"):
        run(Other(), tmp_path)


def test_a_fit_that_ends_early_is_refused(tmp_path: Path):
    class Hasty(Shades):
        def model(self, seed: int) -> Any:
            module = super().model(seed)
            module.on_train_batch_end = lambda *_: setattr(module.trainer, "should_stop", True)
            return module

    with pytest.raises(LightningError, match="stopped after 1 of 6 steps"):
        run(Hasty(), tmp_path)
    assert not RunStore(tmp_path / "store.sqlite").read()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": K}, "top_k=6: allowed is 1 to 5"),
        ({"replicates": 1}, "replicates=1"),
        ({"n_random": 0}, "n_random=0"),
        ({"single_replicates": 3}, "allowed is 1 to 2"),
        ({"arms": ["chosen", "best"]}, "unknown arm 'best'"),
        ({"arms": ["all"]}, "'chosen' is missing"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=message):
        run(Shades(), tmp_path, **options)


def test_the_trials_and_the_fit_of_the_tuned_arm_together_take_the_budget(tmp_path: Path):
    task = Shades()
    task.max_steps = 12
    arms = ["chosen", "random_k", "all", "tuned"]
    result = run(task, tmp_path, arms=arms, n_tuned=3, single_replicates=1).result
    assert result.arms["tuned"].uses_labels
    assert result.arms["tuned"].n == 2
    records = RunStore(tmp_path / "store.sqlite").read()
    for seed in range(2):
        own = [record for record in records if record.seed == seed]
        trials = [r.key["optimizer_steps"] for r in own if r.kind == "trial"]
        (last,) = [
            r.key["optimizer_steps"]
            for r in own
            if r.kind == "mixture" and r.key["optimizer_steps"] != task.max_steps
        ]
        assert trials == [2, 2, 2]
        assert sum(trials) + last == task.max_steps
    assert not any(entry.points for entry in correlate(records) if entry.kind == "trial")


def test_a_result_that_cannot_be_saved_is_in_the_error(
    finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, experiment, where = finished

    def full(run_dir: Path, result: object) -> None:
        raise RecordError(f"cannot write {run_dir}: no space left")

    monkeypatch.setattr("synque_select.experiment.summary.save_result", full)
    with pytest.raises(NotSavedError, match="no space left") as caught:
        run(Shades(), where, root=tmp_path)
    again = caught.value.result
    assert isinstance(again, Experiment)
    assert again.result.arms == experiment.result.arms
