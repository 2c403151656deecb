"""Everything that a run keeps, damaged file by file, and what the next run makes of it.

`fill` makes a folder with one file of every kind that is derived from data: converted tables,
stored iterables, digests, embeddings, scores, rankings, answers of a language model, run records
and studies. `PARTS` compute all numbers that depend on them. `DAMAGES` break one file; `use` says
whether the numbers stay, or which error comes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from synque_select.data import tables
from synque_select.data.sources import load_candidates, load_real
from synque_select.encoders import BaseEncoder, embedding_cache
from synque_select.errors import SynqueError
from synque_select.lens import cache as answers
from synque_select.lens.config import LensConfig
from synque_select.lens.rubric import RubricSampling
from synque_select.llm.scripted import ScriptedLLM
from synque_select.records.correlation import correlate
from synque_select.records.store import RunStore
from synque_select.selection.scorer import Scorer
from synque_select.tuning import TuneOptions, tune_mixture
from synque_select.types import Ranking
from synque_select.utils import checksums
from tests.lens.scripts import write_points
from tests.records.records_data import make_record
from tests.training.tiny import OTHER_WORDS, REAL_WORDS, LetterEncoder, data_module, texts

WORDS = {"near": REAL_WORDS, "mixed": "apple banana owl pillow", "far": OTHER_WORDS}
SUITE = ["pad", {"key": "mmd", "p_value": True}, "coverage", "ngram"]
N = 40


class ColourEncoder(BaseEncoder):
    """The mean colour of an image."""

    id, modality, revision = "colours", "image", "1"

    def encode(self, views: Any) -> torch.Tensor:
        rows = [np.asarray(view.convert("RGB"), np.float32).mean((0, 1)) for view in views]
        return torch.tensor(np.stack(rows))


def write_data(here: Path, seed: int) -> None:
    """Write the user's own files, which no damage touches; another seed writes other content."""
    from PIL import Image

    (here / "data").mkdir(parents=True)
    for number, (name, words) in enumerate(WORDS.items()):
        rows = texts(words, N, 10 * seed + number)
        if name == "far":
            lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows)]
        else:
            lines = [json.dumps(row) for row in rows]
        suffix = "csv" if name == "far" else "jsonl"
        (here / "data" / f"{name}.{suffix}").write_text("\n".join(lines) + "\n")
    rows = [json.dumps(row) for row in texts(REAL_WORDS, 30, 10 * seed + 9)]
    (here / "real.jsonl").write_text("\n".join(rows) + "\n")
    generator = np.random.default_rng(seed)
    for name in ("real", "one", "two"):
        (here / "images" / name).mkdir(parents=True)
        for i in range(6):
            pixels = generator.integers(0, 255, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "images" / name / f"{i}.png")


def of_files(here: Path) -> Any:
    """Candidates and real sample in files large enough for the cache: rows, digests, scores."""
    pool = load_candidates(here / "data", label="label")
    real = load_real(here / "real.jsonl")
    scorer = Scorer(
        SUITE, top_k=2, encoder=LetterEncoder(), cache_dir=here / "cache", progress=False
    )
    rows = [[list(c.views), list(c.labels or ())] for c in pool] + [list(real.views)]
    embedded = scorer.embeddings(pool, real)
    assert embedded is not None
    hashes = [_hash(embedded[0]), *(_hash(embedded[1][c.name]) for c in pool)]
    return [rows, [c.sha256 for c in (real, *pool)], hashes, undated(scorer.rank(pool, real))]


def of_kept_ranking(here: Path) -> Any:
    """The ranking that a callback takes from the cache, with its findings."""
    pool = load_candidates(here / "data", label="label")
    scorer = Scorer(
        ["mmd", "ngram"], top_k=2, encoder=LetterEncoder(), cache_dir=here / "cache", progress=False
    )
    ranking, folder = scorer.cached_selection(pool, load_real(here / "real.jsonl"))
    findings = {path.name: path.read_text() for path in sorted(folder.glob("*"))}
    assert findings
    return [undated(ranking), findings]


