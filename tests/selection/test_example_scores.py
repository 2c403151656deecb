"""Gaps, label checks, filtering and MMD-optimal mixtures on embeddings whose truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError, ProxyError
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.domain import PAD
from synque_select.selection.example_scores import with_example_scores
from synque_select.selection.gaps import gap_map
from synque_select.selection.labels import check_labels, unpredicted
from synque_select.selection.mixture import (
    MixtureOptions,
    mmd_optimal_mixture,
    score_proportional_mixture,
)
from synque_select.selection.ranking import ranking_from
from synque_select.selection.scoring import Scoring
from synque_select.types import LabelCheck, LabelChecks, LabelWarning


def points(seed: int, n: int, centre: list[float]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, len(centre), generator=generator) * 0.3 + torch.tensor(centre)


def side(name: str, embeddings: torch.Tensor) -> ProxyInput:
    n = len(embeddings)
    digests = np.random.default_rng(len(name) + n).integers(0, 255, (n, 32), dtype=np.uint8)
    return ProxyInput(name, [f"{name} {i}" for i in range(n)], "text", digests, embeddings)


def scoring(real: torch.Tensor, candidates: dict[str, torch.Tensor]) -> Scoring:
    sides = tuple(side(name, e) for name, e in candidates.items())
    proxy = PAD()
    scores = proxy.score(side("real", real), sides, seed=0, device=torch.device("cpu"))
    return Scoring(
        side("real", real), sides, (proxy,), {"pad": scores}, {"pad": 0.0}, "r",
        tuple(candidates), None, 0, 0, (), {},
    )  # fmt: skip


TWO_MODES = torch.cat([points(0, 40, [0, 0, 0]), points(1, 20, [4, 0, 0])])


class TestMixture:
    candidates = {  # noqa: RUF012
        "left": points(2, 200, [0, 0, 0]),
        "right": points(3, 200, [4, 0, 0]),
        "far": points(4, 200, [0, 9, 9]),
    }

    def test_weights_follow_the_modes_of_the_real_sample(self):
        mixture = mmd_optimal_mixture(scoring(TWO_MODES, self.candidates))
        assert mixture.weights["left"] == pytest.approx(2 / 3, abs=0.06)
        assert mixture.weights["right"] == pytest.approx(1 / 3, abs=0.06)
        assert mixture.weights.get("far", 0) < 0.02

    def test_size_does_not_decide(self):
        small = {**self.candidates, "left": self.candidates["left"][:50]}
        before = mmd_optimal_mixture(scoring(TWO_MODES, self.candidates)).weights["left"]
        after = mmd_optimal_mixture(scoring(TWO_MODES, small)).weights["left"]
        assert after == pytest.approx(before, abs=0.05)

    def test_best_subset_leaves_out_the_far_one(self):
        mixture = mmd_optimal_mixture(scoring(TWO_MODES, self.candidates), top_k=2)
        assert set(mixture.names) == {"left", "right"}
        assert "best 2 by enumeration" in mixture.source

    def test_repeat_cap_holds(self):
        mixture = mmd_optimal_mixture(scoring(TWO_MODES, self.candidates), budget=2000)
        assert max(mixture.weights.values()) <= 4 * 200 / 2000 + 1e-9

    def test_budget_too_large(self):
        with pytest.raises(ConfigError, match="at most 2400 draws, because the 600 examples"):
            mmd_optimal_mixture(scoring(TWO_MODES, self.candidates), budget=5000)

    def test_a_ranking_says_where_every_mixture_repeats_more(self):
        rankings = [
            ranking_from(
                scoring(TWO_MODES, self.candidates),
                mixture=MixtureOptions("mmd_optimal", budget=budget),
            )
            for budget in (1500, 5000, None)  # of 400 examples: "far" is not selected
        ]
        assert max(rankings[0].top().weights.values()) <= 4 * 200 / 1500 + 1e-9
        assert rankings[1].top() == rankings[2].top()
        warnings = [
            [m for m in ranking.messages if "no cap on repeats" in m] for ranking in rankings
        ]
        assert [len(messages) for messages in warnings] == [0, 1, 0]
        assert "at most 1600 draws, because the 400 examples" in warnings[1][0]

    def test_equal_real_examples_leave_no_bandwidth(self):
        with pytest.raises(ProxyError, match="no kernel bandwidth"):
            mmd_optimal_mixture(scoring(torch.zeros(6, 3), self.candidates))

    def test_proportional_runs_from_the_best_to_equal(self):
        ranking = ranking_from(scoring(TWO_MODES, self.candidates), top_k=3)
        sharp = score_proportional_mixture(ranking, temperature=0.05).weights
        flat = score_proportional_mixture(ranking, temperature=1e6).weights
        assert max(sharp, key=sharp.get) == next(iter(ranking)).name
        assert max(sharp.values()) > 0.9
        assert all(w == pytest.approx(1 / 3, abs=1e-4) for w in flat.values())


class TestGaps:
    def test_the_mode_without_data_is_the_gap(self):
        gaps = gap_map(
            scoring(
                TWO_MODES, {"left": points(2, 300, [0, 0, 0]), "near": points(5, 100, [0.2, 0, 0])}
            )
        )
        assert [gap.real for gap in gaps[:20]] != sorted(range(20))
        assert {gap.real for gap in gaps[:20]} == set(range(40, 60))
        assert not any(gap.covered for gap in gaps[:20])
        assert sum(gap.covered for gap in gaps[20:]) >= 38

    def test_nearest_is_the_nearest(self):
        candidates = {"a": points(2, 30, [0, 0, 0]), "b": points(3, 30, [4, 0, 0])}
        for gap in gap_map(scoring(TWO_MODES, candidates)):
            every = {n: (e - TWO_MODES[gap.real]).norm(dim=1).min() for n, e in candidates.items()}
            assert gap.candidate == min(every, key=every.get)
            assert gap.distance == pytest.approx(float(min(every.values())), rel=1e-5)

    def test_without_embeddings(self):
        whole = scoring(TWO_MODES, {"a": TWO_MODES, "b": TWO_MODES})
        with pytest.raises(ProxyError, match="needs embeddings"):
            gap_map(
                dataclasses.replace(whole, real=dataclasses.replace(whole.real, embeddings=None))
            )


class TestFilter:
    def test_the_examples_that_look_real_stay(self):
        mixed = torch.cat([points(2, 80, [0, 0, 0]), points(4, 20, [0, 9, 9])])
        scored = scoring(TWO_MODES, {"mixed": mixed, "other": points(3, 100, [4, 0, 0])})
        candidates = [Candidate(c.name, list(c.views)) for c in scored.candidates]
        kept = with_example_scores(candidates, scored)[0].filter(keep=0.8, by="pad")
        assert len(kept) == 80
        assert set(kept.views) == {f"mixed {i}" for i in range(80)}

    def test_bad_arguments(self):
        candidate = Candidate("a", ["x", "y"], example_scores={"pad": np.array([0.1, 0.2])})
        with pytest.raises(ConfigError, match="share above 0"):
            candidate.filter(keep=0, by="pad")
        with pytest.raises(ConfigError, match="did you mean 'pad'"):
            candidate.filter(keep=0.5, by="padd")
        with pytest.raises(DataError, match="at least 2"):
            candidate.filter(keep=0.5, by="pad")


class TestWeighted:
    @pytest.mark.parametrize("seed", range(20))
    def test_every_example_comes_as_often_as_its_weight_says(self, seed: int):
        weights = np.random.default_rng(seed).random(50)
        served = Candidate("a", [str(i) for i in range(50)]).weighted(weights, seed=seed)
        assert len(served) == 50
        counts = np.bincount([int(v) for v in served.views], minlength=50)
        ideal = 50 * weights / weights.sum()
        assert ((counts >= np.floor(ideal)) & (counts <= np.ceil(ideal))).all()

    def test_weight_zero_never_comes(self):
        served = Candidate("a", ["x", "y", "z"]).weighted([0, 1, 0])
        assert list(served.views) == ["y", "y", "y"]

    @pytest.mark.parametrize("weights", [[1, 2], [1, 2, -1], [1, 2, np.nan], [0, 0, 0]])
    def test_bad_weights(self, weights: list[float]):
        with pytest.raises(ConfigError, match="weights"):
            Candidate("a", ["x", "y", "z"]).weighted(weights)


class TestLabels:
    def checks(self, flipped: float):
        generator = np.random.default_rng(0)
        candidates, embeddings = [], {}
        for number in range(4):
            labels = generator.integers(0, 2, 300)
            x = points(number, 300, [0, 0]) + torch.from_numpy(labels * 3.0).float()[:, None]
            if number == 3:
                flip = generator.random(300) < flipped
                labels = np.where(flip, 1 - labels, labels)
            name = f"c{number}"
            # with equal inputs they would be one family, and not judge each other
            examples = [(f"{name} {i}", int(v)) for i, v in enumerate(labels)]
            candidates.append(Candidate(name, examples, view=0, label=1))
            embeddings[name] = x
        real = torch.cat([points(9, 30, [0, 0]), points(8, 30, [3, 3])])
        return {check.name: check for check in check_labels(candidates, embeddings, real)}

    def test_clean_labels_give_no_warning(self):
        for check in self.checks(flipped=0).values():
            assert check.warnings == ()
            assert check.agreement > 0.95

    def test_false_labels_are_warned_of(self):
        checks = self.checks(flipped=0.4)
        assert "labels may be wrong" in " ".join(checks["c3"].warnings)
        assert not any(checks[name].warnings for name in ("c0", "c1", "c2"))

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (["1"] * 300, "odd: all labels are '1': nothing to check."),
            (
                ["yes", "no"] * 150,
                "odd: no other candidate has the same classes, so its labels were not compared "
                "with others.",
            ),
        ],
    )
    def test_what_cannot_be_checked_is_said(self, labels: list[str], message: str):
        x = torch.cat([points(i, 150, [3.0 * i, 3.0 * i]) for i in (0, 1)])
        classes = [0] * 150 + [1] * 150
        candidates = [
            Candidate(name, [("x", v) for v in values], view=0, label=1)
            for name, values in (("a", classes), ("b", classes), ("odd", labels))
        ]
        checks = check_labels(candidates, dict.fromkeys(("a", "b", "odd"), x), x[:40])
        assert message in " ".join(LabelChecks(tuple(checks)).messages)

    def test_a_candidate_without_labels(self):
        with pytest.raises(ConfigError, match="a: no label is given"):
            check_labels([Candidate("a", ["x", "y"])], {"a": torch.zeros(2, 2)}, torch.zeros(2, 2))

    def test_missing_labels_are_not_a_class(self):
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        labels = ["up" if row[0] > 0 else "down" for row in x]
        labels[:20] = [""] * 20
        records = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
        candidate = Candidate("a", records, view="text", label="label")
        (check,) = check_labels([candidate], {"a": x}, x[:30])
        assert check.n == 40
        assert set(check.mix) == set(check.real_mix) == {"up", "down"}
        bare = Candidate(
            "b", [{"text": t, "label": None} for t in "xy"], view="text", label="label"
        )
        with pytest.raises(ConfigError, match="b: all labels are missing"):
            check_labels([bare], {"b": x[:2]}, x[:30])

    def test_what_stands_out_is_told_apart(self):
        def check(name: str, contradicted: float, agreement: float) -> LabelCheck:
            outlier = contradicted > 0.3 or agreement < 0.7
            reasons = (LabelWarning("contradicted", (contradicted, 0.1)),) * (contradicted > 0.3)
            return LabelCheck(
                name, 50, agreement, 0.9, {}, {},
                contradicted=contradicted, outlier=outlier, reasons=reasons,
            )  # fmt: skip

        checks = [check("a", 0.1, 0.9), check("b", 0.12, 0.88), check("c", 0.09, 0.91)]
        assert unpredicted(checks) == {}
        checks += [check("own", 0.15, 0.55), check("both", 0.6, 0.5), check("others", 0.5, 0.9)]
        assert unpredicted([*checks, check("d", 0.11, 0.9)]) == {"own": 0.55}
