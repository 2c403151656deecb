"""CPU seconds of every stage from files to page, for K candidates of N examples.

`stages` computes all of them once, in order, and times each; `exponent` says how they grow.
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from synque_select.data.candidate import Candidate
from synque_select.data.contamination import check_real_copies
from synque_select.data.duplicates import sample_messages
from synque_select.data.sources import load_candidates, load_real
from synque_select.encoders import BaseEncoder
from synque_select.records.correlation import correlate
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.records.store import RunStore
from synque_select.report.page import ranking_page
from synque_select.selection.farness import measure_farness
from synque_select.selection.findings import find_gaps
from synque_select.selection.label_filter import camps_of, filter_selected
from synque_select.selection.labels import check_scored_labels
from synque_select.selection.mixture import mixture_scores, mmd_optimal_mixture
from synque_select.selection.ranking import ranking_from
from synque_select.selection.reference import reference_scores
from synque_select.selection.sample_size import sample_size_analysis
from synque_select.selection.scorer import Scorer, ScoringJob
from synque_select.selection.scoring import Scoring
from synque_select.selection.surrogate import draw_surrogate
from synque_select.types import Mixture, ProxyScore, Ranking, RunRecord

__all__ = ["N_REAL", "exponent", "stages"]

N_REAL = 60
DIM = 96
# enough words that no text is a near copy of a real one
WORDS = [f"word{i}" for i in range(500)]
PROXIES = ("pad", "mmd", "coverage", "ngram", "transfer", "agreement", "density", "energy", "mdm")
_Result = TypeVar("_Result")


class WordEncoder(BaseEncoder):
    """Means of random vectors of the words: next to no time."""

    id, modality, revision, batch_size = "random words", "text", "1", 4096

    def __init__(self) -> None:
        self.vectors = torch.randn(len(WORDS), DIM, generator=torch.Generator().manual_seed(0))

    def encode(self, views: Sequence[Any]) -> torch.Tensor:
        """Return one row per text, without its name and number."""
        words = torch.tensor([[int(word[4:]) for word in text.split()[2:]] for text in views])
        return self.vectors[words].mean(dim=1)


def write(folder: Path, n_candidates: int, n_examples: int) -> None:
    """Write candidates of labeled texts and a real sample as JSONL."""
    (folder / "candidates").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for k in range(-1, n_candidates):
        n, name = (N_REAL, "real") if k < 0 else (n_examples, f"c{k:04d}")
        drawn = torch.randint(len(WORDS), (n, 8), generator=generator)
        # half of the words are more frequent in some candidates than in others
        drawn[:, : k % 5] %= 250
        lines = [
            json.dumps(
                {
                    "text": f"{name} {i} " + " ".join(WORDS[j] for j in row),
                    "label": "low" if row[7] < 250 else "high",
                }
            )
            for i, row in enumerate(drawn.tolist())
        ]
        file = folder / ("real.jsonl" if k < 0 else f"candidates/{name}.jsonl")
        file.write_text("\n".join(lines))


class _Clock:
    """CPU seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: str, work: Callable[[], _Result]) -> _Result:
        # the garbage of earlier stages is theirs
        gc.collect()
        start = time.process_time()
        result = work()
        self.seconds[stage] = time.process_time() - start
        return result


def stages(folder: Path, n_candidates: int, n_examples: int) -> dict[str, float]:
    """Write data to an empty folder, and return the CPU seconds of each stage.

    Args:
        folder: The folder.
        n_candidates: K.
        n_examples: N, of each candidate.
    """
    write(folder, n_candidates, n_examples)
    clock = _Clock()
    gc.freeze()  # what a process of many tests holds would be searched before each stage
    try:
        _all_stages(clock, folder)
    finally:
        gc.unfreeze()
    return clock.seconds


def _all_stages(clock: _Clock, folder: Path) -> None:
    given = clock("read", lambda: _read(folder))
    real = load_real(folder / "real.jsonl")
    _ = real.groups
    clock("read labels", lambda: [candidate.labels_sha256 for candidate in given])
    scorer = Scorer(
        list(PROXIES), encoder=WordEncoder(), cache_dir=folder / "cache", progress=False,
        device="cpu", keep_models=True,
    )  # fmt: skip
    clock("contamination", lambda: check_real_copies(given, real, real.groups))
    clock("duplicates and copies", lambda: sample_messages(given))
    job = scorer.prepare(given, real)
    clock("encode", lambda: job.embeddings())
    scoring = job.score()
    cpu = torch.device("cpu")
    for proxy in scoring.suite:
        clock(
            f"proxy {proxy.key}",
            lambda proxy=proxy: proxy.score(scoring.real, scoring.candidates, seed=0, device=cpu),
        )
    ranking = _selection(clock, job, scoring)
    _mixtures(clock, scoring, ranking)
    _files(clock, folder, job, scoring, ranking)