def of_iterables(here: Path) -> Any:
    """A generator of records, one of tuples with an array, and one of texts."""
    rows = [json.loads(line) for line in (here / "data" / "near.jsonl").read_text().splitlines()]
    sources = {
        "records": (dict(row) for row in rows),
        "tuples": ((row["text"], np.float32([row["label"], len(row["text"])])) for row in rows),
        "texts": (row["text"] for row in rows),
    }
    pool = load_candidates(sources, view=None)
    return [[str(example) for example in candidate.dataset] for candidate in pool]


def of_images(here: Path) -> Any:
    """Candidates of images: their embeddings and scores."""
    pool = load_candidates([here / "images" / name for name in ("one", "two")])
    real = load_real(here / "images" / "real")
    scorer = Scorer(
        ["mmd"], top_k=1, encoder=ColourEncoder(), cache_dir=here / "cache", progress=False
    )
    embedded = scorer.embeddings(pool, real)
    assert embedded is not None
    hashes = [_hash(embedded[0]), *(_hash(rows) for rows in embedded[1].values())]
    return [hashes, undated(scorer.rank(pool, real))]


def of_lens(here: Path) -> Any:
    """Rubrics and judgments of a scripted model."""
    names = ("near.jsonl", "far.csv")
    pool = load_candidates([here / "data" / name for name in names], label="label")
    config = LensConfig(
        scorer=ScriptedLLM(None, _weigh, id="judge", revision="1"),
        reasoner=ScriptedLLM(write_points, id="reasoner", revision="1"),
        sampling=RubricSampling(n_samples=3, n_points=10),
        max_samples=4,
        answers=str(here / "cache" / "answers.sqlite"),
        progress=False,
    )
    scorer = Scorer([{"key": "lens", "config": config}], top_k=1, cache_dir=here / "cache")
    ranking = undated(scorer.rank(pool, load_real(here / "real.jsonl")))
    return re.sub(r"\d+ questions asked, \d+ answers kept", "", ranking)


def _weigh(prompt: str, choices: Sequence[str]) -> list[float]:
    """Probabilities that differ from question to question: one that is lost or changed shows."""
    generator = random.Random(prompt)
    return [generator.random() for _ in choices]


def of_store(here: Path) -> Any:
    """Run records, and the correlation of proxies with validation."""
    store = RunStore(here / "runs" / "records.sqlite")
    records = store.read()
    if not records:
        for seed in range(3):
            for number, name in enumerate("abcdef"):
                value = (number + seed * 0.1 + _of(here)) / 8
                store.write(make_record(name, value, seed=seed, details={"note": "x" * 500}))
        records = store.read()
    report = correlate(records)
    return [[repr(sorted(vars(record).items(), key=str)) for record in records], repr(report)]


