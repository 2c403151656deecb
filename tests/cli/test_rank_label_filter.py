"""`rank --label-filter`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import html
import json
import random
from pathlib import Path

import pytest

from synque_select.cli.main import main
from synque_select.records.dropped_labels_file import load_dropped_labels
from synque_select.records.ranking_file import load_ranking
from synque_select.report.page import write_report

WORDS = (("apple", "banana", "cherry"), ("zebra", "xenon", "quartz"))


def write(path: Path, seed: int, n: int = 30, *, swapped: bool = False) -> None:
    draw = random.Random(seed)
    records = []
    for i in range(n):
        label = i % 2
        text = f"the {' '.join(draw.choices(WORDS[label], k=3))} of number {draw.randrange(99)}"
        wrong = (draw.random() <= 0.2) != swapped
        records.append({"text": text, "label": label ^ wrong})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for k in range(4):
        write(tmp_path / "data" / f"c{k}.jsonl", k)
    write(tmp_path / "real.jsonl", 50)
    return ["rank", "--candidates", "data", "--real", "real.jsonl", "--view", "text",
            "--cache-dir", "cache", "--encoder", "tests.training.tiny.LetterEncoder",
            "--proxies", "pad"]  # fmt: skip


def test_the_dropped_examples_are_written_beside_the_ranking(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = ["--label", "label", "--label-filter", "auto", "--json", "out/second.json"]
    assert main([*command, *given]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "The label filter drops" in printed
    assert "second.dropped_labels.jsonl to out" in printed
    record = load_ranking(tmp_path / "out" / "second.json").label_filter
    assert record is not None
    assert record.is_open
    dropped = load_dropped_labels(tmp_path / "out" / "second.dropped_labels.jsonl")
    assert {n: len(each) for n, each in dropped.items()} == record.dropped
    # a share of its own keeps more
    given[3] = "0.99"
    assert main([*command, *given]) == 0
    again = load_ranking(tmp_path / "out" / "second.json").label_filter
    assert again is not None
    assert again.choice == 0.99
    assert sum(again.dropped.values()) <= sum(record.dropped.values())


def test_the_examples_can_be_relabeled_instead(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = ["--label", "label", "--label-filter", "auto", "--relabel", "--json", "out"]
    assert main([*command, *given]) == 0
    assert "The label filter relabels" in " ".join(capsys.readouterr().out.split())
    record = load_ranking(tmp_path / "out" / "ranking.json").label_filter
    assert record is not None
    assert record.relabel
    lines = (tmp_path / "out" / "dropped_labels.jsonl").read_text().splitlines()
    assert all("it is trained on as" in json.loads(line)["reason"] for line in lines)
    assert len(lines) == sum(record.dropped.values()) > 0


def test_without_a_filter_a_message_offers_it(
    command: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main([*command, "--label", "label"]) == 0
    assert "The label filter is off." not in capsys.readouterr().out
    assert main([*command, "--label", "label", "--details"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "The label filter is off. With label_filter='auto' (--label-filter auto), it" in printed
    assert main(command) == 0
    assert "label filter" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--label-filter", "auto"], "--label on the command line"),
        (["--label", "label", "--label-filter", "some"], "label_filter='some': allowed is 'off'"),
        (["--label", "label", "--label-filter", "1.5"], "label_filter=1.5: allowed is 'off'"),
        (["--label", "label", "--relabel"], "--relabel changes what the label filter does"),
    ],
)
def test_bad_arguments(
    command: list[str], given: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main([*command, *given]) == 1
    assert message in capsys.readouterr().err


def test_a_proxy_may_read_labels_that_are_not_classes(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for path in (tmp_path / "data").iterdir():
        records = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [{**record, "length": len(record["text"]) + i / 997}
                for i, record in enumerate(records)]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([*command, "transfer", "--label", "length", "--json", "numbers"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "The labels were not checked: " in printed
    assert load_ranking(tmp_path / "numbers").proxies["transfer"].unit == "R²"
    # without such a proxy, they are ranked all the same
    assert main([*command, "--label", "length"]) == 0
    assert "The labels were not checked: " in " ".join(capsys.readouterr().out.split())


def test_of_two_camps_twenty_texts_are_in_the_file_and_on_the_page(command: list[str], capsys):
    for k in range(4):
        write(Path("data") / f"c{k}.jsonl", k, n=60, swapped=k < 2)
    assert main([*command, "--label", "label", "--json", "out"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "All 20 are in labels.json (--json), with both readings." in out
    contested = json.loads(Path("out/labels.json").read_text())["contested"]
    assert len(contested) == 20
    for each in contested:
        lines = (Path("data") / f"{each['candidate']}.jsonl").read_text().splitlines()
        record = json.loads(lines[each["position"]])
        assert (each["view"], each["label"]) == (record["text"], str(record["label"]))
        assert {each["label"], each["read_as"]} == {"0", "1"}
    page = write_report("out").read_text()
    assert all(f"<p>{each['view']}</p>" in page or each["view"] in page for each in contested)
    first = contested[0]
    caption = f"{first['candidate']}, example {first['position']}: labeled '{first['label']}'"
    assert caption in html.unescape(page)
