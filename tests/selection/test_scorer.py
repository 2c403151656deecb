"""`Scorer`: one way to a ranking, on which data is loaded and the suite resolved once."""

from __future__ import annotations

import inspect
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import synque_select
from synque_select import BaseProxy, ProxyScores, rank
from synque_select.callbacks import SelectionCallback
from synque_select.cli.main import main
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.sources import load_candidates, load_real
from synque_select.errors import ConfigError, DataError, ProxyError
from synque_select.proxies.registry import resolve_suite
from synque_select.selection import MixtureOptions, Scorer
from synque_select.selection.mixture import with_mixture
from synque_select.selection.proxy_scores import within_memory
from tests.training.tiny import (
    LetterEncoder,
    TinyModel,
    candidates,
    data_module,
    real_sample,
    trainer,
)

WRAPPED = (load_candidates, load_real, resolve_suite)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count calls of the real functions, under every name that a module has imported them by."""
    counts: Counter[str] = Counter()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            counts[function.__name__] += 1
            return function(*args, **options)

        return call

    # what these import when they are first called must be there to be wrapped
    import synque_select.cli.rank
    import synque_select.training.datamodule  # noqa: F401

    for function in WRAPPED:
        wrapped = counted(function)
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "synque_select":
                for attribute, value in list(vars(module).items()):
                    if value is function:
                        monkeypatch.setattr(module, attribute, wrapped)
    return counts


ONCE = {"load_candidates": 1, "load_real": 1, "resolve_suite": 1}


def test_rank_loads_and_resolves_once(tmp_path: Path, calls: Counter[str]):
    sets = {c.name: c.dataset for c in candidates(12)}
    ranking = rank(
        sets, real_sample(10).dataset, view="text", encoder=LetterEncoder(), proxies=["mmd", "pad"],
        mixture="mmd_optimal", cache_dir=tmp_path, progress=False,
    )  # fmt: skip
    assert ranking.own_mixture is not None
    assert calls == ONCE


def test_the_command_loads_and_resolves_once(
    tmp_path: Path, calls: Counter[str], capsys: pytest.CaptureFixture[str]
):
    for name, examples in {**{c.name: c for c in candidates(12)}, "real": real_sample(20)}.items():
        folder = tmp_path if name == "real" else tmp_path / "candidates"
        folder.mkdir(exist_ok=True)
        records = [examples[i] for i in range(len(examples))]
        (folder / f"{name}.json").write_text(json.dumps(records))
    arguments = ["--candidates", str(tmp_path / "candidates"), "--real", f"{tmp_path}/real.json"]
    options = ["--view", "text", "--proxies", "ngram", "--sample-size-analysis"]
    where = ["--cache-dir", str(tmp_path), "--json", str(tmp_path / "run")]
    assert main(["rank", *arguments, *options, *where]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "extrapolated" in out
    assert calls == ONCE


class AfterSetup(pl.Callback):
    """Keeps the counts as they are when the SelectionCallback before it has been set up."""

    def __init__(self, calls: Counter[str]) -> None:
        self.calls, self.counts = calls, Counter[str]()

    def setup(self, *_: Any, stage: str) -> None:
        self.counts = Counter(self.calls)


@pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
)
def test_the_callback_loads_and_resolves_once(tmp_path: Path, calls: Counter[str]):
    sets = {c.name: c.dataset for c in candidates(12)}
    callback = SelectionCallback(
        ["mmd", "ngram"], top_k=2, encoder=LetterEncoder(), cache_dir=tmp_path / "cache"
    )
    after = AfterSetup(calls)
    data = data_module(candidates=sets, real=real_sample(10).dataset, view="text", label="label")
    trainer(tmp_path, callback, after, max_steps=1).fit(TinyModel(), datamodule=data)
    assert callback.ranking is not None
    assert after.counts == ONCE


def test_what_a_scorer_cannot_use_is_refused_when_it_is_made():
    for options, message in (
        ({"top_k": 0}, "top_k=0: allowed is a whole number from 1"),
        ({"seed": -1}, "seed=-1"),
        ({"n_resamples": 10}, "n_resamples=10: allowed is a whole number from 100"),
        ({"mixture": "optimal"}, "mixture='optimal'"),
    ):
        with pytest.raises(ConfigError, match=message):
            Scorer(**options)


def texts(name: str, n: int = 3) -> Candidate:
    return Candidate(name, [f"{name} {i}" for i in range(n)])


def test_what_cannot_be_ranked_is_refused_before_anything_is_scored():
    real = RealSample("real", ["a", "b", "c"])
    scorer = Scorer(["ngram"], top_k=1)
    with pytest.raises(ConfigError, match="1 candidate: ranking takes at least 2"):
        scorer.prepare([texts("a")], real)
    with pytest.raises(ConfigError, match=r"names must differ, found more than once: \['a'\]"):
        scorer.prepare([texts("a"), texts("a")], real)
    with pytest.raises(ConfigError, match="rank_by='pad'"):
        replace(scorer, rank_by="pad").prepare([texts("a"), texts("b")], real)


def test_modalities_must_agree():
    import torch

    image = RealSample("real", [torch.rand(3, 8, 8) for _ in range(3)])
    with pytest.raises(DataError, match="all must be of one modality"):
        Scorer(["ngram"], top_k=1).prepare([texts("a"), texts("b")], image)


def test_every_way_gives_the_same_ranking(tmp_path: Path):
    options: dict[str, Any] = {
        "proxies": ["mmd", "ngram"], "top_k": 2, "cache_dir": tmp_path, "progress": False,
    }  # fmt: skip
    pool, real = candidates(12), real_sample(20)
    scorer = Scorer(**options, encoder=LetterEncoder())
    by_function = rank(pool, real, encoder=LetterEncoder(), **options)
    kept = scorer.cached_ranking(pool, real)
    selected, folder = scorer.cached_selection(pool, real)
    for ranking in (scorer.rank(pool, real), kept, scorer.cached_ranking(pool, real), selected):
        assert ranking.candidates == by_function.candidates
    assert {path.name for path in folder.iterdir()} == {
        "gaps.json", "labels.json", "real_size.json",
    }  # fmt: skip


def test_models_of_the_caller_are_closed_unless_they_are_to_be_kept(tmp_path: Path):
    for keep_models in (False, True):
        encoder = LetterEncoder()
        scorer = Scorer(
            ["mmd"], encoder=encoder, cache_dir=tmp_path, progress=False, keep_models=keep_models
        )
        scorer.score(candidates(12), real_sample(10))
        assert (encoder.n_closed == 0) == keep_models


def test_the_user_is_told_which_scores_came_from_the_cache(tmp_path: Path):
    told: list[str] = []
    scorer = Scorer(
        ["mmd", "ngram"], encoder=LetterEncoder(), cache_dir=tmp_path, progress=False,
        notify=told.append,
    )  # fmt: skip
    scorer.score(candidates(12), real_sample(10))
    assert told == []
    scorer.score(candidates(12), real_sample(10))
    assert told == ["scores of 2 of 2 proxies are taken from the cache: mmd, ngram"]


def test_the_scorer_of_a_ranking_scores_the_same(tmp_path: Path):
    pool, real = candidates(12), real_sample(10)
    proxies = [{"key": "ngram", "max_n": 2}] if _takes("ngram", "max_n") else ["ngram"]
    ranking = rank(pool, real, proxies=proxies, top_k=1, seed=3, progress=False, cache_dir=tmp_path)
    again = Scorer.like(ranking, cache_dir=tmp_path).rank(pool, real)
    assert (again.candidates, again.seed, again.top_k) == (ranking.candidates, 3, 1)


def _takes(key: str, option: str) -> bool:
    (proxy,) = resolve_suite([key], "text")
    return option in proxy.options()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "optimal"}, "mixture='optimal': did you mean 'mmd_optimal'?"),
        ({"temperature": 2.0}, "temperature=2.0 is given with mixture='equal'"),
        ({"kind": "proportional", "temperature": 0.0}, "temperature=0.0: allowed is a number"),
        ({"kind": "proportional", "temperature": float("nan")}, "temperature=nan: allowed"),
    ],
)
def test_options_of_a_mixture_are_checked(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        MixtureOptions(**options)


def test_a_temperature_belongs_to_the_options_of_the_mixture(tmp_path: Path):
    pool, real = candidates(12), real_sample(10)
    given: dict[str, Any] = {"proxies": ["ngram"], "progress": False, "cache_dir": tmp_path}
    sharp, flat = (
        rank(pool, real, mixture=MixtureOptions("proportional", temperature=t), **given).top()
        for t in (0.1, 10.0)
    )
    assert sharp.weights["near"] > 0.9 > 0.5 > flat.weights["near"]
    ranking = rank(pool, real, **given)
    assert with_mixture(ranking, MixtureOptions("proportional", temperature=0.1)).top() == sharp


def test_no_public_function_takes_more_than_12_arguments():
    for name in synque_select.__all__:
        value = getattr(synque_select, name)
        if inspect.isfunction(value):
            assert len(inspect.signature(value).parameters) <= 12, name


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0, 2.0], "returns_anything: score returned list; expected ProxyScores"),
        (ProxyScores(torch.zeros(3)), r"values must be a tensor of shape \(2,\).*found \(3,\)"),
    ],
)
def test_a_proxy_that_returns_something_else_is_named(tmp_path: Path, returned, message: str):
    class ReturnsAnything(BaseProxy):
        key, family, unit, source = "returns_anything", "lexical", "none", "this test"
        higher_is_better, needs_embeddings = False, False

        def score(self, real, candidates, *, seed, device):
            return returned

    pair = [Candidate(name, ["a text", "a word"]) for name in "ab"]
    with pytest.raises(ProxyError, match=message):
        rank(
            pair,
            RealSample("real", ["a text", "b"]),
            proxies=[ReturnsAnything()],
            cache_dir=tmp_path,
        )


def test_a_proxy_goes_on_with_the_cpu_when_the_memory_of_a_device_runs_out(caplog):
    tried = []

    def compute(device: torch.device) -> int:
        tried.append(device.type)
        if device.type == "cuda":
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
        return 7

    assert within_memory("mmd", compute, torch.device("cuda")) == 7
    assert tried == ["cuda", "cpu"]
    assert "mmd: out of memory while scoring on cuda" in caplog.text
    with pytest.raises(ValueError, match="another"):
        within_memory("mmd", lambda _: int("another"), torch.device("cuda"))


def test_a_proxy_that_does_not_fit_into_memory_is_named(tmp_path: Path):
    class Large(BaseProxy):
        key, family, unit, source = "large", "lexical", "none", "this test"
        higher_is_better, needs_embeddings = False, False

        def score(self, real, candidates, *, seed, device):
            raise MemoryError("Unable to allocate 7.45 GiB")

    pair = [Candidate(name, ["a text", "a word"]) for name in "ab"]
    real = RealSample("real", ["a text", "b"])
    with pytest.raises(
        ProxyError, match=r"large: out of memory while scoring \(MemoryError: Unable"
    ):
        rank(pair, real, proxies=[Large()], device="cpu", cache_dir=tmp_path)


def test_every_way_checks_the_labels(tmp_path: Path):
    """Two classes exchanged in one candidate: each way to a ranking says to check it first."""
    pool = []
    for k in range(5):
        records = [
            {"text": f"{word} {word} {i % 7} {k}", "label": word}
            for i in range(40)
            for word in ("apple", "zebra")
        ]
        if k == 0:
            other = {"apple": "zebra", "zebra": "apple"}
            records = [{**record, "label": other[record["label"]]} for record in records]
        pool.append(Candidate(f"c{k}", records, "text", "label"))
    real = RealSample("real", [f"{['apple', 'zebra'][i % 2]} {i}" for i in range(30)])
    scorer = Scorer(["mmd"], encoder=LetterEncoder(), cache_dir=tmp_path, progress=False)
    by_function = rank(
        pool, real, proxies=["mmd"], encoder=LetterEncoder(), cache_dir=tmp_path, progress=False
    )
    ways = (by_function, scorer.rank(pool, real), scorer.cached_ranking(pool, real),
            scorer.cached_selection(pool, real)[0])  # fmt: skip
    for ranking in ways:
        assert ranking.decision is not None
        assert ranking.decision.opening == "labels"
        assert "Check the labels of c0 first" in ranking.decision.sentence
        assert "c0" not in ranking.top().names


def ways(pool: list[Candidate], tmp_path: Path, **options: Any) -> list[synque_select.Ranking]:
    """Rank by every way that Python has; the callback uses the last one."""
    real = RealSample("real", [f"{['apple', 'zebra'][i % 2]} {i}" for i in range(30)])
    options = {**options, "encoder": LetterEncoder(), "cache_dir": tmp_path, "progress": False}
    scorer = Scorer(**options)
    return [
        rank(pool, real, **options),
        scorer.rank(pool, real),
        scorer.cached_ranking(pool, real),
        scorer.cached_ranking(pool, real),
        scorer.cached_selection(pool, real)[0],
    ]


def labeled(label: Callable[[int], object]) -> list[Candidate]:
    return [
        Candidate(
            f"c{k}",
            [{"text": f"{('apple', 'zebra')[i % 2]} {i} {k}", "label": label(i)} for i in range(k)],
            "text",
            "label",
        )
        for k in range(110, 114)
    ]


@pytest.mark.parametrize(
    ("label", "proxies", "message"),
    [
        (lambda i: i % 2, ["ngram"], "the label checks need a proxy that uses embeddings"),
        (lambda i: i + 0.5, ["mmd"], "the labels are numbers, and the label checks need classes."),
        (lambda i: i + 0.5, None, "; they take numbers as well if they are named (proxies=, or "),
        (lambda i: f"text {i}", None, "transfer and agreement are left out for the same reason."),
        (lambda i: None, ["mmd"], "all labels are missing (null, NaN or blank)"),
    ],
)
def test_every_way_says_why_labels_were_not_checked(tmp_path: Path, label, proxies, message):
    for ranking in ways(labeled(label), tmp_path, proxies=proxies):
        assert ranking.messages[0].startswith("The labels were not checked: ")
        assert message in " ".join(ranking.messages[:2])
        assert "transfer" not in ranking.proxies


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: replace_label(c), "no label is given (label=, or --label)"),
        (lambda c: with_labels(c, lambda i: None), "all labels are missing (null, NaN or blank)"),
        (
            lambda c: with_labels(c, lambda i: f"text {i}"),
            "110 different labels, and the label checks need classes, at most 100",
        ),
    ],
)
def test_one_candidate_without_classes_does_not_stop_the_label_checks(
    tmp_path: Path, change: Callable[[Candidate], Candidate], reason: str
):
    first, *others = labeled(lambda i: i % 2)
    for ranking in ways([change(first), *others], tmp_path):
        text = " ".join(ranking.messages)
        assert "The labels of 3 of 4 candidates were checked: no candidate's labels stand" in text
        assert f"The labels of c110 were not checked: {reason}." in text
        assert "transfer and agreement are left out: they need labels of all candidates." in text
        assert "transfer" not in ranking.proxies


def test_nothing_is_said_of_labels_that_are_checked_or_not_given(tmp_path: Path):
    given = labeled(lambda i: i % 2)
    for pool in (given, [replace_label(candidate) for candidate in given]):
        for ranking in ways(pool, tmp_path, proxies=["mmd"]):
            assert "not checked" not in " ".join(ranking.messages)


def with_labels(candidate: Candidate, label: Callable[[int], object]) -> Candidate:
    records = [{"text": row["text"], "label": label(i)} for i, row in enumerate(candidate)]
    return Candidate(candidate.name, records, "text", "label")


def replace_label(candidate: Candidate) -> Candidate:
    return Candidate(candidate.name, candidate.dataset, "text")
