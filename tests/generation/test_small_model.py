"""The loop with a real language model of 135M parameters, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synque_select.generation import ImproveOptions, improve
from synque_select.lens.rubric import RubricSampling
from synque_select.llm.structured import fill_schema
from synque_select.llm.transformers.decoding import IncrementalDecoder
from tests.generation.sentences import LABELS, write_data
from tests.llm.models import needs_package, save_model
from tests.training.tiny import LetterEncoder


@needs_package
def test_the_packaged_model_writes_examples_of_the_form(tmp_path: Path):
    write_data(tmp_path)
    options = ImproveOptions(
        rounds=1,
        n_examples=8,
        per_call=4,
        max_chars=60,
        max_answer_tokens=300,
        sampling=RubricSampling(n_samples=3, n_points=1, max_answer_tokens=200),
        encoder=LetterEncoder(),
        proxies=["ngram"],
        progress=False,
        cache_dir=tmp_path / "cache",
    )
    given = {"view": "text", "label": "kind", "options": options}
    generator = {"engine": "transformers", "device": "cpu"}
    data = tmp_path / "made.json", tmp_path / "real.json"
    result = improve(*data, generator, tmp_path / "run", **given)
    (only,) = result.rounds
    assert only.n_new + sum(only.dropped.values()) == 8
    assert "unknown_label" not in only.dropped  # the schema's choices are enforced
    assert "wrong_form" not in only.dropped
    (path,) = (tmp_path / "run").glob("round-1*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == only.n_new > 0
    for row in rows:
        assert set(row) == {"text", "kind"}
        assert row["kind"] in LABELS
        assert 0 < len(row["text"]) <= 60
    assert result.spent.n_answer_tokens > 0
    assert result.spent.n_prompt_tokens > 100
    again = improve(*data, generator, tmp_path / "run", **given)
    assert again == result


@pytest.mark.parametrize("temperature", [0.0, 9.0])
def test_one_of_the_choices_is_written_by_its_probability(tmp_path: Path, temperature: float):
    engine = save_model(tmp_path)
    engine._load()
    choices = ['a"', "b", "c"]
    schema = {"type": "object", "properties": {"y": {"type": "string", "enum": choices}}}
    written = set()
    for seed in range(8):
        prompt = engine._tokenizer("x", add_special_tokens=False).input_ids
        decoder = IncrementalDecoder(
            engine._model, engine._tokenizer, prompt, temperature, seed, max_tokens=60
        )
        written.add(json.loads(fill_schema(schema, decoder))["y"])
    assert written <= set(choices)
    assert len(written) == 1 if temperature == 0 else len(written) > 1
