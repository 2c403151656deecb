"""The layout of the released SynQuE data: groups, candidates, real samples, performances.

Only the folders and the form of file names are fixed here; groups, seeds and datasets are read from
what exists.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synque_select.benchmark.performance import Figure, files_in, read_figures
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.sources import load_dataset_file
from synque_select.errors import ConfigError, DataError, did_you_mean
from synque_select.functional.benchmark_statistics import infer_test_size

__all__ = ["Group", "Task", "find_tasks"]

_SEED_FILE = re.compile(r"(?P<group>.+)_seed=(?P<seed>[^=]+)")
_WEB_FILE = re.compile(r".*site=(?P<group>.+)_num_tasks=\d+_portion=(?P<portion>[^=]+)")
_MIN_CANDIDATES = 3
# significant decimals of a float that was printed in full
_FULL_PRECISION = 14


@dataclass(frozen=True)
class Group:
    """Candidates whose task performance was measured on one test set.

    Args:
        name: Name of the group: a database, a site, or the task if it has a single group.
        candidates: The candidates with a measured performance.
        performance: (K,) measured performances, shares in 0..1.
        reals: Seed to real sample.
        n_test: Size of the test set, None if unknown.
        n_test_source: How `n_test` was found.
        labeled: Path of the labeled real data; the file may be missing.
    """

    name: str
    candidates: tuple[Candidate, ...]
    performance: NDArray[np.float64]
    reals: Mapping[str, RealSample]
    n_test: int | None
    n_test_source: str
    labeled: Path | None = None


@dataclass(frozen=True)
class Task:
    """One task of the benchmark, as far as its files exist.

    Args:
        name: Name of the folder.
        groups: The groups that can be scored.
        absent: Plain sentences on what is missing.
        folder: The folder.
    """

    name: str
    groups: tuple[Group, ...]
    absent: tuple[str, ...]
    folder: Path

    @property
    def seeds(self) -> tuple[str, ...]:
        """All seeds of all groups, numbers in ascending order."""
        return _in_order(seed for group in self.groups for seed in group.reals)


def _in_order(seeds: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*seeds}, key=lambda seed: (not seed.isdigit(), len(seed), seed)))


@dataclass
class _Files:
    """The files of a folder, before any is read.

    Attributes:
        view: Name of the field that proxies see.
        label: Name of the field that holds an example's label, if any.
        candidates: Group to candidate to file.
        reals: Group to seed to file.
        figures: Group to candidate to its measured performances.
        labeled: Group to the file of its labeled real data.
        absent: Plain sentences on what is missing or left out.
    """

    view: str
    label: str | None = None
    candidates: dict[str, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))
    reals: dict[str, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))
    figures: dict[str, dict[str, list[Figure]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    labeled: dict[str, Path] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def add_candidate(self, group: str, name: str, path: Path) -> None:
        """Add a candidate's file; of two files for one candidate, the later one counts."""
        known = self.candidates[group].get(name)
        if known is not None:
            self.absent.append(f"{group}: {known.name} left out, {path.name} is {name} too.")
        self.candidates[group][name] = path

    def add_figures(
        self, folder: Path, names: Sequence[str], measured: str, whole: float = 1.0
    ) -> None:
        """Add measured performances; a row with a single name names the candidate."""
        figures = read_figures(folder, names, measured, whole=whole)
        for figure in figures:
            group = figure.names[0] if len(names) > 1 else folder.parent.name
            self.figures[group][figure.names[-1]].append(figure)
        if not figures:
            columns = ", ".join((*names, measured))
            self.absent.append(f"{folder.name}: no CSV file with figures in columns {columns}.")


