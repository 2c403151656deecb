"""LENS from judgments: by hand, in undefined cases, by its properties, and its intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from synque_select.benchmark.judgments import find_judgments, lens_scores, read_judgments
from synque_select.errors import ConfigError, DataError
from synque_select.functional.lens import (
    LABELS,
    label_value,
    lens_balanced,
    lens_debiased,
    lens_example_scores,
    lens_raw,
    lens_resampled,
    subsample_weights,
)


def judgments(n: int, seed: int, tilt: float = 0.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    probabilities = np.array([0.1, 0.15, 0.2, 0.3, 0.25]) + tilt * np.array([-2, -1, 0, 1, 2])
    return torch.from_numpy(rng.choice(5, size=(n, 2, 2), p=probabilities).astype(float))


def test_debiased_by_hand():
    real = torch.tensor([[[4.0, 2.0], [3.0, 1.0]], [[2.0, 2.0], [1.0, 3.0]]])
    synthetic = torch.tensor([[[3.0, 4.0], [2.0, 2.0]]])
    # means: place A (3, 2), place B (2, 2)
    place_a = (3 / 3) / (3 / 3 + 4 / 2)
    assert lens_debiased(real, synthetic) == pytest.approx((place_a + 0.5) / 2, abs=1e-12)


def test_released_protocol_as_a_plain_loop():
    real, synthetic = judgments(30, 0), judgments(50, 1)
    ours, theirs = [], []
    for part, other, column, flip in (
        (synthetic, real, ours, False),
        (real, synthetic, theirs, True),
    ):
        means = other.mean(0)
        for sample in part:
            per_place = []
            for place in range(2):
                mean = [float(m) or (1.0 if flip else 1e-6) for m in means[place]]
                h = [float(sample[place, y]) / mean[y] for y in range(2)]
                per_place.append((h[1] if flip else h[0]) / (sum(h) + 1e-6))
            column.append(np.mean(per_place))
    assert lens_debiased(real, synthetic, protocol="released") == pytest.approx(np.mean(ours))
    balanced = np.mean(ours + theirs)
    assert lens_balanced(real, synthetic, protocol="released") == pytest.approx(balanced)


def test_zero_judgments_count_a_half_and_in_the_released_protocol_zero():
    nothing = torch.zeros(3, 2, 2)
    some = judgments(10, 3)
    assert lens_raw(nothing) == 0.5
    assert lens_raw(nothing, protocol="released") == 0.0
    assert lens_debiased(some, nothing) == 0.5
    assert lens_debiased(some, nothing, protocol="released") == 0.0


def test_a_real_mean_of_zero_gives_the_limit_not_a_constant():
    # the real sample never looks synthetic, so any judgment "synthetic" counts against an example
    real = torch.tensor([[[3.0, 0.0], [3.0, 0.0]]])
    synthetic = torch.tensor([[[3.0, 1.0], [3.0, 0.0]]])
    assert lens_debiased(real, synthetic) == pytest.approx((0.0 + 0.5) / 2)
    released = lens_debiased(real, synthetic, protocol="released")
    assert released == pytest.approx((1 / (1 + 1e6) + 1) / 2, abs=1e-5)


def test_a_synthetic_mean_of_zero_is_one_in_the_released_protocol():
    real, synthetic = torch.full((2, 2, 2), 2.0), torch.zeros(2, 2, 2)
    synthetic[..., 0] = 2.0
    # synthetic: (1, 0) -> 1; real: (2/2, 2/1) -> synthetic share 2/3
    expected = (2 * (1 / (1 + 1e-6)) + 2 * (2 / (3 + 1e-6))) / 4
    assert lens_balanced(real, synthetic, protocol="released") == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_a_candidate_judged_like_the_real_sample_scores_a_half(seed: int):
    same = judgments(40, seed)
    assert lens_balanced(same, same) == pytest.approx(0.5, abs=1e-12)


def test_a_bias_of_the_model_cancels():
    real, synthetic = judgments(200, 0), judgments(200, 1)
    leaning = torch.tensor([[1.0, 0.5], [0.25, 1.0]])
    assert lens_debiased(real * leaning, synthetic * leaning) == pytest.approx(
        lens_debiased(real, synthetic), abs=1e-12
    )
    assert lens_raw(synthetic * leaning) != pytest.approx(lens_raw(synthetic), abs=0.01)


def test_the_order_of_examples_does_not_matter():
    real, synthetic = judgments(30, 0), judgments(50, 1)
    shuffled = synthetic[torch.randperm(50)]
    for score in (lens_debiased, lens_balanced):
        assert score(real.flip(0), shuffled) == pytest.approx(score(real, synthetic), abs=1e-12)


def test_examples_judged_more_real_raise_the_score():
    real = judgments(200, 0)
    scores = []
    for tilt in (-0.05, 0.0, 0.05):
        synthetic = judgments(500, 1)
        synthetic[..., 0] = judgments(500, 2, tilt)[..., 0]
        scores.append(lens_debiased(real, synthetic))
    assert scores == sorted(scores)


def test_example_scores_average_to_lens():
    real, synthetic = judgments(30, 0), judgments(50, 1)
    assert float(lens_example_scores(real, synthetic).mean()) == pytest.approx(
        lens_debiased(real, synthetic)
    )
    assert float(lens_example_scores(None, synthetic).mean()) == pytest.approx(lens_raw(synthetic))


@pytest.mark.parametrize("protocol", ["default", "released"])
@pytest.mark.parametrize("kind", ["raw", "debiased", "balanced"])
def test_equal_weights_give_the_score(kind: str, protocol: str):
    real, synthetic = judgments(30, 0), judgments(50, 1)
    expected = {
        "raw": lens_raw(synthetic, protocol=protocol),
        "debiased": lens_debiased(real, synthetic, protocol=protocol),
        "balanced": lens_balanced(real, synthetic, protocol=protocol),
    }[kind]
    equal = torch.full((3, 30), 1 / 30, dtype=torch.float64)
    resampled = lens_resampled(real, synthetic, equal, kind=kind, protocol=protocol)
    assert resampled.tolist() == pytest.approx([expected] * 3, abs=1e-12)


def test_integer_weights_are_copies_of_real_examples():
    real, synthetic = judgments(4, 0), judgments(50, 1)
    counts = torch.tensor([[2.0, 0.0, 1.0, 1.0]]).double()
    copies = torch.repeat_interleave(real, counts[0].long(), dim=0)
    assert float(lens_resampled(real, synthetic, counts / 4)) == pytest.approx(
        lens_debiased(copies, synthetic), abs=1e-12
    )


def test_redrawn_part_has_the_variance_of_sampling_without_replacement():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=40))
    weights = subsample_weights(40, 100, 40_000, seed=1)
    actual = float((weights @ values).std())
    expected = float(values.std()) * ((1 - 40 / 100) / 40) ** 0.5
    assert actual == pytest.approx(expected, rel=0.02)
    assert weights.sum(1).numpy() == pytest.approx(np.ones(40_000))


def test_interval_holds_for_a_judged_part_of_a_candidate():
    # the whole candidate's score, from 60 judged of 150 and a real sample of 50
    whole_real, candidate = judgments(20_000, 5), judgments(150, 6)
    truth = lens_debiased(whole_real, candidate)
    rng = np.random.default_rng(7)
    inside = 0
    for trial in range(200):
        real = whole_real[rng.choice(20_000, 50, replace=False)]
        part = candidate[rng.choice(150, 60, replace=False)]
        weights = torch.from_numpy(rng.multinomial(50, np.full(50, 1 / 50), size=200) / 50)
        drawn = lens_resampled(real, part, weights, n_candidate=150, seed=trial)
        half = 2.01 * float(drawn.std()) * (50 / 49) ** 0.5
        inside += abs(lens_debiased(real, part) - truth) < half
    assert 0.90 <= inside / 200 <= 0.99


@pytest.mark.parametrize(
    ("real", "synthetic", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 2, 2), r"real has shape \(3, 4\)"),
        (torch.zeros(3, 2, 2), torch.zeros(0, 2, 2), r"synthetic has shape \(0, 2, 2\)"),
        (torch.full((3, 2, 2), 5.0), torch.zeros(3, 2, 2), "real contains a judgment outside"),
        (
            torch.full((3, 2, 2), torch.nan),
            torch.zeros(3, 2, 2),
            "real contains a judgment outside",
        ),
    ],
)
def test_wrong_judgments_are_named(real: torch.Tensor, synthetic: torch.Tensor, message: str):
    with pytest.raises(ConfigError, match=message):
        lens_debiased(real, synthetic)


def test_the_value_of_a_label_is_its_position():
    assert [label_value(label) for label in LABELS] == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match="allowed are very unlikely"):
        label_value("maybe")


RECORD = {
    "score_real_given_synth_loc_A_judgement": "very likely",
    "score_synth_given_synth_loc_A_judgement": "unlikely",
    "score_real_given_synth_loc_B_judgement": "unsure",
    "score_synth_given_synth_loc_B_judgement": "likely",
}


def test_released_files_are_found_and_read(tmp_path):
    scores = tmp_path / "text2sql" / "LENS" / "scores" / "a-model" / "seed=7"
    for side in ("synthetic_data", "real_data"):
        (scores / side / "shop").mkdir(parents=True)
        (scores / side / "metadata").mkdir()
        (scores / side / "shop" / "one.json").write_text(json.dumps([RECORD] * 2))
        (scores / side / "metadata" / "one.json").write_text("{}")
    (scores / "synthetic_data" / "shop" / "half.json").write_text(json.dumps([RECORD]))
    (files,) = find_judgments(tmp_path / "text2sql")
    assert (files.model, files.group, files.seed) == ("a-model", "shop", "7")
    assert list(files.files) == ["one"]
    assert read_judgments(files.files["one"][0]).tolist() == [[[4.0, 1.0], [2.0, 3.0]]] * 2
    table = lens_scores(files, ["one", "half"])
    assert table["lens"][0] == pytest.approx(0.5, abs=1e-6)
    assert np.isnan(table["lens_raw"][1])


def test_a_broken_record_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([RECORD, {**RECORD, "score_real_given_synth_loc_A_judgement": "?"}]))
    with pytest.raises(DataError, match=r"record 1 \(counted from 0\).*judgment '\?'"):
        read_judgments(path)
