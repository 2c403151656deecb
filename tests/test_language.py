"""Plain English: the words and patterns that code, messages and docs do not use.

The list is short on purpose. It holds what was once everywhere in this repository and reads like a
translation; CONTRIBUTING.md says how to write instead. A name of an old file format that has to
stay is marked with the comment `# old name`.
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("callbacks", "configs", "docs", "recipes", "scripts", "synque_select", "tests")
SUFFIXES = (".md", ".py", ".yaml", ".yml")
OLD_NAME = "# old name"

PER = (
    "batch|candidate|draw|epoch|example|family|fit|group|image|minute|n-gram|page|prompt|proxy|"
    "rank|replicate|request|seed|step|task|text|token|trial|worker"
)
AMOUNTS = (
    "batches|bits|bytes|calls|characters|draws|epochs|examples|fits|hours|images|minutes|models|"
    "nats|pairs|points|prompts|questions|requests|rows|samples|seconds|seeds|steps|texts|tokens|"
    "words"
)
# pattern to advice; looked for in comments, strings and Markdown, whatever the case
PATTERNS = {
    r"\b(is|are|was|were) no (?!longer\b|more than\b|less than\b)[a-z]": "say 'is not a'",
    rf"\bone an? ({PER}|class|encoder|field|file|line|model|pair|process|question|run)\b": (
        "say 'one per'"
    ),
    rf"\b({AMOUNTS}) an? ({PER})\b": "say 'per'",
    r"\b(told|tell|tells|telling) apart\b": "say 'distinguished'",
    r"\b(of|from|by) ours\b": "say whose: 'of this library', 'our own'",
    r"\bstands? (in|for)\b(?! the (path|way)\b)": "say 'is in', 'represents' or 'replaces'",
    r"\bis to (go|be)\b": "say 'will be' or 'should be'",
    r"\bwhat (it|he|they) (dies?|is said) of\b": "say why",
    r"\blabell(ed|ing)\b": "say 'labeled'",
    r"\bmade elsewhere\b": "say 'saved', 'existing' or by what it was made",
    r"\b(put|puts|putting) together\b": "say 'merge', 'combine' or 'build'",
    r"\bdouble names?\b": "say 'repeated' or 'not distinct'",
    r"\b(shall|anybody|whoever)\b": "say 'will', 'must', 'anyone' or the person's role",
    r"\bof no (more )?use\b": "say 'not needed' or 'obsolete'",
    r"\bneither an? [a-z ]+, nor\b": "say 'was not found as …'",
    r"(?<!_)judgement": "spell it 'judgment'",
    r"\b(un)?annotated\b": "say 'labeled' or 'unlabeled'",
    r"\bp_top_k_by_proxy\b": "say 'selection_stability'",
}
# "seed: Of the folds": a description that needs the name of the argument to be a sentence
ARGUMENT = re.compile(r"^\s+\w+: Of (the|a|all|each|every|what)\b")
NAMES = frozenset(
    (
        "FitBook", "FixedPart", "KeptScores", "NoteHome", "Unanswered", "answers_of", "check_whole",
        "found", "how_many_real", "n_shares", "own_code", "primary", "said", "start_put_back",
    )
)  # fmt: skip


def files() -> list[Path]:
    paths = [path for root in ROOTS for path in sorted((ROOT / root).rglob("*"))]
    paths += sorted(ROOT.glob("*.md"))
    return [
        path
        for path in paths
        if path.suffix in SUFFIXES
        and path != Path(__file__).resolve()
        and "fixtures" not in path.parts
        and not any(parent.is_symlink() for parent in path.parents)
    ]


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that people read."""
    source = path.read_text(encoding="utf-8")
    lines = source.split("\n")
    if path.suffix == ".md":
        yield from enumerate(lines, 1)
    elif path.suffix != ".py":
        yield from ((n, line[line.index("#") :]) for n, line in enumerate(lines, 1) if "#" in line)
    else:
        kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in kinds and OLD_NAME not in token.line:
                parts = token.string.split("\n")
                yield from ((token.start[0] + i, part) for i, part in enumerate(parts))


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of what a module defines: variables, arguments, functions, classes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