def find_tasks(
    data: Path, tasks: Iterable[str] | None = None
) -> tuple[list[Task], tuple[str, ...]]:
    """Read the tasks in a folder that holds `sentiment_analysis/`, `text2sql/` or `web_agent/`.

    Args:
        data: That folder; a folder that contains it as `data/`, as a clone of the repository does;
            or the folder of one task.
        tasks: Names of the tasks wanted; None for all that exist.

    Returns:
        The tasks that can be scored, and plain sentences on those that cannot.

    Raises:
        DataError: No task can be scored, a requested task cannot, or a file cannot be used.
        ConfigError: A task does not belong to the benchmark.
    """
    for name in tasks or ():
        if name not in _READERS:
            raise ConfigError(f"unknown task {name!r}: {did_you_mean(name, _READERS)}")
    folders = _task_folders(data)
    wanted = list(_READERS) if tasks is None else list(dict.fromkeys(tasks))
    existing = [_task(name, folders[name]) for name in wanted if name in folders]
    absent = [f"{name}: no such folder." for name in wanted if name not in folders]
    absent += [
        f"{task.name}: nothing can be scored. {' '.join(task.absent)}"
        for task in existing
        if not task.groups
    ]
    usable = [task for task in existing if task.groups]
    if not usable or (tasks is not None and absent):
        raise DataError(f"{data}: {' '.join(absent)}")
    if tasks is None:
        absent += [f"{name}: left out, its layout is not known." for name in _unknown(folders)]
    return usable, tuple(absent)


def _task_folders(data: Path) -> dict[str, Path]:
    """Find the folder of each task that exists."""
    if data.resolve().name in _READERS:
        return {data.resolve().name: data.resolve()}
    for root in (data, data / "data"):
        folders = {name: root / name for name in _READERS if (root / name).is_dir()}
        if folders:
            return folders
    raise DataError(f"{data}: none of {', '.join(_READERS)} exists in it")


def _unknown(folders: Mapping[str, Path]) -> list[str]:
    """Return the names of other folders beside the tasks that look like a task."""
    root = next(iter(folders.values())).parent
    looks = [path.parent.name for path in root.glob("*/task_performance") if path.is_dir()]
    return sorted({*looks} - {*_READERS})


def _task(name: str, root: Path) -> Task:
    files = _READERS[name](root)
    figures = files.figures
    groups, absent = [], files.absent
    seeds = _in_order(seed for reals in files.reals.values() for seed in reals)
    for group in sorted({*files.candidates, *figures, *files.reals}):
        known, there = figures.get(group, {}), files.candidates[group]
        usable = [candidate for candidate in sorted(there) if candidate in known]
        absent += _absences(group, there, known, files.reals[group], seeds)
        if len(usable) >= _MIN_CANDIDATES and files.reals[group]:
            groups.append(_group(group, usable, known, files))
        elif usable:
            absent.append(
                f"{group}: left out, measured candidates with data: {len(usable)}; a group needs "
                f"{_MIN_CANDIDATES} or more, and a real sample."
            )
    return Task(name, tuple(groups), tuple(absent), root)


def _absences(
    group: str,
    there: Iterable[str],
    known: Iterable[str],
    reals: Mapping[str, Path],
    seeds: Sequence[str],
) -> list[str]:
    unmeasured, unwritten = sorted({*there} - {*known}), sorted({*known} - {*there})
    messages = []
    if not there:
        messages.append(f"{group}: no candidates.")
    elif unwritten:
        messages.append(f"{group}: no data for {', '.join(unwritten)}.")
    if not known:
        messages.append(f"{group}: no measured performance.")
    elif unmeasured:
        messages.append(f"{group}: no measured performance of {', '.join(unmeasured)}.")
    if not reals:
        messages.append(f"{group}: no real sample.")
    elif len(reals) < len(seeds):
        missing = ", ".join(seed for seed in seeds if seed not in reals)
        messages.append(f"{group}: no real sample of seed {missing}.")
    return messages


