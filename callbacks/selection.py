"""What both classes of SelectionCallback share: candidates are ranked before the fit."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict
from uuid import uuid4

import torch
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from synque_select.callbacks._checks import (
    CheckedCallback,
    require_datamodule,
    require_single,
)
from synque_select.callbacks._leaks import leak_messages
from synque_select.callbacks._logging import (
    Cell,
    LoggedTable,
    log_mixture,
    log_table,
    log_text,
    warn_of_failed_logger,
)
from synque_select.data.label_edits import LabelEdits
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError
from synque_select.execution import get_executor
from synque_select.lens.config import LensConfig
from synque_select.proxies.lens import with_lens
from synque_select.proxies.registry import ProxySpec
from synque_select.records.dropped_labels_file import (
    DROPPED_LABELS,
    load_dropped_labels,
    save_dropped_labels,
)
from synque_select.records.findings_file import copy_findings
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.records.run_folder import (
    check_run_name,
    file_beside,
    make_folder,
    new_run_folder,
)
from synque_select.report.decision import decision_lines
from synque_select.report.lens import lens_text, write_rubrics
from synque_select.report.ranking_tables import ranking_tables
from synque_select.report.terminal import ranking_text
from synque_select.selection.decision import redecided
from synque_select.selection.label_filter import (
    LabelFilterChoice,
    check_label_filter,
    edits_of,
)
from synque_select.selection.mixture import MixtureKind, MixtureOptions, with_mixture
from synque_select.selection.ranking import ranking_differences
from synque_select.selection.scorer import Scorer
from synque_select.training.bookkeeping import bookkeeping
from synque_select.training.datamodule import attached_datamodule
from synque_select.training.distributed import on_rank_zero, raise_on_all_ranks, report_failure
from synque_select.training.lightning_compat import ModuleT, TrainerT, is_dev_run
from synque_select.training.run_page import write_page
from synque_select.training.spawn_result import SpawnResult
from synque_select.types import DroppedLabel, Mixture, Ranking
from synque_select.utils.json_types import Json
from synque_select.utils.validation import check_int

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyTrainer

    AnySelectionCallback: TypeAlias = "BaseSelectionCallback[Any, Any]"

__all__ = ["BaseSelectionCallback"]

_STATE = "synque_select"


class _Prepared(TypedDict):
    """The values that rank 0 passes to the other ranks."""

    ranking: dict[str, Json]
    run_id: str
    label_edits: dict[str, Json] | None


class _Launched(_Prepared):
    """The values that a launched process passes back."""

    run_dir: str
    finished: bool


class BaseSelectionCallback(CheckedCallback[TrainerT, ModuleT]):
    """Ranks the candidates before the fit, and trains on a mixture of the best.

    In `setup("fit")` the candidates of the `SynqueDataModule` are scored against its real sample,
    the top k become its mixture, the models used for scoring are closed, and the ranking is logged
    to every logger. A second fit with the same content and options reads the ranking from the cache
    and scores nothing. `validate`, `test`, `predict` and `fast_dev_run` never score. With several
    ranks, rank 0 scores and the others wait without a timeout; a failure on one rank is raised on
    all. After `ddp_spawn` or in a notebook, the attributes are those of the launched processes.

    Args:
        proxies: Keys, instances, or mappings with "key" and options; None for the default suite.
        rank_by: Key of a proxy, or "consensus"; None for the default of `rank`: `transfer` where
            the candidates' labels can judge each other, else the consensus.
        top_k: Number of candidates to train on; None for that of the given `ranking`, or for what
            is recommended: all candidates, minus each that is shown worse than at least half of
            the others. Copies of the real sample are never selected.
        mixture: Weights of the candidates: "equal", "proportional" (to exp of the standardized
            score) or "mmd_optimal" (at most `top_k` candidates, with the kernel mean nearest to
            that of the real sample; no example is repeated more than 4 times if `max_steps` or
            `epoch_length` sets the length of training); None for "equal", or for the mixture of
            the given `ranking`.
        temperature: Temperature of mixture="proportional", in standard deviations; None for 1.
        encoder: A model id or an encoder; None for the default of the modality.
        lens: How the LENS proxies among `proxies` are computed: a `LensConfig`, a mapping with
            its values, a YAML file or a packaged name ("lens-small"). Its engines are closed
            before training. None for the configuration of each proxy. The report and the loggers
            get the rubrics and the most and least realistic examples.
        ranking: An existing ranking, or the path of its `ranking.json`. Nothing is scored; only the
            content hashes of the candidates and the real sample are compared.
        label_filter: Whether training leaves out examples of the selected candidates whose label
            the classifiers of the others contradict: "off", "auto" (if these can judge, and most
            contradict the label), or the share of their votes that must contradict it. Needs
            `label=` in the DataModule. No label of the real sample is read. A given `ranking` has
            its own filter. The examples are listed in `dropped_labels.jsonl`.
        relabel: Whether these examples get the label with the most votes instead.
        answers: A file of `synque-select ask` with labels of some real examples. Candidates that
            the answers show to be worse are left out of what is recommended. Needs `label=` in the
            DataModule.
        seed: Random seed of the scores.
        device: Device for encoding and scoring; None for the device of the trainer.
        cache_dir: Directory of cached embeddings and rankings; None for the default one.
        executor: Where to encode and score, as for `rank`; None for this process.
        run_dir: Run directory; None for `runs/<model>/<time>-<name>` under the trainer's
            `default_root_dir`. It receives `ranking.json`, `ranking.csv`, `report.html`, and the
            findings of scoring: `gaps.json`, `real_size.json`, and `labels.json` if all candidates
            have labels that are classes.
        name: Name of the run, as part of a new directory; None for two random words.
        quiet: Whether only the sentence of the decision is printed, and no progress. The report and
            the loggers get the same as without it.

    Attributes:
        ranking: The ranking, after `setup("fit")`.
        run_dir: Run directory, once training has started.
        run_id: Id of the run in the run store; a resumed run keeps it.

    Raises:
        ConfigError: `ranking` is combined with an argument that it determines, or `ranking`,
            `top_k`, `mixture`, `temperature`, `label_filter` or `seed` has a wrong type or value.

    Example:
        >>> from synque_select import SelectionCallback
        >>> callback = SelectionCallback(proxies=["mmd"], top_k=2)
        >>> callback.ranking is None
        True
    """

    def __init__(
        self,
        proxies: Sequence[ProxySpec] | None = None,
        rank_by: str | None = None,
        top_k: int | None = None,
        *,
        mixture: MixtureKind | None = None,
        temperature: float | None = None,
        encoder: str | BaseEncoder | None = None,
        lens: LensConfig | Mapping[str, Any] | str | Path | None = None,
        ranking: str | Path | Ranking | None = None,
        label_filter: LabelFilterChoice = "off",
        relabel: bool = False,
        answers: str | Path | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        cache_dir: str | Path | None = None,
        executor: str | None = None,
        run_dir: str | Path | None = None,
        name: str | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        determined = (proxies, encoder, lens, answers)
        self._label_filter, self._relabel = check_label_filter(label_filter), relabel
        alone = all(value is None for value in determined) and self._label_filter == "off"
        _check_ranking(ranking, alone=alone)
        if relabel and self._label_filter == "off":
            raise ConfigError("relabel=True changes what label_filter= finds: give it, too")
        check_int("seed", seed, 0)
        if top_k is not None:
            check_int("top_k", top_k, 1)
        MixtureOptions(mixture or "equal", temperature)  # checked before scoring
        self._ranking: Ranking | None = None
        self._run_dir: Path | None = None
        self._run_id = ""
        self._given_ranking = ranking
        self._proxies = _suite(proxies, lens, top_k, progress=not quiet)
        self._rank_by, self._top_k = rank_by, top_k
        self._mixture, self._temperature, self._answers = mixture, temperature, answers
        self._findings: Path | None = None
        self._dropped: Mapping[str, Sequence[DroppedLabel]] | None = None
        self._encoder, self._seed, self._device = encoder, seed, device
        self._cache_dir, self._quiet = cache_dir, quiet
        get_executor(executor)  # checked before the fit begins
        self._executor = executor
        self._given_run_dir = None if run_dir is None else Path(run_dir)
        self.set_name(name)
        self._finished = True
        self._has_met = False  # whether the ranks of the current fit have met
        self._spawn_result: SpawnResult[_Launched] = SpawnResult()

    def set_name(self, name: str | None) -> None:
        """Set the name of the run, in the name of its directory; None for two random words.

        Raises:
            ConfigError: It is not a plain name, or `run_dir` was given.
        """
        check_run_name(name, self._given_run_dir)
        self._name = name

    @property
    def ranking(self) -> Ranking | None:
        """The ranking, after `setup("fit")`."""
        self._recall()
        return self._ranking

    @property
    def run_dir(self) -> Path | None:
        """Run directory, once training has started."""
        self._recall()
        return self._run_dir

    @property
    def run_id(self) -> str:
        """Id of the run in the run store; a resumed run keeps it."""
        self._recall()
        return self._run_id

    def _recall(self) -> None:
        """Copy the attributes of a launched process."""
        state = self._spawn_result.take()
        if state is not None:
            self._ranking, self._run_id = Ranking.from_dict(state["ranking"]), state["run_id"]
            self._run_dir = Path(state["run_dir"]) if state["run_dir"] else None
            self._finished = state["finished"]

    def setup(self, trainer: TrainerT, pl_module: ModuleT, stage: str) -> None:
        """Score the candidates and set the mixture of the DataModule; only for fit."""
        if stage != "fit":
            return
        require_single(self, trainer, BaseSelectionCallback)
        datamodule = require_datamodule(trainer)
        if is_dev_run(trainer):
            return
        if self._finished:  # a Tuner's fit never finishes, so the fit after it is the same run
            self._run_id, self._run_dir, self._finished = uuid4().hex, self._given_run_dir, False
        self._has_met = True
        # this asks a wrapped DataModule for its loader, which may need every rank
        with raise_on_all_ranks(trainer):
            budget = datamodule.planned_draws if self._mixture == "mmd_optimal" else None
        chosen = on_rank_zero(trainer, lambda: self._prepare(trainer, datamodule, budget))
        ranking = Ranking.from_dict(chosen["ranking"])
        self._ranking, self._run_id = ranking, chosen["run_id"]
        datamodule.set_mixture(_mixture(ranking))
        datamodule.set_label_edits(_edits(chosen["label_edits"]))
        if trainer.is_global_zero:
            _show(trainer, ranking, quiet=self._quiet)

    def scorer(self, trainer: TrainerT) -> Scorer:
        """Return the scorer of this callback, for scoring elsewhere with the same options."""
        device = trainer.strategy.root_device if self._device is None else self._device
        if self._given_ranking is not None and self.ranking is not None:
            scorer = Scorer.like(self.ranking, device=device, cache_dir=self._cache_dir)
            return replace(scorer, progress=not self._quiet, notify=self._notify)
        return Scorer(
            proxies=self._proxies,
            rank_by=self._rank_by,
            top_k=self._top_k,
            label_filter=self._label_filter,
            relabel=self._relabel,
            answers=self._answers,
            encoder=self._encoder,
            seed=self._seed,
            device=device,
            cache_dir=self._cache_dir,
            executor=self._executor,
            progress=not self._quiet,
            notify=self._notify,
        )

    def _notify(self, sentence: str) -> None:
        if not self._quiet:
            rank_zero_info(sentence)

    def on_train_start(self, trainer: TrainerT, pl_module: ModuleT) -> None:
        """Write the run directory; by now every strategy has restored the checkpoint."""
        if self.ranking is None:
            return
        self._run_dir = on_rank_zero(trainer, lambda: self._make_run_dir(trainer, pl_module))
        if trainer.is_global_zero:
            save_ranking(self.ranking, self._run_dir)
            write_rubrics(self._run_dir, self.ranking)
            if self._findings is not None:
                copy_findings(self._findings, self._run_dir)
            if self._dropped is not None:
                record = self.ranking.label_filter
                save_dropped_labels(
                    self._run_dir / DROPPED_LABELS,
                    self._dropped,
                    relabel=record is not None and record.relabel,
                )
            log_mixture(trainer, require_datamodule(trainer))
            _warn_of_leaks(trainer, "validation data", trainer.val_dataloaders)

    def on_test_start(self, trainer: TrainerT, pl_module: ModuleT) -> None:
        """Warn about training examples that are in the test data."""
        if self.ranking is not None and trainer.is_global_zero:
            with bookkeeping("candidates were not compared with the test data"):
                _warn_of_leaks(trainer, "test data", trainer.test_dataloaders)

    def on_fit_end(self, trainer: TrainerT, pl_module: ModuleT) -> None:
        """Close the run: the next fit is a new one."""
        self._finished = True

    def teardown(self, trainer: TrainerT, pl_module: ModuleT, stage: str) -> None:
        """Write the report page, after all callbacks have written their files."""
        if stage == "fit":
            self._has_met = False
            with bookkeeping("the ranking did not come back from the launched process"):
                self._write_spawn_result(trainer)
        run_dir = self.run_dir
        if stage == "fit" and self._finished and run_dir is not None and trainer.is_global_zero:
            scorer = self.scorer(trainer) if self._given_ranking is None else None
            page = write_page(run_dir, require_datamodule(trainer), scorer)
            if page is not None:
                self._notify(f"report: {page}")

    def on_exception(self, trainer: TrainerT, pl_module: ModuleT, exception: BaseException) -> None:
        """Report a failure of this rank to the others if they may still be waiting for it.

        Where a logger that Lightning itself calls has ended the fit, say what to do.
        """
        if trainer.state.fn == "fit" and not is_dev_run(trainer):
            if not self._has_met:
                report_failure(trainer, exception)
            with bookkeeping("the loggers were not searched for the failure"):
                warn_of_failed_logger(trainer, exception, self.run_dir, has_finished=self._finished)
        self._has_met = False

    def _write_spawn_result(self, trainer: TrainerT) -> None:
        if self._ranking is None or trainer.local_rank != 0:
            return
        self._spawn_result.write(
            {
                "ranking": self._ranking.to_dict(),
                "run_id": self._run_id,
                "label_edits": None,  # the DataModule's own process has them
                "run_dir": str(self._run_dir or ""),
                "finished": self._finished,
            }
        )

    def on_save_checkpoint(
        self, trainer: TrainerT, pl_module: ModuleT, checkpoint: dict[str, Any]
    ) -> None:
        """Store the run id and the run directory; the DataModule stores the mixture.

        Not in `state_dict`: with it, Lightning would reject a second SelectionCallback with an
        unclear error before this callback can.
        """
        checkpoint[_STATE] = {"run_id": self.run_id, "run_dir": str(self.run_dir or "")}

    def on_load_checkpoint(
        self, trainer: TrainerT, pl_module: ModuleT, checkpoint: dict[str, Any]
    ) -> None:
        """Continue the run that wrote the checkpoint."""
        state = checkpoint.get(_STATE)
        if state is None or not state["run_id"]:
            return
        self._run_id = state["run_id"]
        if self._given_run_dir is None and state["run_dir"] and Path(state["run_dir"]).is_dir():
            self._run_dir = Path(state["run_dir"])

    def _prepare(
        self, trainer: TrainerT, datamodule: AnySynqueDataModule, budget: int | None
    ) -> _Prepared:
        if self._run_dir is not None:
            make_folder(self._run_dir)  # fail before hours of scoring, not after
        ranking = self._choose(trainer, datamodule, budget)
        edits = self._read_edits(ranking)
        return {
            "ranking": ranking.to_dict(),
            "run_id": self.run_id,
            "label_edits": None if edits is None else edits.to_dict(),
        }

    def _read_edits(self, ranking: Ranking) -> LabelEdits | None:
        """Read what the label filter of the ranking found; None if it changes nothing."""
        self._dropped, record = None, ranking.label_filter
        if record is None or not record.is_open:
            return None
        place = self._dropped_labels_file()
        if place is None:
            rank_zero_warn(
                "the labels of this ranking were filtered, but a Ranking does not hold the dropped "
                "examples: training uses all. Give the path of its ranking.json instead"
            )
            return None
        self._dropped = load_dropped_labels(place)
        return edits_of(self._dropped, relabel=record.relabel)

    def _dropped_labels_file(self) -> Path | None:
        if self._given_ranking is None:
            return None if self._findings is None else self._findings / DROPPED_LABELS
        if isinstance(self._given_ranking, Ranking):
            return None
        path = Path(self._given_ranking)
        path = path / "ranking.json" if path.is_dir() else path
        return file_beside(path, DROPPED_LABELS)

    def _choose(
        self, trainer: TrainerT, datamodule: AnySynqueDataModule, budget: int | None
    ) -> Ranking:
        if self._given_ranking is not None:
            return self._checked(self._given_ranking, datamodule)
        if datamodule.real is None:
            raise DataError(
                "SynqueDataModule has no real sample to rank against: give it real=, or pass an "
                "existing ranking, SelectionCallback(ranking='ranking.json')"
            )
        mixture = MixtureOptions(self._mixture or "equal", self._temperature, budget)
        scorer = replace(self.scorer(trainer), mixture=mixture)
        ranking, self._findings = scorer.cached_selection(datamodule.candidates, datamodule.real)
        return ranking

    def _checked(self, given: str | Path | Ranking, datamodule: AnySynqueDataModule) -> Ranking:
        ranking = given if isinstance(given, Ranking) else load_ranking(given)
        differences = ranking_differences(ranking, datamodule.candidates, datamodule.real)
        if differences:
            raise DataError(
                "the ranking was made on other data:\n- "
                + "\n- ".join(differences)
                + "\nRank again, or give the DataModule the data (and view=) that was ranked."
            )
        return self._chosen_from(ranking)

    def _chosen_from(self, ranking: Ranking) -> Ranking:
        """Apply the arguments that are given together with `ranking`."""
        by = ranking.rank_by if self._rank_by is None else self._rank_by
        k = ranking.top_k if self._top_k is None else self._top_k
        is_changed = (by, k) != (ranking.rank_by, ranking.top_k)
        if is_changed and self._mixture is None and ranking.own_mixture is not None:
            raise ConfigError(
                f"the ranking has a mixture of its own ({ranking.own_mixture.source}), which "
                "another top_k= or rank_by= does not change: give mixture='equal' or "
                "'proportional', too"
            )
        chosen = redecided(ranking, rank_by=by, top_k=k) if is_changed else ranking
        if self._mixture is None:
            return chosen
        return with_mixture(chosen, MixtureOptions(self._mixture, self._temperature))

    def _make_run_dir(self, trainer: TrainerT, pl_module: ModuleT) -> Path:
        if self.run_dir is None:
            model = re.sub(r"\W+", "_", type(pl_module).__name__)
            return new_run_folder(Path(trainer.default_root_dir) / "runs", model, self._name)
        return make_folder(self.run_dir)


def _mixture(ranking: Ranking) -> Mixture:
    """Return the mixture; its source, which run records keep, says whether labels are filtered."""
    mixture, record = ranking.top(), ranking.label_filter
    if record is None or not record.is_open:
        return mixture
    how = "relabeled" if record.relabel else "filtered"
    return replace(mixture, source=f"{mixture.source}, labels {how}")


def _edits(state: dict[str, Json] | None) -> LabelEdits | None:
    return None if state is None else LabelEdits.from_dict(state)


def _suite(
    proxies: Sequence[ProxySpec] | None,
    lens: LensConfig | Mapping[str, Any] | str | Path | None,
    top_k: int | None,
    *,
    progress: bool,
) -> Sequence[ProxySpec] | None:
    return with_lens(proxies, lens, top_k=top_k, progress=progress)


def _check_ranking(ranking: object, *, alone: bool) -> None:
    if ranking is None:
        return
    if not isinstance(ranking, str | os.PathLike | Ranking):
        raise ConfigError(
            f"ranking={ranking!r}: allowed is a Ranking or the path of a ranking.json"
        )
    if not alone:
        raise ConfigError(
            "ranking= cannot be combined with proxies=, encoder=, lens=, label_filter= or "
            "answers=, which an existing ranking already has; rank_by=, top_k= and mixture= are "
            "allowed"
        )


def _warn_of_leaks(trainer: AnyTrainer, what: str, dataloaders: object) -> None:
    datamodule = attached_datamodule(trainer)
    if datamodule is None or datamodule.mixture is None:
        return
    parts, weighted = datamodule.with_labeled_real(datamodule.mixture)
    served = [part for part in parts if part.name in weighted.weights]
    for message in leak_messages(what, dataloaders, served):
        rank_zero_warn(message)


def _show(trainer: AnyTrainer, ranking: Ranking, *, quiet: bool) -> None:
    lines = decision_lines(ranking)
    text = "\n\n".join([*lines, *(table.markdown() for table in ranking_tables(ranking))])
    log_text(trainer, "synque_decision", "\n\n".join(lines))
    log_table(trainer, "synque_ranking", LoggedTable(*_cells(ranking), text))
    lens = lens_text(ranking)
    if lens:
        log_text(trainer, "synque_lens", lens)
    if ranking.decision is not None and ranking.decision.opening == "far":
        rank_zero_warn(lines[0])
    rank_zero_info(ranking_text(ranking, quiet=quiet))


def _cells(ranking: Ranking) -> tuple[list[str], list[list[Cell]]]:
    """Return columns and rows of plain values, best first."""
    weights, keys = ranking.top().weights, list(ranking.proxies)
    ranks = list(ranking.candidates[0].ranks)
    columns = ["candidate", "n", "weight", *keys, *[f"rank by {key}" for key in ranks]]
    rows: list[list[Cell]] = [
        [
            row.name,
            row.n,
            weights.get(row.name, 0.0),
            *[_defined(row.scores[key].value) for key in keys],
            *[_defined(row.ranks[key]) for key in ranks],
        ]
        for row in ranking
    ]
    return columns, rows


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
