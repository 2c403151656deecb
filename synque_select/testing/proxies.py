"""What every proxy must do, as tests."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synque_select.errors import ProxyError
from synque_select.proxies.base import BaseProxy, ProxyInput, ProxyScores
from synque_select.proxies.registry import resolve_suite
from synque_select.testing.process import unchanged_process

__all__ = ["ProxyConformance", "proxy_input"]

Points = NDArray[np.floating]

_CPU = torch.device("cpu")
_DIM = 12
_N_REAL, _N_SYNTHETIC = 40, 120
_SHIFTS = (0.0, 0.7, 1.5, 3.0)


def proxy_input(name: str, points: Points) -> ProxyInput:
    """Return texts whose words say roughly what their embeddings say.

    Args:
        name: Name of the candidate.
        points: (n, d) numbers, which become the embeddings; a text has one word per column.
    """
    finite = np.nan_to_num(points, posinf=9.0, neginf=-9.0)
    words = np.clip(np.round(finite * 1.2), -(2**53), 2**53).astype(np.int64)
    digests = b"".join(hashlib.sha256(row.tobytes()).digest() for row in points)
    return ProxyInput(
        name=name,
        views=[" ".join(f"w{column}x{value}" for column, value in enumerate(row)) for row in words],
        modality="text",
        digests=np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),
        embeddings=torch.from_numpy(points.astype(np.float32)),
        records=[{"SQL": "SELECT 1" if row[0] > 0 else "SELECT nothing"} for row in points],
        labels=["high" if row[0] > 0 else "low" for row in points],
    )


class ProxyConformance:
    """What every proxy must do (`BaseProxy`), as tests.

    The suite scores texts with embeddings of 12 dimensions. A proxy of images, or one that needs
    records of its own, overrides the fixtures `real` and `candidates`.

    Attributes:
        compares_real: Whether candidates are compared with the real sample, so that a copy of it
            scores best; False for one that describes the candidates alone.
        atol: How much scores may differ where only the order of rows or candidates has changed.
    """

    compares_real = True
    atol = 1e-4

    @pytest.fixture
    def proxy(self) -> BaseProxy:
        """Return the proxy; a subclass overrides it."""
        raise NotImplementedError

    @pytest.fixture
    def real(self) -> ProxyInput:
        """Return the real sample."""
        return proxy_input("real", _draw(_N_REAL, 0))

    @pytest.fixture
    def candidates(self) -> list[ProxyInput]:
        """Return four candidates, each further from the real sample than the one before."""
        return [
            proxy_input(f"c{i}", _draw(_N_SYNTHETIC, 1 + i, shift))
            for i, shift in enumerate(_SHIFTS)
        ]

    def test_states_what_it_is(self, proxy: BaseProxy, real: ProxyInput) -> None:
        assert isinstance(proxy.higher_is_better, bool)
        for name in ("key", "unit", "source", "family"):
            assert isinstance(getattr(proxy, name), str)
            assert getattr(proxy, name), name
        assert proxy.modalities <= {"text", "image"}
        assert type(proxy).__doc__
        assert resolve_suite([proxy], real.modality) == (proxy,)

    def test_options_make_the_same_proxy_again(self, proxy: BaseProxy) -> None:
        options = dict(proxy.options())
        assert type(proxy)(**options).options() == options
        assert json.loads(json.dumps(options)) == options, "a ranking file keeps options as JSON"

    def test_scores_have_the_stated_form(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        scores = _score(proxy, real, candidates)
        for values in (scores.values, scores.spread, scores.p_values):
            if values is not None:
                assert values.shape == (len(candidates),)
                assert values.dtype == torch.float64
                assert values.device == _CPU
        assert torch.isfinite(scores.values).all()
        assert all(isinstance(message, str) for message in scores.messages)
        if scores.example_scores is not None:
            assert scores.example_scores(1).shape == (len(candidates[1]),)
        if scores.mixture is not None:
            even = torch.full((len(candidates),), 1 / len(candidates), dtype=torch.float64)
            assert math.isfinite(scores.mixture(even))

    def test_equal_seeds_give_equal_scores_and_leave_the_process_as_it_was(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        torch.manual_seed(1)
        first = _score(proxy, real, candidates)
        torch.manual_seed(2)
        with unchanged_process():
            second = _score(proxy, real, candidates)
        assert torch.equal(first.values, second.values)

    def test_the_input_is_not_changed(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        parts = [real, *candidates]
        before = [None if p.embeddings is None else p.embeddings.clone() for p in parts]
        _score(proxy, real, candidates)
        for part, embeddings in zip(parts, before, strict=True):
            if part.embeddings is not None and embeddings is not None:
                assert torch.equal(part.embeddings, embeddings)

    def test_the_order_of_rows_does_not_matter(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        expected = _score(proxy, real, candidates)
        generator = np.random.default_rng(1)
        parts = [_rows(part, generator.permutation(len(part))) for part in (real, *candidates)]
        values = _score(proxy, parts[0], parts[1:]).values
        # what starts from random rows, as clustering does, is allowed the spread of its seeds
        slack = 0 if expected.spread is None else 4 * expected.spread
        assert ((values - expected.values).abs() <= slack + self.atol).all()

    def test_the_order_of_candidates_does_not_matter(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        order = [*range(1, len(candidates)), 0]
        values = _score(proxy, real, [candidates[i] for i in order]).values
        expected = _score(proxy, real, candidates).values[order]
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=self.atol)

    def test_equal_candidates_have_equal_scores(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        copy = dataclasses.replace(candidates[1], name="copy")
        values = _score(proxy, real, [*candidates, copy]).values
        torch.testing.assert_close(values[1], values[-1], rtol=1e-5, atol=self.atol)

    def test_identical_data_is_best(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        if self.compares_real:
            copy = dataclasses.replace(real, name="copy")
            values = _oriented(proxy, _score(proxy, real, [*candidates[1:], copy]))
            assert values[-1] == values.max()

    def test_the_further_away_the_worse(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        if self.compares_real:
            values = _oriented(proxy, _score(proxy, real, candidates))
            assert (values.diff() <= 0).all()
            assert values[0] > values[2]

    def test_resampled_scores_follow_the_weights(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        resample = _score(proxy, real, candidates).resample
        if resample is None:
            return
        counts = np.random.default_rng(0).multinomial(len(real), [1 / len(real)] * len(real), 5)
        weights = torch.from_numpy(counts / len(real))
        scores = resample(weights)
        assert scores.shape == (5, len(candidates))
        assert scores.dtype == torch.float64
        assert torch.isfinite(scores).all()
        assert scores.std(0).max() > 0, "the weights change nothing: set resample=None"
        # a row depends on its own weights only
        torch.testing.assert_close(resample(weights[2:3])[0], scores[2])

    def test_not_finite_embeddings_are_undefined_or_refused(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        if not proxy.needs_embeddings or candidates[1].embeddings is None:
            return
        broken = candidates[1].embeddings.clone()
        broken[3, 2] = torch.nan
        parts = [candidates[0], dataclasses.replace(candidates[1], embeddings=broken)]
        try:
            scores = _score(proxy, real, parts)
        except ProxyError:
            return
        assert scores.values[1].isnan()
        assert any(parts[1].name in message for message in scores.messages)

    @pytest.mark.parametrize("n", [2, 30])
    def test_one_point_everywhere_gives_a_number_or_a_reason(
        self, proxy: BaseProxy, real: ProxyInput, n: int
    ) -> None:
        parts = [_rows(dataclasses.replace(real, name=f"c{i}"), np.zeros(n, int)) for i in (0, 1)]
        try:
            scores = _score(proxy, _rows(real, np.zeros(n, int)), parts)
        except ProxyError:
            return  # a proxy may refuse, by an error of the library
        assert not scores.values.isinf().any()
        assert scores.messages or not scores.values.isnan().any(), "NaN without a message"

    def test_closed_it_can_score_again(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        before = _score(proxy, real, candidates).values
        proxy.close()
        proxy.close()
        assert torch.equal(_score(proxy, real, candidates).values, before)


def _draw(n: int, seed: int, shift: float = 0.0) -> Points:
    return np.random.default_rng(seed).normal(size=(n, _DIM)) + shift


def _score(
    proxy: BaseProxy, real: ProxyInput, candidates: Sequence[ProxyInput], seed: int = 0
) -> ProxyScores:
    return proxy.score(real, candidates, seed=seed, device=_CPU)


def _oriented(proxy: BaseProxy, scores: ProxyScores) -> torch.Tensor:
    return scores.values if proxy.higher_is_better else -scores.values


def _rows(part: ProxyInput, rows: NDArray[np.integer]) -> ProxyInput:
    """Return chosen rows of an input, in this order."""
    chosen = [int(row) for row in rows]
    return dataclasses.replace(
        part,
        views=[part.views[row] for row in chosen],
        digests=part.digests[chosen],
        embeddings=None if part.embeddings is None else part.embeddings[chosen],
        records=None if part.records is None else [part.records[row] for row in chosen],
        labels=None if part.labels is None else [part.labels[row] for row in chosen],
    )