def problems(path: Path) -> Iterator[str]:
    for number, text in texts(path):
        for pattern, advice in PATTERNS.items():
            match = re.search(pattern, text, re.IGNORECASE)
            if match is not None:
                yield f"{number}: {match.group()!r}: {advice}"
        if path.suffix == ".py" and ARGUMENT.match(text):
            yield f"{number}: {text.strip()[:40]!r}: say what the argument is"
    if path.suffix == ".py":
        for number, name in names(path):
            if name in NAMES:
                yield f"{number}: the name {name!r}: say what it is"


def percentages(source: str) -> Iterator[str]:
    """Yield the percentages of a module that are written without a space before the sign."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # a format such as ".0%" is a constant of the tree, too
            for match in re.finditer(r"\d%(?![\w(}])", node.value):
                around = node.value[max(0, match.start() - 10) : match.end()]
                yield f"{node.lineno}: {around!r}: '95 %' has a space; see percent()"


# texts of data
SHOWN_AS_DATA = re.compile("rise by 3%|up 2%")


@pytest.mark.parametrize(
    "path",
    [p for p in files() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] != "tests"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_percentages_have_one_form(path: Path):
    assert [p for p in percentages(path.read_text()) if not SHOWN_AS_DATA.search(p)] == []


@pytest.mark.parametrize("line", ['f"{share:.0%} of them"', '"95% of all"'])
def test_a_percentage_without_a_space_is_noticed(line: str):
    assert len(list(percentages(line))) == 1


NOUNS = (
    "answers|arguments|batches|bins|bytes|callbacks|candidates|characters|choices|classes|columns|"
    "comparisons|datasets|digits|dimensions|draws|embeddings|epochs|examples|families|fields|files|"
    "fits|groups|headlines|images|judgments|labels|levels|lines|loaders|messages|models|names|"
    "pairs|panels|parts|permutations|pixels|points|predictions|probes|prompts|proxies|queries|"
    "questions|ranks|replicates|rounds|rows|rubrics|samples|seeds|sizes|steps|tables|tasks|texts|"
    "threads|times|tokens|trials|units|views|words"
)
AFTER_NUMBER = re.compile(rf"^ (real |distinct |other |synthetic |labeled |new ){{0,2}}({NOUNS})\b")


def plurals(source: str) -> Iterator[str]:
    """Yield the numbers of a module that would be printed with a plural noun if they are 1."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in itertools.pairwise(node.values):
            if not (isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant)):
                continue
            shown = ast.unparse(value.value)
            spec = "" if value.format_spec is None else ast.unparse(value.format_spec)
            # figures with decimals, and constants, are never 1
            is_count = spec.strip("f'\"") in ("", ",") and not shown.strip("_").isupper()
            if is_count and AFTER_NUMBER.match(str(text.value)):
                yield f"{node.lineno}: {{{shown}}}{str(text.value)[:30]}: use counted()"


# texts, whatever they are called, and numbers that are 2 or more wherever they are printed
NO_COUNTS = (
    "{name} examples",  # test and validation
    "{dims} dimensions",
    "{len(self.names)} candidates",
    "{options['max_rows']} rows",
    "{options['max_result_bytes']} bytes",
    "{config.max_sample_chars} characters",
    "{config.image_side} pixels",
)


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] not in ("tests", "scripts")
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_number_agrees_with_its_noun(path: Path):
    lines = plurals(path.read_text())
    assert [line for line in lines if not any(text in line for text in NO_COUNTS)] == []


@pytest.mark.parametrize("line", ['f"{n} candidates"', 'f"{len(x):,} real examples"'])
def test_a_plural_after_a_number_is_noticed(line: str):
    assert len(list(plurals(line))) == 1
    assert list(plurals(line.replace(line[3:-2].split("}")[0], "_LEAST"))) == []


def test_there_are_files_of_every_kind():
    assert {path.suffix for path in files()} >= {".md", ".py", ".yaml"}
    assert len(files()) > 300


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_words(path: Path):
    assert list(problems(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "# a list is no mapping",
        "# the examples a step, of all ranks",
        "# the seeds are one a candidate",
        "# the pairs are told apart",
        'unit = "nats an n-gram"',
        "# the parts are put together at the end",
        '"""A DataModule of ours."""',
        "found = 1",
        "def f(seed): \n    '''Do.\n\n    Args:\n        seed: Of the folds.\n    '''",
    ],
)
def test_the_rules_find_what_they_forbid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line):
    monkeypatch.setattr("tests.test_language.ROOT", tmp_path)
    path = tmp_path / "module.py"
    path.write_text(f"{line}\n")
    assert len(list(problems(path))) == 1
