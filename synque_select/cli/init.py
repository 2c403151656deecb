"""The command `synque-select init`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from synque_select.cli.options import flat
from synque_select.errors import ConfigError, DataError
from synque_select.utils.text_files import valid_name
from synque_select.utils.wording import counted, listed, one_line

if TYPE_CHECKING:  # at run time, `--help` must not wait for torch
    from jsonargparse import ArgumentParser, Namespace

    from synque_select.data.candidate import Candidate, RealSample
    from synque_select.data.examples import Examples

__all__ = ["arguments", "run"]

CONFIG, SCRIPT = "synque.yaml", "rank_candidates.py"
_CANDIDATE_FOLDERS = ("candidates", "synthetic", "generated", "synth")
_DATA_FOLDERS = ("data", "datasets")
_REAL = re.compile(r"real(?![a-z])", re.IGNORECASE)
# what this library writes, which is not data to rank
_OWN = frozenset(
    (
        *("ranking.json", "ranking.csv", "gaps.json", "labels.json", "real_size.json", "run.json"),
        *("correlations.json", "study.json", "result.json", "validation.json", "examples.json"),
        *("map.json", "questions.csv", "questions.jsonl", "dropped_labels.jsonl"),
    )
)
_LABELS = ("label", "labels", "class", "category", "intent", "sentiment", "target", "ner_tags")


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument(
        "folder",
        nargs="?",
        default=".",
        help="where the data is: a folder with a file or folder named real…, and the candidates "
        "beside it or in a folder candidates, synthetic or generated",
    )
    parser.add_argument(
        "--candidates", action="extend", nargs="+", help="the candidates, as for rank"
    )
    parser.add_argument("--real", help="the real sample, as for rank")
    parser.add_argument("--view", help="what the proxies read, as for rank")
    parser.add_argument("--real-view", help="view of the real sample (default: as --view)")
    parser.add_argument("--label", help="field of the candidates' labels, as for rank")
    parser.add_argument("--out", default=".", help="folder for synque.yaml and the script")
    parser.add_argument("--force", action="store_true", help="replace existing files")


class _Inputs(NamedTuple):
    """What was given, or is taken from the folder."""

    candidates: list[str]
    real: str
    left_out: tuple[str, ...] = ()


def run(options: Namespace) -> int:
    """Look at your data, and write a config and a script that rank it.

    Writes synque.yaml, for `synque-select rank --config synque.yaml`, and rank_candidates.py. Both
    say what was recognized, and list the options that are most often changed.
    """
    from synque_select.data.sources import load_candidates, load_real
    from synque_select.records.run_folder import make_folder, write_text

    out = Path(options.out)
    targets = [out / CONFIG, out / SCRIPT]
    existing = [str(path) for path in targets if path.exists()]
    if existing and not options.force:
        raise ConfigError(f"{listed(existing)}: already there; give --out, or --force to replace")
    inputs = _inputs(options)
    for source in (*inputs.candidates, inputs.real):
        if valid_name(source) != source:
            raise DataError(
                f"{valid_name(source)}: the name is not UTF-8, and a config cannot hold it: rename "
                "it, or give a glob with --candidates"
            )
    candidates = load_candidates(inputs.candidates, view=options.view, label=options.label)
    real = load_real(inputs.real, view=options.real_view or options.view)
    label = options.label or _label_of(candidates)
    if label is not None and options.label is None:
        candidates = load_candidates(inputs.candidates, view=options.view, label=label)
    make_folder(out)
    given = {"view": options.view, "real_view": options.real_view, "label": label}
    write_text(targets[0], _config(inputs, given, candidates, real))
    write_text(targets[1], _script(inputs, given))
    print(f"{counted(len(candidates), 'candidate')}: {listed([c.name for c in candidates], 8)}")
    print(f"real sample: {real.source or real.name}, {counted(len(real), 'example')}")
    if inputs.left_out:
        print(f"left out: {listed(inputs.left_out, 8)}; --candidates takes any file")
    print(f"wrote {targets[0]} and {targets[1]}")
    print(f"then: synque-select validate {targets[0]}")
    print(f"      synque-select rank --config {targets[0]}    or    python {targets[1]}")
    return 0


def _inputs(options: Namespace) -> _Inputs:
    if options.candidates is not None and options.real is not None:
        return _Inputs(flat(options.candidates), options.real)
    folder = Path(options.folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; give the data with --candidates and --real")
    place = None if options.real else _with_real(folder)
    real = options.real or (None if place is None else str(_real_in(place)))
    if real is None:
        raise DataError(
            f"{folder}: no file or folder named real… ({_shown(folder)}); give --candidates and "
            "--real"
        )
    if options.candidates is not None:
        return _Inputs(flat(options.candidates), real)
    candidates, left_out = _candidates_in(place or folder, Path(real))
    if not candidates:
        raise DataError(
            f"{place or folder}: no candidates beside {real} ({_shown(place or folder)}); give "
            "--candidates"
        )
    return _Inputs(candidates, real, tuple(left_out))


def _with_real(folder: Path) -> Path | None:
    """Return the folder, or one in it for data, that holds a real sample."""
    places = (folder, *(folder / name for name in _DATA_FOLDERS))
    return next((place for place in places if _real_in(place) is not None), None)


def _real_in(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    named = sorted(p for p in folder.iterdir() if _REAL.match(p.name) and _is_data(p))
    if len(named) > 1:
        names = listed([valid_name(path.name) for path in named])
        raise DataError(f"{folder}: {names} are named real…; give one of them with --real")
    return named[0] if named else None


def _candidates_in(folder: Path, real: Path) -> tuple[list[str], list[str]]:
    """Return the candidates beside a real sample, and what beside them is left out.

    The candidates are a folder of them, or each file and folder.
    """
    for name in _CANDIDATE_FOLDERS:
        if (folder / name).is_dir():
            return [str(folder / name)], []
    others = sorted(path for path in folder.iterdir() if _is_data(path) and path != real)
    own = [path for path in others if _REAL.match(path.name) or _is_own(path)]
    left_out = [valid_name(path.name) for path in own]
    return [str(path) for path in others if path not in own], left_out


def _is_own(path: Path) -> bool:
    """Whether a file, or all data in a folder such as that of a run, was written by a command."""
    from synque_select.data.images import has_images
    from synque_select.data.shards import data_files

    if not path.is_dir():
        return path.name in _OWN
    return not has_images(path) and all(file.name in _OWN for file in data_files(path))


def _is_data(path: Path) -> bool:
    from synque_select.data.images import has_images, is_system_folder
    from synque_select.data.readers import is_data_file
    from synque_select.data.shards import data_files

    if path.name.startswith((".", "_")) or is_system_folder(path.name):
        return False
    if not path.is_dir():
        return is_data_file(path)
    return has_images(path) or bool(data_files(path))


def _shown(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return f"found {listed(names, 8)}" if names else "it is empty"


def _label_of(candidates: Sequence[Candidate]) -> str | None:
    """Return the field that holds classes in every candidate; None without one."""
    from collections.abc import Mapping
    from dataclasses import replace

    from synque_select.data.label_sets import label_kind

    if any(candidate.label is not None for candidate in candidates):
        return None  # folders of images with classes have their own
    records = [candidate[0] for candidate in candidates]
    for name in _LABELS:
        views = {candidate.selector for candidate in candidates}
        if name in views or not all(isinstance(r, Mapping) and name in r for r in records):
            continue
        labels = [replace(candidate, label=name).labels for candidate in candidates]
        if label_kind(labels) in ("classes", "lists"):
            return name
    return None


def _config(
    inputs: _Inputs,
    given: dict[str, str | None],
    candidates: Sequence[Candidate],
    real: RealSample,
) -> str:
    # a name may hold a line break, which would end the comment
    names = ", ".join(f"{one_line(part.name)} ({len(part):,})" for part in candidates)
    label = given["label"]
    lines = [
        f"# synque-select rank --config {CONFIG}",
        "# Paths are relative to the working directory.",
        "",
        f"# {counted(len(candidates), 'candidate')}: {names}",
        "candidates:",
        *(f"  - {_quoted(source)}" for source in inputs.candidates),
        "",
        f"# {counted(len(real), 'real example')}; from 20 on, candidates can be compared",
        f"real: {_quoted(inputs.real)}",
        "",
        *_view_lines("view", given["view"], candidates[0]),
        *_view_lines("real_view", given["real_view"], real),
        "",
        "# field of the candidates' labels, with which they judge each other; no label of the real",
        "# sample is read",
        "# label: label" if label is None else f"label: {_quoted(label)}",
        "",
        "# number of candidates to select; by default, those that are not shown worse",
        "# top_k: 3",
        "",
        "# weights of the selected candidates: equal, proportional or mmd_optimal",
        "# mixture: equal",
        "",
        "# what real examples share that do not vary independently: thread, author, session, page",
        "# real_groups: thread",
        "",
        "# where the ranking is saved, as JSON and CSV",
        "json: ranking.json",
    ]
    return "\n".join(lines) + "\n"


def _view_lines(name: str, given: str | None, part: Examples) -> list[str]:
    if given is not None:
        return [f"{name}: {_quoted(given)}"]
    choice = part.choice
    what = "the candidates" if name == "view" else "the real sample"
    shown = choice.selector if choice is not None else part.selector
    view = "text" if callable(shown) and choice is not None and not choice.kind else str(shown)
    kind = f", recognized as {choice.kind}" if choice is not None and choice.kind else ""
    others = f"; others: {', '.join(choice.others)}" if choice is not None and choice.others else ""
    return [f"# what proxies read of {what}{kind}{others}", f"# {name}: {_quoted(view)}"]


def _script(inputs: _Inputs, given: dict[str, str | None]) -> str:
    options = [f"    {name}={value!r}," for name, value in given.items() if value is not None]
    return "\n".join(
        [
            '"""Rank the candidates; written by `synque-select init`."""',
            "",
            "from synque_select import rank",
            "",
            "ranking = rank(",
            f"    {inputs.candidates!r},",
            f"    {inputs.real!r},",
            *options,
            ")",
            "print(ranking)",
            'print("train on:", dict(ranking.top().weights))',
            "",
        ]
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a text in JSON is one in YAML
