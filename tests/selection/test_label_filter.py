"""The gate of the label filter: when it opens, when it stays closed, and what it drops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from synque_select.data.candidate import Candidate
from synque_select.data.label_sets import NO_LABEL
from synque_select.errors import ConfigError
from synque_select.proxies.base import ProxyInput, ProxyScores
from synque_select.proxies.domain import PAD
from synque_select.selection import label_filter
from synque_select.selection.example_scores import with_example_scores
from synque_select.selection.label_filter import (
    LabelFilter,
    LabelJudges,
    camps_of,
    check_filter_data,
    check_label_filter,
    filter_labels,
    filter_selected,
    label_consistency,
)
from synque_select.selection.ranking import ranking_from
from synque_select.selection.scorer import Scorer
from synque_select.selection.scoring import Scoring
from synque_select.types.label_filter import LabelFilterRecord
from synque_select.utils.json_fields import JsonFields

CLASSES = ("fall", "hold", "rise")
N = 90


class Data:
    """Candidates of three classes, each a blob in six dimensions."""

    def __init__(self, n_candidates: int = 5, *, spread: float = 0.45) -> None:
        self.truth: dict[str, np.ndarray] = {}
        self.labels: dict[str, np.ndarray] = {}
        self.embeddings: dict[str, torch.Tensor] = {}
        for k in range(n_candidates):
            rng = np.random.default_rng(k)
            y = np.arange(N) % 3
            x = np.eye(6)[y] + rng.normal(size=(N, 6)) * spread
            self.truth[f"c{k}"] = y
            self.labels[f"c{k}"] = y.copy()
            self.embeddings[f"c{k}"] = torch.from_numpy(x).float()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.labels)

    def flip(self, name: str, share: float) -> None:
        rng = np.random.default_rng(99)
        chosen = rng.random(N) < share
        self.labels[name] = np.where(chosen, rng.integers(0, 3, N), self.labels[name])

    def swap(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.labels[name] = np.array([1, 0, 2])[self.truth[name]]

    def judges(self, families: dict[str, str] | None = None) -> LabelJudges:
        texts = {name: [CLASSES[i] for i in y] for name, y in self.labels.items()}
        return LabelJudges.fit(texts, self.embeddings, families=families)


def test_it_drops_wrong_labels_and_keeps_right_ones():
    data = Data()
    for name in data.names:
        data.flip(name, 0.3)
    result = filter_labels(data.judges(), data.names, "auto")
    assert result.record.is_open
    for name in data.names:
        wrong = data.labels[name] != data.truth[name]
        kept = result.positions(name, N)
        assert wrong[kept].mean() < 0.05 < wrong.mean()
        assert len(kept) > 0.7 * (~wrong).sum()
    assert result.record.dropped == {n: len(each) for n, each in result.dropped.items()}


def test_it_says_how_many_and_that_some_of_them_are_right():
    data = Data()
    for name in data.names:
        data.flip(name, 0.3)
    record = filter_labels(data.judges(), data.names, "auto").record
    n, n_dropped = N * len(data.names), sum(record.dropped.values())
    assert record.sentence.startswith(
        f"The label filter drops {n_dropped:,} of {n:,} examples ({100 * n_dropped / n:.0f} %): "
    )
    assert "Some of these labels are right: on three measured tasks" in record.sentence
    again = filter_labels(data.judges(), data.names, "auto", relabel=True).record
    assert again.sentence == record.sentence.replace("drops", "relabels", 1)
    assert again.relabel


@pytest.mark.parametrize("relabel", [False, True])
def test_a_label_with_the_most_votes_stays_though_most_votes_are_against_it(relabel: bool):
    """Where the others are divided, none of them is a better label."""
    data = Data(6, spread=1.2)
    judges = data.judges()
    votes = judges.votes(judges.names)
    filtered = filter_labels(judges, data.names, 0.5, relabel=relabel).dropped
    n_divided = 0
    for name, part in filtered.items():
        against = np.flatnonzero(votes[name].contradicted > 0.5)
        is_better = votes[name].winner[against] != data.labels[name][against]
        assert [each.position for each in part] == against[is_better].tolist()
        n_divided += int((~is_better).sum())
    assert n_divided > 0


def test_where_no_label_is_contradicted_it_drops_nothing():
    data = Data(spread=0.05)
    record = filter_labels(data.judges(), data.names, "auto").record
    assert sum(record.dropped.values()) == 0
    assert record.sentence.startswith(
        "The label filter drops nothing: no label is contradicted by more than 50 % of the other "
        "candidates' votes. The candidates' classifiers predict 100 % of each other's labels"
    )


def test_examples_without_a_label_are_neither_judges_nor_judged():
    data = Data(spread=0.2)
    data.labels["c0"][9] = 1  # it is class 0
    texts = {name: [CLASSES[i] for i in y] for name, y in data.labels.items()}
    every = LabelJudges.fit(texts, data.embeddings)
    texts["c0"][:9] = [NO_LABEL] * 9
    judges = LabelJudges.fit(texts, data.embeddings)
    assert judges.classes == every.classes
    assert judges.rows[0].tolist() == list(range(9, N))
    dropped = filter_labels(judges, data.names, "auto").dropped["c0"]
    assert [each.position for each in dropped] == [9]


def test_what_is_dropped_says_why():
    data = Data(spread=0.2)
    data.labels["c0"][0] = 1  # it is class 0
    dropped = filter_labels(data.judges(), data.names, "auto").dropped["c0"]
    assert dropped[0].position == 0
    assert (dropped[0].label, dropped[0].voted) == ("hold", "fall")
    assert dropped[0].contradicted == 1.0


def closed(result: LabelFilter, reason: str) -> None:
    assert not result.record.is_open
    assert reason in result.record.sentence
    assert result.dropped == {}
    assert len(result.positions("c0", N)) == N


def test_it_is_closed_where_the_judges_know_nothing():
    data = Data()
    for name in data.names:
        data.labels[name] = np.random.default_rng(int(name[1])).integers(0, 3, N)
    closed(filter_labels(data.judges(), data.names, "auto"), "of each other's labels, and at least")


@pytest.mark.parametrize("swapped", [("c0", "c1", "c2"), ("c0", "c3")])
def test_it_is_closed_where_two_camps_contradict_each_other(swapped):
    data = Data()
    data.swap(swapped)
    result = filter_labels(data.judges(), data.names, "auto")
    closed(result, "two camps whose labels contradict each other")
    assert result.camps is not None
    others = tuple(name for name in data.names if name not in swapped)
    assert set(result.camps.names) == {swapped, others}


@pytest.mark.parametrize("choice", ["auto", 0.5])
def test_of_two_camps_nothing_is_dropped_whatever_the_choice(choice):
    data = Data()
    data.swap(("c0", "c1", "c2"))
    candidates, scoring = scored(data)
    ranking = ranking_from(scoring, rank_by="pad")
    closed(
        filter_selected(candidates, scoring, ranking, choice),
        "two camps whose labels contradict each other",
    )


def test_it_is_closed_where_only_one_of_a_camp_is_kept():
    """Of the kept candidates alone, the one is outvoted, and no camp is found."""
    data = Data()
    data.swap(("c0", "c1"))
    judges = data.judges()
    kept = data.names[1:]
    assert judges.camps(kept) is None
    closed(filter_labels(judges, kept, "auto"), "two camps whose labels contradict each other")
    assert filter_labels(judges, data.names[2:], "auto").record.is_open


def test_it_is_closed_with_fewer_than_two_judges_of_another_family():
    data = Data(3)
    closed(filter_labels(data.judges(), ["c0", "c1"], "auto"), "judged by 1 other")
    families = {"c0": "a", "c1": "a", "c2": "b"}
    closed(filter_labels(data.judges(families), data.names, "auto"), "judged by 1 other")
    closed(filter_labels(data.judges(), ["c0"], "auto"), "judged by no other")


def test_it_spares_a_class_that_the_judges_do_not_understand():
    # in every candidate, class "hold" covers another region of its own, half of it in "fall"
    data = Data(6, spread=0.2)
    for k, name in enumerate(data.names):
        rows = np.flatnonzero(data.truth[name] == 1)
        shifted = torch.zeros(len(rows), 6)
        shifted[:, 0] = 0.9
        shifted[:, 3 + k % 3] = 0.8 * (1 if k < 3 else -1)
        data.embeddings[name][rows] = shifted + 0.2 * torch.randn(
            len(rows), 6, generator=torch.Generator().manual_seed(k)
        )
    record = filter_labels(data.judges(), data.names, "auto").record
    assert record.supported_by_class["hold"] <= 0.5
    assert record.is_open
    assert (
        "leaves classes of which they support half or less as they are: 'hold'" in record.sentence
    )
    dropped = filter_labels(data.judges(), data.names, "auto").dropped
    assert all(each.label != "hold" for part in dropped.values() for each in part)
    always = filter_labels(data.judges(), data.names, 0.5).dropped
    assert any(each.label == "hold" for part in always.values() for each in part)


def test_a_share_ignores_the_gate_and_a_larger_one_drops_less():
    data = Data()
    for name in data.names:
        data.flip(name, 0.4)
    judges = data.judges()
    counts = [
        sum(filter_labels(judges, data.names, share).record.dropped.values())
        for share in (0.2, 0.5, 0.9)
    ]
    assert counts[0] > counts[1] > counts[2] > 0


def test_votes_of_candidates_with_false_labels_have_little_weight():
    data = Data(6)
    data.swap(("c0", "c1", "c2"))
    weights = {name: 0.35 if name in ("c0", "c1", "c2") else 0.9 for name in data.names}
    result = filter_labels(data.judges(), data.names, 0.5, weights=weights)
    wrong = data.labels["c0"] != data.truth["c0"]
    gone = np.setdiff1d(np.arange(N), result.positions("c0", N))
    assert wrong[gone].mean() > 0.85


def test_only_the_kept_candidates_judge():
    data = Data(8)
    data.swap(("c3", "c4", "c5", "c6", "c7"))
    judges = data.judges()
    kept = ("c0", "c1", "c2")
    few, many = filter_labels(judges, kept, 0.5), filter_labels(judges, data.names, 0.5)
    assert set(few.dropped) == {*kept}
    assert few.record.dropped["c0"] < 0.2 * N < many.record.dropped["c0"]


def test_a_candidate_keeps_two_examples():
    data = Data(spread=0.1)
    data.labels["c0"] = (data.truth["c0"] + 1) % 3
    assert len(filter_labels(data.judges(), data.names, 0.5).positions("c0", N)) == 2


def test_the_same_seed_gives_the_same_filter():
    data = Data()
    first, again = (filter_labels(data.judges(), data.names, "auto") for _ in range(2))
    assert first.dropped == again.dropped


def test_the_record_is_read_back():
    record = filter_labels(Data().judges(), Data().names, "auto").record
    assert LabelFilterRecord.from_fields(JsonFields(record.to_dict())) == record
    alone = filter_labels(Data().judges(), ["c0"], 0.5).record
    assert alone.to_dict()["accuracy"] is None


@pytest.mark.parametrize("choice", ["off", "auto", 0.5])
def test_allowed_choices(choice: object):
    assert check_label_filter(choice) == choice


def test_off_without_quotes_is_false_in_yaml():
    assert check_label_filter(False) == "off"
    assert Scorer(["ngram"], label_filter=False).label_filter == "off"


@pytest.mark.parametrize("choice", ["on", 0, 1, 1.5, True, None, float("nan")])
def test_other_choices_are_refused(choice: object):
    with pytest.raises(ConfigError, match="allowed is 'off', 'auto', or a share"):
        check_label_filter(choice)


def scored(data: Data) -> tuple[list[Candidate], Scoring]:
    texts = {
        name: [{"text": f"{name} {i}", "label": CLASSES[c]} for i, c in enumerate(labels)]
        for name, labels in data.labels.items()
    }
    candidates = [Candidate(name, rows, "text", "label") for name, rows in texts.items()]
    parts = [
        ProxyInput(c.name, c.views, "text", c.digests, data.embeddings[c.name]) for c in candidates
    ]
    real = ProxyInput("real", parts[0].views, "text", parts[0].digests, parts[0].embeddings)
    scores = PAD().score(real, parts, seed=0, device=torch.device("cpu"))
    scoring = Scoring(
        real, tuple(parts), (PAD(),), {"pad": scores}, {"pad": 0.0}, "r", data.names, None, 0, 0,
        (), {},
    )  # fmt: skip
    return candidates, scoring


def test_of_many_candidates_a_part_judges_and_the_camps_are_looked_for_once(monkeypatch):
    monkeypatch.setattr(label_filter, "_MAX_PREDICTIONS", 1000)
    monkeypatch.setattr(label_filter, "_MAX_CAMP_JUDGES", 8)
    monkeypatch.setattr(label_filter, "_MAX_JUDGES", 8)
    n_predicted = []
    predict = label_filter.predict_labels

    def counted(heads, features):
        n_predicted.append(len(heads) * sum(map(len, features)))
        return predict(heads, features)

    monkeypatch.setattr(label_filter, "predict_labels", counted)
    for n in (20, 40):
        data = Data(n)
        data.swap(data.names[: n // 2])
        candidates, scoring = scored(data)
        ranking = ranking_from(scoring)
        n_predicted.clear()
        camps = camps_of(candidates, scoring)
        assert {*camps.names} == {data.names[: n // 2], data.names[n // 2 :]}
        # 16 examples of each, by 8 heads
        assert n_predicted == [8 * 16 * n]
        assert camps_of(candidates, scoring) is camps
        result = filter_selected(candidates, scoring, ranking, "auto")
        assert not result.record.is_open
        assert len(n_predicted) == 2
        assert n_predicted[1] <= 8 * N * n


def test_example_scores_by_label_consistency():
    data = Data(spread=0.2)
    for name in data.names:
        data.flip(name, 0.2)
    candidates, scoring = scored(data)
    for candidate in with_example_scores(candidates, scoring):
        wrong = data.labels[candidate.name] != data.truth[candidate.name]
        scores = candidate.example_scores["label_consistency"]
        assert scores[wrong].max() < 0.5 < scores[~wrong].min()
        kept = candidate.filter(keep=0.8, by="label_consistency")
        assert len(kept) == 72


def test_candidates_without_labels_have_no_such_score():
    candidates, scoring = scored(Data(3))
    plain = [Candidate(c.name, c.dataset, "text") for c in candidates]
    assert [*with_example_scores(plain, scoring)[0].example_scores] == ["pad"]


def test_votes_are_weighted_by_transfer_where_it_was_scored():
    data = Data(6, spread=0.2)
    data.swap(("c0", "c1", "c2"))
    candidates, scoring = scored(data)
    values = torch.tensor([0.3, 0.3, 0.3, 0.9, 0.9, 0.9], dtype=torch.float64)
    weighted = replace(scoring, scores={**scoring.scores, "transfer": ProxyScores(values)})
    plain, better = label_consistency(candidates, scoring), label_consistency(candidates, weighted)
    right = data.truth["c3"] != 2
    assert better["c3"][right].mean() > 0.9 > plain["c3"][right].mean()


def test_candidates_of_one_family_do_not_judge_each_other():
    data = Data(5, spread=0.2)
    data.swap(("c0", "c1", "c2"))
    candidates, scoring = scored(data)
    grouped = [replace(c, family="g" if c.name in ("c0", "c1", "c2") else None) for c in candidates]
    right = data.truth["c0"] == 2
    scores = label_consistency(grouped, scoring)
    # what the family shares is contradicted by all that judge it
    assert scores["c0"][~right].max() == 0
    assert label_consistency(candidates, scoring)["c0"][~right].min() > 0


@pytest.mark.parametrize("labels", [[["a"], ["a", "b"]], [0.5, 0.25]])
def test_labels_that_are_not_classes_are_refused_and_not_scored(labels: list[object]):
    candidates, scoring = scored(Data(3))
    rows = [{"text": f"{i}", "label": labels[i % 2]} for i in range(N)]
    others = [Candidate(c.name, rows, "text", "label") for c in candidates]
    assert [*with_example_scores(others, scoring)[0].example_scores] == ["pad"]
    with pytest.raises(ConfigError, match="needs labels that are classes"):
        check_filter_data("auto", others, needs_embeddings=True)
