"""The influence of each candidate on validation, from gradients at checkpoints of one short fit."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from synque_select.errors import ConfigError, DataError, LightningError
from synque_select.functional.influence import estimate_influence
from synque_select.probing.checkpointed_fit import CheckpointedFit
from synque_select.probing.influence_data import Part, Validation, candidate_parts, validation_data
from synque_select.probing.influence_gradients import GradientTaker, Taken
from synque_select.probing.influence_options import InfluenceOptions
from synque_select.probing.tensor_files import TensorFiles
from synque_select.records.influence_file import save_influence
from synque_select.records.run_folder import check_run_name, make_folder, new_run_folder
from synque_select.records.run_info import save_run_info
from synque_select.report.influence_tables import influence_table
from synque_select.report.terminal import print_table
from synque_select.training.datamodule import is_synque_datamodule
from synque_select.training.short_fit import TrainerOptions, serving
from synque_select.training.training_step import check_gives_losses
from synque_select.types import CandidateInfluence, InfluenceResult, Mixture
from synque_select.utils.process_state import seeded
from synque_select.utils.progress import ProgressBar
from synque_select.utils.validation import check_int

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule, AnyTrainer

__all__ = ["InfluenceOptions", "measure_influence", "run_influence"]

_DELAY_S = 2.0


def run_influence(
    module: AnyModule,
    datamodule: AnySynqueDataModule,
    *,
    max_steps: int,
    options: InfluenceOptions | None = None,
    run_dir: str | None = None,
    name: str | None = None,
    trainer_options: TrainerOptions | None = None,
) -> Path:
    """Measure the influence of all candidates, print it, and write it to a run directory.

    Args:
        module: As in `measure_influence`, and so are the other arguments up to `options`.
        datamodule: See above.
        max_steps: See above.
        options: See above.
        run_dir: Run directory; None for a new one under `runs/`.
        name: Name of the run, in the name of a new directory; None for two words.
        trainer_options: Arguments of the Trainer: accelerator, precision, ….

    Returns:
        The run directory, with `influence.json`.

    Raises:
        RecordError: The directory cannot be written; the table is printed all the same.
        SynqueError: As in `measure_influence`.
    """
    options = InfluenceOptions() if options is None else options
    task = type(module).__name__ if options.task is None else options.task
    check_run_name(name, run_dir)
    if run_dir is not None:
        make_folder(run_dir)
    result = measure_influence(
        module, datamodule, max_steps=max_steps, options=options, trainer_options=trainer_options
    )
    print_table(influence_table(result))
    sys.stdout.flush()
    run = new_run_folder("runs", task, name) if run_dir is None else Path(run_dir)
    path = save_influence(result, run)
    save_run_info(run)
    print(f"\ninfluence: {path}")
    return run


def measure_influence(
    module: AnyModule,
    datamodule: AnySynqueDataModule,
    *,
    max_steps: int,
    options: InfluenceOptions | None = None,
    trainer_options: TrainerOptions | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> InfluenceResult:
    """Measure how training on each candidate changes the validation loss, to first order.

    A copy of the module is trained once, on all candidates with equal weights. At a few checkpoints
    of this fit, gradients of the training loss are taken, example by example, on each candidate and
    on the validation data: the surrogate set, without the candidate's own family, if the DataModule
    has one, else the labeled data of its validation loaders. `estimate_influence` has the formula;
    where the optimizer is one of Adam's family, gradients of the candidates are scaled as its steps
    are (`adam_direction`), and those of more than `dims` parameters are projected
    (`random_projection`).

    The loss of an example is that of `training_step` on a batch of this example alone, in
    evaluation mode. Gradients are kept in the cache by content: a run that was interrupted trains
    again and takes those that are missing, and a finished run is not repeated.

    Args:
        module: An untrained module, of which a copy is trained.
        datamodule: A SynqueDataModule with validation data.
        max_steps: Optimizer steps of the fit.
        options: See `InfluenceOptions`; None for the defaults.
        trainer_options: Arguments of the Trainer: accelerator, precision, ….
        cache_dir: Directory of the cache; None for the default one.
        progress: Whether to show progress of what takes more than two seconds.

    Raises:
        ConfigError: `max_steps` is smaller than the number of checkpoints.
        LightningError: The DataModule is not a SynqueDataModule or has no validation data, or the
            module cannot give the loss of an example.
        DataError: All gradients of a candidate or of the validation data are 0, or one is not
            finite.
    """
    options = InfluenceOptions() if options is None else options
    check_int("max_steps", max_steps, 1)
    if max_steps < options.checkpoints:
        raise ConfigError(
            f"max_steps={max_steps} with checkpoints={options.checkpoints}: allowed are at least "
            "as many steps as checkpoints"
        )
    if not is_synque_datamodule(datamodule):
        raise LightningError(
            "influence needs candidates: data = SynqueDataModule(candidates=…, val=…), found "
            f"{type(datamodule).__name__}"
        )
    check_gives_losses(module)
    datamodule.prepare_data()
    datamodule.setup("fit")
    try:
        names = [candidate.name for candidate in datamodule.candidates]
        data = serving(datamodule, Mixture.equal(names, "all candidates, for influence"))
        started = time.process_time()
        candidates = candidate_parts(data, options.examples, options.seed)
        validation = validation_data(data, options.validation_examples, options.seed)
        n = options.checkpoints
        steps = [round(max_steps * (i + 1) / n) for i in range(n)]
        trainer_options = {"devices": 1, **(trainer_options or {})}
        fit = CheckpointedFit(copy.deepcopy(module), data, steps, trainer_options)
        parts = [*candidates, validation.part]
        taken = _taken(fit, parts, options, TensorFiles(cache_dir), progress)
        result = _result(candidates, validation, taken, steps, options)
        return replace(result, seconds=time.process_time() - started)
    finally:
        datamodule.teardown("fit")


def _taken(
    fit: CheckpointedFit,
    parts: Sequence[Part],
    options: InfluenceOptions,
    files: TensorFiles,
    progress: bool,
) -> list[Taken]:
    """Return the gradients at each checkpoint; nothing is trained if all of them are kept."""
    n = len(fit.steps)
    bar = ProgressBar(
        total=n * sum(part.n for part in parts),
        desc="gradients",
        unit="example",
        delay=_DELAY_S,
        leave=False,
        disable=not progress,
    )
    with seeded(options.seed), bar:
        key = files.key(*fit.identity(), options.gradients, options.dims, options.seed)
        taker = GradientTaker(parts, files, key, options, fit.data.batch_size, bar)
        taken = {i: kept for i in range(n) if (kept := taker.kept(i)) is not None}

        def look(trainer: AnyTrainer, number: int, rate: float) -> None:
            if number not in taken:
                taken[number] = taker.take(trainer, number, rate)

        if len(taken) < n:
            fit.run(look, progress=progress)
    return [taken[i] for i in range(n)]


def _result(
    candidates: Sequence[Part],
    validation: Validation,
    taken: Sequence[Taken],
    steps: Sequence[int],
    options: InfluenceOptions,
) -> InfluenceResult:
    """Aggregate the gradients."""
    rates, last = tuple(one.rate for one in taken), taken[-1]
    if not sum(rates) > 0:
        raise DataError("the learning rate was 0 at all steps of the fit: nothing was trained")
    rows = [one.scaled(unit_length=options.unit_length) for one in taken]
    return InfluenceResult(
        candidates=tuple(
            _influence(k, part, validation, rows, rates) for k, part in enumerate(candidates)
        ),
        validation=validation.kind,
        n_validation=validation.part.n,
        gradients=last.kind,
        n_parameters=last.n_parameters,
        n_dims=min(options.dims, last.n_parameters),
        is_preconditioned=last.is_preconditioned,
        unit_length=options.unit_length,
        steps=tuple(steps),
        rates=rates,
        max_steps=steps[-1],
        seed=options.seed,
        seconds=0.0,
        messages=validation.messages,
    )


def _influence(
    position: int,
    part: Part,
    validation: Validation,
    rows: Sequence[Sequence[Tensor]],
    rates: Sequence[float],
) -> CandidateInfluence:
    kept, units = validation.judges(position)
    estimate = estimate_influence(
        [at_checkpoint[position] for at_checkpoint in rows],
        [at_checkpoint[-1][kept] for at_checkpoint in rows],
        rates,
        units=units,
        n_all=part.n_all,
    )
    ends = estimate.value, estimate.low, estimate.high
    return CandidateInfluence(part.name, *ends, part.n, part.n_all, estimate.n_units)
