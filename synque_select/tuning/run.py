"""`tune_mixture`: search mixtures with Optuna, from where the proxies point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import ConfigError, LightningError, ProxyError, did_you_mean
from synque_select.records.store import RunStore
from synque_select.selection.mixture import mmd_optimal_mixture
from synque_select.selection.ranking import ranking_from
from synque_select.selection.scorer import Scorer
from synque_select.selection.scoring import Scoring
from synque_select.training.comparability import content_sha256, validation_sha256, weights_sha256
from synque_select.training.datamodule import SynqueDataModule
from synque_select.training.short_fit import ShortFits
from synque_select.tuning.distributed import Ranks
from synque_select.tuning.mixture_scores import MixtureScores
from synque_select.tuning.objectives import FitObjective, ProxyObjective, Sampling
from synque_select.tuning.result import TuningResult, result_of
from synque_select.tuning.space import MixtureSpace, starting_mixtures
from synque_select.tuning.studies import (
    heartbeat_of,
    open_storage,
    open_study,
    optuna_module,
    quiet_optuna,
    requeue_on_failure,
    study_pruner,
    study_sampler,
    wait_for_work,
)
from synque_select.types import Mixture, Ranking
from synque_select.utils.process_state import seeded
from synque_select.utils.progress import ProgressBar
from synque_select.utils.validation import check_int

__all__ = ["tune_mixture"]


def tune_mixture(
    model_factory: Callable[..., LightningModule] | None,
    datamodule: SynqueDataModule,
    *,
    max_steps: int | None = None,
    n_trials: int = 30,
    primary: str = "val_acc",
    mode: Literal["max", "min"] = "max",
    proxy: str | None = None,
    hyper_parameters: Callable[[Any], Mapping[str, Any]] | None = None,
    k_range: tuple[int, int] | None = None,
    scorer: Scorer | None = None,
    sampler: Any = "tpe",
    n_startup: int = 5,
    pruner: Any = "median",
    n_reports: int = 4,
    study_name: str | None = None,
    storage: Any = None,
    heartbeat_s: int = 30,
    seed: int = 0,
    task: str | None = None,
    store: RunStore | str | Path | None = None,
    trainer_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> TuningResult:
    """Choose candidates, their number and their weights by trials, with Optuna.

    A trial is a short fit of a fresh module on a mixture, from the same weights and at the same
    budget; its value is the validation metric at the end of the budget. With `proxy=` nothing is
    trained, and the value is the proxy's score of the mixture. The space of mixtures is
    `MixtureSpace`: without conditional parameters. The study starts with what the proxies advise
    (`starting_mixtures`), goes on with `n_startup` random trials, which are never pruned, and then
    follows the sampler. A call with the same data, budget and storage goes on with the study, in
    any number of processes at once; a trial whose worker was killed is repeated.

    The best value found is optimistic, because the mixture was chosen by it. Report figures of a
    test split. Trials are kept in the run store as runs of kind "trial"; of these only the random
    ones may enter a correlation.

    Args:
        model_factory: Makes a fresh module, with the same weights each time under one seed; it
            gets what `hyper_parameters` gives as keyword arguments. None with `proxy`.
        datamodule: Its candidates are trained on, its validation loaders are validated on, its real
            sample is what proxies compare with.
        max_steps: Optimiser steps of a trial.
        n_trials: Trials in the study when it ends, of all workers: complete or pruned.
        primary: The validation metric.
        mode: "max" where a larger value is better, else "min".
        proxy: Key of a proxy of the suite to tune for, in place of fits.
        hyper_parameters: Takes the `optuna.Trial` and returns the user's own hyper-parameters.
        k_range: Least and largest number of candidates; None for 1 to all.
        scorer: How candidates are scored; None for the default suite and encoder.
        sampler: "tpe", "random", "gp", "cmaes", "qmc", or a sampler of Optuna's.
        n_startup: Number of random trials after the starts.
        pruner: "median", "hyperband", "successive_halving", "none", or a pruner of Optuna's.
        n_reports: Validations of a trial, the last one included; 1 leaves nothing to prune by.
        study_name: To go on with; None for the task and a hash of data and budget.
        storage: A path (SQLite; a journal where it ends in .journal, .log or .jsonl), a database's
            URL, or a storage of Optuna's; None for `studies.sqlite` beside the run store.
        heartbeat_s: A worker that has been silent for three times this counts as killed.
        seed: Of the weights and of the sampler.
        task: Name of the task, part of the comparability key; None for the module's class.
        store: The run store; None for the default one.
        trainer_options: Arguments of the trials' Trainer. With several ranks (strategy="ddp"), rank
            0 samples, prunes and keeps the records.
        progress: Whether to show a progress bar.

    Raises:
        DependencyError: optuna is missing.
        ConfigError: An argument is not allowed, or the study of this name is about other trials.
        LightningError: The DataModule has no candidates or no real sample, the strategy cannot
            stay open, or the module does not log the metric.
        RecordError: The storage cannot be opened.
    """
    optuna_module()
    _check(model_factory, datamodule, max_steps, proxy, mode)
    for name, value, least in (("n_trials", n_trials, 1), ("n_reports", n_reports, 1),
                               ("n_startup", n_startup, 0), ("heartbeat_s", heartbeat_s, 1),
                               ("seed", seed, 0)):  # fmt: skip
        check_int(name, value, least)
    study_sampler(sampler, 0, 0)
    study_pruner(pruner, max_steps or 1, n_reports)
    runs = store if isinstance(store, RunStore) else RunStore(store)
    tuning = _Tuning(
        factory=model_factory,
        datamodule=datamodule,
        max_steps=max_steps,
        n_trials=n_trials,
        primary=primary,
        mode=mode,
        proxy=proxy,
        hyper_parameters=hyper_parameters,
        k_range=k_range,
        scorer=scorer or Scorer(top_k=min(3, len(datamodule.candidates)), seed=seed),
        sampler=sampler,
        n_startup=n_startup,
        pruner=pruner,
        n_reports=n_reports if pruner != "none" else 1,
        study_name=study_name,
        storage=runs.path.parent / "studies.sqlite" if storage is None else storage,
        heartbeat_s=heartbeat_s,
        seed=seed,
        task=task,
        store=runs,
        options={"devices": 1, **(trainer_options or {})},
        progress=progress,
    )
    with quiet_optuna():
        return tuning.run()


def _check(
    model_factory: Any, datamodule: Any, max_steps: int | None, proxy: str | None, mode: str
) -> None:
    if not isinstance(datamodule, SynqueDataModule) or datamodule.real is None:
        raise LightningError(
            "tuning needs candidates and a real sample: "
            "data = SynqueDataModule(wraps=…, candidates=…, real=…)"
        )
    if mode not in ("max", "min"):
        raise ConfigError(f"mode={mode!r}: allowed are 'max' and 'min'")
    if proxy is None:
        if model_factory is None:
            raise ConfigError("model_factory=None: allowed only with proxy=, which trains nothing")
        check_int("max_steps", max_steps, 1)
    elif model_factory is not None or max_steps is not None:
        raise ConfigError(
            f"proxy={proxy!r} trains nothing: model_factory and max_steps must be None beside it"
        )


@dataclass
class _Tuning:
    """One call of `tune_mixture`."""

    factory: Callable[..., LightningModule] | None
    datamodule: SynqueDataModule
    max_steps: int | None
    n_trials: int
    primary: str
    mode: Literal["max", "min"]
    proxy: str | None
    hyper_parameters: Callable[[Any], Mapping[str, Any]] | None
    k_range: tuple[int, int] | None
    scorer: Scorer
    sampler: Any
    n_startup: int
    pruner: Any
    n_reports: int
    study_name: str | None
    storage: Any
    heartbeat_s: int
    seed: int
    task: str | None
    store: RunStore
    options: Mapping[str, Any]
    progress: bool

    def run(self) -> TuningResult:
        if self.proxy is not None:
            return self._search(self._by_proxy(self.proxy), None)
        ranks = Ranks(self.options)
        try:
            return self._fit(ranks)
        except BaseException as error:
            ranks.fail(error)
            raise

    def _by_proxy(self, key: str) -> _Search:
        scoring = self._scoring()
        ranking = ranking_from(scoring, rank_by=self.scorer.rank_by, top_k=self.scorer.top_k)
        if key not in ranking.proxies:
            raise ConfigError(f"proxy={key!r}: {did_you_mean(key, ranking.proxies)}")
        higher = ranking.proxies[key].higher_is_better
        sampling = self._sampling(ranking)
        optimal, messages = self._optimal(scoring)
        self.mode, self.primary = "max" if higher else "min", key
        objective = ProxyObjective(sampling, self._scores(scoring), key, self.mode)
        return _Search(objective, sampling.space, ranking, optimal, messages, {})

    def _fit(self, ranks: Ranks) -> TuningResult:
        found: dict[str, Any] = {}
        shared = ranks.share(lambda: self._prepare(found))
        ranking = Ranking.from_dict(shared["ranking"])
        data = self.datamodule
        data.setup("fit")
        try:
            objective = self._by_fits(ranks, ranking, found.get("scores"))
            if not ranks.is_zero:
                return self._follow(ranks, objective, ranking)
            model = self._model_stamp()
            stamp = {"validation": objective.fits.validation[:16], "model": model}
            sampling = objective.sampling
            search = _Search(
                objective, sampling.space, ranking, found["optimal"], found["messages"], stamp
            )
            result = self._search(search, ranks)
        finally:
            data.teardown("fit")
        return result

    def _prepare(self, found: dict[str, Any]) -> dict[str, Any]:
        """Score and download on rank 0; what the others need is plain."""
        scoring = self._scoring()
        ranking = ranking_from(scoring, rank_by=self.scorer.rank_by, top_k=self.scorer.top_k)
        self._sampling(ranking)  # a wrong k_range is an error on every rank
        optimal, messages = self._optimal(scoring)
        self.datamodule.prepare_data()
        found |= {"scores": self._scores(scoring), "optimal": optimal, "messages": messages}
        return {"ranking": ranking.to_dict()}

    def _scoring(self) -> Scoring:
        return self.scorer.scoring(*self._pool())

    def _pool(self) -> tuple[list[Candidate], RealSample]:
        real = self.datamodule.real
        assert real is not None
        return self.datamodule.candidates, real

    def _scores(self, scoring: Scoring) -> MixtureScores:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return MixtureScores(scoring, torch.device(self.scorer.device or device))

    def _sampling(self, ranking: Ranking) -> Sampling:
        names = tuple(row.name for row in ranking.order())
        low, high = self.k_range or (1, len(names))
        return Sampling(MixtureSpace(names, (low, high)), self.hyper_parameters, self.n_startup)

    def _optimal(self, scoring: Scoring) -> tuple[Mixture | None, list[str]]:
        """Return the MMD-optimal mixture, or why there is none."""
        batch_size = getattr(self.datamodule, "batch_size", None)
        batches = (self.max_steps or 0) * self.options.get("accumulate_grad_batches", 1)
        budget = batches * batch_size if batches and batch_size else None
        most = self.k_range[1] if self.k_range else len(scoring.candidates)
        try:
            return mmd_optimal_mixture(scoring, top_k=most, budget=budget), []
        except (ConfigError, ProxyError) as error:
            return None, [f"the MMD-optimal mixture is not among the starts: {error}"]

    def _by_fits(
        self, ranks: Ranks, ranking: Ranking, scores: MixtureScores | None
    ) -> FitObjective:
        assert self.max_steps is not None
        assert self.factory is not None
        options = dict(self.options)
        if self.n_reports > 1:
            batches = self.max_steps * options.get("accumulate_grad_batches", 1)
            options["val_check_interval"] = max(1, batches // self.n_reports)
            options["check_val_every_n_epoch"] = None
        return FitObjective(
            sampling=self._sampling(ranking),
            fits=ShortFits(
                datamodule=self.datamodule,
                ranking=ranking,
                primary=self.primary,
                mode=self.mode,
                task=self.task,
                max_steps=self.max_steps,
                seed=self.seed,
                options=options,
                validation=validation_sha256(self.datamodule.val_dataloader()),
            ),
            factory=self.factory,
            ranks=ranks,
            store=self.store,
            sha256={row.name: row.sha256 for row in ranking},
            scores=scores,
            is_reported=self.n_reports > 1,
        )

    def _model_stamp(self) -> str:
        """Name what every trial starts from; with hyper-parameters that is not one thing."""
        if self.hyper_parameters is not None or self.factory is None:
            return "depends on hyper_parameters"
        with seeded(self.seed):
            module = self.factory()
        return f"{type(module).__qualname__} {weights_sha256(module)[:16]}"

    def _follow(self, ranks: Ranks, objective: FitObjective, ranking: Ranking) -> TuningResult:
        """Fit what rank 0 plans, until it says what came of it."""
        while True:
            plan = ranks.share(dict)
            if "result" in plan:
                return TuningResult.from_dict(plan["result"], ranking)
            try:
                objective.follow(plan)
            except optuna_module().TrialPruned:
                continue

    def _search(self, search: _Search, ranks: Ranks | None) -> TuningResult:
        """Run trials until the study has enough of them; on rank 0."""
        stamp = self._stamp(search)
        name = self.study_name or f"{self.task or 'mixture'}-{content_sha256([stamp])[:8]}"
        storage = open_storage(self.storage, self.heartbeat_s)
        starts = starting_mixtures(search.ranking, search.space, search.optimal)
        points = {start: search.space.params(mixture) for start, mixture in starts.items()}
        study = open_study(storage, name, self.mode, stamp, points)

        def objective(trial: Any) -> float:
            with requeue_on_failure(study, trial, points):
                return search.objective(trial)

        study.sampler = study_sampler(self.sampler, self.n_startup, self.seed)
        study.pruner = study_pruner(self.pruner, self.max_steps or 1, self.n_reports)
        with ProgressBar(desc="trials", unit="trial", disable=not self.progress) as bar:
            while wait_for_work(study, self.n_trials, heartbeat_of(storage)):
                study.optimize(objective, n_trials=1)
                bar.update()
        result = result_of(
            study,
            metric=self.primary,
            mode=self.mode,
            storage=_shown(self.storage),
            budget=self._budget(search.space),
            n_startup=self.n_startup,
            messages=search.messages,
            ranking=search.ranking,
        )
        if ranks is not None:
            ranks.share(lambda: {"result": result.to_dict()})
        return result

    def _stamp(self, search: _Search) -> dict[str, Any]:
        """What must be equal for two trials to be compared, as plain values."""
        ranking = search.ranking
        return {
            "tuned for": f"{self.primary} ({self.mode})" + " of a proxy" * (self.proxy is not None),
            "candidates": content_sha256([(r.name, r.sha256) for r in ranking.order()])[:16],
            "real sample": ranking.real_sha256[:16],
            "k_range": list(search.space.k_range),
            "max_steps": self.max_steps,
            "n_reports": self.n_reports,
            "seed": self.seed,
            "task": self.task,
            "trainer_options": {key: str(value) for key, value in self.options.items()},
            **search.stamp,
        }

    def _budget(self, space: MixtureSpace) -> dict[str, Any]:
        named = (str, int, float)
        return {
            "max_steps": self.max_steps,
            "n_trials": self.n_trials,
            "n_startup": self.n_startup,
            "n_reports": self.n_reports,
            "k_range": list(space.k_range),
            "sampler": self.sampler if isinstance(self.sampler, named) else str(self.sampler),
            "pruner": self.pruner if isinstance(self.pruner, named) else type(self.pruner).__name__,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class _Search:
    """What is searched, for what, and from where."""

    objective: Callable[[Any], float]
    space: MixtureSpace
    ranking: Ranking
    optimal: Mixture | None
    messages: Sequence[str]
    stamp: Mapping[str, Any]


def _shown(storage: Any) -> str:
    """Name a storage without the password that its URL may hold."""
    if not isinstance(storage, str | Path):
        return type(storage).__name__
    text = str(storage)
    scheme, separator, rest = text.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if separator else text
