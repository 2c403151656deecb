"""Proxies that let candidates judge each other's labels."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.transfer_error import D, part, points
from synque_select.data.label_sets import NO_LABEL
from synque_select.data.sources import load_candidates, load_real
from synque_select.errors import ConfigError, ProxyError
from synque_select.proxies import ProxyInput, ProxyScores, get_proxy
from synque_select.proxies.base import Contributions
from synque_select.selection.scorer import Scorer
from synque_select.selection.uncertainty import cluster_means, influences, separation

CPU = torch.device("cpu")
TASKS = os.environ.get("SYNQUE_TASKS_DATA")


def real(n: int = 40, seed: int = 100) -> ProxyInput:
    return part("real", points(n, seed)[0])


def candidates(k: int = 6, n: int = 90) -> list[ProxyInput]:
    return [part(f"c{i}", *points(n + 10 * i, i, 0.1 * i)) for i in range(k)]


def shuffled(candidate: ProxyInput, share: float, seed: int = 0) -> ProxyInput:
    """A twin of which a share of the labels is permuted."""
    generator = np.random.default_rng(seed)
    labels = np.array(candidate.labels)
    chosen = generator.choice(len(labels), int(share * len(labels)), replace=False)
    labels[chosen] = labels[generator.permutation(chosen)]
    return dataclasses.replace(candidate, name=f"{candidate.name}_twin", labels=labels.tolist())


def score(key: str, parts: Sequence[ProxyInput], sample: ProxyInput | None = None) -> ProxyScores:
    return get_proxy(key).score(sample or real(), parts, seed=0, device=CPU)


def again(candidate: ProxyInput, kept: int, family: str | None = None) -> ProxyInput:
    """The candidate under another name and in another order, with some examples replaced."""
    n = len(candidate)
    order = np.random.default_rng(5).permutation(n)[:kept]
    labels, rows = candidate.labels, candidate.embeddings
    assert labels is not None
    assert rows is not None
    fresh, classes = points(n - kept, 77)
    rows = torch.cat((rows[torch.from_numpy(order)], torch.from_numpy(fresh.astype(np.float32))))
    new = part("again", fresh).digests.reshape(-1, 32)
    return dataclasses.replace(
        candidate,
        name="again",
        family=family,
        digests=np.concatenate((candidate.digests[order], new)),
        embeddings=rows,
        labels=[*(labels[i] for i in order), *map(str, classes)],
    )


@pytest.mark.parametrize("kept", [90, 60])
@pytest.mark.parametrize("key", ["transfer", "agreement", "baseline_transfer"])
def test_a_copy_under_another_name_does_not_raise_the_score(key: str, kept: int) -> None:
    # a head knows the wrong labels that it was trained on: as a judge of its copy, it would find
    # them right, and its transfer would rise by 0.05 to 0.09
    parts = [part(f"c{i}", *points(90, i)) for i in range(6)]
    parts = [shuffled(each, 0.4, seed=k) for k, each in enumerate(parts)]
    alone = score(key, parts).values
    for k, each in enumerate(parts):
        scores = score(key, [*parts, again(each, kept)]).values
        assert scores[k] < alone[k] + 0.005, (k, scores[k], alone[k])


def test_copies_join_the_families_that_they_are_listed_in() -> None:
    parts = [
        dataclasses.replace(p, family="one" if i < 2 else None) for i, p in enumerate(candidates())
    ]
    scores = score("transfer", [*parts, again(parts[0], 90, family="two")])
    assert isinstance(scores.resample, Contributions)
    assert scores.resample.judges is not None
    # "one" with its 2 members and the copy, and 4 families of one
    assert len(scores.resample.judges) == 5
    with pytest.raises(ProxyError, match="all candidates are copies or near copies of each other"):
        score("transfer", [parts[0], again(parts[0], 60, family="two")])


def test_every_clean_candidate_is_better_than_its_twin_with_shuffled_labels() -> None:
    parts = candidates()
    for share in (0.5, 1.0):
        for k, clean in enumerate(parts):
            values = score("transfer", [*parts, shuffled(clean, share)]).values
            assert values[k] > values[-1], (share, clean.name)


def test_accuracy_counts_where_the_real_sample_is() -> None:
    # "near" is right where the real sample is and wrong elsewhere, "far" the other way round
    generator = np.random.default_rng(0)
    rows = [generator.normal(size=(300, D)) for _ in range(5)]
    truth = [(x[:, 1] > 0).astype(int) for x in rows]
    at_real = [x[:, 0] > 0 for x in rows]
    labels = {
        "near": np.where(at_real[0], truth[0], 1 - truth[0]),
        "far": np.where(at_real[1], 1 - truth[1], truth[1]),
    } | {f"right{i}": truth[i] for i in (2, 3, 4)}
    # heads are linear: what decides must be linear in each half
    rows = [np.c_[x, x[:, 1] * (x[:, 0] > 0), x[:, 1] * (x[:, 0] < 0)] for x in rows]
    parts = [part(name, x, y) for x, (name, y) in zip(rows, labels.items(), strict=True)]
    sample = generator.normal(size=(60, D))
    sample[:, 0] = np.abs(sample[:, 0]) + 0.5
    sample = np.c_[sample, sample[:, 1], np.zeros(60)]
    values = score("transfer", parts, part("real", sample)).values
    plain = score("baseline_transfer", parts).values
    assert values[0] - values[1] > 0.15
    assert abs(plain[0] - plain[1]) < 0.1


def test_candidates_of_one_family_do_not_judge_each_other() -> None:
    parts = candidates(5)
    # two of five swap two classes: without families each has the other's support
    swapped = {"0": "1", "1": "0", "2": "2"}
    for k in (3, 4):
        parts[k] = dataclasses.replace(parts[k], labels=[swapped[x] for x in parts[k].labels or ()])
    alone = score("transfer", parts).values
    parts = [
        dataclasses.replace(p, family="swap" if i > 2 else p.name) for i, p in enumerate(parts)
    ]
    together = score("transfer", parts).values
    assert (together[3:] < alone[3:]).all()
    assert (together[:3] > together[3:].max()).all()


def test_agreement_is_that_of_the_heads_and_comes_with_a_plain_interval() -> None:
    parts = candidates()
    scores = score("agreement", [*parts, shuffled(parts[0], 1.0)])
    assert scores.values[0] > 0.8
    assert scores.values[-1] < 0.6
    assert scores.resample is None
    value, low, high = scores.details["plain"]["c0_twin"]
    assert low < value < high


def test_several_labels_per_example() -> None:
    parts = []
    for i in range(4):
        rows = np.random.default_rng(i).normal(size=(150, 6))
        lists = [[n for n, x in zip("abc", row[:3], strict=True) if x > 0] for row in rows]
        parts.append(part(f"c{i}", rows, [json.dumps(names) for names in lists]))
    sample = part("real", np.random.default_rng(9).normal(size=(40, 6)))
    for key in ("transfer", "agreement"):
        scores = score(key, [*parts, shuffled(parts[0], 1.0)], sample)
        assert scores.details["labels"] == "lists"
        assert scores.details["n_classes"] == 3
        assert scores.values[0] > 0.8
        assert scores.values[-1] < scores.values[:4].min() - 0.15


def test_numbers_are_scored_by_r2() -> None:
    parts = []
    for i in range(4):
        rows = np.random.default_rng(i).normal(size=(150, 6))
        parts.append(part(f"c{i}", rows, (rows[:, 0] - 2 * rows[:, 1]).tolist()))
    sample = part("real", np.random.default_rng(9).normal(size=(40, 6)))
    for key in ("transfer", "agreement"):
        scores = score(key, [*parts, shuffled(parts[0], 1.0)], sample)
        assert scores.details["labels"] == "numbers"
        # the twin with shuffled labels is one of the four judges
        assert scores.values[0] > 0.5
        assert scores.values[-1] < 0.2


def test_a_class_that_a_candidate_lacks_costs_and_is_said() -> None:
    parts = candidates(4)
    kept = np.flatnonzero(np.array(parts[1].labels) != "2")
    parts[1] = dataclasses.replace(
        parts[1],
        views=[""] * len(kept),
        digests=parts[1].digests[kept],
        embeddings=parts[1].embeddings[torch.from_numpy(kept)],
        labels=[parts[1].labels[i] for i in kept],
    )
    scores = score("transfer", parts)
    assert scores.details["missing_classes"] == {"c0": 0, "c1": 1, "c2": 0, "c3": 0}
    assert scores.values[1] < 0.7
    assert any("c1 (1), whose heads get 0" in message for message in scores.messages)


@pytest.mark.parametrize("key", ["transfer", "agreement"])
def test_a_missing_label_is_not_a_class(key: str) -> None:
    parts = candidates(4)
    fewer = [dataclasses.replace(p, labels=[*(p.labels or ())]) for p in parts]
    for each in fewer[1:]:  # one label fewer each, and the common size is that of the first
        each.labels[0] = NO_LABEL  # type: ignore[index]
    scores = score(key, fewer)
    assert scores.details["n_classes"] == 3
    assert not any(NO_LABEL in message for message in scores.messages)
    assert torch.allclose(scores.values, score(key, parts).values, atol=0.06)
    bare = dataclasses.replace(parts[0], labels=["0"] + [NO_LABEL] * 89)
    with pytest.raises(ProxyError, match=r"c0 has a label for 1 example of 90; at least 2"):
        score(key, [bare, *parts[1:]])


def test_a_class_of_one_family_alone_does_not_count() -> None:
    parts = candidates(4)
    labels = ["other" if i % 10 == 0 else x for i, x in enumerate(parts[0].labels or ())]
    parts[0] = dataclasses.replace(parts[0], labels=labels)
    scores = score("transfer", parts)
    assert scores.details["n_classes"] == 3
    assert any("fewer than two families have do not count: other" in m for m in scores.messages)


@pytest.mark.parametrize("key", ["transfer", "agreement", "baseline_transfer"])
def test_what_cannot_judge_is_refused(key: str) -> None:
    parts = candidates(3)
    with pytest.raises(ProxyError, match=f"{key} reads the candidates' labels.*c0.*give label="):
        score(key, [dataclasses.replace(parts[0], labels=None), *parts[1:]])
    texts = [dataclasses.replace(p, labels=[f"{p.name} {i}" for i in range(len(p))]) for p in parts]
    with pytest.raises(ProxyError, match=r"labels are texts .*allowed are classes"):
        score(key, texts)
    with pytest.raises(ProxyError, match="of the family 'one'"):
        score(key, [dataclasses.replace(p, family="one") for p in parts])


@pytest.mark.slow
def test_intervals_cover_the_mean_over_real_samples() -> None:
    parts, size, runs = candidates(), 40, 150
    scores = [score("transfer", parts, real(size, 1000 + run)) for run in range(runs)]
    values = torch.stack([part.values for part in scores])
    each = torch.stack([part.resample.each for part in scores])  # type: ignore[union-attr]
    target = values.mean(0)
    error = each.std(1) / size**0.5
    covered = ((values - target).abs() <= 2.02 * error).double().mean(0)
    # 150 runs: a coverage of 0.95 has a standard error of 0.018
    assert covered.min() > 0.88
    difference = (each[..., :1] - each[..., 1:]).std(1) / size**0.5
    apart = (values[:, :1] - values[:, 1:]) - (target[:1] - target[1:])
    assert (apart.abs() <= 2.02 * difference).double().mean() > 0.88


@pytest.mark.slow
def test_intervals_cover_where_real_examples_come_in_groups() -> None:
    # 10 groups of 3 that are nearly alike: 0.95, and 0.91 with each example left out on its own
    parts, runs, groups = candidates(), 120, np.repeat(np.arange(10), 3)
    values, errors = [], []
    for run in range(runs):
        shared, alone = points(10, 3000 + run)[0][groups], points(30, 6000 + run)[0]
        sample = part("real", 0.9 * shared + 0.1 * alone)
        scores = score("transfer", parts, dataclasses.replace(sample, groups=groups))
        assert isinstance(scores.resample, Contributions)
        means = cluster_means(scores.resample.each, groups)
        values.append(scores.values)
        errors.append(means.std(0) / 10**0.5)
    value = torch.stack(values)
    covered = (value - value.mean(0)).abs() <= 2.26 * torch.stack(errors)
    assert covered.double().mean() > 0.93, covered.double().mean(0)


def test_a_judge_moves_the_scores_as_leaving_it_out_does() -> None:
    # 6 judges: without one of them, the weighted shares of right predictions are those of the rest
    parts = [*candidates(5, 120), shuffled(part("bad", *points(120, 50)), 1.0)]
    scores = score("transfer", parts)
    resample = scores.resample
    assert isinstance(resample, Contributions)
    moved = resample.judges
    assert moved is not None
    assert moved.shape == (6, 6)
    # a row per family, sorted by name
    names = [each.name for each in parts]
    moved = moved[[sorted(names).index(name) for name in names]]
    torch.testing.assert_close(moved.mean(0), torch.zeros(6, dtype=torch.float64))
    # nobody judges itself
    assert (moved.diagonal() == 0).all()
    # the shuffled twin contradicts everybody: without it, all others score better
    without = score("transfer", parts[:5]).values - scores.values[:5]
    first_order = -moved[-1, :5] / 6
    assert (without > 0.1).all()
    # leaving one of five judges out is not a small change: a fifth of the linear part is missing
    assert torch.allclose(first_order, without, rtol=0.3)


def test_real_examples_move_the_scores_as_leaving_them_out_does() -> None:
    parts, sample = candidates(4), real(30)
    resample = score("transfer", parts, sample).resample
    assert isinstance(resample, Contributions)
    differences = resample.each[:, :1] - resample.each[:, 1:]
    whole = score("transfer", parts, sample).values
    exact = []
    for i in range(30):
        kept = [j for j in range(30) if j != i]
        fewer = dataclasses.replace(
            sample,
            views=[""] * 29,
            digests=sample.digests[kept],
            embeddings=None if sample.embeddings is None else sample.embeddings[kept],
        )
        values = score("transfer", parts, fewer).values
        # the jackknife's pseudo-values
        exact.append(30 * whole - 29 * values)
    jackknife = torch.stack(exact)
    jackknife = jackknife[:, :1] - jackknife[:, 1:]
    # not example by example: without one example the others are divided into other folds
    ratio = differences.std(0) / jackknife.std(0)
    assert ((ratio > 0.3) & (ratio < 1.2)).all(), ratio


def test_what_other_judges_would_turn_around_is_no_difference() -> None:
    # all of one generator: the heads differ by their samples only, and most differences are below
    # a point; over the real sample alone, most pairs were "distinguished"
    parts = [part(f"c{i}", *points(100, i)) for i in range(8)]
    scores = score("transfer", parts)
    both = influences(scores, 40, higher_is_better=True)
    alone = dataclasses.replace(both, judges=None)
    n_both, n_alone = (int(separation([each]).better.sum()) for each in (both, alone))
    assert n_both <= 2 < n_alone
    worse = [*parts, shuffled(parts[0], 0.5)]
    better = separation([influences(score("transfer", worse), 40, higher_is_better=True)]).better
    assert better[:8, 8].all()


class TestThroughTheScorer:
    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        generator = np.random.default_rng(0)
        words = {"good": ["fine great love", "nice best"], "bad": ["poor awful hate", "worst sad"]}
        for name in ("gpt_a", "gpt_b", "llama_a"):
            rows = [
                {"text": f"{generator.choice(words[y])} {generator.integers(999)}", "label": y}
                for y in ("good", "bad") * 20
            ]
            lines = "\n".join(map(json.dumps, rows))
            (tmp_path / f"{name}.jsonl").write_text(lines)
        return tmp_path

    def rank(self, files: Path, **options: object):
        loaded = load_candidates(
            str(files / "*.jsonl"),
            view="text",
            label=options.pop("label", "label"),
            family=options.pop("family", None),
        )
        sample = load_real([f"a {w} film {i}" for i in range(15) for w in ("great", "awful")])
        return Scorer(progress=False, cache_dir=files / "cache", **options).rank(loaded, sample)

    def test_labels_that_are_classes_add_two_columns(self, files: Path) -> None:
        ranking = self.rank(files)
        assert list(ranking.proxies)[-2:] == ["transfer", "agreement"]
        assert not any(ranking.proxies[key].in_consensus for key in ("transfer", "agreement"))
        assert ranking.rank_by == "transfer"
        assert "transfer" not in self.rank(files, label=None).proxies

    def test_without_labels_they_are_refused_before_anything_is_scored(self, files: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"transfer reads the candidates' labels: give label="
        ):
            self.rank(files, label=None, proxies=["pad", "transfer"])

    def test_kept_scores_belong_to_these_labels_and_families(self, files: Path) -> None:
        def transfer(**options: object) -> list[float]:
            ranking = self.rank(files, proxies=["transfer"], **options)
            return [row.scores["transfer"].value for row in ranking.candidates]

        first = transfer()
        assert transfer() == first
        assert transfer(family="^[^_]+") != first
        file = files / "gpt_a.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        labels = [row["label"] for row in rows]
        for row, label in zip(rows, labels[1:] + labels[:1], strict=True):
            row["label"] = label
        file.write_text("\n".join(map(json.dumps, rows)))
        assert transfer() != first


@pytest.mark.slow
@pytest.mark.skipif(TASKS is None, reason="SYNQUE_TASKS_DATA is not set")
def test_clean_candidates_of_the_tasks_are_better_than_their_twins() -> None:
    better = []
    for task in ("ag_news", "atis", "imdb"):
        folder = Path(TASKS or "", task)
        loaded = load_candidates(str(folder / "candidates"), view="text", label="label")
        sample = load_real(str(folder / "real_sample_seed0.jsonl"), view="text")
        scoring = Scorer(["transfer"], progress=False).score(loaded, sample)
        for k, clean in enumerate(scoring.candidates):
            parts = [*scoring.candidates, shuffled(clean, 0.5)]
            values = score("transfer", parts, scoring.real).values
            better.append(float(values[k] > values[-1]))
    assert len(better) == 64
    assert np.mean(better) >= 0.95
