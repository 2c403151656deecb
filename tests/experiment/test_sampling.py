"""Curricula and token weights as arms of an experiment: the control, equal steps, pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.utils.data import default_collate

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError
from synque_select.experiment import Experiment, ExperimentOptions, run_experiment
from synque_select.experiment.sampling import SamplingRun
from synque_select.experiment.summary import summary
from synque_select.experiment.task import sized
from synque_select.functional.paired import holm
from synque_select.records.experiment_result import load_result
from synque_select.records.store import RunStore
from synque_select.selection.surrogate_loss import surrogate_example_losses
from tests.training.shades import Linear, Shades, Squares, squares

SAMPLING = (
    "tokens",
    "curriculum:by=surrogate_loss",
    "curriculum:by=level:order=descending",
    "curriculum:by=mmd:order=descending",
)
N_TOKENS = {"a": 1, "b": 2, "c": 4, "d": 8}


def collate(records: list[dict[str, Any]]) -> Any:
    kept = [{key: record[key] for key in ("image", "label", "id")} for record in records]
    return default_collate(kept)


class Losses(Linear):
    """The linear model, which logs losses: they hardly ever tie."""

    def _log(self, name: str, batch: Any) -> None:
        loss = torch.nn.functional.cross_entropy(self(batch["image"]), batch["label"])
        self.log(name.replace("acc", "loss"), loss, batch_size=len(batch["label"]))


class Sampled(Shades):
    """Four candidates whose training examples have tokens, each another number."""

    metric = "loss"
    mode = "min"
    n_distinct = 120
    max_steps = 125  # a block of 1,000 draws
    false_labels: ClassVar[dict[str, str]] = {}
    collate_fn = staticmethod(collate)

    @cached_property
    def candidates(self) -> list[Candidate]:
        parts = []
        for seed, name in enumerate("abcd", start=1):
            rows = squares(120, seed, shift=15 * seed)
            rows = [
                {**row, "level": (7 * i) % 120, "id": f"{name}-{i}"} for i, row in enumerate(rows)
            ]
            parts.append(Candidate(name, rows, view="image", label="label"))
        return parts

    def model(self, seed: int) -> Linear:
        return Losses(self.fits)

    def train_transform(self, record: Any) -> object:
        return {**record, "input_ids": [0] * N_TOKENS[record["id"][0]]}


class Short(Sampled):
    """The same with few steps."""

    max_steps = 12


def run(task: Shades, where: Path, **options: Any) -> Experiment:
    settings: dict[str, Any] = {
        "top_k": 2,
        "arms": ["chosen", "all"],
        "sampling": SAMPLING,
        "policy_start": "all",
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


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Sampled, Experiment, Path]:
    where = tmp_path_factory.mktemp("sampling")
    task = Sampled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNQUE_CACHE", str(where / "default"))
        return task, run(task, where), where


def trained(task: Shades) -> list[dict[str, Any]]:
    return [fit for fit in task.fits if fit["steps"]]


def drawn(task: Sampled, sampling: str, replicate: int) -> list[str]:
    """The examples of a fit with a sampling, which come after all others."""
    fits = trained(task)[-2 * len(SAMPLING) :]
    ids: list[str] = fits[replicate * len(SAMPLING) + SAMPLING.index(sampling)]["ids"]
    return ids


def control(task: Sampled, replicate: int) -> list[str]:
    """The examples of the mixture of all, after that of the selected ones."""
    ids: list[str] = trained(task)[(1, 7)[replicate]]["ids"]
    return ids


def number(example: str) -> int:
    return int(example.split("-")[1])


def test_all_arms_have_equal_steps(finished):
    task = finished[0]
    assert {fit["steps"] for fit in trained(task)} == {task.max_steps}
    assert all(len(fit["ids"]) == task.max_steps * task.batch_size for fit in trained(task))


@pytest.mark.parametrize("replicate", [0, 1])
def test_a_curriculum_draws_the_same_candidates_easy_to_hard(finished, replicate: int):
    task = finished[0]
    ids = drawn(task, "curriculum:by=surrogate_loss", replicate)
    assert [one[0] for one in ids] == [one[0] for one in control(task, replicate)]
    # by the losses of the whole candidates, whatever part of them the arm has
    losses = surrogate_example_losses(task.candidates, encoder=Squares(), seed=replicate)
    for candidate in task.candidates:
        part = {row["id"] for row in sized(candidate, 30, seed=replicate)}
        own = [one for one in ids if one[0] == candidate.name]
        assert len(own) == 250
        for first in range(0, 240, 30):  # an epoch of 120 draws is a ramp, and a pass
            assert set(own[first : first + 30]) == part
            ramp = [losses[candidate.name][number(one)] for one in own[first : first + 30]]
            assert ramp == sorted(ramp)
            assert len(set(ramp)) > 20


def test_the_order_by_a_field(finished):
    ids = drawn(finished[0], "curriculum:by=level:order=descending", 1)
    for name in N_TOKENS:
        levels = [(7 * number(one)) % 120 for one in ids if one[0] == name][:30]
        assert levels == sorted(levels, reverse=True)


@pytest.mark.parametrize("replicate", [0, 1])
def test_tokens_are_shared_by_weight(finished, replicate: int):
    counts = Counter(one[0] for one in drawn(finished[0], "tokens", replicate))
    tokens = {name: n * N_TOKENS[name] for name, n in counts.items()}
    total, longest = sum(tokens.values()), sum(N_TOKENS.values())
    assert sum(counts.values()) == 1_000
    for name, n in tokens.items():  # the bound that the documentation states
        bound = 0.75 * N_TOKENS[name] + 0.25 * (longest - N_TOKENS[name])
        assert abs(n - total / 4) <= bound
    assert counts["a"] > 7 * counts["d"]
    assert Counter(one[0] for one in control(finished[0], replicate)) == dict.fromkeys("abcd", 250)


def test_embeddings_of_a_curriculum_are_in_the_cache_of_the_experiment(finished):
    where = finished[2]
    assert [*(where / "cache" / "embeddings").rglob("*.safetensors")]
    assert not [*(where / "default").rglob("*.safetensors")]


def test_each_is_compared_with_the_arm_of_its_mixture(finished):
    _, experiment, where = finished
    result = experiment.result
    assert set(result.sampling_comparisons) == {f"sampling:{one}_vs_all" for one in SAMPLING}
    assert set(result.chosen_against) == {"all"}
    for name, pair in result.sampling_comparisons.items():
        arm, control = result.arms[name.removesuffix("_vs_all")], result.arms["all"]
        assert pair.n == 2
        assert pair.difference == pytest.approx(arm.mean - control.mean)
        assert abs(pair.difference) > 1e-5
    keys = {
        str(record.key.get("sampling", {}))
        for record in RunStore(where / "store.sqlite").read(kind="mixture")
    }
    assert keys == {"{}"} | {str(SamplingRun(one, 0).description) for one in SAMPLING}


def test_verdicts_hold_for_all_comparisons_together(tmp_path: Path):
    experiment = run(Short(), tmp_path, sampling=["tokens"], policy_start="chosen", replicates=5)
    pairs = list(experiment.result.comparisons.values())
    assert [*experiment.result.sampling_comparisons] == ["sampling:tokens_vs_chosen"]
    assert [pair.p_holm for pair in pairs] == pytest.approx(
        holm([pair.p for pair in pairs]).tolist(), nan_ok=True
    )
    assert len(pairs) == 2


def test_tables_name_samplings_and_their_control(finished):
    _, experiment, _ = finished
    text = summary(experiment.result, experiment.rankings[0])
    assert "Other samplings of the same mixture" in text
    assert "curriculum by=surrogate_loss" in text
    assert "sampling arms train on the mixture of all, whose arm is their control" in text
    assert (
        "curriculum by=level order=descending" in (experiment.run_dir / "report.html").read_text()
    )


def test_a_finished_experiment_is_not_trained_again(finished):
    task, first, where = finished
    n_fits = len(trained(task))
    again = run(task, where)
    assert len(trained(task)) == n_fits
    assert again.result.arms == first.result.arms
    read = load_result(again.run_dir)
    assert read.sampling_comparisons.keys() == first.result.sampling_comparisons.keys()


def test_other_options_are_another_fit(tmp_path: Path):
    task = Short()
    run(task, tmp_path, sampling=["tokens"])
    n_fits = len(trained(task))
    run(task, tmp_path, sampling=["tokens:max_length=2", "curriculum:by=level"])
    run(task, tmp_path, sampling=["curriculum:by=level:draws=32"])
    assert len(trained(task)) == n_fits + 6


def test_other_values_of_a_field_are_another_fit(tmp_path: Path):
    class Reversed(Short):
        @cached_property
        def candidates(self) -> list[Candidate]:
            return [
                Candidate(
                    part.name,
                    [{**row, "level": -row["level"]} for row in part],
                    view="image",
                    label="label",
                )
                for part in Short().candidates
            ]

    run(Short(), tmp_path, sampling=["curriculum:by=level"])
    task = Reversed()
    run(task, tmp_path, sampling=["curriculum:by=level"])
    assert len(trained(task)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": ["token"]}, "sampling 'token': did you mean 'tokens'"),
        ({"sampling": ["tokens:length=3"]}, "sampling 'tokens' has no option 'length'"),
        ({"sampling": ["tokens:max_length=0"]}, "max_length=0: allowed is a whole number from 1"),
        ({"sampling": ["curriculum"]}, "sampling 'curriculum'.*by"),
        ({"sampling": ["curriculum:by=pad:order=up"]}, "order='up': allowed are 'ascending' and"),
        ({"sampling": "tokens"}, "sampling='tokens': allowed is a list"),
        ({"sampling": ["tokens", "tokens"]}, "sampling: given more than once: tokens"),
        (
            {"sampling": ["tokens"], "policy_start": "all", "arms": ["chosen"]},
            "'all' is missing, the static control of the sampling",
        ),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        ExperimentOptions(**options)


class Unlabeled(Sampled):
    """The same without labels that proxies may read."""

    @cached_property
    def candidates(self) -> list[Candidate]:
        return [Candidate(part.name, list(part), view="image") for part in Sampled().candidates]


@pytest.mark.parametrize(
    ("task", "sampling", "message"),
    [
        (Sampled, "curriculum:by=levle", "by='levle' is neither a field of the examples nor"),
        (Unlabeled, "curriculum:by=surrogate_loss", "reads the candidates' labels: give label="),
        (Shades, "tokens", "'tokens': nothing to count in .*Leave this arm out"),
    ],
)
def test_what_a_task_cannot_be_sampled_by(
    tmp_path: Path, task: type[Shades], sampling: str, message: str
):
    """It is refused before anything is trained."""
    given = task()
    with pytest.raises(ConfigError, match=message):
        run(given, tmp_path, sampling=[sampling])
    assert not given.fits
