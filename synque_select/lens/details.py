"""Details of a LENS run for the report: rubrics, examples, counts; as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch

from synque_select.data.views import View
from synque_select.lens.judge import Judged
from synque_select.lens.run import LensRun
from synque_select.utils.data_uri import png_base64
from synque_select.utils.wording import counted

__all__ = ["AdaptiveDetails", "adaptive_details", "lens_details"]

_N_SHOWN = 5
_MAX_CHARS = 1000
_MAX_PIXELS = 160


class AdaptiveDetails(TypedDict):
    """How far adaptive judging went.

    Attributes:
        delta: Allowed error.
        top_k: Number of best candidates.
        rounds: Number of rounds.
        n_judged: Number of judged examples.
        n_saved: Number of examples that did not have to be judged.
        undecided: Names of the candidates that are neither in the top k nor out of it.
        bounds: Candidate name to the lower and upper bound of its score.
    """

    delta: float
    top_k: int
    rounds: int
    n_judged: int
    n_saved: int
    undecided: list[str]
    bounds: dict[str, list[float]]


def lens_details(
    run: LensRun, judged: Mapping[str, Judged], realness: Mapping[str, torch.Tensor]
) -> dict[str, object]:
    """Return the rubrics, the most and least real examples, and the counts of a run.

    Args:
        run: A run that has judged its candidates.
        judged: Candidate name to its judgments.
        realness: Candidate name to the realness of each judged example, (m,) in [0, 1]; NaN where
            a question failed.

    Returns:
        {"version": 1, "scorer", "reasoner", "prompts", "readout", "questions", "cost", "adaptive",
        "candidates": {name: {"n", "n_judged", "rubric", "most_real", "least_real"}}}; an example is
        {"position", "realness", "view"}, and the view of an image is {"png": base64}.
    """
    tally = run.tally
    return {
        "version": 1,
        "scorer": run.scorer.id,
        "reasoner": _reasoner(run),
        "prompts": run.prompts.name,
        "readout": run.config.readout,
        "questions": {
            "planned": tally.n_planned,
            "asked": tally.n_asked,
            "kept": tally.n_kept,
            "failed": tally.n_failed,
        },
        "cost": str(run.cost),
        "adaptive": adaptive_details(run),
        "candidates": {
            name: _candidate(run, name, part, realness[name]) for name, part in judged.items()
        },
    }


def _reasoner(run: LensRun) -> str | None:
    if run.config.zero_shot:
        return None
    return run.rubrics_by


def _candidate(
    run: LensRun, name: str, judged: Judged, realness: torch.Tensor
) -> dict[str, object]:
    samples, rubric = run.candidates[name], run.rubrics.get(name)
    order = [i for i in realness.argsort(stable=True).tolist() if realness[i] == realness[i]]

    def shown(rows: Sequence[int]) -> list[dict[str, object]]:
        entries: dict[str, dict[str, object]] = {}
        for row in rows:
            position = int(run.parts[name][row])
            key = samples.keys[position]
            if key not in entries and len(entries) < _N_SHOWN:
                view = _view_state(samples.views[position])
                entries[key] = {
                    "position": position, "realness": float(realness[row]), "view": view
                }  # fmt: skip
        return list(entries.values())

    return {
        "n": len(samples.keys),
        "n_judged": len(judged.synthetic),
        "rubric": None if rubric is None else {k: list(v) for k, v in vars(rubric).items()},
        "most_real": shown(order[::-1]),
        "least_real": shown(order),
    }


def _view_state(view: View) -> str | dict[str, str]:
    if isinstance(view, str):
        cut = f" … ({counted(len(view), 'character')})" if len(view) > _MAX_CHARS else ""
        return view[:_MAX_CHARS] + cut
    image = view.convert("RGB")
    image.thumbnail((_MAX_PIXELS, _MAX_PIXELS))
    return {"png": png_base64(image)}


def adaptive_details(run: LensRun) -> AdaptiveDetails | None:
    """Return how far adaptive judging went; None if all examples were judged."""
    config, race = run.config.adaptive, run.race
    if config is None or race is None:
        return None
    limit = run.config.max_samples
    most = sum(min(len(s.keys), limit or len(s.keys)) for s in run.candidates.values())
    n_judged = sum(len(part) for part in run.parts.values())
    open_ = [
        name
        for name, decided in zip(run.candidates, race.inside | race.outside, strict=True)
        if not decided
    ]
    return {
        "delta": config.delta,
        "top_k": run.top_k,
        "rounds": race.n_rounds,
        "n_judged": n_judged,
        "n_saved": most - n_judged,
        "undecided": open_,
        "bounds": {
            name: [float(low), float(high)]
            for name, low, high in zip(run.candidates, race.low, race.high, strict=True)
        },
    }
