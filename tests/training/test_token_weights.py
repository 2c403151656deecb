"""Weights that are shares of tokens: the bound in each block, lengths, and training with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError, LightningError
from synque_select.training.lengths import TokenOptions, token_lengths
from synque_select.training.mixture_loader import MixtureDataset, NamedRamp
from synque_select.training.mixture_schedule import MixtureSchedule, Ramp, longest_epoch
from synque_select.training.weight_changes import WeightChange, WeightTable
from synque_select.types import Mixture
from tests.lightning_package import ReselectionCallback, SynqueDataModule, pl
from tests.training.changing import Change, length_of, number_of
from tests.training.serving import candidates, fit
from tests.training.test_datamodule_ddp import interleaved, launch
from tests.training.test_datamodule_resume import checkpoint, same_weights, saving

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]

NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def within_bound(
    seen: list[tuple[int, int]], lengths: list[NDArray[np.int64]], weights: NDArray[np.float64]
) -> bool:
    """Whether the tokens of a block differ from the weights by the bound of `TokenCounts`."""
    tokens = np.zeros(len(lengths))
    for which, example in seen:
        tokens[which] += lengths[which][example]
    longest = np.array([each.max() for each in lengths]) * (weights > 0)
    bound = (1 - weights) * longest + weights * (longest.sum() - longest)
    return bool((np.abs(tokens - weights * tokens.sum()) <= bound * (weights > 0) + 1e-6).all())


@st.composite
def runs(draw: st.DrawFn) -> tuple[Any, ...]:
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    # from equal lengths, where all draws begin at the same times, to very different ones
    lengths = [
        np.maximum(rng.lognormal(3, draw(st.sampled_from([0.0, 0.5, 2.0])), n), 1).astype(np.int64)
        for n in rng.integers(2, 700, 3)
    ]
    shares = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)
    weights = [np.array(draw(shares), dtype=float) for _ in range(draw(st.integers(1, 3)))]
    weights = [each / each.sum() for each in weights]
    gaps = [draw(st.integers(1, 2_500)) for _ in weights[1:]]
    scores = [rng.normal(size=len(each)) for each in lengths]
    ramp = draw(st.none() | st.integers(1, 5_000).map(lambda draws: Ramp(scores, draws)))
    return lengths, weights, np.cumsum([0, *gaps]).tolist(), ramp, seed


@settings(deadline=None, max_examples=25)
@given(runs())
def test_shares_of_tokens_hold_in_every_1000_draws(run: tuple[Any, ...]):
    lengths, weights, starts, ramp, seed = run
    table = WeightTable(NAMES)
    for start, later in zip(starts[1:], weights[1:], strict=True):
        table.add(WeightChange(start, 0, dict(zip(NAMES, later.tolist(), strict=True)), 0))
    first = {n: w for n, w in zip(NAMES, weights[0].tolist(), strict=True) if w}
    sizes = [len(each) for each in lengths]

    def schedule() -> MixtureSchedule:
        return MixtureSchedule(
            sizes, Mixture(first), seed, 100, lengths=lengths, ramp=ramp, changes=table
        )

    end = starts[-1] + 2_000
    one, other = schedule(), schedule()
    seen = [one.locate(draw) for draw in range(end)]
    for segment, (start, stop) in zip(
        weights, zip(starts, [*starts[1:], end], strict=True), strict=True
    ):
        for begin in range(start, stop - 999, 1_000):
            assert within_bound(seen[begin : begin + 1_000], lengths, segment)
    for which, size in enumerate(sizes):
        own = [example for candidate, example in seen if candidate == which]
        for begin in range(0, len(own), size):
            one_pass = own[begin : begin + size]
            assert len(set(one_pass)) == len(one_pass)
    places = np.random.default_rng(seed).permutation(end)[:100].tolist()
    assert [other.locate(place) for place in places] == [seen[place] for place in places]


def test_equal_lengths_are_shares_of_draws():
    lengths = [np.full(n, 7, dtype=np.int64) for n in (50, 60, 70)]
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    schedule = MixtureSchedule([50, 60, 70], Mixture(weights), 0, 100, lengths=lengths)
    for block in range(3):
        drawn = [schedule.locate(draw)[0] for draw in range(1000 * block, 1000 * block + 1000)]
        assert np.abs(np.bincount(drawn) - [500, 300, 200]).max() <= 1


def test_ranks_get_their_share_of_each_candidate():
    lengths = [np.full(900, n, dtype=np.int64) for n in (10, 10, 30)]
    schedule = MixtureSchedule([900] * 3, Mixture.equal(NAMES), 0, 900, lengths=lengths)
    even = [schedule.locate(draw)[0] for draw in range(0, 7_000, 2)]
    assert np.abs(np.bincount(even) / 3_500 - [3 / 7, 3 / 7, 1 / 7]).max() < 0.02


def test_a_far_draw_is_found_without_those_before():
    rng = np.random.default_rng(0)
    lengths = [rng.integers(1, 100, n) for n in (500, 80)]
    near, far = (
        MixtureSchedule([500, 80], Mixture.equal(["a", "b"]), 0, 100, lengths=lengths)
        for _ in range(2)
    )
    seen = [near.locate(draw) for draw in range(20_000)]
    assert [far.locate(draw) for draw in range(19_950, 20_000)] == seen[-50:]
    assert near.counts(20_000).sum() == 20_000


def test_the_longest_epoch_uses_up_a_candidate():
    rng = np.random.default_rng(1)
    lengths = {"a": rng.integers(10, 200, 400), "b": rng.integers(1, 20, 3_000)}
    sizes = {name: len(each) for name, each in lengths.items()}
    mixture = Mixture({"a": 0.7, "b": 0.3})
    means = {name: float(each.mean()) for name, each in lengths.items()}
    longest = longest_epoch(sizes, mixture, means)
    schedule = MixtureSchedule(
        list(sizes.values()), mixture, 0, longest, lengths=list(lengths.values())
    )
    counts = schedule.counts(longest)
    assert abs(int(counts[0]) - 400) <= 12
    assert counts[1] < 3_000


class TestLengths:
    texts: list[dict[str, Any]] = [{"text": "w " * n, "n": n} for n in (3, 1, 8)]  # noqa: RUF012

    def part(self, rows: list[Any] | None = None) -> Candidate:
        return Candidate("a", self.texts if rows is None else rows, view="text")

    def test_words_of_the_view(self):
        assert token_lengths(self.part(), TokenOptions(), None).tolist() == [3, 1, 8]

    def test_input_ids_of_the_training_example(self):
        def tokenize(row: dict[str, Any]) -> dict[str, Any]:
            return {"input_ids": list(range(2 * row["n"]))}

        assert token_lengths(self.part(), TokenOptions(), tokenize).tolist() == [6, 2, 16]
        limited = token_lengths(self.part(), TokenOptions(max_length=5), tokenize)
        assert limited.tolist() == [5, 2, 5]

    def test_tensors_with_a_batch_dimension(self):
        def tokenize(row: dict[str, Any]) -> dict[str, Any]:
            return {"input_ids": np.zeros((1, row["n"]))}

        assert token_lengths(self.part(), TokenOptions(), tokenize).tolist() == [3, 1, 8]

    def test_a_function(self):
        options = TokenOptions(length=lambda row: row["n"] - 1)
        assert token_lengths(self.part(), options, None).tolist() == [2, 1, 7]

    def test_they_are_measured_once_per_content(self, cache: Path):
        rows = [{"text": "w " * (1 + i % 5), "n": i} for i in range(300)]
        calls: list[int] = []

        def length(row: dict[str, Any]) -> int:
            calls.append(row["n"])
            return len(row["text"].split())

        options = TokenOptions(length=length)
        first = token_lengths(self.part(rows), options, None)
        assert len(calls) == 300 + 64
        assert (token_lengths(self.part(rows), options, None) == first).all()
        assert len(calls) == 300 + 2 * 64
        rows[1]["n"] = -1  # not in the view, and not one of the 64
        token_lengths(self.part(rows), options, None)
        assert len(calls) == 2 * 300 + 3 * 64
        double = TokenOptions(length=lambda row: 2 * length(row))
        assert (token_lengths(self.part(rows), double, None) == 2 * first).all()
        (damaged, *_) = sorted((cache / "lengths").iterdir())
        assert len(list((cache / "lengths").iterdir())) == 3
        damaged.write_bytes(b"nothing")
        assert (token_lengths(self.part(rows), options, None) == first).all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (TokenOptions(length=lambda row: row["x"]), "example 0.*length fails: KeyError: 'x'"),
            (TokenOptions(length=lambda row: 1.5), "length returned 1.5: allowed is a whole"),
            (TokenOptions(length=lambda row: -1), "length returned -1"),
        ],
    )
    def test_a_function_that_fails(self, options: TokenOptions, message: str):
        with pytest.raises(DataError, match=message):
            token_lengths(self.part(), options, None)

    def test_some_examples_without_input_ids(self):
        def tokenize(row: dict[str, Any]) -> dict[str, Any]:
            return {"input_ids": [1]} if row["n"] < 8 else {}

        with pytest.raises(DataError, match=r"example 2.*it has no input_ids, which the first"):
            token_lengths(self.part(), TokenOptions(), tokenize)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weigh_by": "words"}, "weigh_by='words': allowed are 'examples' and 'tokens'"),
        ({"max_length": 5}, "length and max_length need weigh_by='tokens'"),
        ({"weigh_by": "tokens", "max_length": 0}, "max_length=0: allowed is a whole number from 1"),
        ({"weigh_by": "tokens", "length": 3}, "length=3: allowed is a function"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        SynqueDataModule({"a": ["x", "y"]}, **options)


def parts() -> list[Candidate]:
    def rows(name: str, n: int, most: int) -> list[dict[str, Any]]:
        rng = np.random.default_rng(n)
        return [
            {"text": "w " * int(rng.integers(1, most)), "x": i / n, "id": f"{name}-{i}"}
            for i in range(n)
        ]

    return [
        Candidate(name, rows(name, n, most), view="text")
        for name, n, most in (("a", 60, 100), ("b", 61, 10), ("c", 62, 20))
    ]


def data(**options: Any) -> SynqueDataModule:
    given: dict[str, Any] = {
        "candidates": parts(),
        "mixture": {"a": 0.5, "b": 0.5},
        "batch_size": 8,
        "epoch_length": 84,
        "weigh_by": "tokens",
        **options,
    }
    return SynqueDataModule(**given)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
class TestTraining:
    @pytest.mark.parametrize("step", [4, 5, 11, 20])
    def test_a_resumed_run_with_changes_is_bit_equal(self, tmp_path: Path, step: int):
        folder = tmp_path / "run"
        whole = fit(folder, data(num_workers=2), Change(), saving(folder, step), max_epochs=3)
        ckpt = checkpoint(folder, step)
        dm = data()
        model = fit(tmp_path, dm, Change(), max_epochs=3, ckpt_path=ckpt)
        assert model.batches == whole.batches[step:]
        assert same_weights(model, whole)
        assert dm.state_dict()["version"] == 2

    def test_the_default_epoch_counts_tokens(self):
        dm = data(epoch_length=None)
        schedule = dm.mixture_loader().dataset.schedule
        # half of the tokens are those of b, which has about a tenth of the tokens per example
        assert 61 <= schedule.epoch_length <= 80
        assert abs(int(schedule.counts(schedule.epoch_length)[1]) - 61) <= 3

    def test_other_options_than_those_of_the_checkpoint(self, tmp_path: Path):
        fit(tmp_path, data(), saving(tmp_path, 4))
        dm = data(weigh_by="examples")
        with pytest.raises(LightningError, match=r"weigh_by='tokens', and this one.*the defaults"):
            fit(tmp_path, dm, ckpt_path=checkpoint(tmp_path, 4), max_epochs=2)

    def test_two_processes(self, tmp_path: Path):
        ranks = launch(tmp_path, "ddp", tokens=1, curriculum=1)
        given, mixture = candidates(a=61, b=61, c=61), Mixture({"a": 0.7, "b": 0.3})
        lengths = {part.name: np.array([length_of(row) for row in part]) for part in given}
        scores = {part.name: np.array([float(number_of(row)) for row in part]) for part in given}
        epoch = len(MixtureDataset(given, mixture, lengths=lengths)) // 2 * 2
        assert epoch > 61
        ramp = NamedRamp(scores, epoch)
        dataset = MixtureDataset(given, mixture, epoch_length=epoch, lengths=lengths, ramp=ramp)
        assert interleaved(ranks) == [dataset[draw]["id"] for draw in range(3 * epoch)]  # type: ignore[index]

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_only_the_texts_that_may_be_drawn_are_measured(self, tmp_path: Path, order: str):
        measured: set[str] = set()

        def length(row: dict[str, Any]) -> int:
            measured.add(row["id"][0])
            return len(row["text"])

        class Select(pl.Callback):
            def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
                trainer.datamodule.set_mixture(Mixture({"b": 0.5, "c": 0.5}))  # type: ignore[attr-defined]

        reselection = ReselectionCallback(4, "odm", budget=1.0)
        callbacks = [reselection, Select()] if order == "before" else [Select(), reselection]
        dm = data(mixture=None, length=length)
        model = fit(tmp_path, dm, saving(tmp_path, 6), *callbacks, max_epochs=2)
        assert {name[0] for name in model.ids} == measured == {"b", "c"}
        assert len(dm.weight_changes) == 5
        measured.clear()
        other = data(mixture=None, length=length)
        again = ReselectionCallback(4, "odm", budget=1.0)
        model = fit(tmp_path, other, again, max_epochs=2, ckpt_path=checkpoint(tmp_path, 6))
        assert {name[0] for name in model.ids} == measured == {"b", "c"}
        assert other.weight_changes == dm.weight_changes

    def test_sampling_is_in_the_key_of_records(self):
        assert data(max_length=50).sampling == {"weigh_by": "tokens", "max_length": 50}
        assert data(weigh_by="examples").sampling == {}
