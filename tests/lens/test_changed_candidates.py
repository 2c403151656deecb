"""Judgments of a candidate stay valid when another one is added, removed or regenerated."""

from __future__ import annotations

from pathlib import Path

import pytest

from synque_select.lens.config import LensConfig
from synque_select.lens.rubric import Rubric
from synque_select.llm.scripted import ScriptedLLM
from synque_select.proxies.lens import Lens
from synque_select.selection.scorer import rank


def words(shift: int, n: int) -> list[dict[str, str]]:
    return [{"text": f"w0x{shift + i % 3} w1x{i % 2} w2x{i % 7}"} for i in range(n)]


BEFORE = {"near": words(0, 60), "far": words(5, 64), "odd": words(9, 50)}
AFTER = {
    "added": BEFORE | {"extra": words(20, 55)},
    "removed": {name: rows for name, rows in BEFORE.items() if name != "odd"},
    "regenerated": BEFORE | {"odd": words(30, 50)},
    "reordered": dict(reversed(BEFORE.items())),
    "renamed": {"near": BEFORE["near"], "far": BEFORE["far"], "strange": BEFORE["odd"]},
}
# the rubric is about what a candidate contains; the renamed one keeps its
POINTS = {"near": "N1", "far": "F1", "odd": "O1", "strange": "O1", "extra": "E1"}


def questions(folder: Path, candidates: dict[str, list[dict[str, str]]]) -> list[str]:
    """Judge all candidates, and return what the model was asked."""
    llm = ScriptedLLM(None, lambda *_: [1, 2, 3, 2, 1])
    rubrics = {name: Rubric((POINTS[name],), ("real",), ("made",)) for name in candidates}
    lens = Lens(
        LensConfig(
            scorer=llm, rubrics=rubrics, answers=str(folder / "answers.sqlite"), progress=False
        )
    )
    rank(candidates, words(0, 12), proxies=[lens], cache_dir=folder, top_k=1, progress=False)
    return [str(prompt) for prompt in llm.prompts]


@pytest.mark.parametrize("how", list(AFTER))
def test_only_what_is_new_is_judged(tmp_path: Path, how: str):
    first = questions(tmp_path, BEFORE)
    (tmp_path / "fresh").mkdir()
    again, fresh = questions(tmp_path, AFTER[how]), questions(tmp_path / "fresh", AFTER[how])
    # the answers are all that a fresh run needs, and none is asked twice
    assert set(fresh) <= set(first) | set(again)
    assert set(again).isdisjoint(first)
    new = {"added": "E1", "regenerated": "O1"}.get(how)
    assert bool(again) == (new is not None)
    assert all(new in question for question in again if new is not None)
    if how == "regenerated":  # the real sample was judged by this rubric before
        assert all("w0x3" in question for question in again)
