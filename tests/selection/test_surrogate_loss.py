"""Losses by the other families' heads, against scikit-learn and on cases with a known answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from synque_select.data.candidate import Candidate
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError
from synque_select.functional.surrogate_loss import LARGEST_LOSS, surrogate_loss
from synque_select.functional.transfer import Heads
from synque_select.selection.surrogate_loss import surrogate_example_losses


class Numbers(BaseEncoder):
    """The numbers that a text consists of."""

    id, modality = "numbers", "text"

    def encode(self, views: Sequence[Any]) -> torch.Tensor:
        return torch.tensor([[float(part) for part in view.split()] for view in views])


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))


def points(n: int, seed: int, classes: str = "abc") -> list[dict[str, Any]]:
    """Noisy points around one center per class."""
    rng = np.random.default_rng(seed)
    centers = {"a": (0.0, 0.0, 1.0), "b": (1.0, 0.0, 0.0), "c": (0.0, 1.0, 0.0)}
    rows = []
    for i in range(n):
        label = classes[i % len(classes)]
        x = np.array(centers[label]) + 0.7 * rng.normal(size=3)
        rows.append({"text": " ".join(f"{value:.4f}" for value in x), "label": label})
    return rows


def candidates(
    rows: Mapping[str, list[dict[str, Any]]], families: Mapping[str, str] | None = None
) -> list[Candidate]:
    return [
        Candidate(name, part, view="text", label="label", family=(families or {}).get(name))
        for name, part in rows.items()
    ]


def losses_of(parts: Sequence[Candidate], **options: Any) -> dict[str, np.ndarray]:
    return surrogate_example_losses(parts, encoder=Numbers(), progress=False, **options)


def chances(train: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, float]:
    """One-vs-rest logistic regressions with equal class weights, by scikit-learn."""
    x = Numbers().encode([each["text"] for each in train]).numpy()
    labels = [each["label"] for each in train]
    counts = {label: labels.count(label) for label in labels}
    weights = [len(labels) / len(counts) / counts[label] for label in labels]
    seen = {}
    for label in counts:
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
        model.fit(x, [each == label for each in labels], sample_weight=weights)
        place = Numbers().encode([row["text"]]).numpy()
        seen[label] = float(model.predict_proba(place)[0, 1])
    return {label: value / sum(seen.values()) for label, value in seen.items()}


def test_the_losses_are_those_of_scikit_learn():
    rows = {
        "one": points(30, 1),
        "two": points(30, 2),
        "three": points(30, 3, "ab"),
        "four": points(30, 4),
    }
    families = {"one": "f", "two": "f"}
    losses = losses_of(candidates(rows, families))
    for name, others in {
        # the mean over families: one and two are one family, three does not know c
        "one": (("three",), ("four",)),
        "two": (("three",), ("four",)),
        "three": (("one", "two"), ("four",)),
        "four": (("one", "two"), ("three",)),
    }.items():
        for position in (0, 1, 2, 7, 11, 29):
            row = rows[name][position]
            means = []
            for family in others:
                known = [chances(rows[other], row).get(row["label"]) for other in family]
                if None not in known:
                    means.append(np.mean(known))
            assert losses[name][position] == pytest.approx(-math.log(np.mean(means)), abs=2e-3)


def test_an_example_far_on_the_wrong_side_is_hard():
    rows = {name: points(60, seed, "ab") for seed, name in enumerate(("one", "two", "three"))}
    rows["one"][0] = {"text": "-3.0 0.0 4.0", "label": "b"}
    rows["one"][1] = {"text": "4.0 0.0 -3.0", "label": "b"}
    losses = losses_of(candidates(rows))["one"]
    assert losses.argmax() == 0
    assert losses.argmin() == 1


def test_a_class_that_no_other_family_knows_has_the_largest_loss():
    rows = {"one": points(30, 1, "abc"), "two": points(30, 2, "ab"), "three": points(30, 3, "ab")}
    losses = losses_of(candidates(rows))["one"]
    is_c = np.array([row["label"] == "c" for row in rows["one"]])
    assert (losses[is_c] == LARGEST_LOSS).all()
    assert (losses[~is_c] < LARGEST_LOSS).all()


def test_a_head_of_one_class_does_not_judge():
    """It would give its class probability 1 everywhere."""
    rows = {"one": points(30, 1, "ab"), "two": points(30, 2, "ab"), "three": points(30, 3, "a")}
    without = losses_of(candidates({name: rows[name] for name in ("one", "two")}))
    assert losses_of(candidates(rows))["one"] == pytest.approx(without["one"], rel=1e-3)


def test_a_missing_label_has_the_median():
    rows = {name: points(31, seed, "ab") for seed, name in enumerate(("one", "two"))}
    rows["one"][4] = {**rows["one"][4], "label": None}
    losses = losses_of(candidates(rows))["one"]
    assert losses[4] == np.median(np.delete(losses, 4))


def test_copies_do_not_judge_each_other():
    """Their heads have seen the labels."""
    rows = {"one": points(30, 1, "ab"), "two": points(30, 2, "ab")}
    alone = losses_of(candidates(rows))
    again = losses_of(candidates({**rows, "copy": rows["one"][::-1]}))
    assert again["one"] == pytest.approx(alone["one"], rel=1e-3)
    assert again["copy"][::-1] == pytest.approx(again["one"], rel=1e-3)


def test_larger_candidates_have_several_heads_and_one_vote():
    rows = {"one": points(30, 1, "ab"), "two": points(90, 2, "ab"), "three": points(30, 3, "ab")}
    parts = candidates(rows)
    first, again = losses_of(parts, seed=3), losses_of(parts, seed=3)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(losses_of(parts, seed=4)["one"], first["one"])


def test_probabilities_below_the_least_are_tied():
    """Saturated heads: finite losses, from 0 to the largest."""
    sure = torch.tensor([[[-100.0, 0.0], [100.0, 0.0]]])
    heads = Heads(sure, torch.ones(1, 2, dtype=torch.bool), torch.tensor([0]))
    x = torch.tensor([[1.0], [2.0], [1.0]])
    losses = surrogate_loss(heads, x, np.array([0, 0, 1]), families=np.array([0]), own=1)
    assert losses.tolist() == [LARGEST_LOSS, LARGEST_LOSS, 0.0]
    assert pytest.approx(13.8155, abs=1e-4) == LARGEST_LOSS


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            {"one": points(9, 1), "two": points(9, 2)},
            {"label": None},
            "a surrogate loss reads the candidates' labels: give label=.*Without it: one, two",
        ),
        (
            {
                name: [{**row, "label": i / 7} for i, row in enumerate(points(9, 1))]
                for name in "de"
            },
            {},
            "needs labels that are classes, one per example and at most 100 of them; found numbers",
        ),
        (
            {"one": points(9, 1), "two": [{**row, "label": None} for row in points(9, 2)]},
            {},
            "missing .null, NaN or blank. in all but 0 of 9 examples, and a surrogate loss needs",
        ),
        (
            {"one": points(9, 1), "two": points(9, 2)},
            {"family": "f"},
            "a surrogate loss: all candidates are of the family 'f'",
        ),
        ({"one": points(9, 1)}, {}, "a surrogate loss: all candidates are of the family 'one'"),
    ],
)
def test_candidates_that_are_refused(
    rows: dict[str, list[dict[str, Any]]], options: dict[str, Any], message: str
):
    settings = {"view": "text", "label": "label", **options}
    parts = [Candidate(name, part, **settings) for name, part in rows.items()]
    with pytest.raises(ConfigError, match=message):
        losses_of(parts)
