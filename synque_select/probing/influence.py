"""The influence of each candidate on validation, from gradients at checkpoints of one short fit."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from synque_select.errors import ConfigError, DataError, LightningError
from synque_select.functional.influence import estimate_influence
from synque_select.probing.checkpointed_fit import CheckpointedFit
from synque_select.probing.influence_data import Part, Validation, candidate_parts, validation_data
from synque_select.probing.influence_gradients import GradientTaker
from synque_select.probing.tensor_files import TensorFiles
from synque_select.records.influence_file import save_influence
from synque_select.records.run_folder import (
    check_plain_name,
    check_run_name,
    make_folder,
    new_run_folder,
)
from synque_select.records.run_info import save_run_info
from synque_select.report.influence_tables import influence_table
from synque_select.report.terminal import print_table
from synque_select.training.comparability import module_sha256
from synque_select.training.datamodule import is_synque_datamodule
from synque_select.training.drawn_examples import DrawnExamples
from synque_select.training.short_fit import (
    ModelFactory,
    TrainerOptions,
    drawn_sha256,
    first_batch,
    model_factory_of,
    serving,
)
from synque_select.types import CandidateInfluence, InfluenceResult, Mixture
from synque_select.utils.process_state import seeded
from synque_select.utils.progress import ProgressBar
from synque_select.utils.validation import check_int

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["InfluenceOptions", "measure_influence", "run_influence"]

_KINDS = ("auto", "lora", "last_layer", "all")
_DELAY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class InfluenceOptions:
    """Options of `measure_influence`.

    Args:
        checkpoints: Number of checkpoints of the fit, evenly spaced; the last one is its end.
        examples: Most examples per candidate whose gradients are taken, drawn at random.
        validation_examples: Most validation examples whose gradients are taken, drawn at random
            from labeled data; `SurrogateOptions` has the size of a surrogate.
        gradients: Parameters whose gradients are taken: "lora" for the LoRA parameters of peft,
            "last_layer" for the layer with trainable parameters that is called last, "all" for all
            trainable ones; "auto" for LoRA parameters where there are any, else the last layer.
        unit_length: Whether each gradient is scaled to length 1, as in LESS, so that no example
            counts more because its loss, or its text, is large; False to leave lengths as they
            are, as in TracIn, which is the first-order change of the loss.
        dims: Dimensions that gradients are randomly projected to; fewer parameters than that are
            not projected.
        seed: Random seed of the initial weights and the fit (except for the order of examples,
            which follows the DataModule's own seed), of the drawn examples and of the projection.
        task: Name of the task, part of the name of a new run directory; None for the module's
            class.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        >>> InfluenceOptions(dims=0)
        Traceback (most recent call last):
        synque_select.errors.ConfigError: dims=0: allowed is a whole number from 1
    """

    checkpoints: int = 3
    examples: int = 200
    validation_examples: int = 1000
    gradients: Literal["auto", "lora", "last_layer", "all"] = "auto"
    unit_length: bool = True
    dims: int = 2048
    seed: int = 0
    task: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("checkpoints", 1), ("examples", 2), ("validation_examples", 3)):
            check_int(name, getattr(self, name), least)
        check_int("dims", self.dims, 1)
        check_int("seed", self.seed, 0)
        if self.gradients not in _KINDS:
            raise ConfigError(
                f"gradients={self.gradients!r}: allowed are {', '.join(map(repr, _KINDS))}"
            )
        if self.task is not None:
            check_plain_name("task", self.task)


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
    evaluation mode. Checkpoints and gradients are kept in the cache by content, so that an
    interrupted run continues.

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
        DataError: All gradients of a candidate or of the validation data are 0, or not finite.
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
    if not module.automatic_optimization:
        raise LightningError(
            f"{type(module).__name__} optimizes by itself (automatic_optimization=False), so that "
            "its training_step cannot be asked for a loss"
        )
    datamodule.prepare_data()
    datamodule.setup("fit")
    try:
        names = [candidate.name for candidate in datamodule.candidates]
        data = serving(datamodule, Mixture.equal(names, "all candidates, for influence"))
        steps = [
            round(max_steps * (i + 1) / options.checkpoints) for i in range(options.checkpoints)
        ]
        return _measured(
            model_factory_of(module),
            data,
            steps,
            options,
            {"devices": 1, **(trainer_options or {})},
            TensorFiles(cache_dir),
            progress,
        )
    finally:
        datamodule.teardown("fit")


def _measured(
    model_factory: ModelFactory,
    data: AnySynqueDataModule,
    steps: Sequence[int],
    options: InfluenceOptions,
    trainer_options: TrainerOptions,
    files: TensorFiles,
    progress: bool,
) -> InfluenceResult:
    """Train, take gradients at these steps, and aggregate them."""
    started = time.process_time()
    candidates = candidate_parts(data, options.examples, options.seed)
    validation = validation_data(data, options.validation_examples, options.seed)
    parts = [*candidates, validation.part]
    bar = ProgressBar(
        total=len(steps) * sum(part.n for part in parts),
        desc="gradients",
        unit="example",
        delay=_DELAY_S,
        leave=False,
        disable=not progress,
    )
    with seeded(options.seed), bar:
        module = model_factory()
        identity = module_sha256(module)
        taker = GradientTaker(
            parts,
            files,
            options.gradients,
            options.dims,
            options.seed,
            data.batch_size,
            bar,
            identity,
        )
        loader = data.mixture_loader()
        key = files.key(  # everything that affects the checkpoints
            identity,
            drawn_sha256(loader, steps[-1], trainer_options, DrawnExamples()),
            first_batch(loader),
            [*steps, options.seed, loader.batch_size],
            {name: str(value) for name, value in trainer_options.items()},
        )
        taken = CheckpointedFit(files, key, steps, taker, progress).run(
            module, data, trainer_options
        )
    rates = tuple(one.rate for one in taken)
    if not sum(rates) > 0:
        raise DataError("the learning rate was 0 at all steps of the fit: nothing was trained")
    rows = [one.scaled(unit_length=options.unit_length) for one in taken]
    n_parameters = taken[-1].n_parameters
    return InfluenceResult(
        candidates=tuple(
            _influence(k, part, validation, rows, rates) for k, part in enumerate(candidates)
        ),
        validation=validation.kind,
        n_validation=validation.part.n,
        gradients=taken[-1].kind,
        n_parameters=n_parameters,
        n_dims=min(options.dims, n_parameters),
        is_preconditioned=taken[-1].is_preconditioned,
        unit_length=options.unit_length,
        steps=tuple(steps),
        rates=rates,
        max_steps=steps[-1],
        seed=options.seed,
        seconds=time.process_time() - started,
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
