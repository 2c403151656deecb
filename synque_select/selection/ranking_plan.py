"""Plans of rankings: what to encode and to score in the jobs of a batch system.

Beside the files of every plan, `positions.npy` says which views each unit encodes, and `cache/`
receives embeddings and scores.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synque_select.data.examples import Examples
from synque_select.encoders.embedding_cache import ViewPart, keep_rows, missing_parts
from synque_select.errors import RecordError
from synque_select.execution.base import UnitFailure
from synque_select.execution.encoding import EncoderSource, EncodeShard, encode_units
from synque_select.execution.environment import Environment
from synque_select.execution.local import LocalExecutor
from synque_select.execution.plan_folder import (
    BasePlan,
    PlannedUnit,
    check_new_plan,
    unit_of,
)
from synque_select.proxies.base import BaseProxy
from synque_select.selection.score_cache import is_kept, packed_scores
from synque_select.selection.scorer import ScoringJob
from synque_select.utils.atomic import atomic_file
from synque_select.utils.cache_dir import cache_root
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.wording import counted

__all__ = ["RankingPlan", "RankingUnit", "make_ranking_plan", "ranking_plan_of"]

_POSITIONS, _CACHE = "positions.npy", "cache"


@dataclass(frozen=True)
class RankingUnit(PlannedUnit):
    """A unit of a ranking: of the stage "encode", or "score", for which all embeddings must exist.

    Args:
        key: Hash of what it depends on.
        name: What it does, for messages.
        stage: "encode" or "score".
        examples: Position of the real sample (0) or candidate (from 1 on) that it encodes; of a
            unit that scores, position of the proxy in the suite.
        start: Where its views begin among the positions of the plan.
        stop: Where they end.
        number: Number of the shard, from 1 on.
        n_shards: Number of shards of this candidate.
    """

    examples: int
    start: int = 0
    stop: int = 0
    number: int = 1
    n_shards: int = 1


@dataclass(frozen=True, eq=False)
class RankingPlan(BasePlan[RankingUnit]):
    """A plan of a ranking in its folder.

    Args:
        folder: For this and the next three arguments, see `BasePlan`.
        directory: The directory in which it was made.
        environment: The versions that it was made with.
        units: The units, those that encode first.
        options: The options of `rank`, as plain values.
        encoder: Key of the encoder; None if nothing is encoded.
        contents: Name and content hash of the real sample and of each candidate.
    """

    options: JsonObject
    encoder: str | None
    contents: Sequence[tuple[str, str]]

    @property
    def cache_dir(self) -> Path:
        """Where embeddings and scores are written."""
        given = self.options.get("cache_dir")
        return self.folder / _CACHE if given is None else cache_root(str(given))

    def check_data(self, job: ScoringJob) -> None:
        """Refuse data that has changed since the plan was made.

        Raises:
            ConfigError: It has; the message names what.
        """
        here = _contents(job)
        if here == list(self.contents):
            return
        before = dict(self.contents)
        changed = [name for name, sha256 in here if before.get(name) != sha256]
        changed += sorted(before.keys() - dict(here).keys())
        raise self.changed(
            changed,
            "; what is finished of the rest is not computed again if --cache-dir names "
            f"{self.cache_dir}",
        )

    @cached_property
    def _positions(self) -> NDArray[np.int64]:
        path = self.folder / _POSITIONS
        try:
            positions: NDArray[np.int64] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RecordError(f"cannot read {path}: {error}; make the plan again") from error
        if positions.dtype != np.int64 or positions.shape != (self._n_views,):
            raise RecordError(f"{path} is damaged; make the plan again")
        return positions

    @property
    def _n_views(self) -> int:
        """Number of views that all units encode together."""
        return max((unit.stop for unit in self.units), default=0)

    def run(
        self,
        job: ScoringJob,
        units: Sequence[RankingUnit],
        advance: Callable[[], object],
    ) -> int:
        """Run units in this process; return how many have failed.

        Args:
            job: The data and the suite, which `check_data` has checked.
            units: The units, all of one stage.
            advance: Called after each unit.
        """
        encode = [unit for unit in units if unit.stage == "encode"]
        failures = self._encode(job, encode, advance) if encode else 0
        for unit in units:
            if unit.stage == "score":
                failures += self._score(job, unit)
                advance()
        return failures

    def _encode(
        self,
        job: ScoringJob,
        units: Sequence[RankingUnit],
        advance: Callable[[], object],
    ) -> int:
        assert self.encoder is not None
        scorer, sets = job.scorer, (job.real, *job.candidates)
        device = None if scorer.device is None else str(scorer.device)
        source = EncoderSource(scorer.encoder, job.real.modality, device, self.encoder)
        by_key = {unit.key: unit for unit in units}
        failures, started = 0, time.perf_counter()
        with LocalExecutor() as executor:
            for shard, rows in executor.run(self._shards(units, sets, source)):
                unit = by_key[shard.key]
                if isinstance(rows, UnitFailure):
                    self.note_failed(unit, rows.message)
                    failures += 1
                else:
                    assert rows is not None
                    if not keep_rows(self.encoder, *rows, self.cache_dir):
                        raise self._not_written(unit)
                    self.note_done(unit, time.perf_counter() - started)
                started = time.perf_counter()
                advance()
        return failures

    def _shards(
        self, units: Sequence[RankingUnit], sets: Sequence[Examples], source: EncoderSource
    ) -> Iterator[EncodeShard]:
        for unit in units:
            positions = np.array(self._positions[unit.start : unit.stop])
            shard = None
            if ((positions >= 0) & (positions < len(sets[unit.examples]))).all():
                part = ViewPart.of(sets[unit.examples], positions)
                shard = EncodeShard(source, part, unit.number, unit.n_shards)
            if shard is None or shard.key != unit.key:
                raise RecordError(
                    f"{self.folder / _POSITIONS} is damaged: {unit.name} would encode other views; "
                    "make the plan again"
                )
            yield shard

    def _score(self, job: ScoringJob, unit: RankingUnit) -> int:
        started, proxy = time.perf_counter(), job.suite[unit.examples]
        try:
            scoring = job.with_suite([proxy]).score()
        except Exception as error:
            self.note_failed(unit, f"{type(error).__name__}: {error}")
            return 1
        if packed_scores(scoring.scores[proxy.key], 0.0) is not None and not job.has_scores(proxy):
            raise self._not_written(unit)
        self.note_done(unit, time.perf_counter() - started)
        return 0

    def _not_written(self, unit: RankingUnit) -> RecordError:
        """Return the error for a cache that other processes would not find the result in."""
        return RecordError(
            f"{unit.name}: its result cannot be written to {self.cache_dir}, so that no other "
            "process would find it: free the disk or make the folder writable, and give the same "
            "command again"
        )

    def units_without_rows(self, job: ScoringJob) -> list[RankingUnit]:
        """Return the units that are noted as finished, but whose embeddings are not there."""
        if self.encoder is None:
            return []
        sets = (job.real, *job.candidates)
        missing = missing_parts(self.encoder, sets, self.cache_dir)
        return [
            unit
            for unit in self.units
            if unit.stage == "encode"
            and np.isin(
                self._positions[unit.start : unit.stop], missing[unit.examples].positions
            ).any()
        ]


def make_ranking_plan(job: ScoringJob, options: JsonObject, folder: Path) -> RankingPlan:
    """Plan the units of a ranking and write the plan; what is in the cache needs no unit.

    Args:
        job: The data and the suite, checked.
        options: The options of `rank`, as plain values.
        folder: Where to write the plan; it must not hold one.

    Raises:
        RecordError: The folder cannot be written, or holds a plan already.
    """
    check_new_plan(folder)
    plan = RankingPlan(
        folder=folder,
        directory=os.getcwd(),
        environment=Environment.here(),
        units=(),
        options=options,
        encoder=job.encoder_key,
        contents=_contents(job),
    )
    encode, positions = _encode_units(job, plan)
    score = [
        RankingUnit(
            key=_score_key(plan, proxy),
            name=f"score {counted(len(job.candidates), 'candidate')} by {proxy.key}",
            stage="score",
            examples=number,
        )
        for number, proxy in enumerate(job.suite)
        if is_kept(proxy)
    ]
    plan = replace(plan, units=(*encode, *score))
    try:
        with atomic_file(folder / _POSITIONS) as stream:
            np.save(stream, positions, allow_pickle=False)
    except OSError as error:
        raise RecordError(f"cannot write {folder}: {error.strerror or error}") from error
    plan.save(
        "rank",
        {
            "options": dict(plan.options),
            "encoder": plan.encoder,
            "contents": [list(pair) for pair in plan.contents],
        },
    )
    return plan


def _score_key(plan: RankingPlan, proxy: BaseProxy) -> str:
    parts = [plan.encoder, list(plan.contents), proxy.key, dict(proxy.options())]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _encode_units(
    job: ScoringJob, plan: RankingPlan
) -> tuple[list[RankingUnit], NDArray[np.int64]]:
    if plan.encoder is None:
        return [], np.empty(0, dtype=np.int64)
    sets = (job.real, *job.candidates)
    encoder = job.encoder()
    source = EncoderSource(job.scorer.encoder, job.real.modality, None, plan.encoder)
    numbers = {examples.name: number for number, examples in enumerate(sets)}
    units: list[RankingUnit] = []
    positions: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    start = 0
    for shard in encode_units(source, encoder, sets, plan.cache_dir):
        stop = start + len(shard.part)
        positions.append(shard.part.positions)
        units.append(
            RankingUnit(
                key=shard.key,
                name=shard.name,
                stage="encode",
                examples=numbers[shard.part.name],
                start=start,
                stop=stop,
                number=shard.number,
                n_shards=shard.n_shards,
            )
        )
        start = stop
    return units, np.concatenate(positions)


def _contents(job: ScoringJob) -> list[tuple[str, str]]:
    # of a candidate with a reservoir, also what was not drawn: its n-grams are counted
    sets = (job.real, *job.candidates)
    return [(examples.name, " ".join(examples.content[1:])) for examples in sets]


def ranking_plan_of(folder: Path, state: JsonFields) -> RankingPlan:
    """Read what `plan.json` says of a ranking.

    Raises:
        RecordError: A field is missing or of another type.
    """
    return RankingPlan(
        folder=folder.absolute(),
        directory=state.text("directory"),
        environment=Environment.of(state.object("environment")),
        units=[_unit_of(unit) for unit in state.objects("units")],
        options=state.object("options").content,
        encoder=state.optional_text("encoder"),
        contents=[_pair_of(pair) for pair in state.list("contents")],
    )


def _pair_of(pair: Json) -> tuple[str, str]:
    if isinstance(pair, list) and len(pair) == 2:
        return str(pair[0]), str(pair[1])
    raise RecordError(f"contents must be pairs of a name and a hash, found {pair!r}")


def _unit_of(fields: JsonFields) -> RankingUnit:
    unit = unit_of(fields)
    return RankingUnit(
        unit.key,
        unit.name,
        unit.stage,
        fields.integer("examples", least=0),
        fields.integer("start", least=0),
        fields.integer("stop", least=0),
        fields.count("number"),
        fields.count("n_shards"),
    )
