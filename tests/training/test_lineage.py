"""Artifacts of W&B for what a run was trained on; MLflow is tested with the loggers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synque_select import Candidate, Mixture
from synque_select.training.lineage import log_to_wandb, trained_on

wandb = pytest.importorskip("wandb")


class Run:
    """What is asked of a `wandb.Run`: a real one needs a server for inputs."""

    def __init__(self, offline: bool) -> None:
        self.offline = offline
        self.used: list[Any] = []
        self.logged: list[Any] = []

    def use_artifact(self, artifact: Any) -> None:
        assert not self.offline  # W&B raises
        self.used.append(artifact)

    def log_artifact(self, artifact: Any) -> None:
        self.logged.append(artifact)


def content(artifact: Any) -> Any:
    (entry,) = artifact.manifest.entries.values()
    return json.loads(Path(entry.local_path).read_text())


def used(weight: float, source: str = "/data/a b.jsonl") -> list[Any]:
    parts = [Candidate("a b", ["x", "y"], source=source), Candidate("c", ["u", "v", "w"])]
    return trained_on(parts, Mixture({"a b": weight, "c": 1 - weight}))


@pytest.mark.parametrize("offline", [False, True])
def test_artifacts(offline: bool):
    run = Run(offline)
    log_to_wandb(run, used(0.25))
    artifacts = run.logged if offline else run.used
    assert [(a.name, a.type) for a in artifacts] == [
        ("a_b", "dataset"),
        ("c", "dataset"),
        ("synque_mixture", "mixture"),
    ]
    first, _, mixture = map(content, artifacts)
    assert first["source"] == "/data/a b.jsonl"
    assert first["n"] == 2
    assert len(first["sha256"]) == 64
    assert {name: part["weight"] for name, part in mixture.items()} == {"a b": 0.25, "c": 0.75}
    assert artifacts[0].metadata == first


def test_the_same_data_is_the_same_version():
    runs = [Run(offline=False) for _ in range(2)]
    for run, weight in zip(runs, (0.25, 0.5), strict=True):
        log_to_wandb(run, used(weight))
    first, second = ([artifact.digest for artifact in run.used] for run in runs)
    assert first[:2] == second[:2]
    assert first[2] != second[2]
