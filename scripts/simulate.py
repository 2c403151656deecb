"""What a ranking says, against simulations whose truth is known: `python -m scripts.simulate`.

Real samples are drawn again and again and ranked by the default suite, through the public API. The
figures go into docs/calibration.md, between its markers. Finished draws are kept under `--root`,
and a run that was interrupted continues; deleting that directory starts over.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from scripts.docs_tables import ROOT, write_between
from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder
from synque_select.report.table import Column, Table
from synque_select.selection.consensus import midranks
from synque_select.selection.scorer import Scorer
from synque_select.selection.uncertainty import top_k_frequency
from synque_select.utils.progress import ProgressBar

PAGE = ROOT / "docs" / "calibration.md"
# far from the seeds that the methods were developed on
SEED = 20_000
DIM, N_CANDIDATE, TOP_K, N_RESAMPLES, CHUNK = 32, 150, 3, 1000, 20
PROXIES = ("pad", "mmd", "coverage", "ngram")
TRANSFER = "transfer"
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One setting of the simulation.

    Args:
        kind: "equal": all candidates equally far by symmetry; "graded": each further than the one
            before.
        tails: "normal", or "heavy": Student's t with 3 degrees of freedom, one scale per example.
        n: Size of the real sample.
        n_candidates: K, the number of candidates.
        copies: Examples per group; the 3 examples of a group share 80 % of their variance.
        groups: Whether the groups are given to the ranking.
        labels: Whether the candidates have labels, and are ranked by `transfer` instead.
    """

    kind: str
    tails: str
    n: int
    n_candidates: int
    copies: int = 1
    groups: bool = False
    labels: bool = False

    @property
    def proxies(self) -> tuple[str, ...]:
        """The proxies of the suite."""
        return (TRANSFER,) if self.labels else PROXIES

    @property
    def name(self) -> str:
        """Name of the file of results."""
        grouped = f"-{self.copies}{'given' if self.groups else 'hidden'}" if self.copies > 1 else ""
        labels = "labels-" if self.labels else ""
        return f"{labels}{self.kind}-{self.tails}-n{self.n}-k{self.n_candidates}{grouped}"


class Draw(TypedDict):
    """What one real sample gave.

    Attributes:
        number: Number of the real sample.
        apart: "consensus" or proxy to the share of pairs that are distinguished.
        values: Proxy to the scores of the candidates.
        low: Proxy to the lower ends of their intervals.
        high: Proxy to the upper ends.
        mean_rank: Mean rank of each candidate; none without a consensus.
        stability: Stability of each candidate.
    """

    number: int
    apart: dict[str, float]
    values: dict[str, list[float]]
    low: dict[str, list[float]]
    high: dict[str, list[float]]
    mean_rank: list[float]
    stability: list[float]


def cells() -> list[Cell]:
    """Return all settings, the quick ones first."""
    tails, sizes = ("normal", "heavy"), (20, 50, 100)
    every = [Cell("equal", t, n, 6) for n in sizes for t in tails]
    every += [
        Cell("equal", "normal", n, 6, copies=3, groups=given)
        for n in (30, 60, 150)
        for given in (False, True)
    ]
    every += [
        replace(cell, kind=kind, labels=True)
        for kind in ("equal", "graded")
        for cell in every
        if cell.groups or (cell.copies == 1 and (kind == "equal" or cell.tails == "normal"))
        if kind == "equal" or cell.copies == 1
    ]
    every += [Cell("graded", t, n, 12) for n in sizes for t in tails]
    return every + [Cell("equal", t, n, k) for k in (12, 30) for n in sizes for t in tails]


class LookUp(BaseEncoder):
    """Returns the points that the texts were written from.

    Args:
        number: Number of the real sample, a part of each word. The buckets that words are hashed
            into are thereby drawn again as well: with the same words for every real sample, their
            collisions would make one candidate better for good.
    """

    id, modality, revision, batch_size = "simulated", "text", "1", 4096

    def __init__(self, number: int) -> None:
        self.number = number
        self.points: dict[str, torch.Tensor] = {}

    def encode(self, views: Sequence[object]) -> torch.Tensor:
        """Return the points of these texts."""
        return torch.stack([self.points[str(view)] for view in views])

    def texts(self, points: Points, columns: Points, generator: np.random.Generator) -> list[str]:
        """Write points as texts: a word for each coordinate and its level, in random order."""
        levels = np.clip(np.rint(points * 1.2), -8, 8).astype(int) + 8
        order = np.argsort(generator.random(points.shape), axis=1)
        # the words of candidate k are those of candidate 0 with other names of the coordinates
        words = np.array([[f"w{self.number}x{c}{chr(97 + v)}" for v in range(17)] for c in columns])
        each = words[order, np.take_along_axis(levels, order, axis=1)].tolist()
        texts = [" ".join(row) for row in each]
        moved = np.empty_like(points)
        moved[:, columns] = points
        rows = torch.from_numpy(moved.astype(np.float32))
        self.points |= dict(zip(texts, rows, strict=True))
        return texts


