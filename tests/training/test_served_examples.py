"""Trainer.fit serves the examples that `Candidate.filter` and `.weighted` keep."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from synque_select.data.candidate import Candidate
from synque_select.proxies.registry import get_proxy
from synque_select.selection.example_scores import with_example_scores
from synque_select.selection.scoring import score
from tests.training.tiny import (
    LetterEncoder,
    TinyModel,
    candidates,
    data_module,
    real_sample,
    seen_by,
    trainer,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
)


@pytest.fixture(scope="module")
def scored() -> list[Candidate]:
    proxies = [get_proxy(key) for key in ("pad", "mmd", "coverage", "ngram")]
    given = candidates()
    scoring = score(given, real_sample(), proxies, encoder=LetterEncoder(), progress=False)
    return with_example_scores(given, scoring)


def served(tmp_path, candidate: Candidate, n_epochs: int) -> Counter[str]:
    data = data_module(candidates=[candidate], batch_size=6)
    model = TinyModel()
    options = {"max_steps": -1, "max_epochs": n_epochs, "val_check_interval": None}
    options["check_val_every_n_epoch"] = n_epochs
    trainer(tmp_path, **options).fit(model, datamodule=data)
    return Counter(seen_by(model))


@pytest.mark.parametrize("by", ["pad", "mmd", "coverage", "ngram"])
def test_a_filtered_candidate_serves_its_most_real_examples_and_no_other(tmp_path, scored, by):
    half = next(c for c in scored if c.name == "half")
    scores = half.example_scores[by]
    expected = {half.dataset[int(i)]["text"] for i in np.argsort(-scores, kind="stable")[:48]}
    kept = half.filter(keep=0.8, by=by)
    assert served(tmp_path, kept, n_epochs=2) == dict.fromkeys(expected, 2)


def test_filtering_keeps_the_labels_of_what_it_keeps(scored):
    mixed = next(c for c in scored if c.name == "mixed")
    labels = {record["text"]: record["label"] for record in mixed.dataset}
    kept = mixed.filter(keep=0.5, by="pad")
    assert len(kept) == 30
    assert all(labels[record["text"]] == record["label"] for record in kept)


def test_a_weighted_candidate_serves_each_example_as_often_as_its_weight_says(tmp_path, scored):
    half = next(c for c in scored if c.name == "half")
    weights = half.example_scores["pad"]
    counts = served(tmp_path, half.weighted(weights, seed=3), n_epochs=1)
    assert sum(counts.values()) == 60
    ideal = 60 * weights / weights.sum()
    for record, times in zip(half.dataset, ideal, strict=True):
        assert np.floor(times) <= counts[record["text"]] <= np.ceil(times)
    assert max(counts.values()) > 1
    assert len(counts) < 60
