"""One DataModule for every task: what it serves, what it holds out, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from synque_select.data.candidate import Candidate
from synque_select.data.examples import Examples
from synque_select.data.population import ReservoirOptions
from synque_select.data.reservoir import drawn_candidate
from synque_select.errors import ConfigError
from synque_select.experiment import TaskDataModule
from synque_select.experiment.task import check_task
from synque_select.training.surrogate import SurrogateOptions
from synque_select.types import Mixture
from tests.training.shades import Shades


class Marked(Shades):
    """Marks what passes through its transforms."""

    batch_size = 10

    def transform(self, record: Any) -> Any:
        return {**record, "by": "transform"}

    def train_transform(self, record: Any) -> Any:
        return {**record, "by": "train_transform"}


def served(loader: Any) -> list[tuple[str, str]]:
    return [pair for batch in loader for pair in zip(batch["id"], batch["by"], strict=True)]


def ids(part: Examples) -> list[str]:
    return [record["id"] for record in part]


def test_it_serves_candidates_real_sample_validation_and_test_of_the_task():
    task = Marked()
    data = TaskDataModule(task, replicate=1)
    assert [c.sha256 for c in data.candidates] == [c.sha256 for c in task.candidates]
    assert data.real is not None
    assert data.real.sha256 == task.real_sample(1).sha256
    assert served(data.val_dataloader()) == [(i, "transform") for i in ids(task.validation)]
    assert served(data.test_dataloader()) == [(i, "transform") for i in ids(task.test)]
    trained = served(data.train_dataloader())
    assert {by for _, by in trained} == {"train_transform"}
    assert {name for name, _ in trained} <= {i for c in task.candidates for i in ids(c)}


def test_held_out_examples_are_never_trained_on_and_follow_the_mixture():
    task = Marked()
    data = TaskDataModule(task, held_out=0.25)
    held_sizes = {c.name: round(0.25 * len(c)) for c in task.candidates}
    assert {c.name: len(c) + held_sizes[c.name] for c in data.candidates} == {
        c.name: len(c) for c in task.candidates
    }
    held = {name for name, _ in served(data.val_dataloader())}
    assert len(held) == sum(held_sizes.values())
    assert not held & {i for c in data.candidates for i in ids(c)}
    data.set_mixture(Mixture.equal(["b", "c"]))
    held = {name for name, _ in served(data.val_dataloader())}
    assert held <= {i for c in task.candidates if c.name in "bc" for i in ids(c)}
    assert len(held) == held_sizes["b"] + held_sizes["c"]


def test_a_single_example_can_be_held_out():
    data = TaskDataModule(Marked(), held_out=0.04)
    data.set_mixture(Mixture.equal(["a"]))
    assert len(served(data.val_dataloader())) == 1


def test_the_seed_decides_the_order_and_what_is_held_out():
    def run(seed: int) -> tuple[list[Any], list[Any]]:
        data = TaskDataModule(Marked(), held_out=0.25, seed=seed)
        return served(data.train_dataloader()), served(data.val_dataloader())

    first, again, other = run(0), run(0), run(1)
    assert first == again
    assert first[0] != other[0]
    assert set(first[1]) != set(other[1])


def test_collation_and_batch_size_are_those_of_the_task():
    task = Marked()
    task.collate_fn = len
    data = TaskDataModule(task)
    assert next(iter(data.train_dataloader())) == task.batch_size
    assert next(iter(data.val_dataloader())) == task.batch_size


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_is_not_allowed_is_named(share: float):
    with pytest.raises(ConfigError, match=f"held_out={share}: allowed is 0 to below 1"):
        TaskDataModule(Shades(), held_out=share)


def test_surrogate_validation_reads_no_label_of_the_task(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path))
    task = Marked()
    data = TaskDataModule(task, val=SurrogateOptions(size=30, held_out=0.5))
    data.setup("fit")
    measured = served(data.val_dataloader())
    assert {by for _, by in measured} == {"transform"}
    assert {i for i, _ in measured} <= {i for c in task.candidates for i in ids(c)}
    assert not {i for i, _ in measured} & {i for i, _ in served(data.train_dataloader())}
    labeled = data.on_labeled_validation()
    assert labeled is not None
    assert served(labeled.val_dataloader()) == [(i, "transform") for i in ids(task.validation)]
    with pytest.raises(ConfigError, match=r"held_out=0\.25 with val='surrogate'"):
        TaskDataModule(task, held_out=0.25, val="surrogate")


class Drawn(Shades):
    """Its first candidate is a draw from a larger one."""

    @property
    def candidates(self) -> list[Candidate]:
        first, *others = super().candidates
        return [drawn_candidate(first, ReservoirOptions(10), None), *others]


def test_fits_on_a_draw_train_on_all_examples_and_experiments_refuse_it():
    first, *_ = Shades().candidates
    data = TaskDataModule(Drawn())
    data.set_mixture(Mixture.equal([first.name], "probe"))
    ids_of = [name for name in data.train_dataloader() for name in name["id"]]
    assert {*ids_of} == {*ids(first)}
    assert len(data.candidates[0]) == 10 < len(first)
    sentence = "needs all examples in the ranking, and of a some were drawn: leave reservoir"
    with pytest.raises(ConfigError, match=f"held_out=0.25 {sentence}"):
        TaskDataModule(Drawn(), held_out=0.25)
    with pytest.raises(ConfigError, match=f"equally many examples, {sentence}"):
        check_task(Drawn(), [])
