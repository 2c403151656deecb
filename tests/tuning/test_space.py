"""The space of mixtures: every mixture is a point of it, and uniform points are unbiased."""

from __future__ import annotations

import collections
import random

import numpy as np
import optuna
import pytest

from synque_select.errors import ConfigError
from synque_select.report.page import write_report
from synque_select.report.study_tables import study_table
from synque_select.selection.scorer import rank
from synque_select.tuning import MixtureSpace, starting_mixtures
from synque_select.tuning.search import search_mixtures
from synque_select.types import Mixture

NAMES = ("a", "b", "c", "d")


def point(space: MixtureSpace, generator: random.Random) -> dict[str, float]:
    shares = {f"mixture/share {name}": generator.random() for name in space.names}
    return {"mixture/k": generator.randint(*space.k_range), **shares}


@pytest.mark.parametrize("seed", range(20))
def test_every_mixture_is_a_point(seed):
    space, generator = MixtureSpace(NAMES, (1, 4)), random.Random(seed)
    mixture = space.mixture(point(space, generator))
    again = space.mixture(space.params(mixture))
    assert again.weights == pytest.approx(mixture.weights)


def test_uniform_points_choose_every_candidate_and_number_alike():
    space, generator = MixtureSpace(NAMES, (2, 2)), random.Random(0)
    drawn = [space.mixture(point(space, generator)) for _ in range(3000)]
    counts = collections.Counter(frozenset(mixture.names) for mixture in drawn)
    assert len(counts) == 6
    assert min(counts.values()) > 420  # 500 expected, standard deviation 20


def test_all_candidates_together_are_uniform_on_the_simplex():
    space, generator = MixtureSpace(NAMES, (4, 4)), random.Random(0)
    weights = [space.mixture(point(space, generator)).weights for _ in range(4000)]
    first = np.array([w.get("a", 0.0) for w in weights])
    # a flat Dirichlet of 4: mean 1/4, variance 3/80
    assert first.mean() == pytest.approx(0.25, abs=0.012)
    assert first.var() == pytest.approx(3 / 80, abs=0.004)


def test_those_that_wait_come_in_their_order():
    space = MixtureSpace(NAMES, (1, 4))
    params = space.params(Mixture({"c": 1.0}))
    waiting = [params[f"mixture/share {name}"] for name in ("a", "b", "d")]
    assert waiting == sorted(waiting, reverse=True)
    assert max(waiting) < params["mixture/share c"]
    assert space.mixture({**params, "mixture/k": 2}).names[:2] == ("c", "a")


def test_the_edges_of_the_space():
    space = MixtureSpace(NAMES, (1, 4))
    nothing = {f"mixture/share {name}": 0.0 for name in NAMES}
    assert space.mixture({"mixture/k": 2, **nothing}).weights == {"a": 0.5, "b": 0.5}
    everything = {f"mixture/share {name}": 1.0 for name in NAMES}
    assert space.mixture({"mixture/k": 4, **everything}).weights == dict.fromkeys(NAMES, 0.25)
    tiny = {**nothing, "mixture/share a": 0.9, "mixture/share b": 1e-6}
    assert space.mixture({"mixture/k": 2, **tiny}).weights == {"a": 1.0}


@pytest.mark.parametrize("k_range", [(0, 2), (3, 2), (1, 5)])
def test_numbers_that_are_not_there(k_range):
    with pytest.raises(ConfigError, match="the number of candidates"):
        MixtureSpace(NAMES, k_range)
    with pytest.raises(ConfigError, match="2 candidates"):
        MixtureSpace(NAMES, (3, 4)).params(Mixture.equal(["a", "b"]))


def texts(words: str) -> list[dict[str, str]]:
    return [{"text": f"{word} {other}"} for word in words.split() for other in words.split()]


def test_starts_come_from_the_ranking():
    real = texts("apps users names lists")
    # a third word keeps the first from being a copy of the real sample, which is never selected
    near = [{"text": f"{row['text']} made"} for row in real]
    pools = {"near": near, "half": texts("apps users zz qq"), "far": texts("vv ww kk jj")}
    ranking = rank(pools, real, proxies=["ngram"], top_k=2, progress=False)
    names = tuple(row.name for row in ranking.order())
    starts = starting_mixtures(ranking, MixtureSpace(names, (1, 3)), Mixture({"far": 1.0}))
    assert list(starts) == ["top 2", "all", "MMD-optimal", "top 1"]
    assert starts["top 2"].names == ("near", "half")
    fewer = starting_mixtures(ranking, MixtureSpace(names, (2, 2)), Mixture({"far": 1.0}))
    assert list(fewer) == ["top 2"]