def _read(folder: Path) -> list[Candidate]:
    given = load_candidates(str(folder / "candidates" / "*.jsonl"), label="label")
    for candidate in given:
        _ = candidate.sha256
    return given


def _selection(clock: _Clock, job: ScoringJob, scoring: Scoring) -> Ranking:
    given = list(job.candidates)
    cpu, smallest = torch.device("cpu"), min(map(len, given))
    clock(
        "scores of real data",
        lambda: reference_scores(scoring.real, scoring.suite, smallest, seed=0, device=cpu),
    )
    checks = clock("label check", lambda: check_scored_labels(given, scoring))
    clock("camps", lambda: camps_of(given, scoring))
    clock("consensus, intervals, all pairs", lambda: ranking_from(scoring, rank_by="consensus"))
    ranking = clock("ranking by transfer", lambda: ranking_from(scoring, labels=checks))
    pad = {row.name: row.scores["pad"] for row in ranking.candidates}
    clock("farness", lambda: measure_farness(scoring, pad))
    clock("farness without pad", lambda: measure_farness(scoring, _without(pad)))
    clock("label filter", lambda: filter_selected(given, scoring, ranking, "auto"))
    clock("gaps", lambda: find_gaps(scoring))
    clock(
        "sample-size analysis",
        lambda: sample_size_analysis(scoring, top_k=min(5, len(given) - 1), rank_by="consensus"),
    )
    families = [candidate.name for candidate in given]
    clock(
        "surrogate draw",
        lambda: draw_surrogate(
            given, job.real, families, size=1000, share=0.5, encoder=job.scorer.encoder,
            cache_dir=job.scorer.cache_dir, progress=False,
        ),
    )  # fmt: skip
    return ranking


def _without(scores: dict[str, ProxyScore]) -> dict[str, ProxyScore]:
    return {name: ProxyScore(math.nan) for name in scores}


def _mixtures(clock: _Clock, scoring: Scoring, ranking: Ranking) -> None:
    clock("mmd_optimal mixture", lambda: mmd_optimal_mixture(scoring))
    names = [candidate.name for candidate in scoring.candidates]
    mixture = Mixture(dict.fromkeys(names, 1 / len(names)), "all")
    clock("mixture scores", lambda: mixture_scores(scoring, mixture))


def _files(
    clock: _Clock, folder: Path, job: ScoringJob, scoring: Scoring, ranking: Ranking
) -> None:
    file = folder / "ranking.json"
    clock("write ranking", lambda: save_ranking(ranking, file))
    clock("read ranking", lambda: load_ranking(file))
    embedded = job.embeddings()
    assert embedded is not None
    views = {candidate.name: candidate.views for candidate in job.candidates}
    clock(
        "page",
        lambda: ranking_page(
            ranking, views={"real sample": job.real.views, **views}, embeddings=embedded
        ),
    )
    records = [_record(ranking, name) for name in views]
    store = RunStore(folder / "records.sqlite")
    clock("write run records", lambda: [store.write(record) for record in records])
    read = clock("read run records", store.read)
    clock("correlation", lambda: correlate(read))


def _record(ranking: Ranking, name: str) -> RunRecord:
    return RunRecord.of(
        ranking,
        Mixture({name: 1.0}, "probe"),
        run_id=name,
        kind="probe",
        key={"task": "growth"},
        scores={key: score.value for key, score in ranking[name].scores.items()},
        metrics={"val_acc": ranking[name].scores["transfer"].value},
        monitor="val_acc",
        mode="max",
        seed=0,
    )


def exponent(small: float, large: float, factor: float) -> float:
    """Return e of seconds that grow as size to the power of e.

    Args:
        small: Seconds at a size.
        large: Seconds at a size that is larger by `factor`.
        factor: Above 1.
    """
    return math.log(large / small) / math.log(factor)