def draw_points(n: int, tails: str, generator: np.random.Generator) -> Points:
    """Draw n points of a distribution that a permutation of the coordinates does not change."""
    points = generator.standard_normal((n, DIM))
    if tails == "heavy":
        points /= np.sqrt(generator.chisquare(3, size=(n, 1)) / 3)
    return points


def make_candidates(cell: Cell, encoder: LookUp) -> list[Candidate]:
    """Return candidates that are one set of points, moved along another coordinate each.

    The distribution of the real sample is the same in all coordinates, so that candidates moved by
    the same distance are exactly equally far from it.
    """
    if cell.labels:
        return make_labeled(cell, encoder)
    k = cell.n_candidates
    shifts = np.full(k, 1.5) if cell.kind == "equal" else np.linspace(1.5, 3.0, k)
    # the same points and the same order of words for every candidate
    points = draw_points(N_CANDIDATE, cell.tails, np.random.default_rng(SEED + cell.n))
    candidates = []
    for i, shift in enumerate(shifts):
        moved = points.copy()
        moved[:, 0] += shift
        columns = (np.arange(DIM) + i) % DIM
        texts = encoder.texts(moved, columns, np.random.default_rng(SEED))
        candidates.append(Candidate(f"c{i}", texts))
    return candidates


def make_labeled(cell: Cell, encoder: LookUp) -> list[Candidate]:
    """Return candidates that are one set of labeled points, each tilted to another coordinate.

    The label is the sign of the last coordinate plus noise plus, wrongly, a share of the first,
    along which the points are moved, too. The first K coordinates of candidate k are rotated by k
    places. Such a rotation changes neither the real sample's distribution nor the set of the
    candidates, only their names: with equal shares they are exactly equally good.
    """
    k = cell.n_candidates
    tilts = np.full(k, 0.5) if cell.kind == "equal" else np.linspace(0.2, 1.5, k)
    generator = np.random.default_rng(SEED + cell.n)
    points = draw_points(N_CANDIDATE, cell.tails, generator)
    noise = generator.standard_normal(N_CANDIDATE)
    points[:, 0] += 0.5
    candidates = []
    for i, tilt in enumerate(tilts):
        labels = points[:, -1] + tilt * points[:, 0] + 0.5 * noise > 0
        columns = np.arange(DIM)
        columns[:k] = (columns[:k] + i) % k
        texts = encoder.texts(points, columns, np.random.default_rng(SEED))
        examples = [
            {"text": text, "label": str(label)}
            for text, label in zip(texts, labels.tolist(), strict=True)
        ]
        candidates.append(Candidate(f"c{i}", examples, view="text", label="label"))
    return candidates


def make_real(cell: Cell, number: int, encoder: LookUp) -> RealSample:
    """Return the real sample of that number."""
    generator = np.random.default_rng([SEED, number])
    groups = np.arange(cell.n) // cell.copies
    points = draw_points(cell.n, cell.tails, generator)
    if cell.copies > 1:
        shared = draw_points(int(groups.max()) + 1, cell.tails, generator)[groups]
        points = 0.8**0.5 * shared + 0.2**0.5 * points
    texts = encoder.texts(points, np.arange(DIM), generator)
    examples = [{"text": t, "group": int(g)} for t, g in zip(texts, groups, strict=True)]
    given = "group" if cell.groups else False
    return RealSample("real", examples, view="text", group_by=given)


