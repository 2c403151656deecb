"""What a page shows beside its tables: a map and examples, kept as JSON in the run's directory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from synque_select.data.preview import shown_view
from synque_select.data.views import View
from synque_select.errors import ConfigError
from synque_select.records.run_folder import write_json
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.wording import counted

__all__ = [
    "examples_state",
    "map_state",
    "name_of_real",
    "project",
    "write_examples",
    "write_map",
]

_REAL = "real sample"
_MOST_REAL = 2000  # on the map
_MOST_SETS = 24  # with examples
_MOST_COMPARED = 5000  # examples of a set, for the nearest and the farthest


def write_map(
    run_dir: str | Path, real: torch.Tensor, candidates: Mapping[str, torch.Tensor]
) -> Path:
    """Write `map.json`, the content of which is that of `map_state`.

    Args:
        run_dir: The run's directory.
        real: As for `map_state`.
        candidates: As for `map_state`.

    Raises:
        ConfigError: As for `map_state`.
        RecordError: The file cannot be written.
    """
    return write_json(Path(run_dir) / "map.json", map_state(real, candidates))


def map_state(
    real: torch.Tensor,
    candidates: Mapping[str, torch.Tensor],
    *,
    n_shown: int = 150,
    n_all: int = 12_000,
    seed: int = 0,
) -> JsonObject:
    """Return the real sample and the candidates projected onto two components.

    Args:
        real: (n, d) embeddings of the real sample; of more than 2,000, as many at random.
        candidates: Candidate name to (N, d) embeddings, on any device or memory-mapped.
        n_shown: Maximum number of random examples per candidate that are read and shown.
        n_all: Maximum number of examples of all candidates, but at least one per candidate.
        seed: Random seed for the choice of these examples.

    Raises:
        ConfigError: `candidates` is empty, or the embeddings differ in dimension.
    """
    widths = {name: tuple(rows.shape)[1:] for name, rows in candidates.items()}
    if not widths or set(widths.values()) != {tuple(real.shape)[1:]}:
        raise ConfigError(f"a map needs candidates of one dimension, found {widths}")
    if n_shown < 1:
        raise ConfigError(f"n_shown={n_shown}: allowed is 1 or more")
    n_shown = max(1, min(n_shown, n_all // len(candidates)))
    chosen = {name: rows[_choose(len(rows), n_shown, seed)] for name, rows in candidates.items()}
    sets = [real[_choose(len(real), _MOST_REAL, seed)], *chosen.values()]
    planes, share = project([rows.to("cpu", torch.float64) for rows in sets])
    label = name_of_real(candidates)
    points: list[Json] = [
        {"set": name, "x": float(f"{x:.5g}"), "y": float(f"{y:.5g}")}
        for name, plane in zip([label, *chosen], planes, strict=True)
        for x, y in plane.tolist()
    ]
    method = (
        f"The first two principal components of the embeddings explain {100 * share:.0f} % of "
        f"their variance; up to {counted(n_shown, 'random example')} per candidate are shown."
    )
    return {"points": points, "method": method, "real": label}


def name_of_real(candidates: Iterable[str]) -> str:
    """Return what the real sample is called beside candidates of these names."""
    return f"{_REAL} (unlabeled)" if _REAL in candidates else _REAL


def project(sets: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], float]:
    """Project sets of rows onto the first two principal components of all, with equal set weights.

    Args:
        sets: Tensors (n_s, d) of a single float dtype.

    Returns:
        Tensors (n_s, 2) in the order given, and the share of the variance that the plane explains.
        The sign of a component is chosen so that its largest loading is positive.

    Example:
        >>> line = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
        >>> planes, share = project([line])
        >>> planes[0][:, 1].abs().max() < 1e-6, round(share, 3)
        (tensor(True), 1.0)
    """
    mean = torch.stack([rows.mean(dim=0) for rows in sets]).mean(dim=0)
    # each row weighs 1 / size of its set: a large candidate must not decide the axes alone
    scaled = torch.cat([(rows - mean) / len(rows) ** 0.5 for rows in sets])
    if len(scaled) > scaled.shape[1]:  # as many columns as rows at most: linear in the rows
        values, vectors = torch.linalg.eigh(scaled.T @ scaled)
        sizes, axes = values.clamp(min=0).sqrt().flip(0), vectors.flip(1).T[:2]
    else:
        _, sizes, axes = torch.linalg.svd(scaled, full_matrices=False)
        axes = axes[:2]
    largest = axes.abs().argmax(dim=1, keepdim=True)
    axes = axes * axes.gather(1, largest).sign()
    if len(axes) < 2:  # one dimension or a single row: the second axis stays empty
        axes = torch.cat([axes, torch.zeros_like(axes)])
    total = float((sizes**2).sum())
    share = float((sizes[:2] ** 2).sum()) / total if total else 1.0
    return [(rows - mean) @ axes.T for rows in sets], share


def _choose(n: int, n_wanted: int, seed: int) -> torch.Tensor:
    chosen = np.random.default_rng(seed).choice(n, min(n, n_wanted), replace=False)
    return torch.from_numpy(np.sort(chosen))


def write_examples(
    run_dir: str | Path,
    views: Mapping[str, Sequence[View]],
    *,
    embeddings: tuple[torch.Tensor, Mapping[str, torch.Tensor]] | None = None,
) -> Path:
    """Write `examples.json`, the content of which is that of `examples_state`.

    Args:
        run_dir: The run's directory.
        views: As for `examples_state`.
        embeddings: As for `examples_state`.

    Raises:
        RecordError: The file cannot be written.
    """
    return write_json(Path(run_dir) / "examples.json", examples_state(views, embeddings=embeddings))


def examples_state(
    views: Mapping[str, Sequence[View]],
    *,
    embeddings: tuple[torch.Tensor, Mapping[str, torch.Tensor]] | None = None,
    n_shown: int = 6,
    max_chars: int = 1200,
    max_pixels: int = 96,
    seed: int = 0,
) -> JsonObject:
    """Return a few examples of each set, at most of the first 24 sets.

    With embeddings, they are the examples that are nearest to the real sample and farthest from it,
    by the distance to the nearest real example; else they are random.

    Args:
        views: Name of a set (a candidate, the real sample) to its texts or images, the most
            important first.
        embeddings: Embeddings of the real sample and of the candidates by name; optional.
        n_shown: Maximum number of examples per set.
        max_chars: Longer texts are cut, and say how many characters they have.
        max_pixels: Images are shrunk to fit a square of this side and stored as PNG.
        seed: Random seed for the choice of examples.
    """
    shown: dict[str, Json] = {}
    for name in list(views)[:_MOST_SETS]:
        of_set = views[name]
        rows = None if embeddings is None else embeddings[1].get(name)
        if embeddings is None or rows is None or len(rows) != len(of_set):
            chosen = dict.fromkeys(_choose(len(of_set), n_shown, seed).tolist(), "")
        else:
            chosen = _nearest_and_farthest(embeddings[0], rows, n_shown)
        shown[name] = [
            {
                "view": shown_view(of_set[i], max_chars, max_pixels),
                **({"group": group} if group else {}),
            }
            for i, group in chosen.items()
        ]
    return shown


def _nearest_and_farthest(real: torch.Tensor, rows: torch.Tensor, n_shown: int) -> dict[int, str]:
    """Return the positions of the examples nearest to the real sample and farthest from it."""
    some, of_real = _choose(len(rows), _MOST_COMPARED, 0), _choose(len(real), _MOST_REAL, 0)
    distances = torch.cdist(
        rows[some].to("cpu", torch.float32), real[of_real].to("cpu", torch.float32)
    )
    order = some[distances.min(dim=1).values.argsort(stable=True)].tolist()
    half = min(n_shown, len(order)) // 2
    # of few examples, none is in both groups
    farthest = dict.fromkeys(order[len(order) - half :][::-1], "farthest")
    return dict.fromkeys(order[: min(n_shown, len(order)) - half], "nearest") | farthest
