from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from synque_select.proxies.base import ProxyInput
from synque_select.proxies.registry import default_suite, get_proxy, proxy_keys
from synque_select.selection.consensus import consensus_members
from tests.functional.test_ngram import part

CPU = torch.device("cpu")
TEXTS = ["a b a", "a b a", "c", "d, e"]
OTHER_TEXTS = ["f g", "h", "i j"]  # candidates with the same inputs do not judge each other
KEYS = [key for key in proxy_keys() if key.startswith("baseline_")]


def labeled(name: str, texts: list[str]) -> ProxyInput:
    embeddings = torch.tensor([[float(len(text)), 1.0] for text in texts])
    labels = ["long" if len(text) > 1 else "short" for text in texts]
    return replace(part(name, texts), embeddings=embeddings, labels=labels)


def value(key: str, texts: list[str]) -> float:
    scores = get_proxy(key).score(part("real", ["x", "y"]), [part("a", texts)], seed=0, device=CPU)
    return float(scores.values[0])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("baseline_n", 4),
        ("baseline_distinct", 3 / 4),
        ("baseline_vocabulary", 6),  # a b c d e and the comma
        ("baseline_length", (3 + 3 + 1 + 3) / 4),
    ],
)
def test_values_by_hand(key: str, expected: float):
    assert value(key, TEXTS) == pytest.approx(expected)


def test_entropy_by_hand():
    # a: 1, b: 1, "a b": 1
    assert value("baseline_entropy", ["a b", ""]) == pytest.approx(math.log(3))


def test_entropy_of_no_words_is_undefined():
    assert math.isnan(value("baseline_entropy", ["", " "]))


@pytest.mark.parametrize("key", KEYS)
def test_the_real_sample_is_never_read(key: str):
    class Unreadable(ProxyInput):
        @property
        def views(self) -> list[str]:  # type: ignore[override]
            raise AssertionError("the real sample was read")

        digests = property(views.fget)  # type: ignore[assignment]
        embeddings = property(views.fget)  # type: ignore[assignment]

    real = object.__new__(Unreadable)
    scores = get_proxy(key).score(
        real, [labeled("a", TEXTS), labeled("b", OTHER_TEXTS)], seed=0, device=CPU
    )
    assert torch.isfinite(scores.values).all()


@pytest.mark.parametrize("key", KEYS)
def test_never_in_a_suite_or_a_consensus(key: str):
    proxy = get_proxy(key)
    parts = [labeled("a", TEXTS), labeled("b", OTHER_TEXTS)]
    scores = proxy.score(part("real", ["x", "y"]), parts, seed=0, device=CPU)
    assert consensus_members([proxy], {key: scores})[0] == ()
    assert key not in default_suite("text")
    assert proxy.higher_is_better


def test_spread_by_hand():
    # covariance [[(4 + 4) / (3 - 1), 0], [0, 0]]
    texts = ["a", "abc", "abcde"]
    scores = get_proxy("baseline_spread").score(
        part("real", ["x", "y"]), [labeled("a", texts)], seed=0, device=CPU
    )
    assert float(scores.values[0]) == pytest.approx(-4)


def test_there_are_seven():
    assert len(KEYS) == 7