def of_study(here: Path, name: str = "studies.sqlite") -> Any:
    """A finished study: its trials and the mixture that it found."""
    options = TuneOptions(
        n_trials=9, n_startup=2, pruner="none", proxy="mmd", seed=int(_of(here)),
        storage=here / "runs" / name, study_name="s",
    )  # fmt: skip
    scorer = Scorer(["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=here / "tuning")
    result = tune_mixture(
        None, data_module(), options=options, scorer=scorer, store=here / "x.sqlite", progress=False
    )
    return [result.value, sorted(result.mixture.weights.items()), repr(result.trials)]


def of_journal(here: Path) -> Any:
    """The same in a journal."""
    return of_study(here, "studies.journal")


PARTS: dict[str, Callable[[Path], Any]] = {
    "files": of_files,
    "kept ranking": of_kept_ranking,
    "iterables": of_iterables,
    "images": of_images,
    "lens": of_lens,
    "store": of_store,
    "study": of_study,
    "journal": of_journal,
}


def parts_of(file: str) -> list[str]:
    """The parts whose numbers may come from a file, a path below the filled folder."""
    if file.startswith("runs/"):
        kinds = {"records.sqlite": "store", "studies.sqlite": "study"}
        return [kinds.get(Path(file).name, "journal")]
    kind = file.split("/")[1]
    return {
        "iterables": ["iterables"],
        "answers.sqlite": ["lens"],
        "rankings": ["kept ranking"],
        "embeddings": ["files", "images"],
        "scores": ["files", "images", "kept ranking"],
    }.get(kind, ["files"])


def _of(here: Path) -> float:
    return float((here / "seed").read_text())


def _hash(rows: torch.Tensor) -> str:
    return hashlib.sha256(rows.numpy().tobytes()).hexdigest()


def undated(ranking: Ranking) -> str:
    """A ranking without the seconds that it took, as JSON."""
    infos = {key: dataclasses.replace(info, seconds=0.0) for key, info in ranking.proxies.items()}
    state = dataclasses.replace(ranking, wall_s={}, proxies=infos).to_dict()
    return json.dumps(_without(state, {"cost", "questions"}), sort_keys=True)


def _without(state: Any, names: set[str]) -> Any:
    """What was paid differs where answers are asked for again; the numbers do not."""
    if isinstance(state, dict):
        return {key: _without(value, names) for key, value in state.items() if key not in names}
    return [_without(value, names) for value in state] if isinstance(state, list) else state


def in_folder(here: Path, part: str) -> Any:
    """Compute a part as a new process would: nothing is remembered from before."""
    with mock.patch.object(tables, "SMALL_BYTES", 0), mock.patch.dict(os.environ):
        os.environ["SYNQUE_CACHE"] = str(here / "cache")
        embedding_cache._open_store.cache_clear()
        checksums._check.cache_clear()
        answers._CHECKED.clear()
        return PARTS[part](here)


def fill(here: Path, seed: int = 0) -> dict[str, Any]:
    """Fill a folder, and return the numbers of every part."""
    write_data(here, seed)
    (here / "seed").write_text(str(seed))
    return {part: in_folder(here, part) for part in PARTS}


def derived_files(here: Path) -> list[str]:
    """The files that a run derived from the user's, as paths below the folder."""
    files = [*(here / "cache").rglob("*"), *(here / "runs").rglob("*")]
    # a note of a running process is not derived
    files = [path for path in files if path.parent.name != ".in-use"]
    return sorted(str(path.relative_to(here)) for path in files if path.is_file())


def kind_of(file: str) -> str:
    """The kind of a derived file; files of one kind are written by the same code."""
    parts = Path(file).parts
    if parts[0] == "runs" or parts[1] == "answers.sqlite":
        return parts[-1]
    is_finding = parts[1] == "rankings" and len(parts) == 4
    return f"{parts[1]}: {parts[-1] if is_finding else Path(file).suffix}"


# --- damages -------------------------------------------------------------------------------------

Damage = Callable[[Path, bytes], None]


def _flip(place: float) -> Damage:
    def damage(path: Path, content: bytes) -> None:
        at = min(int(place * len(content)), len(content) - 1)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])

    return damage


def _replaced_by_a_directory(path: Path, _: bytes) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("kept")


