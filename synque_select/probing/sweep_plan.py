"""Plans of sweeps: probes that are trained in the jobs of a batch system.

Beside the files of every plan, `ranking.json` is the ranking of the candidates, so that jobs need
not score them. The result of a unit is a run record; the process that gathers them is the only one
that opens the run store.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError, RecordError
from synque_select.execution.environment import Environment
from synque_select.execution.plan_folder import BasePlan, PlannedUnit, check_new_plan, unit_of
from synque_select.probing.sweep import SweepOptions, check_rankable, scorer_of_sweep
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.records.run_record_json import record_from_fields, record_to_json
from synque_select.selection.ranking import ranking_differences
from synque_select.training.bookkeeping import reason_of
from synque_select.training.short_fit import ModelFactory, ShortFits
from synque_select.types import Mixture, Ranking, RunRecord
from synque_select.utils.json_fields import JsonFields

if TYPE_CHECKING:
    from synque_select.selection.scorer import Scorer
    from synque_select.training.datamodule import AnySynqueDataModule

__all__ = ["ProbeUnit", "SweepPlan", "check_plannable", "plan_units", "rank_for", "sweep_plan_of"]

_RANKING = "ranking.json"


@dataclass(frozen=True)
class ProbeUnit(PlannedUnit):
    """A probe, or the measurement of the module as it is.

    Args:
        key: Id of the fit, a hash of all that its outcome depends on.
        name: What it does, for messages.
        stage: "probe".
        candidate: Name of the candidate; None for the module as it is.
    """

    candidate: str | None


@dataclass(frozen=True, eq=False)
class SweepPlan(BasePlan[ProbeUnit]):
    """A plan of a sweep in its folder.

    Args:
        folder: For this and the next three arguments, see `BasePlan`.
        directory: The directory in which it was made.
        environment: The versions that it was made with.
        units: The units.
        arguments: The arguments of `sweep`.
    """

    arguments: Sequence[str]

    @property
    def ranking(self) -> Ranking:
        """The ranking of the candidates.

        Raises:
            RecordError: It cannot be read.
        """
        return load_ranking(self.folder / _RANKING)

    def save_all(self, ranking: Ranking) -> None:
        """Write the plan and its ranking.

        Raises:
            RecordError: The folder cannot be written, or holds a plan already.
        """
        check_new_plan(self.folder)
        save_ranking(ranking, self.folder / _RANKING)
        self.save("sweep", {"arguments": list(self.arguments)})

    def check_data(self, datamodule: AnySynqueDataModule, ranking: Ranking) -> None:
        """Refuse candidates or a real sample that have changed since the plan was made.

        Raises:
            ConfigError: They have; the message names what.
        """
        real = check_rankable(datamodule)
        differences = ranking_differences(ranking, datamodule.candidates, real)
        if differences:
            raise self.changed(differences)

    def check_fits(
        self, fits: ShortFits, model_factory: ModelFactory, units: Iterable[ProbeUnit]
    ) -> None:
        """Refuse a model, data or options with which the units would be other fits.

        Raises:
            ConfigError: They would; the message names them.
        """
        units = list(units)
        ids = _fit_ids(fits, model_factory, [unit.candidate for unit in units])
        other = [unit.name for unit, fit_id in zip(units, ids, strict=True) if unit.key != fit_id]
        if other:
            raise self.changed(
                [f"the model, its initial weights, its data or an option of {other[0]}"],
                ". Weights that are drawn at random need seed_everything in the config",
            )

    def run(
        self,
        fits: ShortFits,
        model_factory: ModelFactory,
        units: Sequence[ProbeUnit],
        advance: Callable[[], object],
    ) -> int:
        """Run units in this process; return how many have failed.

        Args:
            fits: The fits, whose data `check_data` has checked.
            model_factory: Makes the module.
            units: The units.
            advance: Called after each unit.
        """
        self.check_fits(fits, model_factory, units)
        n_failed = 0
        for unit in units:
            started = time.perf_counter()
            try:
                record = _record(fits, model_factory, unit.candidate)
                # a copy of what JSON keeps, with NaN
                state = {"record": json.loads(record_to_json(record))} if record else {}
            except Exception as error:  # whatever a module of the user raises
                self.note_failed(unit, reason_of(error))
                n_failed += 1
            else:
                self.note_done(unit, time.perf_counter() - started, state)
            advance()
        return n_failed

    def records(self) -> list[RunRecord]:
        """Return the records of finished units.

        Raises:
            RecordError: One is damaged; the unit is not finished any more.
        """
        records = []
        for unit in self.units:
            result = self.result(unit)
            if result is None or "record" not in result:
                continue
            try:
                record = record_from_fields(result.object("record"))
                if record.details.get("probe") != unit.key:
                    raise RecordError("it is that of another fit")
            except RecordError as error:
                self.note_lost(unit)
                raise RecordError(
                    f"{unit.name}: what it wrote is damaged: {error}. Run it again: synque-select "
                    f"work {self.folder} --unit {unit.key[:12]}"
                ) from error
            records.append(record)
        return records


def check_plannable(options: SweepOptions) -> None:
    """Refuse options of a sweep that the jobs of a batch system cannot have.

    Raises:
        ConfigError: There is one.
    """
    if options.stop_early:
        raise ConfigError(
            "sweep.stop_early: leave it out of a plan, as which probes are trained to the end "
            "depends on the results of all others"
        )
    if options.executor is not None or options.n_workers > 1:
        raise ConfigError(
            "sweep.executor and sweep.n_workers: leave them out, as the processes of work train "
            "the probes of a plan"
        )


def rank_for(
    datamodule: AnySynqueDataModule, options: SweepOptions, scorer: Scorer | None
) -> Ranking:
    """Rank the candidates of a sweep; what is in the cache is not computed again."""
    real = check_rankable(datamodule)
    return scorer_of_sweep(scorer, options).cached_ranking(datamodule.candidates, real)


def plan_units(
    folder: Path, arguments: Sequence[str], fits: ShortFits, model_factory: ModelFactory
) -> SweepPlan:
    """Plan one unit per probe, and one for the module as it is.

    Args:
        folder: Where the plan will be written.
        arguments: The arguments of `sweep`.
        fits: The fits.
        model_factory: Makes the module.

    Returns:
        The plan, which is not written yet.
    """
    names = [row.name for row in fits.ranking.candidates]
    ids = _fit_ids(fits, model_factory, [*names, None])
    units = [
        ProbeUnit(fit_id, _unit_name(name), "probe", name)
        for name, fit_id in zip([*names, None], ids, strict=True)
    ]
    return SweepPlan(
        folder=folder,
        directory=os.getcwd(),
        environment=Environment.here(),
        units=units,
        arguments=arguments,
    )


def _unit_name(candidate: str | None) -> str:
    return "measure the model as it is" if candidate is None else f"train the probe of {candidate}"


def _fit_ids(
    fits: ShortFits, model_factory: ModelFactory, candidates: Sequence[str | None]
) -> list[str]:
    names = [name for name in candidates if name is not None]
    trained = dict(
        zip(names, fits.fit_ids(model_factory, map(_alone, names)), strict=True),
    )
    if None not in candidates:
        return [trained[name] for name in names]
    (untrained,) = replace(fits, max_steps=0).fit_ids(model_factory, [fits.no_mixture])
    return [untrained if name is None else trained[name] for name in candidates]


def _alone(name: str) -> Mixture:
    return Mixture.equal([name], "probe")


def _record(
    fits: ShortFits, model_factory: ModelFactory, candidate: str | None
) -> RunRecord | None:
    """Train and measure; None if the module cannot be measured before a fit."""
    if candidate is None:
        untrained = fits.untrained(model_factory, finished=_none)
        return untrained if isinstance(untrained, RunRecord) else None
    mixture = _alone(candidate)
    fit, key = fits.run(model_factory, mixture, finished=_none)
    scores = {proxy: s.value for proxy, s in fits.ranking[candidate].scores.items()}
    return fits.record(fit, key, mixture, kind="probe", scores=scores)


def _none(fit_id: str) -> None:
    return None


def sweep_plan_of(folder: Path, state: JsonFields) -> SweepPlan:
    """Read what `plan.json` says of a sweep.

    Raises:
        RecordError: A field is missing or of another type.
    """
    return SweepPlan(
        folder=folder.absolute(),
        directory=state.text("directory"),
        environment=Environment.of(state.object("environment")),
        units=[
            ProbeUnit(**vars(unit_of(unit)), candidate=unit.optional_text("candidate"))
            for unit in state.objects("units")
        ],
        arguments=state.texts("arguments"),
    )
