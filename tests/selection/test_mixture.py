"""The schedule of draws: weights within every block, nothing twice too early, fair to ranks."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError
from synque_select.training.mixture_loader import (
    MixtureDataset,
    MixtureLoader,
    MixtureSampler,
    Position,
)
from synque_select.training.mixture_schedule import MixtureSchedule, longest_epoch
from synque_select.types import Mixture


def random_schedule(seed: int, *, share_of_longest: float = 1.0) -> MixtureSchedule:
    rng = np.random.default_rng(seed)
    n_candidates = int(rng.integers(1, 9))
    weights = rng.dirichlet(np.full(n_candidates, 2.0)) + 0.001
    names = [f"candidate-{i}" for i in range(n_candidates)]
    mixture = Mixture(dict(zip(names, (weights / weights.sum()).tolist(), strict=True)))
    sizes = rng.integers(5, 1500, n_candidates).tolist()
    longest = longest_epoch(dict(zip(names, sizes, strict=True)), mixture)
    return MixtureSchedule(sizes, mixture, seed, max(1, int(longest * share_of_longest)))


def draws(schedule: MixtureSchedule, n: int, start: int = 0) -> list[tuple[int, int]]:
    return [schedule.locate(draw) for draw in range(start, start + n)]


def candidate(name: str, n: int) -> Candidate:
    return Candidate(name, [{"text": f"{name}-{i}", "id": f"{name}-{i}"} for i in range(n)], "text")


SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_block_of_1000_honours_the_weights_to_one_draw(seed: int):
    schedule = random_schedule(seed, share_of_longest=0.37 if seed % 2 else 1.0)
    seen = [which for which, _ in draws(schedule, 5_000)]
    for block in range(5):
        counts = np.bincount(seen[1000 * block : 1000 * (block + 1)], minlength=len(schedule.sizes))
        assert np.abs(counts - 1000 * schedule.weights).max() < 1
        totals = np.bincount(seen[: 1000 * (block + 1)], minlength=len(schedule.sizes))
        assert np.abs(totals - 1000 * (block + 1) * schedule.weights).max() < 2


@pytest.mark.parametrize("seed", SEEDS)
def test_no_epoch_repeats_an_example(seed: int):
    schedule = random_schedule(seed, share_of_longest=0.61 if seed % 2 else 1.0)
    length = min(schedule.epoch_length, 3_000)
    for epoch in range(4):
        epoch_draws = draws(schedule, length, epoch * schedule.epoch_length)
        assert len(set(epoch_draws)) == length


@pytest.mark.parametrize("seed", range(10))
def test_an_example_comes_again_only_when_all_were_seen(seed: int):
    schedule = MixtureSchedule([13, 40, 17], Mixture.equal(["a", "b", "c"]), seed, 50 + seed)
    seen = draws(schedule, 1_000)
    for which, size in enumerate(schedule.sizes):
        examples = [example for drawn, example in seen if drawn == which]
        passes = [examples[i : i + size] for i in range(0, len(examples) - size, size)]
        assert len(passes) > 7
        assert all(len(set(one)) == size for one in passes)
        assert len({tuple(one) for one in passes}) == len(passes), "each pass is shuffled anew"


def test_totals_never_drift_over_a_million_draws():
    weights = {"a": 0.61803, "b": 0.2, "c": 0.1714, "d": 0.01057}
    schedule = MixtureSchedule([9, 9, 9, 9], Mixture(weights), 0, 700)
    for block in range(0, 1_000, 50):
        counts = schedule.counts(1000 * block)
        assert counts.sum() == 1000 * block
        assert np.abs(counts - 1000 * block * schedule.weights).max() < 2


def test_a_draw_is_the_same_whatever_was_asked_before():
    one, other = random_schedule(3), random_schedule(3)
    in_order = draws(one, 6_000)
    places = np.random.default_rng(0).permutation(6_000).tolist()
    assert [other.locate(place) for place in places] == [in_order[place] for place in places]


def test_far_draws_are_found_without_serving_the_ones_before():
    mixture = Mixture({"a": 0.4, "b": 0.6})
    near, far = (MixtureSchedule([7, 90], mixture, 0, 61) for _ in range(2))
    assert draws(near, 20_000)[-50:] == draws(far, 50, 19_950)


def test_seeds_differ_and_are_kept():
    sizes = {"a": 50, "b": 50}
    streams = [
        draws(MixtureSchedule(list(sizes.values()), Mixture.equal(["a", "b"]), seed, 100), 100)
        for seed in (0, 1, 0)
    ]
    assert streams[0] == streams[2] != streams[1]


def test_the_longest_epoch_is_not_cut_by_rounding():
    assert longest_epoch({"a": 500, "b": 500, "c": 500}, Mixture.equal(["a", "b", "c"])) == 1500
    assert longest_epoch({"a": 10, "b": 9}, Mixture({"a": 0.9, "b": 0.1})) == 11


def test_the_order_of_weights_does_not_matter():
    candidates = [candidate("a", 30), candidate("b", 30)]
    one = MixtureDataset(candidates, Mixture({"a": 0.3, "b": 0.7}))
    other = MixtureDataset(candidates[::-1], Mixture({"b": 0.7, "a": 0.3}))
    assert [one[i] for i in range(len(one))] == [other[i] for i in range(len(other))]


def test_a_default_epoch_draws_all_of_the_candidate_that_limits_it():
    candidates = [candidate("a", 120), candidate("b", 1000), candidate("unused", 5)]
    dataset = MixtureDataset(candidates, Mixture({"a": 0.3, "b": 0.7}))
    assert len(dataset) == 400
    ids = [dataset[draw]["id"] for draw in range(400)]
    assert len(set(ids)) == 400
    assert sum(name.startswith("a") for name in ids) == 120


def test_a_transform_makes_the_training_example():
    dataset = MixtureDataset(
        [candidate("a", 4)], Mixture({"a": 1.0}), transform=lambda record: record["id"]
    )
    assert sorted(dataset[draw] for draw in range(4)) == ["a-0", "a-1", "a-2", "a-3"]


@pytest.mark.parametrize(
    ("mixture", "options", "message"),
    [
        ({"aa": 1.0}, {}, "'aa', which is not a candidate: did you mean 'a'"),
        ({"a": 1.0}, {"seed": -1}, "seed=-1: allowed is a whole number from 0"),
        ({"a": 1.0}, {"epoch_length": 0}, "epoch_length=0: allowed is a whole number from 1"),
    ],
)
def test_what_a_dataset_refuses(mixture, options, message):
    with pytest.raises(ConfigError, match=message):
        MixtureDataset([candidate("a", 4)], Mixture(mixture), **options)


@pytest.mark.parametrize("replicas", [1, 2, 3, 8])
def test_ranks_share_an_epoch_without_overlap_and_the_next_goes_on(replicas: int):
    dataset = MixtureDataset([candidate("a", 50), candidate("b", 51)], Mixture.equal(["a", "b"]))
    samplers = [MixtureSampler(dataset, replicas, rank) for rank in range(replicas)]
    length = 100 // replicas * replicas
    for epoch in range(3):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [list(sampler) for sampler in samplers]
        assert {len(share) for share in shares} == {len(samplers[0])}
        together = sorted(draw for share in shares for draw in share)
        assert together == list(range(epoch * length, (epoch + 1) * length))


@pytest.mark.parametrize("replicas", [2, 4, 8])
def test_every_rank_sees_the_mixture_in_every_block(replicas: int):
    candidates = [candidate("a", 4000), candidate("b", 4000), candidate("c", 4000)]
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    dataset = MixtureDataset(candidates, Mixture(weights), epoch_length=4000)
    share = 1000 // replicas
    for rank in range(replicas):
        served = [dataset[draw]["id"][0] for draw in MixtureSampler(dataset, replicas, rank)]
        for block in range(4):
            part = served[block * share : (block + 1) * share]
            for name, weight in weights.items():
                # drawn without replacement from the block's 1,000
                deviation = np.sqrt(share * weight * (1 - weight) * (1 - 1 / replicas))
                assert abs(part.count(name) - share * weight) < 4 * deviation


def test_a_sampler_is_one_that_lightning_leaves_alone():
    dataset = MixtureDataset([candidate("a", 4)], Mixture({"a": 1.0}))
    assert isinstance(MixtureSampler(dataset), DistributedSampler)


def test_an_epoch_too_short_for_the_ranks_is_refused():
    dataset = MixtureDataset([candidate("a", 3)], Mixture({"a": 1.0}))
    with pytest.raises(ConfigError, match="3 draws cannot be split over 4 ranks"):
        MixtureSampler(dataset, 4, 0)


class TestPosition:
    def test_an_epoch_begins_where_the_last_one_ended(self):
        position = Position()
        position.begin(0)
        position.advance(8)
        position.advance(5)
        position.begin(1)
        assert (position.start, position.drawn) == (13, 0)

    def test_an_epoch_that_is_started_over_begins_where_it_began(self):
        position = Position(epoch=2, start=20, drawn=6)
        position.begin(2)
        assert (position.start, position.drawn) == (20, 0)

    def test_an_epoch_that_resumes_goes_on(self):
        position = Position(epoch=2, start=20, drawn=6)
        position.begin(2, batches=3)
        assert (position.start, position.drawn) == (20, 6)

    def test_a_new_run_begins_at_draw_0(self):
        position = Position(epoch=2, start=20, drawn=6)
        position.begin(0)
        assert (position.start, position.drawn) == (0, 0)

    def test_a_batch_that_was_not_trained_on_is_served_again(self):
        position = Position()
        position.begin(0)
        for _ in range(3):
            position.advance(8)
        assert position.state(epoch=0, batches=3)["drawn"] == 24
        assert position.state(epoch=0, batches=2)["drawn"] == 16
        # the counter of another epoch says nothing about this one
        assert position.state(epoch=1, batches=0)["drawn"] == 24


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_loader_asks_where_to_begin_only_with_its_first_batch(n_workers: int):
    dataset = MixtureDataset([candidate("a", 20)], Mixture({"a": 1.0}))
    position = Position(epoch=0, start=0, drawn=0)
    loader = MixtureLoader(
        dataset,
        batch_size=4,
        sampler=MixtureSampler(dataset),
        num_workers=n_workers,
        begin=lambda epoch: position,
    )
    batches = iter(loader)
    position.drawn = 12  # a checkpoint that is restored after the iterator was made
    ids = [name for batch in batches for name in batch["id"]]
    assert ids == [dataset[draw]["id"] for draw in range(12, 20)]
    assert (position.drawn, position.last, len(loader)) == (20, 4, 5)


def test_a_record_that_the_transform_does_not_take_is_named():
    def transform(record: dict[str, str]) -> str:
        if record["id"] == "a-3":
            raise ValueError("gone")
        return record["id"]

    dataset = MixtureDataset([candidate("a", 5)], Mixture({"a": 1.0}), transform=transform)
    message = r"^a, example 3 \(counted from 0\): train_transform fails: ValueError: gone"
    with pytest.raises(DataError, match=message) as raised:
        [dataset[draw] for draw in range(5)]
    assert isinstance(raised.value.__cause__, ValueError)
