"""Ranking in batch jobs: a plan of units in a folder, processes that do their part, a gathering.

A plan is a folder on a disk that all jobs see. `plan.json` lists the units, `positions.npy` says
which views each encodes, `cache/` receives embeddings and scores, and a file per finished unit says
so. All are written by atomic renames. Units may run in any order and any number of times.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synque_select.data.examples import Examples
from synque_select.encoders.embedding_cache import ViewPart, keep_rows, missing_parts
from synque_select.errors import ConfigError, RecordError
from synque_select.execution.base import UnitFailure
from synque_select.execution.encoding import EncoderSource, EncodeShard, encode_units
from synque_select.execution.environment import Environment
from synque_select.execution.local import LocalExecutor
from synque_select.proxies.base import BaseProxy
from synque_select.selection.score_cache import is_kept
from synque_select.selection.scorer import ScoringJob
from synque_select.utils.atomic import atomic_file, write_text_atomic
from synque_select.utils.cache_dir import cache_root
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import read_json_file
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.wording import counted, listed

__all__ = ["Plan", "PlannedUnit", "make_plan", "read_plan"]

_FORMAT = 1
_PLAN, _POSITIONS, _CACHE = "plan.json", "positions.npy", "cache"


@dataclass(frozen=True)
class PlannedUnit:
    """A unit of a plan.

    Args:
        key: Hash of what it depends on.
        name: What it does, for messages.
        stage: "encode", or "score", for which all embeddings must be there.
        examples: Position of the real sample (0) or candidate (from 1 on) that it encodes; of a
            unit that scores, position of the proxy in the suite.
        start: Where its views begin among the positions of the plan.
        stop: Where they end.
        number: Number of the shard, from 1 on.
        n_shards: Number of shards of this candidate.
    """

    key: str
    name: str
    stage: Literal["encode", "score"]
    examples: int
    start: int = 0
    stop: int = 0
    number: int = 1
    n_shards: int = 1


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan in its folder.

    Args:
        folder: The folder.
        directory: The directory in which it was made, against which paths are resolved.
        options: The options of `rank`, as plain values.
        environment: The versions that it was made with.
        encoder: Key of the encoder; None if nothing is encoded.
        contents: Name and content hash of the real sample and of each candidate.
        units: The units, those that encode first.
    """

    folder: Path
    directory: str
    options: JsonObject
    environment: Environment
    encoder: str | None
    contents: Sequence[tuple[str, str]]
    units: Sequence[PlannedUnit]

    @property
    def cache_dir(self) -> Path:
        """Where embeddings and scores are written."""
        given = self.options.get("cache_dir")
        return self.folder / _CACHE if given is None else cache_root(str(given))

    def is_done(self, unit: PlannedUnit) -> bool:
        """Whether a unit has been finished by any process."""
        return self._file("done", unit).is_file()

    def open_units(self, stage: str | None = None) -> list[PlannedUnit]:
        """Return the units that are not finished."""
        wanted = [unit for unit in self.units if stage in (None, unit.stage)]
        return [unit for unit in wanted if not self.is_done(unit)]

    def failure(self, unit: PlannedUnit) -> str | None:
        """Return the error of a unit that has failed and was not finished since."""
        try:
            state = JsonFields(read_json_file(self._file("failed", unit), error=RecordError))
        except RecordError:
            return None
        return f"{state.text('error')} (on {state.text('host')})"

    def note_done(self, unit: PlannedUnit, seconds: float) -> None:
        """Write that a unit is finished."""
        about = {"name": unit.name, "host": socket.gethostname(), "seconds": round(seconds, 3)}
        write_text_atomic(self._file("done", unit), json.dumps(about))
        self._file("failed", unit).unlink(missing_ok=True)

    def note_failed(self, unit: PlannedUnit, error: str) -> None:
        """Write that a unit has failed."""
        about = {"name": unit.name, "host": socket.gethostname(), "error": error}
        write_text_atomic(self._file("failed", unit), json.dumps(about))

    def note_lost(self, unit: PlannedUnit) -> None:
        """Take back that a unit is finished: what it wrote is not there."""
        self._file("done", unit).unlink(missing_ok=True)

    def _file(self, what: str, unit: PlannedUnit) -> Path:
        return self.folder / what / f"{unit.key}.json"

    def check_same_code(self) -> None:
        """Refuse to go on with other versions than the plan was made with.

        Raises:
            ExecutorError: They differ.
        """
        Environment.here().check_same(self.environment, f"{self.folder / _PLAN}, when it was made,")

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
        raise ConfigError(
            f"the data has changed since {self.folder / _PLAN} was made: {listed(changed)}. Make a "
            "new plan; what is finished of the rest is not computed again if --cache-dir names "
            f"{self.cache_dir}"
        )

    @cached_property
    def _positions(self) -> NDArray[np.int64]:
        path = self.folder / _POSITIONS
        try:
            positions: NDArray[np.int64] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise RecordError(f"cannot read {path}: {error}; make the plan again") from error
        return positions

    def run(
        self,
        job: ScoringJob,
        units: Sequence[PlannedUnit],
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
        units: Sequence[PlannedUnit],
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
                    keep_rows(self.encoder, *rows, self.cache_dir)
                    self.note_done(unit, time.perf_counter() - started)
                started = time.perf_counter()
                advance()
        return failures

    def _shards(
        self, units: Sequence[PlannedUnit], sets: Sequence[Examples], source: EncoderSource
    ) -> Iterator[EncodeShard]:
        for unit in units:
            positions = np.array(self._positions[unit.start : unit.stop])
            part = ViewPart.of(sets[unit.examples], positions)
            yield EncodeShard(source, part, unit.number, unit.n_shards)

    def _score(self, job: ScoringJob, unit: PlannedUnit) -> int:
        started = time.perf_counter()
        try:
            job.with_suite([job.suite[unit.examples]]).score()
        except Exception as error:
            self.note_failed(unit, f"{type(error).__name__}: {error}")
            return 1
        self.note_done(unit, time.perf_counter() - started)
        return 0

    def units_without_rows(self, job: ScoringJob) -> list[PlannedUnit]:
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


def make_plan(job: ScoringJob, options: JsonObject, folder: Path) -> Plan:
    """Plan the units of a ranking and write the plan; what is in the cache needs no unit.

    Args:
        job: The data and the suite, checked.
        options: The options of `rank`, as plain values.
        folder: Where to write the plan; it must not hold one.

    Raises:
        RecordError: The folder cannot be written, or holds a plan already.
    """
    if (folder / _PLAN).exists():
        raise RecordError(
            f"{folder / _PLAN} exists: continue it with synque-select work {folder}, or give "
            "another folder"
        )
    plan = Plan(
        folder=folder,
        directory=os.getcwd(),
        options=options,
        environment=Environment.here(),
        encoder=job.encoder_key,
        contents=_contents(job),
        units=(),
    )
    encode, positions = _encode_units(job, plan)
    score = [
        PlannedUnit(
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
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / _POSITIONS) as stream:
            np.save(stream, positions, allow_pickle=False)
        write_text_atomic(folder / _PLAN, json.dumps(_state_of(plan), indent=1))
    except OSError as error:
        raise RecordError(f"cannot write {folder}: {error.strerror or error}") from error
    return plan


def _score_key(plan: Plan, proxy: BaseProxy) -> str:
    parts = [plan.encoder, list(plan.contents), proxy.key, dict(proxy.options())]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _encode_units(job: ScoringJob, plan: Plan) -> tuple[list[PlannedUnit], NDArray[np.int64]]:
    if plan.encoder is None:
        return [], np.empty(0, dtype=np.int64)
    sets = (job.real, *job.candidates)
    encoder = job.encoder()
    source = EncoderSource(job.scorer.encoder, job.real.modality, None, plan.encoder)
    numbers = {examples.name: number for number, examples in enumerate(sets)}
    units: list[PlannedUnit] = []
    positions: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    start = 0
    for shard in encode_units(source, encoder, sets, plan.cache_dir):
        stop = start + len(shard.part)
        positions.append(shard.part.positions)
        units.append(
            PlannedUnit(
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


def _state_of(plan: Plan) -> JsonObject:
    units: list[Json] = [dict(vars(unit)) for unit in plan.units]
    return {
        "format": _FORMAT,
        "directory": plan.directory,
        "options": dict(plan.options),
        "environment": plan.environment.to_dict(),
        "encoder": plan.encoder,
        "contents": [list(pair) for pair in plan.contents],
        "units": units,
    }


def read_plan(folder: Path) -> Plan:
    """Read a plan.

    Raises:
        RecordError: There is none, it is damaged, or it is of another version.
    """
    path = folder / _PLAN
    if not path.is_file():
        raise RecordError(f"{folder} holds no plan: synque-select plan … --out {folder} makes one")
    state = JsonFields(read_json_file(path, error=RecordError))
    version = state.count("format")
    if version != _FORMAT:
        raise RecordError(
            f"{path} has format {version}, and this version of synque-select reads {_FORMAT}: use "
            "the version that made it, or make the plan again"
        )
    try:
        return _plan_of(folder, state)
    except (RecordError, TypeError, ValueError) as error:
        raise RecordError(f"{path} is damaged: {error}; make the plan again") from error


def _plan_of(folder: Path, state: JsonFields) -> Plan:
    environment = state.object("environment")
    packages = environment.object("packages").content
    options = state.object("options").content
    encoder = state.value("encoder")
    contents = state.value("contents")
    units = state.value("units")
    assert isinstance(contents, list)
    assert isinstance(units, list)
    return Plan(
        folder=folder.absolute(),
        directory=state.text("directory"),
        options=options,
        environment=Environment(
            {name: str(version) for name, version in packages.items()},
            environment.text("code"),
            environment.text("python"),
            environment.text("host"),
        ),
        encoder=None if encoder is None else str(encoder),
        contents=[(str(name), str(sha256)) for name, sha256 in contents],
        units=[PlannedUnit(**unit) for unit in units],
    )
