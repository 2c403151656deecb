"""What a comparison of two runs says of their settings."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from synque_select.errors import RecordError
from synque_select.report.run_list import RunEntry, comparison_tables
from synque_select.types.run_info import RunInfo

CREATED = "2026-01-01T00:00:00+00:00"
CONFIG = """
data: {class_path: synque_select.SynqueDataModule, init_args: {batch_size: 32, candidates: [a, b]}}
trainer: {max_epochs: 2, callbacks: [{class_path: C, init_args: {proxies: [ngram]}}]}
"""


def run(name: str, command: str, config: str = CONFIG) -> RunEntry:
    made = RunInfo(CREATED, command, "3.12", {"c.yaml": config})
    return RunEntry(Path(name), name, datetime(2026, 1, 1, tzinfo=UTC), "fit", made=made)


def differences(first: RunEntry, second: RunEntry) -> dict[str, tuple[str, ...]]:
    rows = comparison_tables(first, second)[0].rows
    return {str(row[0]): tuple(map(str, row[1:])) for row in rows}


def test_settings_of_configs_and_command_line_are_compared_by_name():
    first = run("a", "synque-select fit --config c.yaml --name a --data.init_args.batch_size 32")
    other = CONFIG.replace("[ngram]", "[ngram, mmd]").replace("batch_size: 32, ", "")
    second = run("b", "synque-select fit --config d.yaml --trainer.max_epochs=1 --name=b", other)
    assert differences(first, second) == {
        "data.batch_size": ("32", "-"),
        "trainer.callbacks.0.proxies": ("ngram", "ngram, mmd"),
        "trainer.max_epochs": ("2", "1"),
    }
    assert differences(first, run("a2", "synque-select fit --config e.yaml --name a2")) == {}


def test_a_run_that_does_not_say_how_it_was_made_differs_in_no_setting():
    first = run("a", "synque-select fit --config c.yaml")
    called = RunInfo(CREATED, "rank(candidates)", "3.12", language="python")
    for made in (called, None):
        second = RunEntry(Path("b"), "b", first.created, "fit", made=made)
        assert differences(first, second) == {}


def test_a_config_of_a_run_that_grows_when_read_is_an_error():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    huge = run("b", "synque-select fit --config c.yaml", "\n".join(lines))
    with pytest.raises(RecordError):
        comparison_tables(run("a", "synque-select fit --config c.yaml"), huge)