def simulate(cell: Cell, numbers: Sequence[int]) -> list[Draw]:
    """Rank the candidates of a setting by the real samples of these numbers."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scorer = Scorer(
            proxies=cell.proxies,
            top_k=TOP_K,
            cache_dir=folder,
            device="cpu",
            keep_models=True,
            progress=False,
            n_resamples=N_RESAMPLES,
        )
        draws = []
        for number in numbers:
            encoder = LookUp(number)
            candidates = make_candidates(cell, encoder)
            real = make_real(cell, number, encoder)
            # folds are drawn again as well: fixed ones would prefer one of two mirror images
            numbered = replace(scorer, encoder=encoder, seed=number)
            draws.append(_draw(numbered, candidates, real, number))
        return draws


def _draw(scorer: Scorer, candidates: Sequence[Candidate], real: RealSample, number: int) -> Draw:
    scoring = scorer.score(candidates, real)
    keys = [proxy.key for proxy in scoring.suite]
    rankings = {key: replace(scorer, rank_by=key).order(scoring) for key in keys}
    if len(keys) > 1:
        rankings = {"consensus": scorer.order(scoring)} | rankings
    apart = {}
    for key, part in rankings.items():
        if part.decision is None:
            raise ValueError(f"the ranking by {key} has no decision")
        evidence = part.decision.evidence
        apart[key] = (evidence.n_apart or 0) / (evidence.n_pairs or 1)
    rows = next(iter(rankings.values())).candidates

    def column(field: str, key: str) -> list[float]:
        return [round(float(getattr(row.scores[key], field)), 6) for row in rows]

    return Draw(
        number=number,
        apart=apart,
        values={key: column("value", key) for key in keys},
        low={key: column("low", key) for key in keys},
        high={key: column("high", key) for key in keys},
        mean_rank=[row.mean_rank for row in rows if row.mean_rank is not None],
        stability=[float(row.selection_stability or 0.0) for row in rows],
    )


def run(settings: Sequence[Cell], repetitions: int, jobs: int, root: Path) -> None:
    """Simulate what is missing under `root`."""
    root.mkdir(parents=True, exist_ok=True)
    tasks = []
    for cell in settings:
        done = {draw["number"] for draw in load(root, cell)}
        missing = [number for number in range(repetitions) if number not in done]
        tasks += [(cell, missing[i : i + CHUNK]) for i in range(0, len(missing), CHUNK)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(simulate, cell, part): cell for cell, part in tasks}
        bar = ProgressBar(as_completed(futures), desc="simulating", total=len(futures), unit="part")
        for future in bar:
            with (root / f"{futures[future].name}.jsonl").open("a") as file:
                file.writelines(json.dumps(draw) + "\n" for draw in future.result())


def load(root: Path, cell: Cell) -> list[Draw]:
    """Return the finished draws of a setting."""
    path = root / f"{cell.name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    draws: list[Draw] = [json.loads(line) for line in lines]
    return sorted(draws, key=lambda draw: draw["number"])


def share(hits: int, n: int) -> str:
    """Return a share with its exact 95 % interval."""
    interval = binomtest(hits, n).proportion_ci(method="exact")
    return f"{hits / n:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def error_table(draws: Mapping[Cell, Sequence[Draw]]) -> Table:
    """Return how often a difference was found between candidates that are equally far."""
    keys = ("consensus", *PROXIES)
    rows = []
    total = dict.fromkeys(keys, 0)
    n_total = 0
    for cell, part in draws.items():
        hits = {key: sum(draw["apart"][key] > 0 for draw in part) for key in keys}
        total = {key: total[key] + hits[key] for key in keys}
        n_total += len(part)
        rows.append((
            cell.tails, f"{cell.n}", f"{cell.n_candidates}", f"{len(part)}",
            share(hits["consensus"], len(part)),
            *[f"{hits[key] / len(part):.3f}" for key in PROXIES],
        ))  # fmt: skip
    rows.append((
        "all", "", "", f"{n_total}", share(total["consensus"], n_total),
        *[f"{total[key] / n_total:.3f}" for key in PROXIES],
    ))  # fmt: skip
    return _table(("tails", "n", "K", "runs", *keys), rows)


def power_table(draws: Mapping[Cell, Sequence[Draw]]) -> Table:
    """Return how many pairs of candidates that differ are distinguished."""
    keys = ("consensus", *PROXIES)
    rows = [
        (
            cell.tails, f"{cell.n}", f"{cell.n_candidates}", f"{len(part)}",
            *[f"{np.mean([draw['apart'][key] for draw in part]):.3f}" for key in keys],
            f"{np.mean([draw['apart']['consensus'] > 0 for draw in part]):.2f}",
        )
        for cell, part in draws.items()
    ]  # fmt: skip
    return _table(("tails", "n", "K", "runs", *keys, "any pair (consensus)"), rows)


def covered(part: Sequence[Draw], key: str, *, one_mean: bool = True) -> float:
    """Return the share of intervals that hold the mean of the score over all draws.

    Args:
        part: The draws.
        key: The proxy.
        one_mean: Whether all candidates have the same mean, as equally far ones do.
    """
    values, low, high = (np.array([draw[field][key] for draw in part]) for field in FIELDS)
    truth = values.mean() if one_mean else values.mean(axis=0)
    return float(((low <= truth) & (truth <= high)).mean())


FIELDS = ("values", "low", "high")


def coverage_table(draws: Mapping[Cell, Sequence[Draw]]) -> Table:
    """Return the coverage of intervals of a score, nominally 95 %."""
    rows = [
        (
            cell.tails, f"{cell.n}", f"{len(part)}",
            *[f"{covered(part, key):.3f}" for key in PROXIES],
        )
        for cell, part in draws.items()
    ]  # fmt: skip
    return _table(("tails", "n", "runs", *PROXIES), rows)


def group_table(draws: Mapping[Cell, Sequence[Draw]]) -> Table:
    """Return error and coverage where three examples each belong together."""
    rows = [
        (
            f"{cell.n}", "given" if cell.groups else "not given", f"{len(part)}",
            share(sum(draw["apart"]["consensus"] > 0 for draw in part), len(part)),
            *[f"{covered(part, key):.3f}" for key in PROXIES],
        )
        for cell, part in draws.items()
    ]  # fmt: skip
    columns = ("n", "groups", "runs", "error (consensus)", *[f"{key} covered" for key in PROXIES])
    return _table(columns, rows)


def labels_table(draws: Mapping[Cell, Sequence[Draw]]) -> Table:
    """Return error, power and coverage of `transfer`."""
    rows = []
    for cell, part in draws.items():
        hits = sum(draw["apart"][TRANSFER] > 0 for draw in part)
        equal = cell.kind == "equal"
        rows.append((
            cell.tails, f"{cell.n}", "3 each" if cell.groups else "", f"{len(part)}",
            share(hits, len(part)) if equal else "",
            "" if equal else f"{np.mean([draw['apart'][TRANSFER] for draw in part]):.3f}",
            f"{covered(part, TRANSFER, one_mean=equal):.3f}",
        ))  # fmt: skip
    columns = ("tails", "n", "groups", "runs", "error", "pairs distinguished", "covered")
    return _table(columns, rows)


def stability_table(draws: Mapping[Cell, Sequence[Draw]]) -> Table:
    """Return the printed stability against the frequency in all other draws."""
    kinds: dict[str, tuple[list[float], list[float]]] = {"equal": ([], []), "graded": ([], [])}
    for cell, part in draws.items():
        ranks = midranks(torch.tensor([d["mean_rank"] for d in part]), higher_is_better=False)
        frequency = top_k_frequency(ranks, TOP_K).tolist()
        for draw in part:
            kinds[cell.kind][0].extend(draw["stability"])
            kinds[cell.kind][1].extend(frequency)
    rows = []
    for low in np.arange(0, 1, 0.1):
        row = [f"{low:.1f} to {low + 0.1:.1f}"]
        for printed, actual in (map(np.array, pair) for pair in kinds.values()):
            inside = (printed >= low) & ((printed < low + 0.1) | (low > 0.85))
            if inside.sum() < 20:
                row += ["", "", f"{inside.sum():,}"]
            else:
                row += [
                    f"{printed[inside].mean():.2f}",
                    f"{actual[inside].mean():.2f}",
                    f"{inside.sum():,}",
                ]
        rows.append(tuple(row))
    columns = ["printed"]
    for kind in ("equal", "graded"):
        columns += [f"{kind}: mean", f"{kind}: new samples", f"{kind}: cases"]
    return _table(columns, rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table("", tuple(Column(name) for name in columns), tuple(tuple(row) for row in rows))


TABLES: dict[str, tuple[Callable[[Mapping[Cell, Sequence[Draw]]], Table], Callable[[Cell], bool]]]
TABLES = {
    "error": (error_table, lambda c: not c.labels and c.kind == "equal" and c.copies == 1),
    "power": (power_table, lambda c: not c.labels and c.kind == "graded"),
    "coverage": (
        coverage_table,
        lambda c: not c.labels and c.kind == "equal" and c.copies == 1 and c.n_candidates == 6,
    ),
    "stability": (stability_table, lambda c: c.copies == 1 and c.n_candidates == 12),
    "groups": (group_table, lambda c: not c.labels and c.copies > 1),
    "labels": (labels_table, lambda c: c.labels),
}


def write(root: Path, page: Path) -> None:
    """Write the tables of everything that was simulated."""
    draws = {cell: part for cell in cells() if (part := load(root, cell))}
    today = datetime.now(UTC).date().isoformat()
    for name, (table, is_part) in TABLES.items():
        part = {cell: drawn for cell, drawn in draws.items() if is_part(cell)}
        if part:
            text = f"{table(part).markdown()}\n\nMeasured on {today}, seeds from {SEED:,} on."
            write_between(page, name, text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200, help="real samples per setting")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--only", nargs="+", help="beginnings of names of settings")
    parser.add_argument("--root", type=Path, default=Path("runs/simulate"), help="where draws stay")
    return parser.parse_args()


def main() -> int:
    """Simulate what is missing, and write the page."""
    options = _arguments()
    chosen = [c for c in cells() if not options.only or c.name.startswith(tuple(options.only))]
    run(chosen, options.repetitions, options.jobs, options.root)
    write(options.root, PAGE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
