"""What a reader wants to see of LENS beside its scores, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from synque_select.data.views import View
from synque_select.lens.judge import Judged
from synque_select.lens.run import LensRun
from synque_select.utils.data_uri import png_base64

__all__ = ["adaptive_details", "lens_details"]

_N_SHOWN = 5
_MAX_CHARS = 1000
_MAX_PIXELS = 160


def lens_details(
    run: LensRun, judged: Mapping[str, Judged], realness: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Return rubrics, the most and least real samples, counts and the error of a run.

    Args:
        run: After judging.
        judged: Name of a candidate to its judgements.
        realness: Name of a candidate to the realness of each judged sample, (m,), NaN where a
            question failed.

    Returns:
        {"version": 1, "scorer", "reasoner", "prompts", "readout", "questions", "cost", "adaptive",
        "candidates": {name: {"n", "n_judged", "rubric", "most_real", "least_real"}}}; a sample is
        {"position", "realness", "view"}, an image's view {"png": base64}.
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


def _candidate(run: LensRun, name: str, judged: Judged, realness: torch.Tensor) -> dict[str, Any]:
    side, rubric = run.candidates[name], run.rubrics.get(name)
    order = [i for i in realness.argsort(stable=True).tolist() if realness[i] == realness[i]]

    def shown(rows: Sequence[int]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for row in rows:
            position = int(run.parts[name][row])
            key = side.keys[position]
            if key not in found and len(found) < _N_SHOWN:
                view = _plain_view(side.views[position])
                found[key] = {
                    "position": position, "realness": float(realness[row]), "view": view
                }  # fmt: skip
        return list(found.values())

    return {
        "n": len(side.keys),
        "n_judged": len(judged.synthetic),
        "rubric": None if rubric is None else {k: list(v) for k, v in vars(rubric).items()},
        "most_real": shown(order[::-1]),
        "least_real": shown(order),
    }


def _plain_view(view: View) -> str | dict[str, str]:
    if isinstance(view, str):
        cut = f" … ({len(view):,} characters)" if len(view) > _MAX_CHARS else ""
        return view[:_MAX_CHARS] + cut
    image = view.convert("RGB")
    image.thumbnail((_MAX_PIXELS, _MAX_PIXELS))
    return {"png": png_base64(image)}


def adaptive_details(run: LensRun) -> dict[str, Any] | None:
    """How far adaptive judging went; None where everything was judged."""
    config, found = run.config.adaptive, run.race
    if config is None or found is None:
        return None
    limit = run.config.max_samples
    most = sum(min(len(s.keys), limit or len(s.keys)) for s in run.candidates.values())
    n_judged = sum(len(part) for part in run.parts.values())
    open_ = [
        name
        for name, decided in zip(run.candidates, found.inside | found.outside, strict=True)
        if not decided
    ]
    return {
        "delta": config.delta,
        "top_k": run.top_k,
        "rounds": found.n_rounds,
        "n_judged": n_judged,
        "n_saved": most - n_judged,
        "undecided": open_,
        "bounds": {
            name: [float(low), float(high)]
            for name, low, high in zip(run.candidates, found.low, found.high, strict=True)
        },
    }
