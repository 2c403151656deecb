"""`benchmark released` with your own models: ablations, rubrics, prompts of the task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synque_select.benchmark.judgments import released_rubrics
from synque_select.cli.main import main
from synque_select.errors import ConfigError, DataError
from synque_select.lens.config import LensConfig
from synque_select.llm.scripted import ScriptedLLM
from tests.benchmark.test_released import (  # noqa: F401 - fixtures
    FAR,
    FARNESS,
    GROUPS,
    own_cache,
    run,
    tables,
    text2sql,
    write,
)

pytestmark = pytest.mark.usefixtures("own_cache")
POINTS = json.dumps({"points": [f"Point {i}." for i in range(9)] + ["Dataset B has odd nouns."]})


def judge_words(prompt: str, choices: Any) -> list[float]:
    """Samples with odd nouns come from the set that is said to have them."""
    head, _, rest = prompt.partition("You are shown")
    is_odd = any(noun.lower() in rest.lower() for noun in FAR)
    name = "A" if "from dataset A?" in rest else "B"
    if "How dataset" in head:
        parts = head.split("How dataset")[1:]
        has = "odd nouns" in parts[0 if name == "A" else 1]
    else:
        has = f"Dataset {name} is synthetic" in head
    return [0, 0, 0, 1, 1] if has == is_odd else [1, 1, 0, 0, 0]


def write_points(prompt: str) -> str:
    """Say that dataset B has odd nouns if it has most of them."""
    a, b = prompt.split("Samples of dataset B:")
    counts = [sum(part.lower().count(noun.lower()) for noun in FAR) for part in (a, b)]
    return POINTS if counts[1] > counts[0] else POINTS.replace("odd nouns", "plain nouns")


def scripted(tmp_path: Path, **options: Any) -> LensConfig:
    return LensConfig(
        scorer=ScriptedLLM(write_points, judge_words),
        answers=str(tmp_path / "answers.sqlite"),
        progress=False,
        **options,
    )


@pytest.fixture
def with_rubrics(text2sql: Path) -> Path:  # noqa: F811 - the fixture
    points = {group: {name: ["Dataset B is."] for name in FARNESS} for group in GROUPS}
    odd = {group: {name: ["Dataset B has odd nouns."] for name in FARNESS} for group in GROUPS}
    for seed in (7, 8):
        path = text2sql / "text2sql" / "LENS" / "rubrics" / f"any.real_seed={seed}.json"
        state = {"sims": points, "diffs_synth_from_real": odd, "diffs_real_from_synth": points}
        write(path, state)
    return text2sql


def test_ablations_with_a_model_of_the_users(with_rubrics: Path, tmp_path: Path):
    config = scripted(tmp_path)
    result = run(with_rubrics, lens=config, lens_rubrics="released", max_samples=12)
    proxies = result["tasks"]["text2sql"]["proxies"]
    assert {"consensus", "lens", "lens_raw", "lens_balanced", "lens_zero_shot"} <= set(proxies)
    for key in ("lens", "lens_raw", "lens_balanced", "lens_zero_shot"):
        assert proxies[key]["spearman"] > 0.8
    assert result["tasks"]["text2sql"]["cost"]["judge_calls"] == len(config.scorer.prompts) > 0
    # released rubrics and the prompts of the task; no rubric was written
    assert all("How likely is it that this question" in p for p in config.scorer.prompts)
    assert not any("Write exactly" in p for p in config.scorer.prompts)
    assert "lens_zero_shot" in tables(result)


def test_new_rubrics_are_written_and_nothing_is_asked_twice(with_rubrics: Path, tmp_path: Path):
    config = scripted(tmp_path)
    options = {"proxies": ["lens"], "lens": config, "max_samples": 6}
    first = run(with_rubrics, **options)
    written = [p for p in config.scorer.prompts if "Write exactly" in p]
    assert len(written) == len(set(written)) == 3 * len(FARNESS) * len(GROUPS) * 2
    n_asked = len(config.scorer.prompts)
    again = run(with_rubrics, **options)
    assert len(config.scorer.prompts) == n_asked
    assert again["tasks"]["text2sql"]["cost"]["judge_calls"] == 0
    rows = [result["tasks"]["text2sql"]["proxies"]["lens"] for result in (first, again)]
    assert rows[0]["by_group"] == rows[1]["by_group"]


def test_labels_or_expectations_and_smaller_real_samples(with_rubrics: Path, tmp_path: Path):
    def label(prompt: str) -> str:
        return "likely" if judge_words(prompt, None)[-1] else "unlikely"

    config = LensConfig(
        scorer=ScriptedLLM(label),
        readout="label",
        answers=str(tmp_path / "a.sqlite"),
        progress=False,
    )
    result = run(
        with_rubrics,
        proxies=["lens", "lens_zero_shot"],
        lens=config,
        lens_rubrics="released",
        max_samples=6,
        sample_sizes=[8],
    )
    task = result["tasks"]["text2sql"]
    assert set(task["sample_sizes"]["8"]["proxies"]) >= {"lens", "lens_zero_shot"}
    assert task["proxies"]["lens"]["spearman"] > 0.5


def test_released_judgments_at_smaller_real_samples(with_rubrics: Path):
    labels = ("very unlikely", "unlikely", "unsure", "likely", "very likely")
    root = with_rubrics / "text2sql" / "LENS" / "scores" / "some-model"
    for seed in (7, 8):
        for group in GROUPS:
            for number, name in enumerate(FARNESS):
                for side, n, value in (("real_data", 24, 4), ("synthetic_data", 30, 4 - number)):
                    record = {
                        f"score_{y}_given_synth_loc_{place}_judgement": labels[
                            value if y == "real" else 4 - value
                        ]
                        for y in ("real", "synth")
                        for place in "AB"
                    }
                    other = dict.fromkeys(record, labels[2])
                    path = root / f"seed={seed}" / side / group / f"{name}.json"
                    write(path, [record] * (n - 4) + [other] * 4)
    result = run(with_rubrics, proxies=["lens", "lens_raw"], sample_sizes=[8])
    task = result["tasks"]["text2sql"]
    assert task["cost"]["judge_calls"] == 0
    small = task["sample_sizes"]["8"]["proxies"]
    assert small["lens_raw"] == {
        **small["lens_raw"], "spearman": task["proxies"]["lens_raw"]["spearman"]
    }  # fmt: skip
    assert small["lens"]["spearman"] > 0.9

    # one ranking is not judged, and another model judged only one
    group, *_ = GROUPS
    place = ("synthetic_data", group, "alpha.json")
    root.joinpath("seed=8", *place).unlink()
    write(root.with_name("another") / "seed=7" / Path(*place), [record])
    write(root.with_name("another") / "seed=7" / "real_data" / group / "alpha.json", [record])
    task = run(with_rubrics, proxies=["lens_raw"])["tasks"]["text2sql"]
    assert task["proxies"]["lens_raw"]["n_groups"] == len(GROUPS)
    assert "lens: judgments of some-model used, not of another." in task["absent"]
    assert f"{group}: no LENS judgments of all candidates for seed 8." in task["absent"]


def test_released_rubrics_are_found_by_seed_group_and_name(with_rubrics: Path):
    rubrics = released_rubrics(with_rubrics / "text2sql", "zoo", "8")
    assert set(rubrics) == set(FARNESS)
    assert rubrics["alpha"].only_synthetic == ("Dataset B has odd nouns.",)
    with pytest.raises(DataError, match="no released rubrics of seed 9"):
        released_rubrics(with_rubrics / "text2sql", "zoo", "9")


def test_options_without_a_model(with_rubrics: Path, capsys, tmp_path: Path):
    with pytest.raises(ConfigError, match="need lens=, the models that judge"):
        run(with_rubrics, max_samples=5)
    with pytest.raises(ConfigError, match="lens_rubrics='old'"):
        run(with_rubrics, lens=scripted(tmp_path), lens_rubrics="old")
    arguments = ["benchmark", "released", "--data", str(with_rubrics), "--lens", "lens-smal"]
    assert main([*arguments, "--proxies", "lens"]) == 1
    assert "lens-smal" in capsys.readouterr().err
