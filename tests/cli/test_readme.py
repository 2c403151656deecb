"""The code and commands of the README and of docs/*.md run, on files like those that they describe.

Each page has a directory of its own with the same files, and its blocks run in order; a block
marked "file NAME" is written there for those that follow. Commands in blocks without a mark need
data or time that tests do not have: their options are parsed.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synque_select.cli.main import main
from tests.warm_processes import run_warm

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
FIRST = (README, ROOT / "docs" / "first-steps.md")  # what they print is checked as well
KINDS = ("commands", "python", "python script")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the kind and the code of each marked block."""
    marked = re.findall(
        r"<!-- test: (.+?) -->\n```\w+\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    return [(str(kind), str(code)) for kind, code in marked]


def commands(code: str) -> list[str]:
    """Return one command per line; a line that ends in a backslash continues in the next."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line.strip()]


def unmarked_commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `synque-select` command in a block without a mark."""
    text = re.sub(r"<!-- test: .+? -->\n```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M)
    for code in re.findall(r"```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in commands(code):
            words = shlex.split(line, comments=True)
            if "synque-select" in words[:-1]:  # `pip install synque-select` ends in it
                yield words[words.index("synque-select") + 1 :]


GOOD, BAD = ("beats", "rises", "upgraded", "record"), ("misses", "falls", "cut", "weak")
FIRMS = ("Acme", "Globex", "Initech", "Umbrella", "Hooli", "Stark", "Wayne", "Wonka")


def headlines(seed: int, n: int, templates: tuple[str, ...]) -> list[dict[str, object]]:
    generator = random.Random(seed)
    records = []
    for _ in range(n):
        label = generator.randrange(3)
        word = generator.choice((BAD, GOOD, ("holds", "meets", "plans", "says"))[label])
        text = generator.choice(templates).format(
            firm=generator.choice(FIRMS), word=word, n=generator.randrange(100)
        )
        records.append({"headline": text, "sentiment": label})
    return records


REPORTS = (
    "{firm} {word} quarterly estimates by ${n}m",
    "{firm} {word} forecasts by {n}% in the third quarter",
    "analysts: {firm} {word} expectations",
    "Shares of {firm}: the company {word} its targets for {n} markets",
)


def fill(folder: Path) -> None:
    (folder / "candidates").mkdir()
    templates = {
        "close": REPORTS,
        "plain": (*REPORTS[:2], "{firm} {word}"),
        "chatty": (*REPORTS[2:], "Did you hear that {firm} {word} again today, number {n}?"),
        "far": ("qx {n} zz {word} vv",),
    }
    for seed, (name, parts) in enumerate(templates.items()):
        text = json.dumps(headlines(seed, 120, parts))
        (folder / "candidates" / f"{name}.json").write_text(text)
    for name, seed, n in (("real", 10, 40), ("val", 11, 60)):
        # what no candidate has, too
        records = headlines(seed, n, (*REPORTS, "Dear {firm}, we {word} you {n} times: regards"))
        (folder / f"{name}.json").write_text(json.dumps(records))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all pages, as their data are the same."""
    return tmp_path_factory.mktemp("cache")


def run(command: list[str] | str, folder: Path, cache: Path) -> str:
    """Run the arguments of Python, or a line of a shell."""
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "SYNQUE_CACHE": str(cache),
        "CUDA_VISIBLE_DEVICES": "",
    }
    if isinstance(command, str) and not is_for_shell(command):
        program, *arguments = shlex.split(command)
        command = arguments if program == "python" else [str(scripts / program), *arguments]
    if isinstance(command, list):
        done = run_warm(command, cwd=folder, env=environment, timeout=400)
    else:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400,
            shell=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def is_for_shell(line: str) -> bool:
    """Return whether a line has more than a program and its arguments."""
    return re.search(r"[*?$|&;<>~]", re.sub(r"'[^']*'", "", line)) is not None


def test_every_block_is_of_a_known_kind():
    for page in (README, *DOCS):
        marks = re.findall(r"<!-- test: (.*?) -->", page.read_text())
        assert all(kind in KINDS or re.fullmatch(r"file [\w.]+", kind) for kind in marks), page
        assert len(marks) == len(blocks(page)), f"{page}: a mark without a code block after it"


def run_all(page: Path, folder: Path, cache: Path) -> dict[str, list[str]]:
    """Run all blocks of a page in one folder; return what they print, by kind."""
    fill(folder)
    # what the README calls "your own" is the script of another page
    code = dict(blocks(ROOT / "docs" / "training-script.md"))["file headlines.py"]
    (folder / "headlines.py").write_text(code)
    printed: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for kind, code in blocks(page):
        if kind == "commands":
            printed[kind] += [run(line, folder, cache) for line in commands(code)]
        elif kind.startswith("file "):
            (folder / kind.removeprefix("file ")).write_text(code)
        elif kind == "python":
            printed[kind].append(run(["-c", code], folder, cache))
        else:
            (folder / "train.py").write_text(code)
            printed[kind].append(run(["train.py"], folder, cache))
    return printed


@pytest.mark.parametrize("page", FIRST, ids=lambda page: page.stem)
def test_first_page(page: Path, tmp_path: Path, cache: Path):
    printed = run_all(page, tmp_path, cache)
    (out,) = printed["python script"]
    # the advice, and the mixture that follows from it
    advice = re.search(r"Train on ([^:]+): .+ (\{'\w+': 0\.\d+.*\})", out)
    assert advice is not None
    weights = ast.literal_eval(advice[2])
    # with four candidates, no judge of labels is shown to be worse than another
    assert advice[1] == f"the {len(weights)} that can be selected"
    if page is README:
        return
    assert all(printed["commands"])
    ranking = json.loads((tmp_path / "ranking.json").read_text())
    assert ranking["version"] == 3
    assert "far" not in [entry["name"] for entry in ranking["selected"]]


@pytest.mark.parametrize(
    "page",
    [page for page in DOCS if page not in FIRST and blocks(page)],
    ids=lambda page: page.stem,
)
def test_page(page: Path, tmp_path: Path, cache: Path):
    assert all(run_all(page, tmp_path, cache)["commands"])


@pytest.mark.parametrize(
    "arguments",
    [arguments for page in (README, *DOCS) for arguments in unmarked_commands(page)],
    ids=lambda arguments: " ".join(arguments)[:60],
)
def test_the_options_of_other_commands_exist(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    if arguments[0] in ("experiment", "fit", "influence", "sweep", "tune"):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--print_config"])
        assert ended.value.code == 0, capsys.readouterr().err
    else:  # options are parsed before the data is looked for
        assert main(arguments) == (0 if arguments[0] == "ls" else 1)
        error = capsys.readouterr().err
        assert not re.search(r"unrecognized arguments|no option|unknown", error), error


def test_set_up_commands_exist():
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = set(re.findall(r"\bmake ([a-z-]+)", README.read_text()))
    assert {"demo", "test"} <= named <= set(targets)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
