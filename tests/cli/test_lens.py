"""The LENS proxies from the command line, with a real engine and weights of no sense."""

from __future__ import annotations

import json

import pytest
import yaml

from synque_select.cli.main import main
from synque_select.lens.rubric import load_rubrics
from tests.llm.test_engines import save_model


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    for name, words in (("one", "apples and pears"), ("two", "cars and bikes")):
        rows = [{"text": f"{i} {words}"} for i in range(5)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    (tmp_path / "real.json").write_text(json.dumps([{"text": f"{i} plums"} for i in range(4)]))
    llm = save_model(tmp_path / "model", n_positions=8192)
    config = {
        "version": 1,
        "scorer": {"engine": "transformers", "model_id": llm.id, "device": "cpu"},
        "sampling": {"n_samples": 3, "n_points": 2, "max_answer_tokens": 2000},
        "save_rubrics": str(tmp_path / "rubrics.json"),
        "answers": str(tmp_path / "answers.sqlite"),
        "max_samples": 4,
    }
    (tmp_path / "lens.yaml").write_text(yaml.safe_dump(config))
    candidates = [str(tmp_path / f"{name}.json") for name in ("one", "two")]
    return ["rank", "--candidates", *candidates, "--real", str(tmp_path / "real.json")]


def test_rank_by_lens(arguments, tmp_path, capsys):
    lens = ["--proxies", "lens,lens_raw", "--lens", str(tmp_path / "lens.yaml"), "--top-k", "1"]
    out = tmp_path / "ranking.json"
    assert main([*arguments, *lens, "--rank-by", "lens", "--json", str(out), "--details"]) == 0
    printed = " ".join(capsys.readouterr().out.split())  # lines are wrapped
    assert "64 questions asked, 0 answers kept from earlier" in printed
    assert "0 questions asked, 64 answers kept from earlier" in printed
    scores = [row["scores"] for row in json.loads(out.read_text())["candidates"]]
    assert all(0 < score[key]["value"] < 1 for score in scores for key in ("lens", "lens_raw"))
    assert all(len(r.similarities) == 2 for r in load_rubrics(tmp_path / "rubrics.json").values())


def test_a_config_without_a_proxy_that_reads_it(arguments, tmp_path, capsys):
    assert main([*arguments, "--proxies", "ngram", "--lens", str(tmp_path / "lens.yaml")]) == 1
    assert "the proxies have none of lens, lens_balanced, lens_raw" in capsys.readouterr().err


def test_lens_without_a_config_names_the_packaged_ones(arguments, capsys):
    assert main([*arguments, "--proxies", "ngram,lens,lens_raw"]) == 1
    errors = capsys.readouterr().err
    assert "--proxies lens,lens_raw needs --lens" in errors
    assert "lens-paper-image, lens-paper-text, lens-small" in errors


def test_a_config_that_is_nowhere(arguments, capsys):
    assert main([*arguments, "--proxies", "lens", "--lens", "lens-smal"]) == 1
    errors = capsys.readouterr().err
    assert "LENS config 'lens-smal' is neither a file nor a packaged config" in errors
    assert "did you mean 'lens-small'?" in errors
