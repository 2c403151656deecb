"""Label checks: random labels in a few candidates and in most of them, and class mixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError
from synque_select.selection.held_out import _folds
from synque_select.selection.labels import (
    _random,
    _Votes,
    check_classes,
    check_labels,
    unpredicted,
)
from synque_select.types import LabelCheck, LabelChecks
from synque_select.utils.json_fields import JsonFields

NAMES = "abcdefgh"


def checked(
    wrong: Sequence[str],
    spread: Sequence[float],
    *,
    n: int = 300,
    swapped: Sequence[str] = (),
    share: float = 0.5,
    rare: Mapping[str, int] | None = None,
    unlike: Mapping[str, Sequence[object]] | None = None,
) -> dict[str, LabelCheck]:
    """Candidates of two classes that overlap more from one to the next; some half permuted."""
    candidates, embeddings = [], {}
    for number, (name, scale) in enumerate(zip(NAMES, spread, strict=True)):
        rng = np.random.default_rng(number)
        y = rng.integers(0, 2, n)
        x = rng.normal(scale=scale, size=(n, 6)) + y[:, None]
        if name in wrong:
            y[: int(share * n)] = rng.permutation(y[: int(share * n)])
        if name in swapped:
            y = 1 - y
        labels: list[object] = [int(label) for label in y]
        n_rare = (rare or {}).get(name, 0)
        labels[:n_rare] = ["other"] * n_rare
        labels = [*(unlike or {}).get(name, labels)]
        records = [(f"{name} {i}", label) for i, label in enumerate(labels)]
        candidates.append(Candidate(name, records, view=0, label=1))
        embeddings[name] = torch.from_numpy(x).float()
    real = torch.from_numpy(np.random.default_rng(9).normal(size=(60, 6)) + 0.5).float()
    return {check.name: check for check in check_labels(candidates, embeddings, real)}


@pytest.mark.parametrize("wrong", ["", "c", "cg", "aceg", "abdfh"])
def test_half_permuted_labels_are_found_however_many_candidates_have_them(wrong: str):
    """Compared with the median candidate, none stands out where most have them."""
    checks = checked(wrong, [0.5] * 8)
    assert [name for name in NAMES if checks[name].outlier] == [*wrong]
    for name in wrong:
        assert any("labels may be wrong" in text for text in checks[name].warnings)
    assert not any(checks[name].warnings for name in NAMES if name not in wrong)


def test_hard_inputs_are_not_wrong_labels_and_permuted_ones_are_found_among_them():
    spread = [0.3, 0.3, 0.3, 0.9, 0.9, 0.9, 0.9, 0.9]
    clean = checked("", spread)
    assert clean["a"].agreement > 0.95
    assert clean["h"].agreement < 0.93
    assert not any(check.outlier for check in clean.values())
    # its labels follow from its inputs as often as those of candidates whose labels are right
    one = checked("b", spread)
    assert one["b"].agreement > 0.65
    assert [name for name in NAMES if one[name].outlier] == ["b"]


def test_the_warning_says_what_was_compared():
    checks = checked("abdfh", [0.5] * 8)
    share = 100 * checks["b"].agreement
    (text,) = checks["b"].warnings
    assert text.startswith(
        f"b: labels may be wrong: held out, {share:.0f} % of them follow from the inputs, and "
    )
    assert text.endswith(" % of what the other candidates' classifiers call them.")
    assert unpredicted([*checks.values()])["b"] == checks["b"].agreement


@pytest.mark.parametrize("spread", [[0.5] * 8, [0.3, 0.5, 0.9, 1.3, 1.6, 0.3, 0.9, 1.6]])
def test_labels_that_say_nothing_are_an_outlier(spread: list[float]):
    """The ratio of two agreements near 0 is unknown, and where inputs are hard none stands out."""
    checks = checked("f", spread, share=1.0)
    assert checks["f"].outlier
    assert any("labels hardly follow from the inputs" in text for text in checks["f"].warnings)
    hard = checked(NAMES, spread, share=1.0)
    assert not all(check.outlier for check in hard.values())


def test_the_labels_to_read_first_are_the_wrong_ones():
    checks = checked("c", [0.2] * 8)
    doubtful = checks["c"].doubtful
    assert len(doubtful) == 8
    # half of the first 150 labels were exchanged by chance, and none of the others
    assert all(each.position < 150 for each in doubtful)
    for each in doubtful:
        assert each.view == f"c {each.position}"
        assert {each.label, each.others} == {"0", "1"} == {each.label, each.held_out}
        assert each.votes is not None
        assert each.votes > 0.5
    votes = [each.votes for each in doubtful]
    assert votes == sorted(votes, reverse=True)
    assert not any(check.doubtful for name, check in checks.items() if name != "c")
    assert LabelCheck.from_fields(JsonFields(checks["c"].to_dict())) == checks["c"]


def test_exchanged_classes_are_contradicted_and_not_random():
    checks = checked("", [0.5] * 8, swapped="d")
    assert [name for name in NAMES if checks[name].outlier] == ["d"]
    assert "the other candidates contradict" in checks["d"].warnings[0]
    assert unpredicted([*checks.values()]) == {}


@pytest.mark.parametrize("n_rare", [1, 4])
@pytest.mark.parametrize("wrong", ["c", "aceg"])
def test_a_rare_class_does_not_switch_the_check_off(wrong: str, n_rare: int):
    """One class that is too rare for five folds, in the wrong candidates or in all of them."""
    plain = checked(wrong, [0.5] * 8)
    for names in (wrong, NAMES):
        checks = checked(wrong, [0.5] * 8, rare=dict.fromkeys(names, n_rare))
        assert [name for name in NAMES if checks[name].outlier] == [*wrong]
        for name in NAMES:
            assert checks[name].agreement == pytest.approx(plain[name].agreement, abs=0.05)
            assert checks[name].rare == ({"other": n_rare} if name in names else {})
            assert checks[name].n == 300 - sum(checks[name].rare.values())
            assert ("other" in checks[name].mix) == (name in names)
        assert not any("no other candidate" in text for c in checks.values() for text in c.warnings)


def test_what_is_left_out_is_one_line():
    checks = LabelChecks(tuple(checked("", [0.5] * 8, rare=dict.fromkeys("abc", 2)).values()))
    first, second = checks.messages
    assert first.startswith("The labels of 8 candidates were checked: no candidate's labels stand")
    assert second == (
        "The label checks leave out 6 examples of classes that are too rare: a ('other': 2), "
        "b ('other': 2), c ('other': 2)."
    )
    assert LabelChecks.from_dict(checks.to_dict()).messages == checks.messages


def test_classes_of_five_examples_are_checked():
    checks = checked("c", [0.5] * 8, rare={"c": 5})
    assert checks["c"].rare == {}
    assert checks["c"].n == 300
    assert checks["c"].outlier


def test_small_classes_get_fewer_folds_before_they_are_left_out():
    y = np.repeat(np.arange(10), 3)
    x = torch.eye(10)[torch.from_numpy(y)]
    records = [(f"t {i}", int(label)) for i, label in enumerate(y)]
    (check,) = check_labels([Candidate("a", records, 0, 1)], {"a": x}, x)
    assert check.rare == {}
    assert check.agreement == 1


def test_a_candidate_without_predictions_is_not_called_checked():
    """Of 300 examples all but one have one class: nothing can be predicted."""
    labels = [*["up"] * 299, "down"]
    checks = LabelChecks(tuple(checked("", [0.5] * 8, unlike={"b": labels}).values()))
    assert np.isnan(checks.checks[1].agreement)
    text = " ".join(checks.messages)
    assert "The labels of 8 candidates" not in text
    assert (
        "The labels of b were not checked: too few examples of each class to train on some and "
        "predict the others."
    ) in text
    assert LabelChecks.from_dict(checks.to_dict()).messages == checks.messages


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([None] * 300, "all labels are missing (null, NaN or blank)"),
        (
            [i % 102 for i in range(300)],
            "102 different labels, and the label checks need classes, at most 100",
        ),
        ([[i % 2] for i in range(300)], "they are lists, and the label checks need classes"),
        ([i % 3 / 2 for i in range(300)], "they are numbers, and the label checks need classes"),
    ],
)
def test_one_candidate_that_cannot_be_checked_does_not_stop_the_others(
    labels: list[object], reason: str
):
    plain = checked("cg", [0.5] * 8)
    checks = checked("cg", [0.5] * 8, unlike={"b": labels})
    assert [*checks] == [*NAMES]
    assert [name for name in NAMES if checks[name].outlier] == ["c", "g"]
    assert checks["b"].n == 0
    assert checks["a"].agreement == plain["a"].agreement
    kept = LabelChecks(tuple(checks.values()))
    assert f"The labels of b were not checked: {reason}." in kept.messages
    assert LabelChecks.from_dict(kept.to_dict()).messages == kept.messages
    clean = LabelChecks(tuple(checked("", [0.5] * 8, unlike={"b": labels}).values()))
    assert clean.messages[0].startswith("The labels of 7 of 8 candidates were checked: no cand")


def mixed(n_up: int, n: int, seed: int, *, spread: float = 0.3) -> tuple[np.ndarray, torch.Tensor]:
    """Classes, the first n_up of n are 1, and points around their centers."""
    y = (np.arange(n) < n_up).astype(int)
    x = np.random.default_rng(seed).normal(scale=spread, size=(n, 4)) + y[:, None]
    return y, torch.from_numpy(x).float()


def check_of_mix(n_up: int, real: torch.Tensor, *, spread: float = 0.3) -> LabelCheck:
    y, x = mixed(n_up, 300, 1, spread=spread)
    candidate = Candidate("a", [("x", int(label)) for label in y], view=0, label=1)
    (check,) = check_labels([candidate], {"a": x}, real)
    return check


def test_another_class_mix_is_told_and_not_as_wrong_labels():
    check = check_of_mix(30, mixed(45, 60, 2)[1])
    assert check.mix == {"0": 0.9, "1": 0.1}
    assert check.mix_distance == pytest.approx(0.65, abs=0.02)
    assert check.warnings == ()
    assert check.is_mix_far
    # the shares of a few examples differ by as much by chance
    assert check_of_mix(30, mixed(19, 19, 2)[1]).mix_distance is None
    assert LabelCheck.from_fields(JsonFields(check.to_dict())) == check
    # an older version wrote the distance only where it is far
    old = {k: v for k, v in check.to_dict().items() if k != "mix_far"}
    assert LabelCheck.from_fields(JsonFields(old)).is_mix_far


def test_a_class_mix_that_differs_by_chance_is_not_told():
    """Of 60 real examples, 34 % more of a class may be 25 % more of all."""
    check = check_of_mix(90, mixed(38, 60, 2)[1])
    assert check.mix_distance is not None
    assert check.mix_distance > 0.3
    assert not check.is_mix_far
    assert "class mix" not in " ".join(LabelChecks((check,)).messages)
    assert check_of_mix(90, mixed(54, 60, 2)[1]).mix_distance == pytest.approx(0.6, abs=0.02)


def test_what_the_classifier_prefers_is_not_another_class_mix():
    """Balanced classes move the predictions of a hard task towards the rare class everywhere."""
    check = check_of_mix(30, mixed(6, 60, 2, spread=2.5)[1], spread=2.5)
    assert check.real_mix["1"] > 0.35
    assert not check.is_mix_far


def test_class_mixes_are_one_line_however_many_differ():
    rows = [
        replace(
            LabelCheck(f"c{i}", 60, 0.9, 0.9, {"0": 1.0}, {"1": 1.0}),
            mix_distance=0.5 + i / 100,
            is_mix_far=True,
        )
        for i in range(25)
    ]
    checked, mix = LabelChecks((*rows, LabelCheck("d", 60, 0.9, 0.9, {}, {}))).messages
    assert "no candidate's labels stand out" in checked
    assert mix == (
        "The class mix of 25 of 26 candidates differs from what their classifiers predict for the "
        "real sample, which says nothing against their labels (total variation: c24 0.74, "
        "c23 0.73, c22 0.72 and 22 more, which are in labels.json (--json))."
    )


def test_several_labels_per_example_are_not_classes():
    records = [{"text": "x", "label": ["a", "b"]}, {"text": "y", "label": ["b"]}]
    candidate = Candidate("a", records, view="text", label="label")
    with pytest.raises(ConfigError, match="the labels are lists, and the label checks"):
        check_classes([candidate])


def test_labels_that_follow_from_their_inputs_are_not_random_whatever_others_say():
    """Of three candidates, the others' classifiers know little; of the fourth, nearly all."""
    rng = np.random.default_rng(0)
    parts, own, votes = {}, {}, {}
    for name, share in {"a": 0.6, "b": 0.6, "c": 0.65, "best": 0.96}.items():
        y = np.array(["no", "yes"])[rng.integers(0, 2, 400)]
        other = np.where(y == "no", "yes", "no")
        parts[name], own[name] = (np.zeros((400, 1), np.float32), y), y
        votes[name] = _Votes(
            np.where(rng.random(400) < share, y, other), np.ones(400), np.ones(400, bool)
        )
    assert _random(parts, own, votes) == {}
    y = parts["best"][1]
    own["best"] = np.where(rng.random(400) < 0.55, y, np.where(y == "no", "yes", "no"))
    votes["best"] = _Votes(own["best"], np.ones(400), np.ones(400, bool))
    assert _random(parts, own, votes) == {"best": 1.0}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_noisy", [False, True])
