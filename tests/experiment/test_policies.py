"""Policies as arms of an experiment: the control, equal budgets, pairs, resuming."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError
from synque_select.experiment import Experiment, ExperimentOptions, run_experiment
from synque_select.experiment.summary import summary
from synque_select.functional.paired import holm
from synque_select.records.experiment_result import load_result
from synque_select.records.store import RunStore
from synque_select.utils.cache_dir import default_cache_dir
from tests.training.shades import Linear, Shades, squares

# fits of milliseconds: that evaluation takes its time beside them says nothing
pytestmark = pytest.mark.filterwarnings("ignore:ReselectionCallback. evaluation took")

POLICIES = ("static", "odm", "surrogate", "agreement:sharpness=5", "aioli:n_examples=1")


class Logits(Linear):
    """The linear model with a method for its outputs; it logs losses, which hardly ever tie."""

    def _log(self, name: str, batch: Any) -> None:
        super()._log(name, batch)
        loss = torch.nn.functional.cross_entropy(self(batch["image"]), batch["label"])
        self.log(name.replace("acc", "loss"), loss, batch_size=len(batch["label"]))

    def logits(self, batch: Any) -> torch.Tensor:
        return self(batch["image"])


class Reselected(Shades):
    """A larger one, whose module has outputs, with steps enough for some changes."""

    outputs = "logits"
    n_distinct = 120
    max_steps = 12
    false_labels: ClassVar[dict[str, str]] = {}

    @cached_property
    def candidates(self) -> list[Candidate]:
        return [
            Candidate(name, squares(120, seed, shift=15 * seed), view="image", label="label")
            for seed, name in enumerate("abcd", start=1)
        ]

    def model(self, seed: int) -> Linear:
        return Logits(self.fits)


def run(task: Shades, where: Path, **options: Any) -> Experiment:
    settings: dict[str, Any] = {
        "top_k": 2,
        "arms": ["chosen", "all"],
        "policies": POLICIES,
        "every_n_steps": 2,
        "policy_budget": 0.5,
        "replicates": 2,
        "single_replicates": 1,
        "progress": False,
    }
    paths = {"root": where / "runs", "store": where / "store.sqlite", "cache_dir": where / "cache"}
    return run_experiment(task, ExperimentOptions(**{**settings, **paths, **options}))


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNQUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=["chosen", "all"])
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Reselected, Experiment, Path, str]:
    where = tmp_path_factory.mktemp("policies")
    task = Reselected()
    return task, run(task, where, policy_start=request.param), where, request.param


def test_the_static_policy_trains_exactly_what_its_start_does(finished):
    _, experiment, where, start = finished
    arms = experiment.result.arms
    assert arms["policy:static"].values == arms[start].values
    by_policy: dict[str, dict[str, float]] = {}
    for record in RunStore(where / "store.sqlite").read(kind="mixture"):
        policy = record.key["hyper_parameters"].get("policy", ["none"])[0]
        if record.seed == 0 and len(record.mixture.names) == (2 if start == "chosen" else 4):
            by_policy[policy] = record.metrics
    # bit by bit, although the static policy trains with the callback and its start without
    assert by_policy["static"] == by_policy["none"]
    assert by_policy["odm"]["test_loss"] != by_policy["none"]["test_loss"]


def test_all_arms_have_equal_steps(finished):
    task = finished[0]
    trained = [fit for fit in task.fits if fit["steps"]]
    assert {fit["steps"] for fit in trained} == {task.max_steps}
    assert all(len(fit["ids"]) == task.max_steps * task.batch_size for fit in trained)


def test_weights_that_do_not_change_draw_the_examples_of_the_start(finished):
    """With the static policy and with its start, the same examples come in the same order."""
    task = finished[0]
    trained = [tuple(fit["ids"]) for fit in task.fits if fit["steps"]]
    assert len(trained) - len(set(trained)) == 2  # in both replicates


def test_embeddings_of_held_out_examples_are_in_the_cache_of_the_experiment(finished):
    where = finished[2]
    assert [*(where / "cache" / "embeddings").rglob("*.safetensors")]
    assert not [*default_cache_dir().rglob("*.safetensors")]


def test_each_policy_is_compared_with_its_start_and_with_all(finished):
    _, experiment, _, start = finished
    result = experiment.result
    against = dict.fromkeys((start, "all"))
    assert set(result.policy_comparisons) == {
        f"policy:{policy}_vs_{arm}" for policy in POLICIES for arm in against
    }
    assert all(pair.n == 2 for pair in result.policy_comparisons.values())
    control = result.policy_comparisons[f"policy:static_vs_{start}"]
    assert control.difference == 0
    # the tables of an experiment of static mixtures do not change
    assert set(result.chosen_against) == {"all"}


def test_verdicts_hold_for_all_comparisons_together(tmp_path: Path):
    result = run(Reselected(), tmp_path, policies=["odm"], replicates=5).result
    pairs = list(result.comparisons.values())
    assert [pair.p_holm for pair in pairs] == pytest.approx(
        holm([pair.p for pair in pairs]).tolist(), nan_ok=True
    )
    assert len(pairs) == 3


def test_tables_name_policies_and_what_they_are_compared_with(finished):
    _, experiment, _, start = finished
    text = summary(experiment.result, experiment.rankings[0])
    assert "Policies against a mixture that stays as it is" in text
    assert "policy odm, mixture of all" in text
    assert "the static control" in text
    assert ("the selected mixture" if start == "chosen" else "the mixture of all") in text
    assert "surrogate: 20 % of the examples are held out" in text
    page = (experiment.run_dir / "report.html").read_text()
    assert "policy odm" in page


def test_a_finished_experiment_is_not_trained_again(finished):
    task, first, where, start = finished
    n_fits = len([fit for fit in task.fits if fit["steps"]])
    again = run(task, where, policy_start=start)
    assert len([fit for fit in task.fits if fit["steps"]]) == n_fits
    assert again.result.arms == first.result.arms
    read = load_result(again.run_dir)
    assert read.policy_comparisons.keys() == first.result.policy_comparisons.keys()


def test_other_options_of_a_policy_are_another_fit(finished):
    task, _, where, start = finished
    n_fits = len([fit for fit in task.fits if fit["steps"]])
    run(task, where, policy_start=start, policies=["odm:smoothing=0.5"])
    run(task, where, policy_start=start, policies=["odm"], policy_budget=0.9)
    run(task, where, policy_start=start, policies=["odm"], every_n_steps=3)
    assert len([fit for fit in task.fits if fit["steps"]]) == n_fits + 6


def test_held_out_losses_do_not_replace_the_labeled_validation(finished):
    _, _, where, _ = finished
    records = [
        record
        for record in RunStore(where / "store.sqlite").read(kind="mixture")
        if record.key["hyper_parameters"].get("policy", [""])[0] == "surrogate"
    ]
    assert len(records) == 2
    for record in records:
        assert {"val_acc", "test_acc"} <= set(record.metrics)
        assert all(math.isfinite(value) for value in record.metrics.values())


def test_too_few_held_out_examples_are_refused_before_anything_is_trained(tmp_path: Path):
    task = Reselected()
    task.n_distinct = 40  # 10 of each of four candidates, of which 3 or so are held out
    message = "'surrogate' needs 5 distinct held-out .* 20 % of the 13 examples of .*: raise n_dist"
    with pytest.raises(ConfigError, match=message):
        run(task, tmp_path, policies=["odm", "surrogate"], policy_start="all")
    assert not task.fits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policies": ["odn"]}, "unknown policy 'odn': did you mean 'odm'"),
        ({"policies": ["odm:smooth=1"]}, "has no option 'smooth'"),
        ({"policies": "odm"}, "allowed is a list"),
        ({"policies": ["odm", "odm"]}, "given more than once: odm"),
        ({"policies": ["odm"], "policy_start": "none"}, "policy_start='none'"),
        ({"policies": ["odm"], "policy_start": "all", "arms": ["chosen"]}, "'all' is missing"),
        ({"every_n_steps": 0}, "every_n_steps=0"),
        ({"policy_budget": 0.0}, "policy_budget=0.0"),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        ExperimentOptions(**options)
