"""SelectionCallback: ranks the candidates before fit and serves the best mixture."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from synque_select.callbacks._checks import (
    CheckedCallback,
    require_datamodule,
    require_single,
)
from synque_select.callbacks._leaks import leak_messages
from synque_select.callbacks._logging import LoggedTable, log_mixture, log_table, log_text
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError
from synque_select.lens.config import LensConfig
from synque_select.proxies.lens import with_lens
from synque_select.proxies.registry import ProxySpec
from synque_select.records.findings_file import copy_findings
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.records.run_folder import make_folder, new_run_folder
from synque_select.report.lens import lens_text, write_rubrics
from synque_select.report.ranking_tables import ranking_tables
from synque_select.selection.mixture import MixtureKind, MixtureOptions, with_mixture
from synque_select.selection.ranking import ranking_differences
from synque_select.selection.scorer import Scorer
from synque_select.training.datamodule import SynqueDataModule
from synque_select.training.distributed import on_rank_zero, raise_on_all_ranks, report_failure
from synque_select.training.run_page import write_page
from synque_select.training.spawn_result import SpawnResult
from synque_select.types import Ranking
from synque_select.utils.validation import check_int

__all__ = ["SelectionCallback"]

_STATE = "synque_select"
_DEFAULT_TOP_K = 3


class SelectionCallback(CheckedCallback):
    """Rank the candidates before fit, and train on the mixture of the best.

    By the end of `setup("fit")` the candidates of the `SynqueDataModule` are scored against its
    real sample, the top k are handed to it as its mixture, the models used for scoring are gone,
    and the ranking is in every logger. A second fit with the same content and options takes the
    ranking from the cache and scores nothing. `validate`, `test`, `predict` and `fast_dev_run`
    never score. With several ranks, rank 0 scores and the others wait without a timeout; a failure
    of one is an error on all. After `ddp_spawn`, or in a notebook, the attributes are those of the
    launched processes.

    Args:
        proxies: Keys, instances, or mappings with "key" and options; None for the default suite.
        rank_by: A proxy's key or "consensus"; None for the only proxy given, else the consensus.
        top_k: How many candidates are trained on; None for 3, or for what the given `ranking` says.
        mixture: How they are weighted: "equal", "proportional" (to exp of the standardised score)
            or "mmd_optimal" (at most `top_k`, whose kernel mean is nearest to the real sample's; no
            example more than 4 times where the length of the training is set by `max_steps` or
            `epoch_length`); None for "equal", or for the given `ranking`'s own mixture.
        temperature: Of mixture="proportional", in standard deviations; None for 1.
        encoder: A model id or an encoder; None for the default of the modality.
        lens: How the LENS proxies among `proxies` are computed: a `LensConfig`, a mapping with
            its values, a YAML file or a packaged name ("lens-small"). Its engines are closed
            before training; None for what each proxy has by itself. Rubrics, and the most and
            least real samples, are in the report and the loggers.
        ranking: A ranking made elsewhere, or the path of its `ranking.json`: nothing is scored,
            only the content hashes of candidates and real sample are compared.
        seed: Seed of everything random in the scores.
        device: Where to encode and score; None for the device that the trainer trains on.
        cache_dir: Where embeddings and rankings are kept; None for the default cache.
        run_dir: The run's folder; None for `runs/<model>/<time>-<hash>` under the trainer's
            `default_root_dir`. It gets `ranking.json`, `ranking.csv`, `report.html`, and what
            scoring found beside the order: `gaps.json`, `real_size.json`, and `labels.json` where
            all candidates carry labels that are classes.

    Attributes:
        ranking: The ranking, after `setup("fit")`.
        run_dir: The run's folder, once training has started.
        run_id: Names the run in the run store; a resumed run keeps it.

    Raises:
        ConfigError: `ranking` is given together with what it already settles, or it, `top_k`,
            `mixture`, `temperature` or `seed` is of another type or range.

    Example:
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
        seed: int = 0,
        device: str | torch.device | None = None,
        cache_dir: str | Path | None = None,
        run_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        _check_ranking(ranking, alone=proxies is None and encoder is None and lens is None)
        check_int("seed", seed, 0)
        if top_k is not None:
            check_int("top_k", top_k, 1)
        MixtureOptions(mixture or "equal", temperature)  # refused here, not after the scoring
        self._ranking: Ranking | None = None
        self._run_dir: Path | None = None
        self._run_id = ""
        self._given = ranking
        self._proxies, self._rank_by, self._top_k = _suite(proxies, lens, top_k), rank_by, top_k
        self._mixture, self._temperature = mixture, temperature
        self._findings: Path | None = None
        self._encoder, self._seed, self._device = encoder, seed, device
        self._cache_dir = cache_dir
        self._own_run_dir = None if run_dir is None else Path(run_dir)
        self._finished = True
        self._met = False  # whether the ranks of the fit under way have come together
        self._note = SpawnResult()

    @property
    def ranking(self) -> Ranking | None:
        """The ranking, after `setup("fit")`."""
        self._recall()
        return self._ranking

    @property
    def run_dir(self) -> Path | None:
        """The run's folder, once training has started."""
        self._recall()
        return self._run_dir

    @property
    def run_id(self) -> str:
        """Names the run in the run store; a resumed run keeps it."""
        self._recall()
        return self._run_id

    def _recall(self) -> None:
        """Take over what a process that was launched for a fit has learnt."""
        left = self._note.take()
        if left is not None:
            self._ranking, self._run_id = Ranking.from_dict(left["ranking"]), left["run_id"]
            self._run_dir = Path(left["run_dir"]) if left["run_dir"] else None
            self._finished = left["finished"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Score, pick, and hand the mixture to the DataModule; only for fit."""
        if stage != "fit":
            return
        require_single(self, trainer, SelectionCallback)
        datamodule = require_datamodule(trainer)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self._finished:  # a tuner's fit never finishes: the run that follows is still this one
            self._run_id, self._run_dir, self._finished = uuid4().hex, self._own_run_dir, False
        self._met = True
        # asks a wrapped DataModule for its loader, which may take every rank
        with raise_on_all_ranks(trainer):
            budget = datamodule.planned_draws if self._mixture == "mmd_optimal" else None
        chosen = on_rank_zero(trainer, lambda: self._prepare(trainer, datamodule, budget))
        ranking = Ranking.from_dict(chosen["ranking"])
        self._ranking, self._run_id = ranking, chosen["run_id"]
        datamodule.set_mixture(ranking.top())
        if trainer.is_global_zero:
            _show(trainer, ranking)

    def scorer(self, trainer: Trainer) -> Scorer:
        """Return how this callback scores, so that others can score a mixture the same way."""
        device = trainer.strategy.root_device if self._device is None else self._device
        if self._given is not None and self.ranking is not None:
            scorer = Scorer.like(self.ranking, device=device, cache_dir=self._cache_dir)
            return replace(scorer, notify=rank_zero_info)
        return Scorer(
            proxies=self._proxies,
            rank_by=self._rank_by,
            top_k=_DEFAULT_TOP_K if self._top_k is None else self._top_k,
            encoder=self._encoder,
            seed=self._seed,
            device=device,
            cache_dir=self._cache_dir,
            notify=rank_zero_info,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name and fill the run's folder; by now a checkpoint is restored on every strategy."""
        if self.ranking is None:
            return
        state = on_rank_zero(trainer, lambda: {"folder": str(self._folder(trainer, pl_module))})
        self._run_dir = Path(state["folder"])
        if trainer.is_global_zero:
            save_ranking(self.ranking, self._run_dir)
            write_rubrics(self._run_dir, self.ranking)
            if self._findings is not None:
                copy_findings(self._findings, self._run_dir)
            log_mixture(trainer, require_datamodule(trainer))
            _warn_of_leaks(trainer, "validation data", trainer.val_dataloaders)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn where examples that were trained on are in the test data."""
        if self.ranking is not None and trainer.is_global_zero:
            _warn_of_leaks(trainer, "test data", trainer.test_dataloaders)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the run: the next fit is another one."""
        self._finished = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the page, when all callbacks have put into the folder what they have."""
        if stage == "fit":
            self._met = False
            self._leave_note(trainer)
        folder = self.run_dir
        if stage == "fit" and self._finished and folder is not None and trainer.is_global_zero:
            scorer = self.scorer(trainer) if self._given is None else None
            page = write_page(folder, require_datamodule(trainer), scorer)
            if page is not None:
                rank_zero_info(f"report: {page}")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Where this rank fails before the ranks have met, the others must not wait for it."""
        if trainer.state.fn == "fit" and not self._met and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            report_failure(trainer, exception)
        self._met = False

    def _leave_note(self, trainer: Trainer) -> None:
        if self._ranking is None or trainer.local_rank != 0:
            return
        self._note.write(
            {
                "ranking": self._ranking.to_dict(),
                "run_id": self._run_id,
                "run_dir": str(self._run_dir or ""),
                "finished": self._finished,
            }
        )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep which run this is; the mixture is kept by the DataModule.

        Not in `state_dict`: with one, Lightning refuses a second SelectionCallback before we can
        say why.
        """
        checkpoint[_STATE] = {"run_id": self.run_id, "run_dir": str(self.run_dir or "")}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on as the run that wrote the checkpoint."""
        state = checkpoint.get(_STATE)
        if state is None or not state["run_id"]:
            return
        self._run_id = state["run_id"]
        if self._own_run_dir is None and state["run_dir"] and Path(state["run_dir"]).is_dir():
            self._run_dir = Path(state["run_dir"])

    def _prepare(
        self, trainer: Trainer, datamodule: SynqueDataModule, budget: int | None
    ) -> dict[str, Any]:
        if self._run_dir is not None:
            make_folder(self._run_dir)  # before hours of scoring, not after
        ranking = self._choose(trainer, datamodule, budget)
        return {"ranking": ranking.to_dict(), "run_id": self.run_id}

    def _choose(
        self, trainer: Trainer, datamodule: SynqueDataModule, budget: int | None
    ) -> Ranking:
        if self._given is not None:
            return self._checked(self._given, datamodule)
        if datamodule.real is None:
            raise DataError(
                "SynqueDataModule has no real sample to rank against: give real=…, or give "
                "SelectionCallback(ranking='ranking.json') a ranking made elsewhere"
            )
        mixture = MixtureOptions(self._mixture or "equal", self._temperature, budget)
        scorer = replace(self.scorer(trainer), mixture=mixture)
        ranking, self._findings = scorer.cached_selection(datamodule.candidates, datamodule.real)
        return ranking

    def _checked(self, given: str | Path | Ranking, datamodule: SynqueDataModule) -> Ranking:
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
        """Apply what was given beside a ranking made elsewhere."""
        chosen = replace(
            ranking,
            rank_by=ranking.rank_by if self._rank_by is None else self._rank_by,
            top_k=ranking.top_k if self._top_k is None else self._top_k,
        )
        if self._mixture is not None:
            return with_mixture(chosen, MixtureOptions(self._mixture, self._temperature))
        if ranking.mixture is not None and chosen != ranking:
            raise ConfigError(
                f"the ranking has a mixture of its own ({ranking.mixture.source}), which other "
                "top_k= or rank_by= would not change: give mixture='equal' or 'proportional' too"
            )
        return chosen

    def _folder(self, trainer: Trainer, pl_module: LightningModule) -> Path:
        if self.run_dir is None:
            name = re.sub(r"\W+", "_", type(pl_module).__name__)
            return new_run_folder(Path(trainer.default_root_dir) / "runs", name)
        return make_folder(self.run_dir)


def _suite(
    proxies: Sequence[ProxySpec] | None, lens: Any, top_k: int | None
) -> Sequence[ProxySpec] | None:
    return with_lens(proxies, lens, top_k=_DEFAULT_TOP_K if top_k is None else top_k)


def _check_ranking(ranking: Any, *, alone: bool) -> None:
    if ranking is None:
        return
    if not isinstance(ranking, str | os.PathLike | Ranking):
        raise ConfigError(
            f"ranking={ranking!r}: allowed is a Ranking or the path of a ranking.json"
        )
    if not alone:
        raise ConfigError(
            "ranking= is given together with proxies=, encoder= or lens=: one made elsewhere "
            "has them already; allowed beside it are rank_by=, top_k= and mixture="
        )


def _warn_of_leaks(trainer: Trainer, what: str, dataloaders: Any) -> None:
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(datamodule, SynqueDataModule) or datamodule.mixture is None:
        return
    parts, drawn = datamodule.drawn(datamodule.mixture)
    served = [part for part in parts if part.name in drawn.weights]
    for message in leak_messages(what, dataloaders, served):
        rank_zero_warn(message)


def _show(trainer: Trainer, ranking: Ranking) -> None:
    shown = ranking_tables(ranking)
    text = "\n\n".join(table.markdown() for table in shown)
    log_table(trainer, "synque_ranking", LoggedTable(*_cells(ranking), text))
    if ranking.details:
        log_text(trainer, "synque_lens", lens_text(ranking))
    rank_zero_info("\n\n".join(map(str, shown)))


def _cells(ranking: Ranking) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of plain values, best first."""
    weights, keys = ranking.top().weights, list(ranking.proxies)
    ranks = list(ranking.candidates[0].ranks)
    columns = ["candidate", "n", "weight", *keys, *[f"rank by {key}" for key in ranks]]
    rows = [
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