def test_a_candidate_on_another_topic_is_not_accused_for_what_others_do_not_know(
    seed: int, is_noisy: bool
):
    """Its classes lie along a direction of its own that the others' heads see in part."""
    rng = np.random.default_rng(seed)
    candidates, embeddings = [], {}
    for name in "abcde":
        y = rng.integers(0, 2, 150)
        x = rng.normal(scale=0.5, size=(150, 6))
        if name == "e":
            x[:, 5] += 5
            x[:, 1] += 2 * y
            x[:, 0] += 0.4 * y + 0.8
        else:
            x[:, 0] += 2 * y
        if name == "e" and is_noisy:
            y[:75] = rng.permutation(y[:75])
        records = [(f"{name} {i}", int(label)) for i, label in enumerate(y)]
        candidates.append(Candidate(name, records, view=0, label=1))
        embeddings[name] = torch.from_numpy(x).float()
    real = torch.from_numpy(rng.normal(scale=0.5, size=(60, 6))).float()
    checks = {check.name: check for check in check_labels(candidates, embeddings, real)}
    assert checks["e"].contradicted > 0.2
    assert [name for name, check in checks.items() if check.outlier] == ["e"] * is_noisy


def test_classes_that_no_other_candidate_has_are_not_compared_with_easier_ones():
    own = np.array(["neg", "pos"])[np.random.default_rng(7).integers(0, 2, 300)].tolist()
    checks = checked("", [0.2] * 7 + [1.0], unlike={"h": own})
    assert 0.7 < checks["h"].agreement < 0.9 < checks["a"].agreement
    assert not any(check.outlier for check in checks.values())
    assert [name for name, c in checked("", [0.2] * 7 + [1.0]).items() if c.outlier] == ["h"]


@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_the_folds_are_those_of_scikit_learn(n_folds: int):
    rng = np.random.default_rng(n_folds)
    for n_classes in (1, 2, 7):
        place = np.concatenate(
            [np.repeat(np.arange(n_classes), 5), rng.integers(n_classes, size=60)]
        )
        place = rng.permutation(place)
        splits = StratifiedKFold(n_folds, shuffle=True, random_state=3).split(place, place)
        folds = _folds(place, n_folds, seed=3)
        for fold, (_, held_out) in enumerate(splits):
            assert np.flatnonzero(folds == fold).tolist() == held_out.tolist()
    assert not _folds(place, 1, seed=3).any()