def _zeroed(path: Path, content: bytes) -> None:
    size = min(4096, max(1, len(content) // 4))
    start = (len(content) - size) // 2
    path.write_bytes(content[:start] + b"\0" * size + content[start + size :])


DAMAGES: dict[str, Damage] = {
    "cut to half": lambda path, content: path.write_bytes(content[: len(content) // 2]) and None,
    "last byte cut": lambda path, content: path.write_bytes(content[:-1]) and None,
    "first byte flipped": _flip(0),
    "byte at 1/3 flipped": _flip(1 / 3),
    "byte in the middle flipped": _flip(0.5),
    "byte at 4/5 flipped": _flip(0.8),
    "last byte flipped": _flip(1),
    "block zeroed": _zeroed,
    "emptied": lambda path, _: path.write_bytes(b"") and None,
    "missing": lambda path, _: path.unlink(),
    "a directory": _replaced_by_a_directory,
    "rubbish": lambda path, content: (
        path.write_bytes(b"rubbish" * (1 + len(content) // 7)) and None
    ),
}
OTHERS = "that of another run"


@dataclass(frozen=True)
class Case:
    """One damage of one file."""

    file: str
    damage: str

    def __str__(self) -> str:
        return f"{kind_of(self.file)} {self.damage}"


@dataclass(frozen=True)
class Outcome:
    """What the next run made of it.

    Args:
        verdict: "same", "error", or what is wrong.
        message: The error and the warnings.
    """

    verdict: str
    message: str

    @property
    def is_right(self) -> bool:
        """Whether the numbers stayed, or one clean error came."""
        return self.verdict in ("same", "error")


def cases(here: Path) -> Iterator[Case]:
    """Every damage of every file, and of numbers in databases each byte that may be one."""
    for file in derived_files(here):
        # another run store is a run store, too: its records are not derived from anything
        others = [] if kind_of(file) == "records.sqlite" else [OTHERS]
        for damage in (*DAMAGES, *others):
            yield Case(file, damage)


@dataclass(frozen=True)
class World:
    """A filled folder, the numbers of its parts, and a second one of other data."""

    here: Path
    other: Path
    numbers: dict[str, Any]

    @classmethod
    def make(cls, folder: Path) -> World:
        """Fill two folders; the numbers of the first are those of a second run over it."""
        numbers = fill(folder / "here")
        fill(folder / "other", seed=1)
        again = {part: in_folder(folder / "here", part) for part in PARTS}
        assert again == numbers
        return cls(folder / "here", folder / "other", numbers)

    def outcome(self, case: Case) -> Outcome:
        """Damage a file in a copy of the world, use it, and put the copy away."""
        copy = self.here.with_name("copy")  # always there: digests are keyed by path
        saved = self.here.rename(copy)
        try:
            shutil.copytree(saved, self.here, copy_function=shutil.copy2)
            for path in ("data", "real.jsonl", "images"):  # the user's own: the same inodes
                target = self.here / path
                shutil.rmtree(target) if target.is_dir() else target.unlink()
                (saved / path).rename(target)
            return self._used(case)
        finally:
            for path in ("data", "real.jsonl", "images"):
                (self.here / path).rename(saved / path)
            shutil.rmtree(self.here)
            saved.rename(self.here)

    def _used(self, case: Case) -> Outcome:
        path = self.here / case.file
        if case.damage == OTHERS:
            kind = kind_of(case.file)
            those = [f for f in derived_files(self.other) if kind_of(f) == kind]
            mine = [f for f in derived_files(self.here) if kind_of(f) == kind]
            path.write_bytes((self.other / those[mine.index(case.file) % len(those)]).read_bytes())
        else:
            DAMAGES[case.damage](path, path.read_bytes())
        return self._outcome(case)

    def _outcome(self, case: Case) -> Outcome:
        heard = _Listener()
        logger = logging.getLogger("synque_select")
        logger.addHandler(heard)
        try:
            for part in parts_of(case.file):
                try:
                    numbers = in_folder(self.here, part)
                except SynqueError as error:
                    return self._error(case, str(error))
                if numbers != self.numbers[part]:
                    return Outcome(f"other numbers of {part}", heard.text)
            n_lines = len(heard.lines)
            return Outcome("same" if n_lines <= 1 else f"{n_lines} warnings", heard.text)
        except Exception as error:  # what no user should ever see
            return Outcome(f"traceback {type(error).__name__}", f"{error} {heard.text}"[:300])
        finally:
            logger.removeHandler(heard)

    def _error(self, case: Case, message: str) -> Outcome:
        ours = Path(case.file).name
        if ours not in message:
            return Outcome("an error that does not name our file", message)
        if re.search(r"data/\w+\.(jsonl|csv)|real\.jsonl|images/", message):
            return Outcome("an error that blames the user's file", message)
        return Outcome("error", message)


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    @property
    def text(self) -> str:
        return " | ".join(self.lines)


def sample_of_each_kind(all_cases: list[Case], seed: int) -> list[Case]:
    """One file of every kind with two damages, drawn with a seed."""
    generator = random.Random(seed)
    kinds: dict[str, list[Case]] = {}
    for case in all_cases:
        kinds.setdefault(kind_of(case.file), []).append(case)
    return [case for group in kinds.values() for case in generator.sample(group, 2)]


if __name__ == "__main__":
    import collections
    import sys
    import tempfile
    import time

    logging.getLogger("synque_select").propagate = False
    with tempfile.TemporaryDirectory() as folder:
        world = World.make(Path(folder))
        every = list(cases(world.here))
        print(len(every), collections.Counter(kind_of(f) for f in derived_files(world.here)))
        count = collections.Counter()
        started = time.time()
        for case in every:
            if len(sys.argv) > 1 and sys.argv[1] not in str(case):
                continue
            outcome = world.outcome(case)
            count[outcome.verdict] += 1
            if not outcome.is_right or len(sys.argv) > 2:
                print(f"{case}: {outcome.verdict}: {outcome.message[:220]}")
        print(count, f"{time.time() - started:.0f} s")
