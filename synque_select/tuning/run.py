"""`tune_mixture`: search mixtures with Optuna, starting where the proxies point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, final

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import ConfigError, LightningError, ProxyError, did_you_mean
from synque_select.execution import opened_executor
from synque_select.records.correlation import reliability_messages, surrogate_reliability
from synque_select.records.store import RunStore
from synque_select.records.tuning_result import TuningResult
from synque_select.report.untrained import untrained_notes
from synque_select.selection.mixture import mmd_optimal_mixture
from synque_select.selection.scorer import Scorer
from synque_select.selection.scoring import Scoring
from synque_select.selection.surrogate import SurrogateDraw
from synque_select.training.bookkeeping import known_records
from synque_select.training.comparability import content_sha256, validation_of, weights_sha256
from synque_select.training.datamodule import is_synque_datamodule
from synque_select.training.lightning_compat import is_lightning_module
from synque_select.training.short_fit import (
    ModelFactory,
    ShortFits,
    TrainerOptions,
    model_factory_of,
)
from synque_select.tuning.changes import Content
from synque_select.tuning.distributed import Ranks
from synque_select.tuning.mixture_scores import MixtureScores
from synque_select.tuning.objectives import (
    FitObjective,
    ProxyObjective,
    Sampling,
    TrialPlan,
    UntrainedPlan,
)
from synque_select.tuning.options import TuneOptions
from synque_select.tuning.recovery import Worker
from synque_select.tuning.result import result_of
from synque_select.tuning.reuse import Reuse
from synque_select.tuning.samplers import study_pruner, study_sampler
from synque_select.tuning.side_by_side import run_side_by_side
from synque_select.tuning.space import MixtureSpace, starting_mixtures
from synque_select.tuning.storages import heartbeat_of, open_storage, shown_storage
from synque_select.tuning.studies import (
    MISSED_HEARTBEATS,
    Beginning,
    open_study,
    quiet_optuna,
    require_optuna,
)
from synque_select.tuning.study_checks import check_trials, named_storage
from synque_select.types import Mixture, Ranking
from synque_select.utils.json_types import JsonObject
from synque_select.utils.process_state import seeded
from synque_select.utils.progress import ProgressBar
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["tune_mixture"]


def tune_mixture(
    model: AnyModule | ModelFactory | None,
    datamodule: AnySynqueDataModule,
    *,
    max_steps: int | None = None,
    options: TuneOptions | None = None,
    scorer: Scorer | None = None,
    store: RunStore | str | Path | None = None,
    trainer_options: TrainerOptions | None = None,
    progress: bool = True,
) -> TuningResult:
    """Search for the best candidates, their number and their weights with Optuna.

    A trial is a short fit of a fresh module on a mixture, always from the same weights and at the
    same budget; its value is the validation metric at the end of the budget. With
    `TuneOptions(proxy=…)` nothing is trained, and the value is the proxy's score of the mixture.
    The space of mixtures is `MixtureSpace`, which has no conditional parameters. The study starts
    with the mixtures that the proxies suggest (`starting_mixtures`), continues with `n_startup`
    random trials, which are never pruned, and then follows the sampler. A call with the same data,
    budget and storage continues the study, and several processes may do so at once. If a worker is
    killed, its trial is repeated.

    The best value is optimistic, because the mixture was selected by it: report the metric on a
    test split. Trials are stored in the run store as runs of kind "trial"; only the random ones may
    enter a correlation.

    Args:
        model: An untrained module, of which each trial trains a copy; or a function that makes a
            fresh module, with the same weights each time under one seed, and takes what
            `hyper_parameters` returns as keyword arguments. None with `proxy`.
        datamodule: Trials train on its candidates and are validated on its validation loaders;
            proxies compare with its real sample.
        max_steps: Optimizer steps of a trial. None with `proxy`.
        options: Options of the study; None for the defaults.
        scorer: How candidates are scored; None for the default suite and encoder.
        store: The run store or its path; None for the default one.
        trainer_options: Arguments of the trials' Trainer. With several ranks (strategy="ddp"), rank
            0 samples, prunes and keeps the records.
        progress: Whether to show a progress bar.

    Raises:
        DependencyError: optuna is missing.
        ConfigError: An argument is not allowed, or the study of this name has other settings.
        LightningError: The DataModule has no candidates or no real sample, the strategy cannot
            stay open, or the module does not log the metric.
        RecordError: The storage cannot be opened.
    """
    require_optuna()
    options = TuneOptions() if options is None else options
    _check(model, datamodule, max_steps, options)
    runs = store if isinstance(store, RunStore) else RunStore(store)
    tuning = _Tuning(
        model_factory=None if model is None else model_factory_of(model),
        datamodule=datamodule,
        max_steps=max_steps,
        options=options,
        scorer=(scorer or Scorer(seed=options.seed, notify=rank_zero_info)).on_executor(
            options.executor
        ),
        store=runs,
        trainer_options={"devices": 1, **(trainer_options or {})},
        progress=progress,
    )
    with quiet_optuna():
        return tuning.run()


def _check(
    model: AnyModule | ModelFactory | None,
    datamodule: AnySynqueDataModule,
    max_steps: int | None,
    options: TuneOptions,
) -> None:
    if not is_synque_datamodule(datamodule) or datamodule.real is None:
        raise LightningError(
            "tuning needs candidates and a real sample: "
            "data = SynqueDataModule(wraps=…, candidates=…, real=…)"
        )
    if options.proxy is not None:
        if model is not None or max_steps is not None:
            raise ConfigError(
                f"proxy={options.proxy!r} trains nothing: model and max_steps must be None with it"
            )
        return
    if model is None:
        raise ConfigError("model=None: allowed only with proxy=, which trains nothing")
    if is_lightning_module(model) and options.hyper_parameters is not None:
        raise ConfigError(
            f"hyper_parameters is given, but model is an instance of {type(model).__name__}: give "
            "a function that takes the hyper-parameters and returns a model, such as the class"
        )
    check_int("max_steps", max_steps, 1)


class _Shared(TypedDict):
    """What rank 0 tells the others before the first fit."""

    ranking: JsonObject
    surrogate: SurrogateDraw | None


@final
class _Finished(TypedDict):
    """What rank 0 tells the others after the last fit."""

    result: JsonObject


@dataclass(frozen=True)
class _Prepared:
    """What rank 0 has computed before the first trial."""

    scores: MixtureScores
    optimal: Mixture | None
    messages: Sequence[str]


@dataclass
class _Tuning:
    """One call of `tune_mixture`."""

    model_factory: ModelFactory | None
    datamodule: AnySynqueDataModule
    max_steps: int | None
    options: TuneOptions
    scorer: Scorer
    store: RunStore
    trainer_options: TrainerOptions
    progress: bool

    def run(self) -> TuningResult:
        if self.options.proxy is not None:
            return self._search(self._by_proxy(self.options.proxy), None)
        ranks = Ranks(self.datamodule, self.trainer_options)
        if ranks.n_ranks > 1 and self.options.is_side_by_side:
            raise ConfigError(
                f"the trials of {counted(ranks.n_ranks, 'rank')} run one after another: leave "
                "n_workers= and executor= out, or use devices=1"
            )
        try:
            return self._fit(ranks)
        except BaseException as error:
            ranks.fail(error)
            raise

    def _by_proxy(self, key: str) -> _Search:
        scoring = self._scoring()
        ranking = self.scorer.order(scoring)
        if key not in ranking.proxies:
            raise ConfigError(f"proxy={key!r}: {did_you_mean(key, ranking.proxies)}")
        mode: Literal["max", "min"] = "max" if ranking.proxies[key].higher_is_better else "min"
        # from here on the proxy's score is what the study monitors
        self.options = replace(self.options, monitor=key, mode=mode)
        sampling = self._sampling(ranking)
        prepared = self._prepared(scoring)
        objective = ProxyObjective(sampling, prepared.scores, key)
        return _Search(objective, ranking, prepared, {}, {})

    def _fit(self, ranks: Ranks) -> TuningResult:
        prepared: list[_Prepared] = []
        shared = ranks.share(lambda: self._prepare(prepared))
        ranking = Ranking.from_dict(shared["ranking"])
        data = self.datamodule
        data.use_surrogate(shared["surrogate"])  # without a trainer, `setup` would draw it again
        data.setup("fit")
        try:
            objective = self._by_fits(ranks, ranking, prepared[0].scores if prepared else None)
            # from here on the name that the metric has in records and tables
            self.options = replace(self.options, monitor=objective.fits.monitor)
            if not ranks.is_zero:
                return self._follow(ranks, objective, ranking)
            stamp = {"validation": objective.fits.validation[:16], "model": self._model_stamp()}
            contents = _contents(objective.fits)
            return self._search(_Search(objective, ranking, prepared[0], stamp, contents), ranks)
        finally:
            data.teardown("fit")

    def _prepare(self, prepared: list[_Prepared]) -> _Shared:
        """Score and download on rank 0; return what the others need, as plain values.

        Raises:
            RecordError: The run store cannot be read: an error before hours of trials, not in them.
        """
        self.store.read()
        scoring = self._scoring()
        ranking = self.scorer.order(scoring)
        self._sampling(ranking)  # a wrong k_range is an error on every rank
        prepared.append(self._prepared(scoring))
        self.datamodule.prepare_data()
        return {"ranking": ranking.to_dict(), "surrogate": self.datamodule.draw_surrogate()}

    def _scoring(self) -> Scoring:
        return self.scorer.score(*self._pool())

    def _pool(self) -> tuple[list[Candidate], RealSample]:
        real = self.datamodule.real
        assert real is not None
        return self.datamodule.candidates, real

    def _prepared(self, scoring: Scoring) -> _Prepared:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        scores = MixtureScores(scoring, torch.device(self.scorer.device or device))
        optimal, messages = self._optimal(scoring)
        return _Prepared(scores, optimal, messages)

    def _sampling(self, ranking: Ranking) -> Sampling:
        decision = ranking.decision
        aside = {} if decision is None else decision.evidence.degenerate
        names = tuple(row.name for row in ranking.order() if row.name not in aside)
        space = MixtureSpace(names, self.options.k_range or (1, len(names)))
        return Sampling(space, self.options.hyper_parameters)

    def _optimal(self, scoring: Scoring) -> tuple[Mixture | None, list[str]]:
        """Return the MMD-optimal mixture, or why it does not exist."""
        batch_size = getattr(self.datamodule, "batch_size", None)
        batches = (self.max_steps or 0) * self.trainer_options.get("accumulate_grad_batches", 1)
        budget = batches * batch_size if batches and batch_size else None
        most = self.options.k_range[1] if self.options.k_range else len(scoring.candidates)
        try:
            return mmd_optimal_mixture(scoring, top_k=most, budget=budget), []
        except (ConfigError, ProxyError) as error:
            return None, [f"the MMD-optimal mixture is not among the starts: {error}"]

    def _by_fits(
        self, ranks: Ranks, ranking: Ranking, scores: MixtureScores | None
    ) -> FitObjective:
        assert self.max_steps is not None
        assert self.model_factory is not None
        trainer_options, n_validations = dict(self.trainer_options), self.options.n_validations
        if n_validations > 1:
            batches = self.max_steps * trainer_options.get("accumulate_grad_batches", 1)
            trainer_options["val_check_interval"] = max(1, batches // n_validations)
            trainer_options["check_val_every_n_epoch"] = None
        return FitObjective(
            sampling=self._sampling(ranking),
            fits=ShortFits(
                datamodule=self.datamodule,
                ranking=ranking,
                options=self.options,
                max_steps=self.max_steps,
                trainer_options=trainer_options,
                validation=validation_of(self.datamodule),
            ),
            model_factory=self.model_factory,
            ranks=ranks,
            store=self.store,
            scores=scores,
            is_reported=n_validations > 1,
        )

    def _model_stamp(self) -> str:
        """Describe the model that every trial starts from; hyper-parameters may change it."""
        if self.options.hyper_parameters is not None or self.model_factory is None:
            return "depends on hyper_parameters"
        with seeded(self.options.seed):
            module = self.model_factory()
        return f"{type(module).__qualname__} {weights_sha256(module)[:16]}"

    def _follow(self, ranks: Ranks, objective: FitObjective, ranking: Ranking) -> TuningResult:
        """Run the fits that rank 0 sends, until it sends the result."""
        from optuna import TrialPruned

        while True:
            # rank 0 is in `FitObjective.__call__` or at the end of `_search`
            message = ranks.share(_unreachable)
            if "result" in message:
                return TuningResult.from_dict(message["result"], ranking)
            if "untrained" in message:
                objective.untrained(message)
                continue
            try:
                objective.follow(message)
            except TrialPruned:
                continue

    def _search(self, search: _Search, ranks: Ranks | None) -> TuningResult:
        """Run trials until the study has enough of them; on rank 0."""
        options, stamp = self.options, self._stamp(search)
        name = options.study_name or f"{options.task or 'mixture'}-{content_sha256([stamp])[:8]}"
        location = options.storage
        if location is None:
            location = self.store.path.parent / "studies.sqlite"
        with named_storage(shown_storage(location)):
            storage = open_storage(location, options.heartbeat_s)
        space = search.objective.sampling.space
        with named_storage(shown_storage(location)):
            study, plan = open_study(
                storage,
                name,
                options.mode,
                stamp,
                partial(self._begin, search, storage, stamp, name),
                options.n_startup,
                search.contents,
            )
            check_trials(study)
        if plan.earlier:
            rank_zero_info(str(plan.earlier["sentence"]))
        study.sampler = study_sampler(options.sampler, plan, options.seed)
        study.pruner = study_pruner(options.pruner, self.max_steps or 1, options.n_validations)
        search.objective.sampling.plan = plan
        worker = Worker(
            study,
            plan,
            n_trials=options.n_trials,
            silence_s=MISSED_HEARTBEATS * options.heartbeat_s,
            has_heartbeats=heartbeat_of(storage) is not None,
        )
        objective, side_by_side = search.objective, None
        if options.is_side_by_side and isinstance(objective, FitObjective):
            side_by_side = objective
        with ProgressBar(desc="trials", unit="trial", disable=not self.progress) as bar:
            if side_by_side is not None:
                with opened_executor(options.executor) as executor:
                    run_side_by_side(
                        worker,
                        side_by_side,
                        n_workers=options.n_workers,
                        executor=executor if executor.is_remote else None,
                        heartbeat_s=options.heartbeat_s,
                        bar=bar,
                    )
            else:
                while worker.wait_for_work():
                    worker.try_one(search.objective)
                    bar.update()
        result = result_of(
            study,
            plan,
            options,
            storage=shown_storage(location),
            budget=self._budget(space),
            messages=[
                *([str(plan.earlier["sentence"])] if plan.earlier else []),
                *search.prepared.messages,
                *self._surrogate_messages(name, space),
                *([_NOT_PRUNED] if side_by_side and options.pruner != "none" else []),
            ],
            ranking=search.ranking,
        )
        if ranks is not None and isinstance(search.objective, FitObjective):
            result = _with_untrained(result, search.objective, ranks)
        if ranks is not None:
            finished: _Finished = {"result": result.to_dict()}
            ranks.share(lambda: finished)
        return result

    def _begin(
        self, search: _Search, storage: BaseStorage, stamp: JsonObject, study: str
    ) -> Beginning:
        """Return what a new study begins with: what proxies suggest, and what is known already."""
        objective, options = search.objective, self.options
        space = objective.sampling.space
        starts = starting_mixtures(search.ranking, space, search.prepared.optimal)
        if not options.reuse or not isinstance(objective, FitObjective):
            return Beginning({start: space.params(mixture) for start, mixture in starts.items()})
        reuse = Reuse(
            objective.fits,
            objective.model_factory,
            has_parameters=options.hyper_parameters is not None,
            store=self.store,
            space=space,
            contents=search.contents,
            mode=options.mode,
            study=study,
        )
        return reuse.beginning(storage, stamp, starts)

    def _surrogate_messages(self, study: str, space: MixtureSpace) -> list[str]:
        """Say what a surrogate validation set consists of, and how reliable it was here."""
        surrogate = self.datamodule.surrogate if self.options.proxy is None else None
        if surrogate is None:
            return []
        trials = [r for r in known_records(self.store, "trial") if r.details.get("study") == study]
        low, high = space.k_range
        sizes = [] if low == high else [_PREFERS_MANY]
        return [*surrogate.messages, *sizes, *reliability_messages(surrogate_reliability(trials))]

    def _stamp(self, search: _Search) -> JsonObject:
        """Return what must be equal for two trials to be compared, as plain values."""
        ranking, options = search.ranking, self.options
        of_a_proxy = "" if options.proxy is None else " of a proxy"
        return {
            "tuned for": f"{options.monitor} ({options.mode}){of_a_proxy}",
            "candidates": content_sha256(
                (r.name, r.sha256, *search.contents.get(r.name, ())) for r in ranking.order()
            )[:16],
            "real sample": ranking.real_sha256[:16],
            "k_range": list(search.objective.sampling.space.k_range),
            "max_steps": self.max_steps,
            "n_reports": options.n_validations,
            "seed": options.seed,
            "reuse": options.reuse,
            "task": options.task,
            "trainer_options": {key: str(value) for key, value in self.trainer_options.items()},
            **search.stamp,
        }

    def _budget(self, space: MixtureSpace) -> JsonObject:
        options = self.options
        sampler, pruner = options.sampler, options.pruner
        return {
            "max_steps": self.max_steps,
            "n_trials": options.n_trials,
            "n_startup": options.n_startup,
            "n_reports": options.n_validations,
            "k_range": list(space.k_range),
            "sampler": sampler if isinstance(sampler, str) else str(sampler),
            "pruner": pruner if isinstance(pruner, str) else type(pruner).__name__,
            "seed": options.seed,
        }


_NOT_PRUNED = "no trial was pruned, as trials in other processes do not report to the pruner"
_PREFERS_MANY = (
    "on a surrogate validation set, mixtures of many candidates look better than they are, as part "
    "of it is like their own training data: k_range=(3, 3) compares mixtures of one size"
)


def _with_untrained(result: TuningResult, objective: FitObjective, ranks: Ranks) -> TuningResult:
    """Measure the model of the best trial as it is; on rank 0."""
    plan: UntrainedPlan = {"untrained": dict(result.hyper_parameters)}
    record = objective.untrained(ranks.share(lambda: plan))
    if isinstance(record, str):
        return replace(result, messages=(*result.messages, record))
    figure = record.metrics[record.monitor]
    values = {
        str(t.number): t.value
        for t in result.trials
        if t.value is not None and t.state == "complete"
    }
    notes = untrained_notes(values, figure, result.metric, result.mode, unit="mixture")
    return replace(
        result,
        untrained=None if math.isnan(figure) else figure,
        messages=(*result.messages, *notes),
    )


def _contents(fits: ShortFits) -> dict[str, Content]:
    """Return the contents of the candidates as fits see them."""
    return {
        row.name: Content(row.sha256, fits.drawn_sha256(row.name))
        for row in fits.ranking.candidates
    }


def _unreachable() -> TrialPlan | UntrainedPlan | _Finished:
    raise AssertionError("rank 0 plans; the others follow")


@dataclass(frozen=True)
class _Search:
    """The objective with its search space, and the ranking that the starts come from."""

    objective: FitObjective | ProxyObjective
    ranking: Ranking
    prepared: _Prepared
    stamp: JsonObject
    contents: Mapping[str, Content]  # of the candidates; empty if nothing is trained
