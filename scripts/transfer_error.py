"""How often comparisons by `transfer` are wrong, on candidates whose true quality is known.

Each candidate is a sample of one generator: three classes in 48 dimensions, of which a share has
labels drawn at random. So candidates differ by chance only, and their true quality is the accuracy
of their heads on 20,000 further examples. The comparison of `rank`, over real sample and judges,
stands beside one over the real sample alone.

    python scripts/transfer_error.py --runs 60
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.functional.transfer import fit_heads
from synque_select.proxies import ProxyInput, get_proxy
from synque_select.selection.uncertainty import influences, separation

D = 48
_CLASSES, _N, _REAL = 3, 100, 60
_CENTERS = 0.7 * np.random.default_rng(7).normal(size=(_CLASSES, D))


def points(n: int, seed: int, shift: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (n, 48) points, moved by `shift` in all coordinates, and their classes."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, _CLASSES, n)
    return _CENTERS[classes] + shift + generator.normal(size=(n, D)), classes


def part(
    name: str, rows: NDArray[np.float64], labels: Iterable[object] | None = None
) -> ProxyInput:
    """Return points as a proxy sees them."""
    digests = b"".join(hashlib.sha256(row.tobytes()).digest() for row in rows)
    return ProxyInput(
        name,
        [""] * len(rows),
        "text",
        np.frombuffer(digests, np.uint8).reshape(-1, 32),
        torch.from_numpy(rows.astype(np.float32)),
        labels=None if labels is None else [str(label) for label in labels],
    )


def candidates(k: int, noise: float, run: int) -> list[ProxyInput]:
    """Return candidates of one generator; a share of the labels is drawn at random."""
    generator, parts = np.random.default_rng(run), []
    for i in range(k):
        rows, labels = points(_N, 10_000 + 100 * run + i)
        if noise:
            is_bad = generator.random(_N) < noise
            labels = np.where(is_bad, generator.integers(0, _CLASSES, _N), labels)
        parts.append(part(f"c{i}", rows, labels))
    return parts


def true_accuracy(parts: list[ProxyInput]) -> torch.Tensor:
    """Return the accuracy of each candidate's head on many further examples."""
    rows, classes = points(20_000, 99_999)
    features = [each.embeddings for each in parts if each.embeddings is not None]
    labels = [torch.tensor([int(label) for label in each.labels or ()]) for each in parts]
    targets = [torch.nn.functional.one_hot(label, _CLASSES).bool() for label in labels]
    heads = fit_heads(features, targets, size=_N)
    predicted = heads.probabilities(torch.from_numpy(rows.astype(np.float32))).argmax(2)
    return (predicted == torch.from_numpy(classes)).double().mean(1)


def main() -> None:
    """Print one line per setting and kind of comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=60, help="number of real samples per setting")
    runs = parser.parse_args().runs
    for k, noise in ((6, 0.0), (12, 0.0), (6, 0.3), (12, 0.3)):
        tally = {"real sample and judges": [0, 0, 0, 0], "real sample alone": [0, 0, 0, 0]}
        deviations = []
        for run in range(runs):
            parts = candidates(k, noise, run)
            real = part("real", points(_REAL, 5_000_000 + run)[0])
            scores = get_proxy("transfer").score(real, parts, seed=0, device=torch.device("cpu"))
            both = influences(scores, _REAL, higher_is_better=True)
            quality = true_accuracy(parts)
            deviations.append(float(quality.std()))
            for counts, each in zip(
                tally.values(), (both, dataclasses.replace(both, judges=None)), strict=True
            ):
                better = separation([each], seed=run).better
                pairs = better.nonzero().tolist()
                counts[0] += bool(pairs)
                counts[1] += len(pairs)
                counts[2] += sum(bool(quality[a] < quality[b]) for a, b in pairs)
                counts[3] += int((better.sum(0) >= (k - 1) / 2).sum())
        spread = sum(deviations) / runs
        print(f"K = {k}, random labels {noise:g}, {runs} runs, sd of true accuracy {spread:.3f}")
        for name, (any_pair, pairs, wrong, left_out) in tally.items():
            print(
                f"  {name}: some pair in {any_pair / runs:.3f} of the runs; {pairs} pairs, "
                f"{wrong} in the wrong order; {left_out / runs:.2f} candidates left out per run",
                flush=True,
            )


if __name__ == "__main__":
    main()
