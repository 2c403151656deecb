"""A small folder in the layout of the released SynQuE data, with texts made up for tests."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

WORDS = (("misses", "falls", "weak"), ("beats", "rises", "record"), ("holds", "meets", "plans"))
FIRMS = ("Acme", "Globex", "Initech", "Umbrella", "Hooli", "Stark", "Wayne", "Wonka")


def headlines(n: int, seed: int, *, far: float = 0.0, as_text: bool = False) -> list[Any]:
    """Headlines of three classes; a share `far` of them says nothing of its class."""
    draw = random.Random(f"{n} {seed} {far}")
    records = []
    for i in range(n):
        label = i % 3
        word = "says" if draw.random() < far else draw.choice(WORDS[label])
        text = f"{draw.choice(FIRMS)} {word} estimates by {draw.randrange(999)} million, {seed}"
        records.append({"headline": text, "sentiment": str(label) if as_text else label})
    return records


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_rows(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def write_sentiment(root: Path) -> Path:
    """Five candidates (one writes its labels as text), two released samples, 150 labeled ones."""
    folder = root / "sentiment_analysis"
    labeled = headlines(150, 100)
    rows: list[list[object]] = []
    for i, far in enumerate((0.0, 0.2, 0.5, 0.8, 1.0)):
        records = headlines(30, i, far=far, as_text=i == 1)
        write(folder / "synthetic_data" / f"c{i}.json", records)
        rows += [[f"c{i}", 0.9 - far / 2]] * 2
    for place, seed in enumerate((7, 8)):
        sample = labeled[place * 9 : place * 9 + 18]
        write(folder / "real_data" / f"balanced_real_seed={seed}.json", sample)
    # the labeled file has duplicates, as the released one does
    write(folder / "real_data" / "cleaned_ds_validation.json", [*labeled, *labeled[:5]])
    write_rows(folder / "task_performance" / "s.csv", ["dataset_name", "test_f1_mean"], rows)
    return root


def write_web(root: Path, sites: tuple[str, ...] = ("shop", "maps")) -> Path:
    """Four portions a site, one released sample, real tasks; a page for each portion."""
    folder = root / "web_agent"
    rows: list[list[object]] = []
    pages: dict[str, str] = {}
    for site in sites:
        for portion in range(4):
            name = f"nnetnav_live_site={site}_num_tasks=14_portion={portion}"
            tasks = {str(i): f"Find item {i} of {site}, portion {portion}." for i in range(14)}
            write(folder / "original" / "synthetic" / f"{name}.json", tasks)
            rows.append([site, portion, (9 - 2 * portion) / 31])
            pages[name] = f"RootWebArea '{site}', focused\n\t[1] link 'Home', clickable"
        real = {f"{site}--{i}": f"Look for thing {i} on {site}" for i in range(24)}
        write(folder / "original" / "real" / f"{site}.json", real)
        sample = dict(list(real.items())[:20])
        write(folder / "sampled" / "real" / f"{site}_seed=3.json", sample)
    write(folder / "sampled" / "axtree" / "synthetic" / "axtree.json", pages)
    path = folder / "task_performance" / "w.csv"
    write_rows(path, ["website", "partition", "success_rate"], rows)
    return root


def write_text2sql(root: Path, database: str = "movie_platform") -> Path:
    """Four candidates for one database, one released sample, 24 labeled questions."""
    folder = root / "text2sql"
    rows: list[list[object]] = []
    for i in range(4):
        made = [
            {"question": f"How many films of {i} since {j}?", "SQL": f"SELECT a, {j} FROM films"}
            for j in range(12)
        ]
        write(folder / "data" / database / f"c{i}.json", made)
        rows.append([f"c{i}", database, 40 + i])
    real = [
        {"question": f"Which film is {i}?", "SQL": f"SELECT a FROM films WHERE b = {i}"}
        for i in range(24)
    ]
    write(folder / "data" / "real" / f"dev_{database}.json", real)
    write(folder / "data" / "real" / f"dev_{database}_seed=42.json", real[:8])
    columns = ["dataset_name", "db_id", "accuracy"]
    write_rows(folder / "task_performance" / "t.csv", columns, rows)
    return root
