"""Label checks: random labels in a few candidates and in most of them, and class mixes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from synque_select.data.candidate import Candidate
from synque_select.selection.labels import check_labels, unpredicted
from synque_select.types import LabelCheck

NAMES = "abcdefgh"


def checked(
    wrong: Sequence[str], spread: Sequence[float], *, n: int = 300, swapped: Sequence[str] = ()
) -> dict[str, LabelCheck]:
    """Candidates of two classes that overlap more from one to the next; some half permuted."""
    candidates, embeddings = [], {}
    for number, (name, scale) in enumerate(zip(NAMES, spread, strict=True)):
        rng = np.random.default_rng(number)
        y = rng.integers(0, 2, n)
        x = rng.normal(scale=scale, size=(n, 6)) + y[:, None]
        if name in wrong:
            y[: n // 2] = rng.permutation(y[: n // 2])
        if name in swapped:
            y = 1 - y
        records = [(f"{name} {i}", int(label)) for i, label in enumerate(y)]
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


def test_exchanged_classes_are_contradicted_and_not_random():
    checks = checked("", [0.5] * 8, swapped="d")
    assert [name for name in NAMES if checks[name].outlier] == ["d"]
    assert "the other candidates contradict" in checks["d"].warnings[0]
    assert unpredicted([*checks.values()]) == {}
