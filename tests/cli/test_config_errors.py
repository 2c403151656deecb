"""Errors in a config name its file and line, what was found, and what is allowed."""

from __future__ import annotations

import locale
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonargparse
import pytest

from synque_select.cli.main import main
from synque_select.cli.options import packaged_config, utf8_configs
from synque_select.errors import ConfigError

# command, packaged config, text that is replaced, what replaces it, words of the error; {0} is the
# line of the replacement
CASES = {
    "no number": (
        "fit", "digits-fit", "  max_epochs: 4", "  max_epochs: many",
        ["line {0}: trainer.max_epochs: expected int or null, found 'many'"],
    ),
    "no such function": (
        "tune", "digits-fit", "trainer:", "tune: {hyper_parameters: json.dunps}\ntrainer:",
        ["line {0}: tune.hyper_parameters: 'json.dunps': module 'json' has no attribute 'dunps'",
         "; did you mean json.dumps?"],
    ),
    "unknown group": (
        "fit", "digits-fit", "trainer:", "trainr:",
        ["line {0}: unknown option 'trainr': did you mean 'trainer'?"],
    ),
    "unknown group, tune": (
        "tune", "digits-fit", "trainer:", "tunes: {n_trials: 3}\ntrainer:",
        ["line {0}: unknown option 'tunes': did you mean 'tune'?"],
    ),
    "unknown group, experiment": (
        "experiment", "digits", "experiment:", "experiments: {root: x}\nexperiment:",
        ["line {0}: unknown option 'experiments': did you mean 'experiment'?"],
    ),
    "unknown trainer option": (
        "fit", "digits-fit", "  max_epochs: 4", "  max_epoch: 4",
        ["line {0}: trainer has no option 'max_epoch': did you mean 'max_epochs'?"],
    ),
    "unknown argument of a callback": (
        "fit", "digits-fit", "        top_k: 3", "        top_kk: 3",
        ["line {0}: ", "SelectionCallback has no option 'top_kk': did you mean 'top_k'?"],
    ),
    "a value that is not allowed": (
        "fit", "digits-fit", "        top_k: 3", "        top_k: 0",
        ["line {0}: top_k=0: allowed is a whole number from 1"],
    ),
    "no number, tune": (
        "tune", "digits-fit", "trainer:", "tune: {n_trials: many}\ntrainer:",
        ["line {0}: tune.n_trials: expected int, found 'many'"],
    ),
    "unknown option, tune": (
        "tune", "digits-fit", "trainer:", "tune: {n_trial: 3}\ntrainer:",
        ["line {0}: tune has no option 'n_trial': did you mean 'n_trials'?"],
    ),
    "no text, sweep": (
        "sweep", "digits-fit", "trainer:", "sweep: {monitor: [1]}\ntrainer:",
        ["line {0}: sweep.monitor: expected str, found '[1]'"],
    ),
    "unknown option, sweep": (
        "sweep", "digits-fit", "trainer:", "sweep:\n  seeed: 1\ntrainer:",
        [": sweep has no option 'seeed': did you mean 'seed'?"],
    ),
    "unknown option, experiment": (
        "experiment", "digits", "  replicates: 5", "  replicate: 5",
        ["line {0}: experiment has no option 'replicate': did you mean 'replicates'?"],
    ),
    "unknown option of a part": (
        "experiment", "digits", "      n_distinct: 1000", "      n_distinkt: 1000",
        ["line {0}: fit has no option 'n_distinkt': did you mean 'n_distinct'?"],
    ),
    "no number in a part": (
        "experiment", "digits", "      n_distinct: 1000", "      n_distinct: lots",
        ["line {0}: fit.n_distinct: expected int or null, found 'lots'"],
    ),
    "a class that is not there": (
        "experiment", "digits", "  class_path: synque_select.recipes.digits.DigitsTask",
        "  class_path: nothing.Here",
        ["task: class_path 'nothing.Here': No module named 'nothing'"],
    ),
    "a class with a wrong name": (
        "fit", "digits-fit", "    - class_path: synque_select.callbacks.SelectionCallback",
        "    - class_path: synque_select.SelektionCallback",
        ["did you mean synque_select.SelectionCallback?"],
    ),
    "a class without a module": (
        "fit", "digits-fit", "    - class_path: synque_select.callbacks.SelectionCallback",
        "    - class_path: SelectionCalback",
        ["expected module.Class; did you mean synque_select.SelectionCallback?"],
    ),
    "a word that is not allowed": (
        "fit", "digits-fit", "        top_k: 3", "        mixture: equla",
        ["line {0}: mixture: expected 'equal' or 'proportional'", "did you mean 'equal'?"],
    ),
    "a word or a number that is not allowed": (
        "fit", "digits-fit", "        top_k: 3", "        label_filter: auot",
        ["line {0}: label_filter: expected 'off' or 'auto' or float, found 'auot'; did you mean"],
    ),
    "a number that is not allowed": (
        "experiment", "digits", "  replicates: 5", "  replicates: 0",
        ["line {0}: replicates=0: allowed is a whole number from 2"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("option", ["--config", "--config=", "-c"])
def test_an_error_in_a_config_names_the_place(
    name: str,
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    command, config, old, new, words = CASES[name]
    if option == "-c" and command != "fit":
        pytest.skip("only `fit` has this option")
    if option != "--config" and name != "no number":
        pytest.skip("one case for each way to name a config is enough")
    text = packaged_config(config).read_text()
    assert text.count(f"\n{old}") == 1
    line = text[: text.index(f"\n{old}")].count("\n") + 2
    (tmp_path / "mine.yaml").write_text(text.replace(f"\n{old}", f"\n{new}"))
    monkeypatch.chdir(tmp_path)
    given = ["--config=mine.yaml"] if option.endswith("=") else [option, "mine.yaml"]
    assert main([command, *given]) == 1
    (message,) = [
        line for line in capsys.readouterr().err.splitlines() if "synque-select: error" in line
    ]
    assert message.startswith("synque-select: error: mine.yaml, line ")
    for part in words:
        assert part.format(line) in message


def test_a_weight_that_is_not_a_number_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    given = "class_path: synque_select.SynqueDataModule\n  init_args:\n    candidates: c/*.json"
    (tmp_path / "mine.yaml").write_text(f"data:\n  {given}\n    mixture: {{close: half}}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "mine.yaml"]) == 1
    place = "mine.yaml, line 5: mixture: expected a number for each name, found 'half'"
    assert place in capsys.readouterr().err


def test_an_error_of_the_command_line_names_no_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", "--config", "digits", "--experiment.replicates", "0"]) == 1
    assert "error: replicates=0: allowed is" in capsys.readouterr().err
    assert main(["experiment", "--config", "digits", "--experiment.replicates", "x"]) == 1
    message = capsys.readouterr().err
    assert "experiment.replicates: expected int, found 'x'" in message
    assert "digits.yaml" not in message


@pytest.fixture
def ascii_locale() -> Iterator[None]:
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.usefixtures("ascii_locale")
def test_a_config_is_utf8_in_every_locale(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("name: 词汇\n", "utf-8")
    if locale.getencoding() == "utf-8" or sys.flags.utf8_mode:
        pytest.skip("files are UTF-8 by default here")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile)
    parser.add_argument("--name", type=str)
    with pytest.raises(UnicodeDecodeError):
        parser.parse_args(["--config", str(path)])
    with utf8_configs():
        assert parser.parse_args(["--config", str(path)]).name == "词汇"
    with pytest.raises(UnicodeDecodeError):  # that of the user's own code
        parser.parse_args(["--config", str(path)])
    path.write_bytes("seed: 1\nname: Größe\n".encode("latin-1"))
    with utf8_configs(), pytest.raises(ConfigError, match=r"config\.yaml, line 2: not UTF-8"):
        parser.parse_args(["--config", str(path)])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("json: true", "json=True: allowed is a text"),
        ("answers: 7", "answers=7: allowed is a text"),
        ("cache_dir: [x]", "cache_dir=['x']: allowed is a text"),
        ("report: 2020-01-01", None),  # YAML's date is the text that was written
        ('report: "a\\0b"', "report='a\\x00b': the text holds a NUL character"),
        ('quiet: "no"', "quiet='no': allowed is true or false"),
        ("details: 1", "details=1: allowed is true or false"),
        ("label: no", "label=False: allowed is a text"),
        ("encoder: 1.5", "encoder=1.5: allowed is a text"),
        ("view: [text, 3]", "view=3: allowed is a list of texts"),
        ("view: [text, title]", None),
        ("proxies: [1]", "proxies=1: allowed is a list of texts"),
        ("candidates: [1, 2]", "candidates=1: allowed is a list of texts"),
        ("candidates: {1: a.jsonl, b: a.jsonl}", "candidates=1: allowed is a list of texts"),
        ("candidates: {a: {b: c}}", "candidates={'b': 'c'}: allowed is a list of texts"),
    ],
)
def test_a_value_of_another_kind_is_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    words: str | None,
):
    monkeypatch.chdir(tmp_path)
    lines = {"candidates": "candidates: [none.jsonl]", "real": "real: none.jsonl"}
    lines[option.partition(":")[0]] = option
    Path("a.yaml").write_text("\n".join(lines.values()))
    for command in (["rank", "--config"], ["validate"]):
        assert main([*command, "a.yaml"]) == 1
        message = capsys.readouterr().err
        assert (words or "none.jsonl: no such file or folder") in message, message


def test_real_groups_false_in_a_config_means_no_groups():
    from synque_select.cli.rank import _groups

    assert _groups(False) is _groups("false") is False
    assert (_groups(None), _groups("thread")) == (None, "thread")
