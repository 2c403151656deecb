"""Folders of tasks of your own: candidates, real samples, and a labeled test set or a CSV file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from synque_select.benchmark.performance import files_in, read_figures
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.label_sets import NO_LABEL, labeled_positions
from synque_select.data.sources import load_dataset_file
from synque_select.data.views import select
from synque_select.errors import ConfigError, DataError, did_you_mean
from synque_select.selection.labels import check_classes
from synque_select.utils.text_files import read_text
from synque_select.utils.wording import counted, listed
from synque_select.utils.yaml_files import read_yaml_file

__all__ = ["MIN_TEST_EXAMPLES", "LabeledTask", "Metric", "TestSet", "find_labeled_tasks"]

Metric = Literal["macro_f1", "accuracy"]
_Examples = TypeVar("_Examples", Candidate, RealSample)

# a class with fewer test examples has an F1 that one example moves by more than five points
MIN_TEST_EXAMPLES = 10
_MIN_CANDIDATES = 3
_SETTINGS = ("view", "label", "metric")
_LAYOUT = (
    "a task is a folder with candidates/*.jsonl, real_sample*.jsonl (one file per seed), and "
    "test.jsonl with labels or performance.csv"
)


@dataclass(frozen=True, eq=False)
class TestSet:
    """Labeled real examples without those of the real samples.

    Args:
        examples: All examples of the file.
        positions: (n,) int64, those that are in no real sample.
        labels: (n,) labels of these.
        scored: The classes that the metric covers.
    """

    __test__ = False  # pytest would collect a class of this name

    examples: Candidate
    positions: NDArray[np.int64]
    labels: NDArray[np.str_]
    scored: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LabeledTask:
    """One task: what is ranked, and how its true quality is known.

    Args:
        name: Name of the folder.
        candidates: The candidates, sorted by name, with labels.
        reals: Seed to real sample.
        metric: Metric of the test set.
        test: The test set; None if the task has only measured performances.
        performance: (K,) performances from `performance.csv`; None without that file.
        messages: Plain sentences, such as on test examples that were left out.
    """

    name: str
    candidates: tuple[Candidate, ...]
    reals: Mapping[str, RealSample]
    metric: Metric
    test: TestSet | None
    performance: NDArray[np.float64] | None
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Settings:
    """What `task.yaml` may set."""

    view: str = "text"
    label: str = "label"
    metric: Metric = "macro_f1"


def find_labeled_tasks(data: Path, names: Sequence[str] | None = None) -> list[LabeledTask]:
    """Read every task in a folder, or the folder itself if it is a task.

    Args:
        data: The folder. Hidden folders in it are ignored.
        names: Names of the tasks to read; None for all.

    Raises:
        DataError: A file is missing or cannot be used; the message names it.
        ConfigError: No task has that name, or a `task.yaml` is wrong.
    """
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; expected a folder of tasks: {_LAYOUT}")
    if (data / "candidates").is_dir():
        folders = {data.resolve().name: data}
    else:
        inner = (path for path in sorted(data.iterdir()) if path.is_dir())
        folders = {path.name: path for path in inner if not path.name.startswith(".")}
    if not folders:
        raise DataError(f"{data}: found no folder of a task; {_LAYOUT}")
    for name in names or ():
        if name not in folders:
            raise ConfigError(f"no task {name!r} in {data}: {did_you_mean(name, folders)}")
    return [_read(name, folders[name]) for name in dict.fromkeys(names or folders)]


def _read(name: str, folder: Path) -> LabeledTask:
    settings = _settings(folder / "task.yaml")
    files = list(files_in(folder / "candidates", "*.jsonl"))
    if len(files) < _MIN_CANDIDATES:
        raise DataError(
            f"{folder / 'candidates'}: found {counted(len(files), 'file')} whose name ends in "
            f".jsonl, a task needs {_MIN_CANDIDATES} or more; {_LAYOUT}"
        )
    candidates = tuple(_labeled(path.stem, path, settings) for path in files)
    try:
        check_classes(candidates)
    except ConfigError as error:
        raise DataError(f"{folder}: {error}") from error
    reals = {_seed(path): _real(path, settings) for path in files_in(folder, "real_sample*.jsonl")}
    if not reals:
        raise DataError(f"{folder}: no file real_sample*.jsonl; {_LAYOUT}")
    path, measured = folder / "test.jsonl", folder / "performance.csv"
    if not path.is_file() and not measured.is_file():
        raise DataError(f"{path}: no such file, and no performance.csv beside it; {_LAYOUT}")
    test, messages = None, _unlabeled(candidates)
    if path.is_file():
        test, more = _test(path, settings, reals, candidates)
        messages += more
    return LabeledTask(
        name,
        candidates,
        reals,
        settings.metric,
        test,
        _performance(measured, [c.name for c in candidates]) if measured.is_file() else None,
        tuple(messages),
    )


def _settings(path: Path) -> _Settings:
    if not path.is_file():
        return _Settings()
    state = read_yaml_file(path) or {}
    if not isinstance(state, dict):
        raise ConfigError(f"{path}: allowed is a mapping with {', '.join(_SETTINGS)}")
    for key, value in state.items():
        if key not in _SETTINGS:
            raise ConfigError(f"{path}: unknown key {key!r}: {did_you_mean(str(key), _SETTINGS)}")
        if not isinstance(value, str):
            raise ConfigError(f"{path}: {key} must be a text, found {value!r}")
    metric = str(state.get("metric", "macro_f1")).lower().replace("-", "_")
    for known in get_args(Metric):
        if metric == known:
            return _Settings(**{**state, "metric": known})
    raise ConfigError(f"{path}: metric {metric!r}: {did_you_mean(metric, get_args(Metric))}")


def _seed(path: Path) -> str:
    """Return the seed in a name such as real_sample_seed3."""
    rest = re.sub(r"^real_sample[_-]?(seed[_=-]?)?", "", path.stem)
    return rest or "0"


def _real(path: Path, settings: _Settings) -> RealSample:
    # its labels, if it has any, are not even named
    return _opened(RealSample, path.stem, path, settings.view, None)


def _labeled(name: str, path: Path, settings: _Settings) -> Candidate:
    examples = _opened(Candidate, name, path, settings.view, settings.label)
    for i, example in enumerate(examples):
        try:
            value = select(example, settings.label)
        except DataError as error:
            raise _without_label(path, i, str(error)) from error
        if value is None or value == "":
            raise _without_label(path, i, f"its field {settings.label!r} is empty")
    return examples


def _without_label(path: Path, position: int, why: str) -> DataError:
    # a blank line does not count as an example
    lines = [i for i, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    return DataError(
        f"{path}, line {lines[position]}: no label: {why}. A task needs the labels of its "
        "candidates and its test set; task.yaml may name another field: label: FIELD"
    )


def _opened(
    kind: type[_Examples], name: str, path: Path, view: str, label: str | None
) -> _Examples:
    try:
        examples = kind(name, load_dataset_file(path), view, label, str(path))
        _ = examples.digests  # reads every view: a missing one fails now, not hours later
    except (ConfigError, DataError) as error:
        raise DataError(
            f"{error} (task.yaml beside the candidates may name other fields: view, label)"
        ) from error
    return examples


def _test(
    path: Path,
    settings: _Settings,
    reals: Mapping[str, RealSample],
    candidates: Sequence[Candidate],
) -> tuple[TestSet, list[str]]:
    examples = _labeled("test", path, settings)
    seen = _contents(reals.values())
    is_new = np.array([digest.tobytes() not in seen for digest in examples.digests])
    is_labeled = np.isin(np.arange(len(examples)), labeled_positions(examples.labels))
    positions = np.flatnonzero(is_new & is_labeled)
    labels = np.array(examples.labels)[positions]
    messages = []
    if not is_new.all():
        messages.append(
            f"{(~is_new).sum()} of {len(examples)} test examples are also in a real sample and are "
            "left out."
        )
    if not is_labeled.all():
        messages.append(
            f"{(~is_labeled).sum()} of {len(examples)} test examples have no label and are left "
            "out."
        )
    known = {label for candidate in candidates for label in candidate.labels} - {NO_LABEL}
    unknown = sorted({*labels.tolist()} - known)
    if unknown and not known & {*labels.tolist()}:
        raise DataError(
            f"{path}: no candidate has any of its classes ({_listed(unknown)}); the candidates "
            f"have {_listed(sorted(known))}"
        )
    if unknown:
        messages.append(f"no candidate has test classes {_listed(unknown)}.")
    counts = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    scored = tuple(str(label) for label, n in counts.items() if n >= MIN_TEST_EXAMPLES)
    if len(scored) < 2:
        raise DataError(
            f"{path}: {counted(len(scored), 'class', 'classes')} have {MIN_TEST_EXAMPLES} or more "
            "examples that are in no real sample; a test set needs two such classes"
        )
    if settings.metric == "macro_f1" and len(scored) < len(counts):
        few = ", ".join(repr(str(label)) for label in sorted({*counts} - {*scored}))
        messages.append(
            f"macro-F1 leaves out classes with fewer than {MIN_TEST_EXAMPLES} test examples: {few}."
        )
    tested = _contents([examples])
    n_copied = sum(digest.tobytes() in tested for c in candidates for digest in c.digests)
    if n_copied:
        examples_of = counted(n_copied, "example is", "examples are")
        messages.append(f"{examples_of} in the test set as well as in a candidate.")
    return TestSet(examples, positions, labels, scored), messages


def _unlabeled(candidates: Sequence[Candidate]) -> list[str]:
    """Count the examples whose label is NaN or blank."""
    missing = {c.name: len(c) - len(labeled_positions(c.labels)) for c in candidates}
    n, where = sum(missing.values()), [name for name, n in missing.items() if n]
    if not n:
        return []
    examples = counted(n, "example has", "examples have")
    return [f"{examples} no label and no part in true quality: in {listed(where)}."]


def _listed(classes: Sequence[str], most: int = 10) -> str:
    more = f" and {len(classes) - most} more" if len(classes) > most else ""
    return ", ".join(map(repr, classes[:most])) + more


def _contents(examples: Iterable[Candidate | RealSample]) -> set[bytes]:
    return {digest.tobytes() for each in examples for digest in each.digests}


def _performance(path: Path, names: Sequence[str]) -> NDArray[np.float64]:
    figures = read_figures(path.parent, ["candidate"], "performance", whole=1)
    by_name: dict[str, list[float]] = {}
    for figure in figures:
        by_name.setdefault(figure.names[0], []).append(figure.value)
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DataError(
            f"{path}: no performance of {', '.join(missing)}; expected columns 'candidate' (a file "
            "name without .jsonl) and 'performance' (0 to 1, higher is better), with a row for each"
        )
    return np.array([np.mean(by_name[name]) for name in names])
