"""The permutation p-value of MMD: uniform where nothing differs, small where something does."""

from __future__ import annotations

import json

import pytest
import torch

from synque_select.errors import ConfigError
from synque_select.proxies.base import ProxyScores
from synque_select.proxies.kernel import MMD
from synque_select.proxies.registry import get_proxy
from synque_select.report.ranking_tables import scores_table
from synque_select.selection.scorer import rank
from synque_select.types import Ranking
from tests.selection.test_example_scores import points, side
from tests.training.tiny import LetterEncoder, candidates, real_sample

CPU = torch.device("cpu")


def scores(proxy: MMD, seed: int = 0, n: int = 25) -> ProxyScores:
    sides = [side("same", points(100 + seed, n, [0, 0])), side("far", points(seed, n, [2, 0]))]
    return proxy.score(side("real", points(500 + seed, n, [0, 0])), sides, seed=seed, device=CPU)


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "polynomial"])
def test_a_shift_is_detected_and_no_shift_is_not(kernel: str):
    proxy = MMD(kernel=kernel, p_value=True)
    p = torch.stack([scores(proxy, seed).p_values for seed in range(20)])
    assert (p[:, 1] == 0.001).all()
    # 20 draws of a uniform: each bound fails once in 10^4
    assert (p[:, 0] < 0.05).sum() <= 6
    assert 0.25 < p[:, 0].mean() < 0.75


def test_it_changes_nothing_else_and_is_off_by_default():
    asked, plain = scores(MMD(p_value=True)), scores(MMD())
    assert torch.equal(asked.values, plain.values)
    assert plain.p_values is None


def test_a_large_candidate_is_tested_on_a_part():
    many = side("many", points(1, 5000, [0, 0]))
    few = side("few", points(2, 30, [0, 0]))
    p_values = MMD(p_value=True).score(few, [many, few], seed=0, device=CPU).p_values
    assert p_values[0] > 0.001
    assert p_values[1] > 0.9


def test_no_bandwidth_no_p_value():
    flat = side("flat", torch.zeros(10, 2))
    result = MMD(p_value=True).score(flat, [flat, side("b", torch.zeros(9, 2))], seed=0, device=CPU)
    assert result.values.isnan().all()
    assert result.p_values is None


def test_in_the_table_and_in_the_file():
    proxies = [get_proxy("mmd", p_value=True), "pad"]
    ranking = rank(candidates(), real_sample(), encoder=LetterEncoder(), proxies=proxies,
                   progress=False)  # fmt: skip
    near, far = ranking["near"].scores, ranking["far"].scores
    assert far["mmd"].p_value == 0.001
    assert near["mmd"].p_value > 0.01
    assert far["pad"].p_value is None
    state = json.loads(json.dumps(ranking.to_dict()))
    rows = {row["name"]: row["scores"] for row in state["candidates"]}
    assert rows["far"]["mmd"]["p_value"] == 0.001
    assert "p_value" not in rows["far"]["pad"]
    assert repr(Ranking.from_dict(state)) == repr(ranking)
    text = scores_table(ranking).text(200)
    assert "p: permutation test" in text
    assert f"{near['mmd'].p_value:.3f}" in text


def test_bad_option():
    with pytest.raises(ConfigError, match="p_value='yes': allowed is true or false"):
        MMD(p_value="yes")  # type: ignore[arg-type]
