"""What the label filter gains and costs where labels are noisy, or share one systematic error.

    python scripts/label_filter_limits.py PATH/TO/TASKS

takes the tasks that `synque-select benchmark tasks` takes. The labels of the candidates are used as
they are; with 30 % of the labels of every candidate drawn at random; and with the two first classes
exchanged in five of nine candidates. It prints the metric of the mixture of all candidates at equal
totals, as it is, with the filter's conditions, and without them; mean and standard deviation over 5
draws of training examples. For each damage it also prints how many labels "auto" drops, how many of
these had not been changed, and how many of the changed ones it finds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from synque_select.benchmark.task_folders import LabeledTask, TestSet, find_labeled_tasks
from synque_select.benchmark.task_quality import Learner, Learners, drawing_order
from synque_select.encoders import embed, get_encoder
from synque_select.selection.label_filter import LabelFilter, LabelJudges, filter_labels

_Labels = Mapping[str, NDArray[np.str_]]
_N_DRAWS = 5
_NOISE = 0.3


def unchanged(labels: _Labels) -> _Labels:
    """Return the labels as they are."""
    return labels


def noisy(labels: _Labels) -> _Labels:
    """Draw 30 % of the labels of every candidate from all classes."""
    rng = np.random.default_rng(0)
    classes = sorted({str(y) for values in labels.values() for y in values})
    drawn = {name: rng.choice(classes, len(values)) for name, values in labels.items()}
    return {
        name: np.where(rng.random(len(values)) < _NOISE, drawn[name], values)
        for name, values in labels.items()
    }


def swapped(labels: _Labels) -> _Labels:
    """Exchange the first two classes in the first five of nine candidates."""
    a, b = sorted({str(y) for values in labels.values() for y in values})[:2]
    majority = [*labels][: len(labels) * 5 // 9 + 1]
    return {
        name: np.where(values == a, b, np.where(values == b, a, values))
        if name in majority
        else values
        for name, values in labels.items()
    }


DAMAGES: dict[str, Callable[[_Labels], _Labels]] = {
    "as they are": unchanged,
    "30 % noise": noisy,
    "majority swaps two classes": swapped,
}


def report(task: LabeledTask, test: TestSet) -> None:
    """Print one line per damage and learner, and what the filter says."""
    encoder = get_encoder(None, "text")
    rows = {c.name: embed(encoder, c).embeddings.float() for c in task.candidates}
    tested = embed(encoder, test.examples).embeddings.float().numpy()[test.positions]
    clean = Learners.of(task, test, {name: part.numpy() for name, part in rows.items()}, tested)
    for damage, change in DAMAGES.items():
        learners = replace(clean, labels=change(clean.labels))
        names = [*rows]
        judges = LabelJudges.fit({n: learners.labels[n].tolist() for n in names}, rows)
        filters = [filter_labels(judges, names, how) for how in ("auto", 0.5)]
        for learner in get_args(Learner):
            cells = [_measured(task, learners, learner, each) for each in (None, *filters)]
            print(f"| {task.name} | {damage} | {learner} | {' | '.join(cells)} |", flush=True)
        print(f"<!-- {filters[0].record.sentence} -->")
        print(f"<!-- {_counts(filters[0], clean.labels, learners.labels)} -->")


def _counts(used: LabelFilter, before: _Labels, after: _Labels) -> str:
    """Say how many labels were dropped, and how many of these had not been changed."""
    n = sum(map(len, after.values()))
    n_changed = sum(int((before[name] != after[name]).sum()) for name in after)
    dropped = [(name, each.position) for name, part in used.dropped.items() for each in part]
    n_right = sum(before[name][at] == after[name][at] for name, at in dropped)
    return (
        f"changed: {n_changed} of {n}; dropped: {len(dropped)}, of which not changed: {n_right}; "
        f"changed and found: {len(dropped) - n_right}"
    )


def _measured(
    task: LabeledTask, learners: Learners, learner: Learner, kept: LabelFilter | None
) -> str:
    per_candidate = 3 * min(map(len, task.candidates)) // len(task.candidates)
    values = []
    for draw in range(_N_DRAWS):
        parts = {}
        for candidate in task.candidates:
            order = drawing_order(candidate, [0, draw])
            if kept is not None:
                order = order[np.isin(order, kept.positions(candidate.name, len(candidate)))]
            parts[candidate.name] = order[:per_candidate]
        values.append(learners.measure(learner, parts))
    return f"{np.mean(values):.3f} ({np.std(values, ddof=1):.3f})"


def main() -> None:
    """Measure every task in a folder."""
    print(
        "| task | labels | learner | all | label_filter=auto | always |\n|---|---|---|---|---|---|"
    )
    for task in find_labeled_tasks(Path(sys.argv[1])):
        if task.test is not None:
            report(task, task.test)


if __name__ == "__main__":
    main()