def test_a_search_finds_the_candidate_that_is_worth_most():
    worth = {"a": 0.1, "b": 0.2, "c": 1.0, "d": 0.3}

    def value(mixture: Mixture) -> float:
        return sum(weight * worth[name] for name, weight in mixture.weights.items())

    space, start = MixtureSpace(NAMES, (1, 4)), {"all": Mixture.equal(NAMES)}
    study = search_mixtures(value, space, n_trials=30, mode="max", starts=start, seed=1)
    assert dict(study[0][0].weights) == dict.fromkeys(NAMES, 0.25)
    random_ones = search_mixtures(
        value, space, n_trials=30, mode="max", starts={}, sampler="random", seed=1
    )
    assert max(v for _, v in study) > 0.9
    assert len(random_ones) == len(study) == 30
    sampler = optuna.samplers.RandomSampler(seed=5)
    assert (
        len(search_mixtures(value, space, n_trials=3, mode="min", starts={}, sampler=sampler)) == 3
    )


STUDY = {
    "version": 1,
    "mixture": {"weights": {"a": 1.0}, "source": "tuned"},
    "value": 0.8,
    "hyper_parameters": {"lr": 0.1},
    "metric": "val_<acc>",
    "mode": "max",
    "study_name": "mine",
    "storage": "studies.sqlite",
    "budget": {
        "max_steps": 4, "n_trials": 3, "n_startup": 1, "n_reports": 2, "k_range": [1, 4],
        "sampler": "tpe", "pruner": "median", "seed": 0,
    },
    "trials": [
        {"number": i, "state": state, "role": role, "start": start, "value": value,
         "best_so_far": best, "weights": {"a": 0.25, "<b>": 0.75}, "hyper_parameters": {"lr": 0.1},
         "seconds": None, "retry_of": retry}
        for i, (state, role, start, value, best, retry) in enumerate([
            ("complete", "start", "top 3", 0.7, 0.7, None),
            ("complete", "random", "", 0.8, 0.8, 0),
            ("pruned", "adaptive", "", 0.6, 0.8, None),
            ("failed", "adaptive", "", None, 0.8, None),
        ])
    ],
    "messages": ["the best is optimistic"],
}  # fmt: skip


def test_the_table_of_a_study_says_where_each_trial_comes_from():
    table = study_table(STUDY)
    assert [row[2] for row in table.rows] == ["top 3", "random, again #0", "adaptive", "adaptive"]
    assert [row[3] for row in table.rows] == ["0.700", "0.800", "(0.600) pruned", "failed"]
    assert table.rows[0][1] == "<b>=0.75, a=0.25"
    assert "the best is optimistic" in table.notes
    assert (
        "4 trials of mixtures of 1 to 4 candidates: 1 suggested by the proxies, 1 drawn at random, "
        "2 chosen by the sampler (tpe); each a fit of 4 steps from the same weights, pruner "
        "median; seed 0"
    ) in table.notes


def test_a_study_says_nothing_of_trials_that_it_did_not_run():
    starts = [t for t in STUDY["trials"] if t["role"] == "start"]
    budget = {**STUDY["budget"], "n_startup": 5, "k_range": [3, 3]}
    notes = " ".join(study_table({**STUDY, "trials": starts, "budget": budget}).notes)
    assert "1 trial of mixtures of 3 candidates: 1 suggested by the proxies; each" in notes
    assert "random" not in notes


def test_a_long_mixture_is_wrapped_and_not_cut():
    weights = {f"gpt-4o_temperature=1.0_prompt=plain_seed={i}": 0.1 for i in range(10)}
    trials = [{**trial, "weights": weights} for trial in STUDY["trials"]]
    text = study_table({**STUDY, "trials": trials}).text(80)
    assert "..." not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(text.count(f"c{i}=0.10") >= len(trials) for i in range(1, 11))


def test_long_names_have_keys_in_the_table_of_a_study():
    names = {f"gpt-4o_temperature=1.0_prompt=plain_seed={i}": 0.25 for i in range(4)}
    trials = [{**trial, "weights": names} for trial in STUDY["trials"]]
    table = study_table({**STUDY, "trials": trials})
    assert table.rows[0][1] == "c1=0.25, c2=0.25, c3=0.25, c4=0.25"
    assert "c1=0.25, c2=0.25," in table.text(100)
    assert table.notes[:4] == tuple(f"c{i}: {name}" for i, name in enumerate(names, 1))


def test_a_study_without_fits_has_no_seconds():
    budget = {**STUDY["budget"], "max_steps": None}
    assert "seconds" in [column.name for column in study_table(STUDY).columns]
    table = study_table({**STUDY, "budget": budget})
    assert "seconds" not in [column.name for column in table.columns]
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_the_page_shows_a_study_apart(tmp_path):
    import json

    (tmp_path / "study.json").write_text(json.dumps(STUDY))
    page = write_report(tmp_path).read_text().replace("<wbr>", "")
    assert "Tuning: the trials of the search" in page
    assert "&lt;b&gt;=0.75" in page
    assert "<b>=0.75" not in page
    assert '<figure class="plot">' in page
