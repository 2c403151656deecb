"""k-medoids against the kmedoids package."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synque_select.functional import medoids
from synque_select.functional.medoids import k_medoids, mean_distance_to_medoids

kmedoids = pytest.importorskip("kmedoids")


def sample(n: int, seed: int, d: int = 8) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "k"), [(60, 5), (300, 5), (700, 3), (40, 1)])
def test_same_start_same_optimum(n, k, seed):
    points = sample(n, seed)
    start = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k]
    distances = torch.cdist(points.double(), points.double()).numpy()
    theirs = kmedoids.fasterpam(distances, start.numpy().astype(np.uint64), n_cpu=1)
    ours = k_medoids(points, k, start=start)
    assert ours.objective <= theirs.loss * (1 + 1e-6)
    assert ours.objective == pytest.approx(theirs.loss, rel=0.005)


@pytest.mark.parametrize("n", [200, 1000])
def test_no_worse_on_average_from_its_own_start(n):
    ours, theirs = 0.0, 0.0
    for seed in range(5):
        points = sample(n, seed)
        distances = torch.cdist(points.double(), points.double()).numpy()
        theirs += kmedoids.fasterpam(distances, 5, random_state=42, n_cpu=1).loss
        ours += k_medoids(points).objective
    assert ours <= theirs * 1.002


@pytest.mark.parametrize("n", [100, 700])
def test_kept_distances_give_the_same_medoids(monkeypatch, n):
    kept = k_medoids(sample(n, 3))
    monkeypatch.setattr(medoids, "_KEPT_BLOCKS", 0)
    again = k_medoids(sample(n, 3))
    assert torch.equal(kept.medoids, again.medoids)
    assert torch.equal(kept.distances, again.distances)


def test_no_swap_improves_the_result():
    points = sample(80, 0)
    clustering = k_medoids(points, 3)
    distances = torch.cdist(points.double(), points.double())
    for place in range(3):
        for example in range(80):
            swapped = clustering.medoids.clone()
            swapped[place] = example
            assert distances[:, swapped].amin(1).sum() >= clustering.objective - 1e-4


def test_labels_and_distances_belong_to_the_medoids():
    points = sample(50, 1)
    clustering = k_medoids(points, 4)
    distances = torch.cdist(points.double(), points[clustering.medoids].double())
    assert clustering.labels.tolist() == distances.argmin(1).tolist()
    torch.testing.assert_close(clustering.distances, distances.amin(1), rtol=1e-6, atol=1e-6)
    means = [clustering.distances[clustering.labels == c].mean() for c in range(4)]
    assert mean_distance_to_medoids(points, 4) == pytest.approx(float(torch.stack(means).mean()))


def test_fewer_examples_than_medoids_and_one_point_repeated():
    assert mean_distance_to_medoids(sample(3, 0), 5) == 0
    assert mean_distance_to_medoids(torch.ones(20, 4), 5) == 0
