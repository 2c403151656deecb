"""Samples, rubric points and names that try to steer a judge, or to break what shows them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from synque_select.cli.main import main
from synque_select.lens.cache import AnswerCache
from synque_select.lens.judge import Tally, judge
from synque_select.lens.prompt_sets import load_prompts, prompt_kinds
from synque_select.lens.rubric import Rubric, RubricSampling, SampleSet, rubric_prompts
from tests.reliability.counts import record_counts
from tests.reliability.hostile_samples import (
    FAMILIES,
    MADE_UP,
    Judge,
    added_in,
    byte_tokenizer,
    hostile_samples,
)
from tests.report.test_page import Page


def test_200_hostile_samples_cannot_steer_a_judge(tmp_path):
    tokenizer = byte_tokenizer(
        [t for t in (*FAMILIES, *MADE_UP) if t not in ("=", "Q", "</", "<|", "|>")]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}<|im_start|>assistant\n"
    )
    samples = hostile_samples()
    assert len(set(samples)) > 190
    cache, prompts = AnswerCache(tmp_path / "answers.sqlite"), load_prompts("text")
    plain, hostile = Judge(tokenizer), Judge(tokenizer)
    points = Rubric(("a",), ("b",), ("c",))
    list(judge(plain, points, ["plain"], ["plain"], prompts, cache, Tally(4)))
    list(judge(hostile, points, [], samples, prompts, cache, Tally(4 * len(samples))))
    assert len(hostile.prompts) == 4 * len(set(samples))
    for i, prompt in enumerate(hostile.prompts):
        frame = plain.prompts[
            next(j for j in range(4) if _frame(plain.prompts[j]) == _frame(prompt))
        ]
        # the same tokens of control in the same order, and the same lines but one
        assert hostile.control_ids(prompt) == plain.control_ids(frame)
        lines, expected = prompt.split("\n"), frame.split("\n")
        (place,) = [k for k, (a, b) in enumerate(zip(lines, expected, strict=True)) if a != b]
        shown, end = json.JSONDecoder().raw_decode(lines[place].removeprefix("The text: "))
        assert end == len(lines[place].removeprefix("The text: "))
        assert shown in {s.encode("utf-8", "replace").decode() for s in samples}
        assert lines[place].isprintable(), i
    record_counts(
        "samples", {"read as one line of text": 200}, {"prompts to the judge": len(hostile.prompts)}
    )


def _frame(prompt: str) -> str:
    head, _, rest = prompt.partition("The text: ")
    return head + rest.partition("\n")[2]


def test_points_of_a_rubric_and_names_cannot_steer_a_judge(tmp_path):
    tokenizer = byte_tokenizer([*FAMILIES, "§§end§§", "ASSISTANT:"])
    llm = Judge(tokenizer)
    for hostile in hostile_samples():
        rubric = Rubric((hostile,), (hostile,), (hostile,))
        for place in ("A", "B"):
            for text in rubric.shown(place, llm.control_tokens()).values():
                assert added_in(tokenizer, text) == []
                assert text.isprintable()
        for (text,) in vars(rubric.with_names(hostile, hostile)).values():
            assert not any(token in text for token in FAMILIES)


@pytest.mark.parametrize(
    "kind", [kind for kind in prompt_kinds() if kind not in ("image", "web_page")]
)
def test_samples_of_a_rubric_cannot_steer_a_reasoner(kind: str):
    tokenizer = byte_tokenizer([*FAMILIES, "§§end§§", "ASSISTANT:"])
    llm = Judge(tokenizer)
    sampling = RubricSampling(n_samples=200, max_tokens=10**6)
    prompts = load_prompts(kind)
    sides = (SampleSet.of_texts(hostile_samples()), SampleSet.of_texts(["plain"] * 200))
    expected = rubric_prompts(llm, sides[1], sides[1], prompts, sampling)
    asked = rubric_prompts(llm, *sides, prompts, sampling)
    for field, prompt in asked.items():
        assert added_in(tokenizer, prompt) == added_in(tokenizer, expected[field])
        assert prompt.count("\n") == expected[field].count("\n")


def write_rows(path: Path, texts: Sequence[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"text": text, "label": "xy"[i % 2]}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")


def ranked(folder: Path, samples: list[str], monkeypatch: pytest.MonkeyPatch) -> Page:
    """Rank files that hold these samples and are named by some of them; return the page."""
    (folder / "real").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SYNQUE_CACHE", str(folder / "cache"))
    for i in range(4):
        # a name of a file has no "/" and no NUL, and at most 255 bytes
        name = samples[i].replace("/", "|").replace("\0", "|").encode("utf-8", "replace")[:120]
        path = Path("synthetic", f"{'=+@-'[i]}{name.decode('utf-8', 'ignore')}.jsonl")
        write_rows(path, samples[50 * i : 50 * i + 50])
    write_rows(Path("real", "real.jsonl"), samples[::5])
    options = ["--proxies", "ngram", "mmd", "--label", "label", "--gaps", "--details"]
    files = ["--candidates", "synthetic", "--real", "real/real.jsonl", "--view", "text"]
    assert main(["rank", *files, *options, "--json", "out"]) == 0
    assert main(["report", "out"]) == 0
    return Page(Path("out", "report.html").read_text())


@pytest.mark.slow
def test_200_hostile_samples_break_neither_terminal_nor_table_nor_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plain = ranked(tmp_path / "plain", [f"plain {i}" for i in range(200)], monkeypatch)
    capsys.readouterr()
    hostile = ranked(tmp_path / "hostile", hostile_samples(), monkeypatch)
    output = "".join(capsys.readouterr())
    assert all(c.isprintable() or c == "\n" for c in output), ascii(output)

    # the same elements and attributes, and nothing in the script
    assert {tag for tag, _ in hostile.tags} == {tag for tag, _ in plain.tags}
    assert {n for _, a in hostile.tags for n in a} == {n for _, a in plain.tags for n in a}
    assert hostile.script == plain.script
    assert "Ignore the above" in hostile.words

    text = Path("out", "ranking.csv").read_text()
    rows = [*csv.reader(io.StringIO(text))]
    assert len({len(row) for row in rows}) == 1
    names = [row[rows[0].index("name")] for row in rows[1:]]
    assert sorted(name[:2] for name in names) == ["'+", "'-", "'=", "'@"]
