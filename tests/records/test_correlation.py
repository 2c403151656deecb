"""What may enter a correlation over run records, and what is said when it may not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synque_select.functional.correlation import correlate_scores
from synque_select.records.correlation import (
    correlate,
    mean_correlations,
    reliability_messages,
    surrogate_reliability,
)
from tests.records.records_data import make_record

VALUES = dict(zip("abcdef", (0.9, 0.7, 0.8, 0.5, 0.6, 0.2), strict=True))


def probes(**changes):
    return [make_record(unit, value, **changes) for unit, value in VALUES.items()]


def test_a_proxy_that_was_right_correlates_positively():
    (correlation,) = correlate(probes())
    assert correlation.proxies["pad"].spearman.value == pytest.approx(1)
    assert math.isnan(correlation.proxies["mdm"].spearman.value)
    assert "all scores are equal" in correlation.proxies["mdm"].message
    assert correlation.n_missing == 0
    assert correlation.messages == ()


def test_seeds_are_averaged_first():
    rng = np.random.default_rng(0)
    records, means = [], []
    for i in range(6):
        figures = rng.normal(i / 10, 0.3, size=4)
        means.append(figures.mean())
        records += [
            make_record(f"u{i}", float(v), seed=s, run_id=f"{i}-{s}", scores={"pad": 6 - i})
            for s, v in enumerate(figures)
        ]
    (correlation,) = correlate(records)
    assert len(correlation.points) == 6
    assert {point.n_seeds for point in correlation.points} == {4}
    expected = correlate_scores(range(6, 0, -1), means, higher_is_better=False, mode="max")
    assert correlation.proxies["pad"].to_dict() == expected.to_dict()


def test_many_seeds_of_few_units_are_few_units():
    records = [
        make_record(unit, s / 10, seed=s, run_id=f"{unit}{s}") for unit in "abc" for s in range(9)
    ]
    (correlation,) = correlate(records)
    assert correlation.proxies == {}
    assert correlation.n_missing == 2


@pytest.mark.parametrize("n", range(1, 5))
def test_under_five_units_a_sentence_says_how_many_are_missing_and_how_to_get_them(n: int):
    (correlation,) = correlate(probes()[:n])
    assert correlation.proxies == {}
    (sentence,) = correlation.messages
    assert f"{5 - n} more {'is' if n == 4 else 'are'} missing" in sentence
    assert "synque-select sweep" in sentence
    assert "probes=" in sentence


def test_kinds_and_keys_are_kept_apart():
    records = [
        *probes(),
        *probes(kind="mixture"),
        *probes(key={"task": "other"}),
        *probes(monitor="val_f1", metrics={"val_f1": 1.0}),
    ]
    correlation = correlate(records)
    assert len(correlation) == 4
    assert len({(entry.key_hash, entry.kind, entry.monitor) for entry in correlation}) == 4
    assert all(len(entry.points) == 6 for entry in correlation)


def test_points_of_several_keys_are_never_pooled():
    """Within each of two tasks the proxy is right; pooled, it would look wrong."""
    records = []
    for task, offset in (("easy", 10.0), ("hard", 0.0)):
        for i in range(6):
            records.append(
                make_record(
                    f"{task}{i}",
                    offset + i,
                    key={"task": task},
                    scores={"q": i - 3 * offset},
                    orientation={"q": True},
                )
            )
    correlation = correlate(records)
    assert [entry.proxies["q"].spearman.value for entry in correlation] == pytest.approx([1, 1])
    mean = mean_correlations(correlation)["probe"]["q"]
    assert (mean.n_keys, mean.spearman) == (2, pytest.approx(1))
    pooled = correlate_scores(
        [r.scores["q"] for r in records],
        [r.metrics["val_acc"] for r in records],
        higher_is_better=True,
        mode="max",
    )
    assert pooled.spearman.value < 0


def test_the_mean_leaves_out_keys_without_a_coefficient():
    records = [*probes(), *probes(key={"task": "few"})[:3]]
    means = mean_correlations(correlate(records))
    assert means["probe"]["pad"].n_keys == 1
    assert "mdm" not in means["probe"]


def test_of_trials_only_those_of_the_random_startup_enter():
    startup = probes(kind="trial", details={"startup": True})
    adaptive = [
        make_record(f"t{i}", 1.0, kind="trial", details={"startup": False}) for i in range(4)
    ]
    (correlation,) = correlate([*startup, *adaptive, make_record("u", 1.0, kind="trial")])
    assert {point.unit for point in correlation.points} == set(VALUES)
    left_out = "5 runs left out: trials chosen by proxies or sampled adaptively, not at random"
    assert left_out in correlation.messages


def test_pruned_runs_never_enter():
    pruned = make_record("p", 0.1, kind="trial", details={"startup": True, "pruned": True})
    (correlation,) = correlate([*probes(kind="trial", details={"startup": True}), pruned])
    assert "p" not in {point.unit for point in correlation.points}
    assert "1 run left out: pruned" in correlation.messages


@pytest.mark.parametrize("metrics", [{}, {"val_acc": math.nan}, {"val_acc": math.inf}])
def test_a_run_without_a_figure_is_left_out_and_counted(metrics):
    (correlation,) = correlate([*probes(), make_record("x", metrics=metrics)])
    assert len(correlation.points) == 6
    assert "1 run left out: without a finite val_acc" in correlation.messages


def test_a_score_that_some_units_lack_is_correlated_over_the_others():
    records = [*probes(), make_record("x", 0.1, scores={"mdm": 1.0})]
    (correlation,) = correlate(records)
    assert correlation.proxies["pad"].n == 6
    assert "1 left out" in correlation.proxies["pad"].message


def test_a_proxy_whose_orientation_is_disputed_is_left_out():
    records = [*probes(), make_record("x", 0.1, orientation={"pad": True, "mdm": True})]
    (correlation,) = correlate(records)
    assert "pad" not in correlation.proxies
    assert any("pad left out" in message for message in correlation.messages)


def test_a_loss_is_turned_round():
    records = [
        make_record(u, v, monitor="loss", mode="min", metrics={"loss": 1 - v})
        for u, v in VALUES.items()
    ]
    (correlation,) = correlate(records)
    assert correlation.proxies["pad"].spearman.value == pytest.approx(1)


def test_no_records_give_nothing():
    assert correlate([]) == []
    assert mean_correlations([]) == {}


def on_both(unit: str, surrogate: float, labeled: float, **changes):
    """A record of a run that was measured on a surrogate and on labels."""
    details = {"labeled_validation": "123", **changes.pop("details", {})}
    metrics = {"surrogate/val_acc": surrogate, "val_acc": labeled}
    key = {"metric": "surrogate/val_acc", "validation_sha256": "456", **changes.pop("key", {})}
    return make_record(
        unit, monitor="surrogate/val_acc", metrics=metrics, details=details, key=key, **changes
    )


def test_the_surrogate_is_correlated_with_labels_by_the_rules_of_a_proxy():
    records = [on_both(unit, 1 - value, value) for unit, value in VALUES.items()]
    (entry,) = surrogate_reliability(records)
    assert (entry.monitor, entry.key["validation_sha256"]) == ("val_acc", "123")
    assert entry.proxies["surrogate"].spearman.value == pytest.approx(-1)
    losses = [on_both(unit, value, value, mode="min") for unit, value in VALUES.items()]
    (entry,) = surrogate_reliability(losses)
    assert entry.proxies["surrogate"].spearman.value == pytest.approx(1)
    assert reliability_messages([entry]) == [
        "the surrogate against labeled validation (val_acc): Spearman +1.00 over 6 distinct "
        "candidates"
    ]
    assert surrogate_reliability(probes()) == []


def test_pruned_and_adaptive_trials_say_nothing_of_the_surrogate():
    trials = [
        on_both(unit, value, value, kind="trial", details={"startup": unit != "a"})
        for unit, value in VALUES.items()
    ]
    trials.append(
        make_record(
            "pruned",
            0.0,
            kind="trial",
            monitor="surrogate/val_acc",
            metrics={},
            key=trials[0].key,
            details={"labeled_validation": "123", "pruned": "at step 3", "startup": True},
        )
    )
    (entry,) = surrogate_reliability(trials)
    assert {point.unit for point in entry.points} == set("bcdef")
    assert len(entry.messages) == 2


def test_surrogate_figures_are_never_averaged_with_labeled_ones():
    surrogate = probes(
        monitor="surrogate/val_acc",
        metrics={"surrogate/val_acc": 0.5},
        key={"metric": "surrogate/val_acc"},
    )
    entries = correlate([*probes(), *probes(key={"task": "other"}), *surrogate])
    assert len(entries) == 3
    assert mean_correlations(entries)["probe"]["pad"].n_keys == 2
    assert "without any labeled real example" in entries[-1].messages[-1]