def _group(name: str, usable: list[str], known: Mapping[str, list[Figure]], files: _Files) -> Group:
    there = files.candidates[name]
    candidates = tuple(_candidate(c, there[c], files) for c in usable)
    reals = {
        seed: RealSample(f"real, seed {seed}", load_dataset_file(path), files.view, None, str(path))
        for seed, path in files.reals[name].items()
    }
    for examples in (*candidates, *reals.values()):
        _ = examples.digests  # reads every view: a missing one fails now, not hours later
    # a performance may have several rows (one per training seed): their mean counts
    performance = np.array([np.mean([figure.value for figure in known[c]]) for c in usable])
    decimals = max(figure.n_decimals for c in usable for figure in known[c])
    labeled = files.labeled.get(name)
    n_test, source = _test_size(performance, decimals, labeled, files, reals)
    return Group(name, candidates, performance, reals, n_test, source, labeled)


def _candidate(name: str, path: Path, files: _Files) -> Candidate:
    dataset = load_dataset_file(path)
    first = dataset[0] if len(dataset) else {}
    label = files.label if files.label in first else None  # only the corruption of labels needs one
    return Candidate(name, dataset, files.view, label, str(path))


def _test_size(
    performance: NDArray[np.float64],
    n_decimals: int,
    labeled: Path | None,
    files: _Files,
    reals: Mapping[str, RealSample],
) -> tuple[int | None, str]:
    """Infer the size from the performances if all are multiples of 1/n, else from the labels."""
    inferred = infer_test_size(performance, min(n_decimals, _FULL_PRECISION))
    if inferred is not None:
        return inferred, "the smallest n of which every performance is a whole number of n-ths"
    if labeled is None or not labeled.is_file():
        return None, "unknown"
    rows = RealSample("labeled", load_dataset_file(labeled), files.view, None, str(labeled))
    seen = {digest.tobytes() for real in reals.values() for digest in real.digests}
    left = sum(digest.tobytes() not in seen for digest in rows.digests)
    return left, f"{labeled.name} without the real samples of all seeds"


def _sentiment(root: Path) -> _Files:
    name = root.name
    files = _Files("headline", "sentiment")
    for path in files_in(root / "synthetic_data", "*.json"):
        files.add_candidate(name, path.stem, path)
    files.reals[name] = {
        match["seed"]: path for match, path in _seeded(root / "real_data", "balanced_real_seed=*")
    }
    files.labeled[name] = root / "real_data" / "cleaned_ds_validation.json"
    files.add_figures(root / "task_performance", ["dataset_name"], "test_f1_mean")
    return files


def _text2sql(root: Path) -> _Files:
    files = _Files("question", "SQL")
    for path in files_in(root / "data", "*/*.json"):
        if path.parent.name != "real":
            files.add_candidate(path.parent.name, path.stem, path)
    for match, path in _seeded(root / "data" / "real", "dev_*_seed=*"):
        group = match["group"].removeprefix("dev_")
        files.reals[group][match["seed"]] = path
        files.labeled[group] = path.with_name(f"dev_{group}.json")
    files.add_figures(root / "task_performance", ["db_id", "dataset_name"], "accuracy", 100.0)
    return files


def _web_agent(root: Path) -> _Files:
    files = _Files("text")
    for path in files_in(root / "original" / "synthetic", "*.json"):
        match = _WEB_FILE.fullmatch(path.stem)
        if match:
            files.add_candidate(match["group"], _portion(match["portion"]), path)
    for match, path in _seeded(root / "sampled" / "real", "*_seed=*"):
        files.reals[match["group"]][match["seed"]] = path
        files.labeled[match["group"]] = root / "original" / "real" / f"{match['group']}.json"
    files.add_figures(root / "task_performance", ["website", "partition"], "success_rate")
    files.figures = {
        site: {_portion(partition): rows for partition, rows in by_partition.items()}
        for site, by_partition in files.figures.items()
    }
    return files


def _portion(number: str) -> str:
    return f"portion={number}"


_READERS: dict[str, Callable[[Path], _Files]] = {
    "sentiment_analysis": _sentiment,
    "text2sql": _text2sql,
    "web_agent": _web_agent,
}


def _seeded(folder: Path, pattern: str) -> Iterator[tuple[re.Match[str], Path]]:
    for path in files_in(folder, f"{pattern}.json"):
        match = _SEED_FILE.fullmatch(path.stem)
        if match:
            yield match, path
