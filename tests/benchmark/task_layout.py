"""A small folder of tasks of your own, with texts made up for tests."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

WORDS = {
    "fall": ("misses", "drops", "weak", "loses", "sinks"),
    "rise": ("beats", "climbs", "record", "gains", "soars"),
    "hold": ("keeps", "meets", "plans", "stays", "repeats"),
}
FIRMS = ("Acme", "Globex", "Initech", "Umbrella", "Hooli", "Stark", "Wayne", "Wonka")


def headlines(n: int, seed: int, *, noise: float = 0.0) -> list[dict[str, object]]:
    """Headlines of three classes; a share `noise` of the labels is drawn at random."""
    draw = random.Random(f"{n} {seed} {noise}")
    records: list[dict[str, object]] = []
    for i in range(n):
        label = sorted(WORDS)[i % 3]
        words = " ".join(draw.choices(WORDS[label], k=2))
        text = f"{draw.choice(FIRMS)} {words} by {draw.randrange(9999)} million"
        if draw.random() < noise:
            label = draw.choice(sorted(WORDS))
        records.append({"text": text, "label": label})
    return records


def write(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_task(folder: Path, *, seeds: Sequence[int] = (0, 1), n_candidates: int = 6) -> Path:
    """Candidates whose labels get worse from c0 on, real samples without labels, a test set."""
    for i in range(n_candidates):
        noise = 0.9 * i / max(1, n_candidates - 1)
        write(folder / "candidates" / f"c{i}.jsonl", headlines(36 + i, i, noise=noise))
    for seed in seeds:
        real = [{"text": record["text"]} for record in headlines(12, 50 + seed)]
        write(folder / f"real_sample_seed{seed}.jsonl", real)
    write(folder / "test.jsonl", headlines(90, 100))
    return folder
