"""Bad input to the command: one line that names what was found and what is allowed, status 1."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from synque_select.cli.main import main
from synque_select.cli.options import lightning_command_line
from synque_select.data.sources import load_candidates
from synque_select.errors import DataError
from synque_select.records.ranking_file import load_ranking


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "real"):
        records = [{"text": f"{name} {i} apps", "n": i} for i in range(8)]
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
    task = {"class_path": "synque_select.recipes.digits.DigitsTask"}
    wrong = {"task": task, "experiment": {"replicats": 2}}
    (tmp_path / "wrong.yaml").write_text(json.dumps(wrong))  # JSON is YAML
    wrong = {"task": {**task, "init_args": {"fit": {"max_step": 3}}}}
    (tmp_path / "fit.yaml").write_text(json.dumps(wrong))
    return tmp_path


RANK = ["rank", "--candidates", "a.json,b.json", "--real", "real.json", "--view", "text",
        "--proxies", "ngram", "--top-k", "1"]  # fmt: skip


def test_the_command_that_the_others_break_works(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*RANK, "--json", "out.json"]) == 0
    assert "Ranking by ngram against 8 real examples" in capsys.readouterr().out
    assert json.loads((folder / "out.json").read_text())["top_k"] == 1
    assert main([*RANK, "--json", "out.json"]) == 0  # a ranking of this library may be overwritten


def test_a_top_k_above_the_number_of_candidates_means_all(folder: Path, capsys):
    assert main([*RANK, "--top-k", "3", "--json", "out.json"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "! top_k=3 is more than there are candidates (2): all that can be selected are." in printed
    )
    state = json.loads((folder / "out.json").read_text())
    assert state["top_k"] == 2
    assert len(state["selected"]) == 2
    assert load_ranking("out.json").top(9).names == ("a", "b")
    assert "as top_k=9 was given" in load_ranking("out.json").top(9).source


def test_the_parent_of_runs_is_not_a_run(folder: Path, capsys: pytest.CaptureFixture[str]):
    for i in range(7):
        run = folder / "runs" / "digits" / f"run-{i}"
        run.mkdir(parents=True)
        (run / "result.json").write_text("{}")
        os.utime(run, (i, i))
    for where in ("runs", "runs/digits"):
        assert main(["report", where]) == 1
        message = capsys.readouterr().err
        assert "nothing to report. It holds 7 runs; give the directory of one: " in message
        names = ", ".join(f"runs/digits/run-{i}" for i in range(2, 7))
        assert f"{names} and 2 older ones" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnk"], "unknown command 'rnk': did you mean 'rank'?"),
        ([*RANK, "--top-k", "abc"], "abc"),
        ([*RANK, "--qui"], "--qui: did you mean --quiet?"),
        (["rank", "--reel", "real.json"], "--reel: did you mean --real?"),
        (
            ["experiment", "--config", "digits", "--experiment.replicate", "2"],
            "did you mean --experiment.replicates? `synque-select experiment --help` lists",
        ),
        (
            ["fit", "--config", "digits-fit", "--trainer.max_step=2"],
            "--trainer.max_step: did you mean --trainer.max_steps? `synque-select fit --help`",
        ),
        (["tune", "--config", "digits-fit", "--tune.n_trial", "2"], "mean --tune.n_trials?"),
        ([*RANK, "--rank-by", "pad"], "rank_by='pad' is not a column"),
        ([*RANK, "--proxies", "ngrm"], "unknown proxy 'ngrm': did you mean 'ngram'?"),
        ([*RANK, "--proxies", "ngram:key=pad"], "expected KEY:OPTION=VALUE"),
        ([*RANK, "--proxies", "ngram:max=3"], "has no option 'max'"),
        ([*RANK, "--top-k", "0"], "top_k=0: allowed is a whole number from 1"),
        ([*RANK, "--seed", "-1"], "seed=-1: allowed is a whole number from 0"),
        ([*RANK, "--seed", "9" * 20], "allowed is a whole number from 0"),
        ([*RANK, "--device", "cuda:99"], "device='cuda:99' cannot be used here"),
        ([*RANK, "--view", "txt"], "no field 'txt'; did you mean 'text'?"),
        ([*RANK, "--view", "text,typo"], "no field 'typo'; there are: n, text"),
        ([*RANK, "--real", "none.json"], "none.json"),
        (
            [*RANK, "--json", "a.json"],
            "a.json: the file must be an object, found a list: not replaced",
        ),
        (["rank", "--candidates", "a.json"], "required"),
        (["fit", "--config", "nope"], "config 'nope' is neither a file nor a packaged config"),
        (
            ["experiment", "--config", "digits", "--task.fit.n_distinct=-5"],
            "n_distinct=-5: allowed",
        ),
        (
            ["experiment", "--config", "digits", "--task.init_args.encodr=3"],
            "DigitsTask has no option 'encodr': did you mean 'encoder'? There are: encoder, fit",
        ),
        (
            ["experiment", "--config", "fit.yaml"],
            "fit has no option 'max_step': did you mean 'max_steps'? There are: batch_size, epochs",
        ),
        (
            ["experiment", "--config", "wrong.yaml"],
            "experiment has no option 'replicats': did you mean 'replicates'? There are: arms",
        ),
        (
            ["experiment", "--config", "digits", "--experiment.time_limit_s=-5"],
            "time_limit_s=-5.0:",
        ),
        (
            ["experiment", "--config", "digits", "--experiment.run_dir=a.json"],
            "a.json is a file: give a directory",
        ),
        (["ls", "proxie"], "'proxie': did you mean 'proxies'? There are: cache, configs"),
        (["report", "--format", "mdd", "."], "--format 'mdd': did you mean 'md'? There are: card"),
        (["completion", "bahs"], "'bahs': did you mean 'bash'?"),
        (["benchmark", "task", "--data", "."], "'task': did you mean 'tasks'?"),
        ([*RANK, "--mixture", "equla"], "mixture='equla': did you mean 'equal'?"),
        ([*RANK, "--label-filter", "auot"], "label_filter='auot': did you mean 'auto'?"),
        (
            ["sweep", "--config", "digits-fit", "--sweep.mode", "mxa"],
            "sweep.mode: expected 'max' or 'min', found 'mxa'; did you mean 'max'?",
        ),
        (
            ["ask", "--candidates", "a.json", "--real", "a.json"],
            "arguments are required: --label\n",
        ),
        (["rank"], "arguments are required: --candidates, --real\n"),
        (["validate"], "arguments are required: CONFIG\n"),
        (["report", "a.json"], "a.json"),
        (["report", "."], "nothing to report"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_one_line_and_status_1(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("synque-select: error: ")
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert json.loads((folder / "a.json").read_text())[0]["text"] == "a 0 apps"


@pytest.mark.parametrize(
    "command",
    [["fit", "-c"], ["sweep", "--config"], ["tune", "--config"], ["experiment", "--config"],
     [*RANK, "--proxies", "lens", "--lens"], ["fit", "--trainer"]],
    ids=lambda command: " ".join(command[::len(command) - 1]),
)  # fmt: skip
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed_everything: 0\n".encode("utf-16"), "not UTF-8 (byte 0xff) (is the file UTF-16?)"),
        (b"first: a.json\nother: b.json\nfirst: c.json\n", "line 3: the key 'first' is already"),
        (b"part: 1\nnested: part.yaml\n", "part.yaml, line 2: the key 'a' is already on line 1"),
    ],
)
def test_a_config_that_cannot_be_read_whole(
    command: list[str], content: bytes, message: str, folder: Path, capsys
):
    if b"nested" in content and "--lens" in command:
        pytest.skip("a LENS config has no nested configs")
    (folder / "c.yaml").write_bytes(content)
    (folder / "part.yaml").write_text("a: 1\na: 2\n")
    assert main([*command, "c.yaml"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("synque-select: error: ")
    assert message in error


def test_a_config_that_is_not_a_mapping(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "c.yaml").write_text("- 1\n")
    assert main(["fit", "--config", "c.yaml"]) == 1
    assert "c.yaml: found a list; a config must be a mapping" in capsys.readouterr().err


def test_an_option_of_a_config_in_two_spellings(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "c.yaml").write_text("top_k: 2\nview: text\ntop-k: 1\n")
    assert main([*RANK, "--config", "c.yaml"]) == 1
    message = "c.yaml: 'top-k' and 'top_k' are one option; remove one of them"
    assert message in " ".join(capsys.readouterr().err.split())


def test_escapes_in_a_message_do_not_reach_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    records = [{"\x1b[2Jfield": "x"}] * 3
    (folder / "a.json").write_text(json.dumps(records))
    assert main(RANK) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_deeply_nested_values_beside_the_view_are_no_trouble(folder: Path):
    """Deeper than Arrow writes; the field is kept as JSON, as those of several types are."""
    nested: list = []
    for _ in range(200):
        nested = [nested]
    records = [{"text": f"a {i} apps", "tree": nested} for i in range(8)]
    (folder / "a.json").write_text(json.dumps(records))
    assert load_candidates("a.json", view="text")[0][3] == records[3]
    assert main(RANK) == 0


def test_an_iterable_that_nests_without_end_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path))
    endless: list = []
    for _ in range(100_000):
        endless = [endless]
    with pytest.raises(DataError, match=r"example 0 \(counted from 0\): the value of field 'tree'"):
        load_candidates(({"text": "x", "tree": endless} for _ in range(3)), view="text")


def test_a_folder_that_may_not_be_read(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: object) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (folder / "closed").mkdir()
    monkeypatch.setattr(os, "listdir", refuse)  # to root, everything is open
    assert main(["rank", "--candidates", "closed", "--real", "real.json"]) == 1
    assert capsys.readouterr().err == (
        "synque-select: error: closed: no permission to read it\n"
    )  # fmt: skip


def test_a_parser_does_not_quote_a_whole_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "long.yaml").write_text(json.dumps({"model": ["x" * 100] * 1000}))
    assert main(["fit", "--config", "long.yaml"]) == 1
    errors = capsys.readouterr().err
    assert 'Parser key "model"' in errors
    assert len(errors) < 2100


def test_a_closed_pipe_ends_the_command_without_a_word():
    code = "import sys; from synque_select.cli.main import main; sys.exit(main(['--help']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()  # as `| head` does
        assert run.stderr.read() == b""
    assert run.returncode == 0


def test_lightnings_advertisements_are_left_out_of_a_command_and_nothing_else():
    from pytorch_lightning.utilities import rank_zero_info

    # the package that was imported last has the log of both
    packages = ("pytorch_lightning", "lightning.pytorch")
    logs = [logging.getLogger(f"{package}.utilities.rank_zero") for package in packages]
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    for log in logs:
        log.addHandler(handler)
    try:
        with lightning_command_line("fit"):
            rank_zero_info("💡 Tip: install something")
            rank_zero_info("GPU available: False")
        rank_zero_info("💡 Tip: in a script of the user's")
    finally:
        for log in logs:
            log.removeHandler(handler)
    assert stream.getvalue() == "GPU available: False\n💡 Tip: in a script of the user's\n"
