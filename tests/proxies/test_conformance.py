"""Every built-in proxy inherits the suite of proxies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synque_select.lens.config import LensConfig
from synque_select.proxies import BaseProxy, ProxyInput, get_proxy, proxy_keys
from synque_select.sql.text import write_empty_database
from synque_select.testing import ProxyConformance
from tests.lens.scripts import telling_llm

COMPARE = (
    "coverage",
    "density",
    "energy",
    "frechet",
    "knn_coverage",
    "mauve",
    "mauve_star",
    "mmd",
    "ngram",
    "pad",
)
# what never compares candidates with the real sample itself, although agreement uses its inputs
DESCRIBE = (
    "agreement",
    "baseline_distinct",
    "baseline_entropy",
    "baseline_length",
    "baseline_n",
    "baseline_spread",
    "baseline_transfer",
    "baseline_vocabulary",
    "mdm",
)
LENS = ("lens", "lens_balanced", "lens_raw", "lens_zero_shot")


class TestThatCompare(ProxyConformance):
    @pytest.fixture(params=COMPARE)
    def proxy(self, request) -> BaseProxy:
        return get_proxy(request.param)


class TestThatDescribe(ProxyConformance):
    compares_real = False

    @pytest.fixture(params=DESCRIBE)
    def proxy(self, request) -> BaseProxy:
        return get_proxy(request.param)


class TestTransfer(ProxyConformance):
    @pytest.fixture
    def proxy(self) -> BaseProxy:
        return get_proxy("transfer")

    def test_the_further_away_the_worse(
        self, proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]
    ) -> None:
        # what counts are the labels: a head does not suffer from a small shift of its inputs
        scores = proxy.score(real, candidates, seed=0, device=torch.device("cpu"))
        near, _, far, further = scores.values.tolist()
        assert near > far > further


class TestLens(ProxyConformance):
    @pytest.fixture(params=LENS)
    def proxy(self, request, tmp_path: Path) -> BaseProxy:
        self.compares_real = request.param != "lens_zero_shot"  # no rubric tells the script
        answers = str(tmp_path / "answers.sqlite")
        return get_proxy(request.param, config=LensConfig(telling_llm(), answers=answers))

    def test_options_make_the_same_proxy_again(self, proxy: BaseProxy) -> None:
        # an engine that was given as an object is not an option; one named in a config is
        super().test_options_make_the_same_proxy_again(get_proxy(proxy.key))


class TestSQLValidity(ProxyConformance):
    compares_real = False

    @pytest.fixture
    def proxy(self, tmp_path: Path) -> BaseProxy:
        database = write_empty_database(tmp_path / "empty.sqlite", {"t": ["a"]})
        return get_proxy("sql_validity", database=str(database))


def test_every_proxy_is_in_a_suite():
    assert sorted({*COMPARE, *DESCRIBE, *LENS, "sql_validity", "transfer"}) == list(proxy_keys())
