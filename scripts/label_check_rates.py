"""How often the label checks find wrong labels, and how often they warn of right ones.

    python scripts/label_check_rates.py camps PATH/TO/TASKS
    python scripts/label_check_rates.py outliers PATH/TO/TASKS
    python scripts/label_check_rates.py twins PATH/TO/TASKS

takes the tasks that `synque-select benchmark tasks` takes, and embeds the texts once.

`camps`: random subsets of 4 to 12 candidates, with their labels as they are and with 30 % of all
labels drawn at random, where every camp is a false alarm; then random subsets of which a part has
two classes exchanged, one class renamed to another, or one class left out, which is an error in the
first two.

`outliers`: all candidates with their labels as they are; each in turn with half or all of its
labels permuted; random sets of 8 of which some have half permuted; and sets of 8 with 30 % of all
labels drawn at random. The candidates are marked whose labels `check_labels` finds to stand out.

`twins`: the files of a task's `noisy_labels`, NAME__….jsonl, which have the inputs of the candidate
NAME and some wrong labels: in the place of these candidates, beside them, and with four others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.benchmark.task_folders import LabeledTask, find_labeled_tasks
from synque_select.data import load_candidates
from synque_select.data.candidate import Candidate
from synque_select.data.duplicates import content_key
from synque_select.data.label_sets import NO_LABEL
from synque_select.encoders import embed, get_encoder
from synque_select.selection.label_filter import LabelJudges
from synque_select.selection.labels import check_labels
from synque_select.types import LabelCheck

_Labels = Mapping[str, NDArray[np.str_]]
_SIZES = range(4, 13)
_N_SUBSETS = 100
_N_SEEDS = 3
_N_EXCHANGES = 30
_N_TWINS = 2
_N_SETS = 10
_N_OTHERS = 4
# how many of how many candidates have two classes exchanged
_RENAMED = ((3, 9), (4, 9), (5, 9))
_EXCHANGED = ((5, 9), (3, 9), (7, 9), (2, 9), (2, 5))


@dataclass(frozen=True)
class Embedded:
    """A task with what is computed once."""

    task: LabeledTask
    candidates: Mapping[str, Candidate]
    labels: _Labels
    embeddings: Mapping[str, torch.Tensor]
    noisy: _Labels

    @classmethod
    def of(cls, task: LabeledTask, data: Path) -> Embedded:
        """Embed the candidates of a task in a folder."""
        encoder = get_encoder(None, "text")
        return cls(
            task,
            {c.name: c for c in task.candidates},
            {c.name: np.array(c.labels) for c in task.candidates},
            {c.name: embed(encoder, c).embeddings.float() for c in task.candidates},
            _noisy_twins(task, data),
        )

    @property
    def classes(self) -> list[str]:
        """The classes of all candidates."""
        return sorted({str(label) for part in self.labels.values() for label in part})

    def judges(self, names: Sequence[str], labels: _Labels) -> LabelJudges:
        """Fit the heads of some candidates on these labels."""
        return LabelJudges.fit(
            {name: labels[name].tolist() for name in names},
            {name: self.embeddings[name] for name in names},
            contents={name: content_key(self.candidates[name].digests) for name in names},
        )

    def checks(self, names: Sequence[str], labels: _Labels) -> list[LabelCheck]:
        """Check the labels of some candidates; no real example is needed for that."""
        parts = [self._labeled(name, labels[name]) for name in names]
        real = torch.zeros(1, next(iter(self.embeddings.values())).shape[1])
        return check_labels(parts, {name: self.embeddings[name] for name in names}, real)

    def checks_beside(self, twins: Mapping[str, str]) -> list[LabelCheck]:
        """Check all candidates and, under other names, noisy twins of some of them."""
        parts = [self._labeled(name, labels) for name, labels in self.labels.items()]
        for twin, name in twins.items():
            labeled = self._labeled(name, self.noisy[name])
            parts.append(Candidate(twin, labeled.dataset, view=0, label=1))
        rows = {twin: self.embeddings[name] for twin, name in twins.items()}
        real = torch.zeros(1, next(iter(self.embeddings.values())).shape[1])
        return check_labels(parts, {**self.embeddings, **rows}, real)

    def _labeled(self, name: str, labels: NDArray[np.str_]) -> Candidate:
        """Return a candidate with these labels and the same inputs."""
        pairs = list(zip(self.candidates[name].views, labels.tolist(), strict=True))
        return Candidate(name, pairs, view=0, label=1)


def _noisy_twins(task: LabeledTask, data: Path) -> _Labels:
    """Return the labels of the noisy twins of some candidates; none without their folder."""
    folder = (data if (data / "candidates").is_dir() else data / task.name) / "noisy_labels"
    views = {candidate.name: [*candidate.views] for candidate in task.candidates}
    twins = {}
    for path in sorted(folder.glob("*.jsonl")):
        (twin,) = load_candidates([path], view="text", label="label")
        name = path.name.partition("__")[0]
        assert [*twin.views] == views[name], f"{path}: not the inputs of {name}"
        twins[name] = np.array(twin.labels)
    return twins


def camps(data: Embedded) -> Iterator[str]:
    """Count how often camps are found where there are none, and where there are."""
    names = [*data.labels]
    for what, labels in (("as they are", data.labels), ("30 % noise", _noisy(data))):
        judges = data.judges(names, labels)
        n_found = n = 0
        for seed in range(_N_SEEDS):
            for size in [size for size in _SIZES if size <= len(names)]:
                rng = np.random.default_rng([seed, size])
                for _ in range(_N_SUBSETS):
                    kept = rng.choice(len(names), size, replace=False)
                    n_found += judges.camps([names[i] for i in kept]) is not None
                    n += 1
        yield f"| {data.task.name} | {what} | {n_found} of {n:,} | |"
    for what, change, cases in (
        ("two classes exchanged", _exchanged, _EXCHANGED),
        ("a class renamed to another", _renamed, _RENAMED),
        ("a class left out", _without, _RENAMED),
    ):
        for n_wrong, size in cases:
            n_found = n_right = 0
            for seed in range(_N_EXCHANGES):
                rng = np.random.default_rng(seed)
                kept = [names[i] for i in rng.choice(len(names), size, replace=False)]
                wrong, pair = set(kept[:n_wrong]), rng.choice(data.classes, 2, replace=False)
                changed = {name: change(data.labels[name], *pair) for name in wrong}
                parts = data.judges(kept, {**data.labels, **changed}).all_camps
                n_found += parts is not None
                n_right += parts is not None and wrong in [set(part) for part in parts.names]
            which = f"{what} in {n_wrong} of {size}"
            yield f"| {data.task.name} | {which} | {n_found} of {_N_EXCHANGES} | {n_right} |"


def _noisy(data: Embedded) -> _Labels:
    rng = np.random.default_rng(0)
    return {
        name: np.where(rng.random(len(y)) < 0.3, rng.choice(data.classes, len(y)), y)
        for name, y in data.labels.items()
    }


def _exchanged(labels: NDArray[np.str_], a: str, b: str) -> NDArray[np.str_]:
    return np.where(labels == a, b, np.where(labels == b, a, labels))


def _renamed(labels: NDArray[np.str_], a: str, b: str) -> NDArray[np.str_]:
    return np.where(labels == a, b, labels)


def _without(labels: NDArray[np.str_], a: str, b: str) -> NDArray[np.str_]:
    """Return no label for one class: nothing like it was generated."""
    del b
    return np.where(labels == a, NO_LABEL, labels)


def twins(data: Embedded) -> Iterator[str]:
    """Count how often the label checks mark the noisy twins of candidates, and others."""
    names, noisy = [*data.labels], [*data.noisy]
    if not noisy:
        return
    others = [name for name in names if name not in data.noisy]

    def row(what: str, sets: Sequence[Sequence[LabelCheck]], wrong: Sequence[str]) -> str:
        checks = [check for each in sets for check in each]
        marked = [check.outlier for check in checks if check.name in wrong]
        alarms = [check.outlier for check in checks if check.name not in wrong]
        n_marked, n_alarms = f"{sum(marked)} of {len(marked)}", f"{sum(alarms)} of {len(alarms)}"
        return f"| {data.task.name} | {what} | {n_marked} | {n_alarms} |"

    changed = {**data.labels, **data.noisy}
    yield row(f"{len(noisy)} in place of their twins", [data.checks(names, changed)], noisy)
    beside = {f"{name} noisy": name for name in noisy}
    yield row(f"{len(noisy)} beside their twins", [data.checks_beside(beside)], [*beside])
    sets = []
    for seed in range(_N_SETS):
        chosen = np.random.default_rng(seed).choice(others, _N_OTHERS, replace=False)
        sets.append(data.checks([*noisy, *chosen.tolist()], changed))
    yield row(f"{len(noisy)} and {_N_OTHERS} others", sets, noisy)


def outliers(data: Embedded) -> Iterator[str]:
    """Count how often the label checks mark candidates with permuted labels, and others."""
    names = [*data.labels]

    def row(
        what: str,
        sets: Iterator[tuple[Sequence[str], set[str], int]],
        share: float,
        labels: _Labels = data.labels,
    ) -> str:
        counts = np.zeros(4, dtype=int)
        for kept, wrong, seed in sets:
            changed = {name: _permuted(labels[name], share, seed) for name in wrong}
            for check in data.checks(kept, {**labels, **changed}):
                counts += [
                    check.outlier and check.name in wrong,
                    check.name in wrong,
                    check.outlier and check.name not in wrong,
                    check.name not in wrong,
                ]
        hits, n_wrong, alarms, n_right = counts.tolist()
        return f"| {data.task.name} | {what} | {hits} of {n_wrong} | {alarms} of {n_right} |"

    yield row("as they are", iter([(names, set(), 0)]), 0)
    for share, what in ((0.5, "half"), (1.0, "all")):
        sets = ((names, {name}, seed) for seed in range(_N_TWINS) for name in names)
        yield row(f"{what} permuted in one", sets, share)
    for n_wrong in (0, 1, 2, 4, 5, 6):
        yield row(f"half permuted in {n_wrong} of 8", _sets_of_8(names, n_wrong), 0.5)
    yield row("30 % noise in 8 of 8", _sets_of_8(names, 0), 0, _noisy(data))


def _sets_of_8(names: Sequence[str], n_wrong: int) -> Iterator[tuple[Sequence[str], set[str], int]]:
    for seed in range(_N_SETS):
        rng = np.random.default_rng([seed, n_wrong])
        kept = [names[i] for i in rng.choice(len(names), 8, replace=False)]
        yield kept, set(kept[:n_wrong]), seed


def _permuted(labels: NDArray[np.str_], share: float, seed: int) -> NDArray[np.str_]:
    rng = np.random.default_rng(seed)
    at = rng.choice(len(labels), round(share * len(labels)), replace=False)
    permuted = labels.copy()
    permuted[at] = labels[rng.permutation(at)]
    return permuted


MEASURES: dict[str, tuple[str, Callable[[Embedded], Iterator[str]]]] = {
    "camps": ("| task | labels | camps found | with the right candidates |", camps),
    "outliers": ("| task | labels | permuted and marked | marked without reason |", outliers),
    "twins": ("| task | noisy twins | marked | others marked |", twins),
}


def main() -> None:
    """Measure every task in a folder."""
    header, measure = MEASURES[sys.argv[1]]
    print(header, "|---" * (header.count("|") - 1) + "|", sep="\n")
    data = Path(sys.argv[2])
    for task in find_labeled_tasks(data):
        for line in measure(Embedded.of(task, data)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
