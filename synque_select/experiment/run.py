"""Runs the arms of an experiment in paired replicates, and reports what is shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from statistics import fmean

import numpy as np

from synque_select.data.candidate import RealSample
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, NotSavedError, RecordError
from synque_select.execution import opened_executor
from synque_select.experiment.fits import Fit, FitStore, Outcome, PlannedFit
from synque_select.experiment.options import ExperimentOptions
from synque_select.experiment.policies import PolicyRun, policy_arm
from synque_select.experiment.result import experiment_result, probe_correlations
from synque_select.experiment.sampling import SamplingRun, sampling_arm
from synque_select.experiment.summary import summary, write_run
from synque_select.experiment.task import BaseTask, check_task
from synque_select.records.experiment_result import ExperimentResult
from synque_select.records.run_folder import make_folder, new_run_folder
from synque_select.records.store import RunStore
from synque_select.report.experiment_tables import arm_words
from synque_select.selection.scorer import Scorer
from synque_select.tuning.search import search_mixtures
from synque_select.tuning.space import MixtureSpace, starting_mixtures
from synque_select.tuning.studies import require_optuna
from synque_select.types import Mixture, Ranking, RunKind, RunRecord
from synque_select.utils.progress import ProgressBar
from synque_select.utils.wording import counted

__all__ = ["Experiment", "run_experiment"]

_SINGLE_ARMS = ("mean_single", "best_single", "best_single_by_validation", "oracle_k")


@dataclass(frozen=True)
class Experiment:
    """A finished experiment.

    Args:
        run_dir: Directory of its files and of `report.html`.
        result: The results, which are the content of `result.json`.
        rankings: One ranking per replicate.
    """

    run_dir: Path
    result: ExperimentResult
    rankings: tuple[Ranking, ...]

    def __str__(self) -> str:
        """Return the closing tables and the path of the page."""
        return f"{summary(self.result, self.rankings[0])}\n\nreport: {self.run_dir / 'report.html'}"


def run_experiment(task: BaseTask, options: ExperimentOptions | None = None) -> Experiment:
    """Run the arms of a task and write the files of the run.

    A replicate is a new real sample and a new training seed; all arms of a replicate share the
    initial weights and the budget. Fits that finished in this run or an earlier one are reused. The
    most important work comes first: the arms chosen, random, all and none of every replicate, with
    every candidate alone in the first replicate; then every candidate alone in the other
    replicates; then the other arms. Work that exceeds the time limit is skipped, and a message
    names it.

    Args:
        task: Candidates, real samples, model and budget.
        options: Options of the experiment; None for the defaults.

    Raises:
        ConfigError: An option does not fit the task.
        DataError: Examples of a real sample are also in validation or test, or a candidate is too
            small.
        NotSavedError: The run directory cannot be written; the error holds the `Experiment`.
    """
    options = ExperimentOptions() if options is None else options
    _check(task, options)
    started = time.monotonic()
    samples = [task.real_sample(replicate) for replicate in range(options.replicates)]
    check_task(task, samples)
    # created before hours of training, so that the results have a place to go
    run_dir = (
        new_run_folder(options.root, task.name, options.name)
        if options.run_dir is None
        else make_folder(options.run_dir)
    )
    scorer = _scorer(task, options)
    store = options.store if isinstance(options.store, RunStore) else RunStore(options.store)
    rankings = _rankings(task, scorer, samples)
    limit = math.inf if options.time_limit_s is None else options.time_limit_s
    with (
        opened_executor(options.executor) as executor,
        FitStore(task, store, options.n_workers, executor, cache_dir=options.cache_dir) as fits,
    ):
        run = _Run(task, options, fits, rankings, deadline=started + limit)
        run.check()
        run.all()
    result = experiment_result(
        task,
        run.rankings,
        run.outcomes,
        run.records,
        arms=options.arms,
        top_k=options.top_k,
        n_random=options.n_random,
        policies=[run.policy_run(policy, 0) for policy in options.policies],
        policy_start=options.policy_start,
        sampling=options.sampling,
        messages=[*_overlap(samples[: len(run.outcomes["chosen"])]), *run.messages],
        seconds=time.monotonic() - started,
    )
    probes = probe_correlations(task, run.records)
    experiment = Experiment(run_dir, result, tuple(run.rankings))
    try:
        write_run(run_dir, task, samples[0], run.rankings, result, probes, scorer)
    except RecordError as error:
        raise NotSavedError(str(error), experiment) from error
    return experiment


def _check(task: BaseTask, options: ExperimentOptions) -> None:
    n_candidates = len(task.candidates)
    if n_candidates < 2:
        (only,) = task.candidates
        raise ConfigError(f"one candidate ({only.where}): an experiment compares two or more")
    if options.top_k >= n_candidates:
        raise ConfigError(
            f"top_k={options.top_k}: allowed is 1 to {n_candidates - 1}, fewer than all candidates"
        )
    for sampling in options.sampling:
        SamplingRun(sampling, 0).check(task)
    if "tuned" in options.arms:
        require_optuna()  # fails now if it is missing, and not after all other fits


def _overlap(samples: Sequence[RealSample]) -> list[str]:
    """Say how much the real samples overlap: such replicates are not independent draws."""
    contents = [{row.tobytes() for row in sample.digests} for sample in samples]
    shares = [len(a & b) / min(len(a), len(b)) for a, b in combinations(contents, 2)]
    mean, n = fmean(shares), len(samples)
    if min(shares) == 1:
        return [
            f"all {counted(n, 'replicate')} have the same real sample: they differ by the "
            "training seed alone, and no interval over them covers another real sample"
        ]
    if mean == 0:
        return []
    return [
        f"two real samples share {100 * mean:.0f} % of their examples on average: "
        "intervals over replicates may be too narrow for entirely new samples"
    ]


def _rankings(task: BaseTask, scorer: Scorer, samples: Sequence[RealSample]) -> list[Ranking]:
    """Rank by each real sample, with one encoder for all."""
    job = scorer.prepare(task.candidates, samples[0])
    is_named = not isinstance(scorer.encoder, BaseEncoder)
    # an executor makes encoders of its own from the name
    encoder = None
    if is_named and job.needs_embeddings and scorer.executor is None:
        encoder = job.encoder()
        scorer = replace(scorer, encoder=encoder)
    try:
        return [
            replace(scorer, seed=replicate).rank(task.candidates, sample)
            for replicate, sample in enumerate(samples)
        ]
    finally:
        if encoder is not None:
            encoder.close()


def _scorer(task: BaseTask, options: ExperimentOptions) -> Scorer:
    return Scorer(
        task.proxies,
        options.rank_by,
        options.top_k,
        encoder=task.encoder,
        device=options.device,
        cache_dir=options.cache_dir,
        executor=options.executor,
        progress=options.progress,
        keep_models=True,
    )


@dataclass(frozen=True)
class _ArmFit:
    """A planned fit, and the arm and the replicate that its outcome counts for."""

    arm: str
    replicate: int
    planned: PlannedFit


@dataclass(frozen=True)
class _Step:
    """Some fits that run together or not at all.

    Args:
        what: What they are, for messages.
        replicate: The replicate.
        n_optimizer_steps: Optimizer steps of all fits, with those that follow from them.
        fits: Returns the fits.
        needs: An arm whose outcomes must be known before; None for none.
        is_alone: Whether `fits` runs fits itself, while no others run.
        is_needed: Whether the fits run even if the time is over.
    """

    what: str
    replicate: int
    n_optimizer_steps: int
    fits: Callable[[], Sequence[_ArmFit]]
    needs: str | None = None
    is_alone: bool = False
    is_needed: bool = False

    @property
    def title(self) -> str:
        return f"{self.what}, replicate {self.replicate + 1}"


def _by_what(steps: Sequence[_Step]) -> str:
    """Name steps with their replicates, each kind once."""
    numbers: dict[str, list[str]] = {}
    for step in steps:
        of = numbers.setdefault(step.what, [])
        of += [number] if (number := str(step.replicate + 1)) not in of else []
    return "; ".join(
        f"{what}, replicate{'s' * (len(of) > 1)} {', '.join(of)}" for what, of in numbers.items()
    )


@dataclass
class _Run:
    """The state of an experiment: arm -> replicate -> outcomes."""

    task: BaseTask
    options: ExperimentOptions
    fits: FitStore
    rankings: Sequence[Ranking]
    deadline: float
    outcomes: dict[str, dict[int, list[Outcome]]] = field(default_factory=dict)
    records: list[RunRecord] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    trained_s: float = 0.0
    trained_steps: int = 0
    owed_steps: int = 0
    bar: ProgressBar = field(default_factory=lambda: ProgressBar(disable=True))

    def check(self) -> None:
        """Refuse policies that would end the experiment with an error after hours of training."""
        for replicate, policy in product(range(len(self.rankings)), self.options.policies):
            for one in self._reselected(replicate, policy):
                self.fits.check_held_out(one.planned.fit)

    def all(self) -> None:
        """Run every step that the time allows, the most important first."""
        steps = list(self._steps())
        waiting = list(steps)
        total = sum(step.n_optimizer_steps for step in steps)
        with ProgressBar(
            total=total, unit="step", disable=not self.options.progress, delay=2
        ) as self.bar:
            while waiting and self._may_begin(waiting[0]):
                self._run_batch(waiting)
        outcomes = [
            outcome
            for by_replicate in self.outcomes.values()
            for fits in by_replicate.values()
            for outcome in fits
        ]
        n_reused = sum(outcome.reused for outcome in outcomes)
        if n_reused:
            self.messages.append(
                f"{n_reused} of {counted(len(outcomes), 'fit')} had finished before: they are "
                "taken from the store, with the seconds that they took then"
            )
        if waiting:
            self.messages.append(f"left out, as the time did not allow it: {_by_what(waiting)}")

    def _may_begin(self, step: _Step) -> bool:
        if step.is_needed or not self.trained_steps:
            return True
        left = self.owed_steps + step.n_optimizer_steps
        rate = self.trained_s / self.trained_steps / self.options.n_workers
        return time.monotonic() + left * rate < self.deadline

    def _run_batch(self, waiting: list[_Step]) -> None:
        """Run the next steps, up to one that needs the outcomes of these or has no time."""
        begun: list[_ArmFit] = []

        def planned() -> Iterator[PlannedFit]:
            while waiting and self._may_begin(waiting[0]):
                step = waiting[0]
                if any(one.arm == step.needs for one in begun) or (step.is_alone and begun):
                    return
                waiting.pop(0)
                self.owed_steps += step.n_optimizer_steps
                self.bar.set_description(f"training, {step.title}")
                for one in step.fits():
                    begun.append(one)
                    yield one.planned

        outcomes = {id(one): outcome for one, outcome in self._watched(planned())}
        # in the order of the plan, whichever fit was the first to finish
        for one in begun:
            self._collect(one, outcomes[id(one.planned)])

    def _watched(self, planned: Iterable[PlannedFit]) -> Iterator[tuple[PlannedFit, Outcome]]:
        for one, outcome in self.fits.run_all(planned):
            n_steps = one.fit.max_steps
            if n_steps and not outcome.reused:
                self.trained_s += outcome.seconds
                self.trained_steps += n_steps
            self.owed_steps -= n_steps
            self.bar.update(n_steps)
            yield one, outcome

    def _collect(self, one: _ArmFit, outcome: Outcome) -> None:
        if outcome.error is not None:
            message = (
                f"the arm {one.arm} is left out, as the model cannot be measured before a fit: "
                f"{outcome.error}"
            )
            self.messages += [message] if message not in self.messages else []
            return
        fit, kind = one.planned.fit, one.planned.kind
        self.records += [
            self.fits.record(fit, kind, ranking, outcome) for ranking in one.planned.rankings
        ]
        self.outcomes.setdefault(one.arm, {}).setdefault(one.replicate, []).append(outcome)

    def _steps(self) -> Iterable[_Step]:
        cost, n = self.task.max_steps, len(self.task.candidates)
        arms, replicates = self.options.arms, range(len(self.rankings))
        n_mixed = sum(arm in arms for arm in ("chosen", "random_k", "all"))
        n_mixed += (self.options.n_random - 1) * ("random_k" in arms)
        singles = replicates[: self.options.single_replicates]
        for r in replicates:
            yield _Step("mixtures", r, n_mixed * cost, partial(self._mixtures, r), is_needed=r < 2)
            if "none" in arms:
                untrained = partial(self._untrained, r)
                yield _Step(arm_words("none"), r, 0, untrained, is_needed=r < 2)
            if r == 0:
                yield _Step("singles", r, n * cost, partial(self._singles, r), is_needed=True)
        for r, policy in product(replicates, self.options.policies):
            fit = partial(self._reselected, r, policy)
            yield _Step(arm_words(policy_arm(policy)), r, cost, fit)
        for r, sampling in product(replicates, self.options.sampling):
            fit = partial(self._sampled, r, sampling)
            yield _Step(arm_words(sampling_arm(sampling)), r, cost, fit)
        if any(arm in arms for arm in _SINGLE_ARMS):
            for r in singles[1:]:
                yield _Step("singles", r, n * cost, partial(self._singles, r))
        if "oracle_k" in arms:
            for r in singles:
                yield _Step(
                    arm_words("oracle_k"), r, cost, partial(self._oracle, r), needs="single"
                )
        if "probed_k" in arms:
            for r in replicates:
                what, price = arm_words("probed_k"), n * self._short_steps() + cost
                yield _Step(what, r, price, partial(self._short_probes, r))
                best = partial(self._probed, r)
                yield _Step(what, r, 0, best, needs="short", is_needed=True)
        if "tuned" in arms:
            for r in replicates:
                yield _Step(arm_words("tuned"), r, cost, partial(self._tuned, r), is_alone=True)
        if "all_unequal" in arms:
            for r in replicates:
                yield _Step(arm_words("all_unequal"), r, cost, partial(self._unequal, r))

    def _fit(
        self,
        arm: str,
        replicate: int,
        mixture: Mixture,
        *,
        kind: RunKind = "mixture",
        max_steps: int | None = None,
        equal_size: bool = True,
        rankings: Sequence[Ranking] | None = None,
        policy: PolicyRun | None = None,
        sampling: SamplingRun | None = None,
    ) -> _ArmFit:
        fit = Fit(
            mixture,
            seed=replicate,
            max_steps=self.task.max_steps if max_steps is None else max_steps,
            n_distinct=self.task.n_distinct if equal_size else None,
            policy=policy,
            sampling=sampling,
        )
        rankings = [self.rankings[replicate]] if rankings is None else rankings
        return _ArmFit(arm, replicate, PlannedFit(fit, kind, rankings))

    def policy_run(self, policy: str, replicate: int) -> PolicyRun:
        """Return how a policy changes the mixture in a replicate."""
        every, budget = self.options.every_n_steps, self.options.policy_budget
        return PolicyRun.of(policy, self.task, replicate, every, budget)

    def _reselected(self, replicate: int, policy: str) -> Sequence[_ArmFit]:
        start = self._start(self.options.policy_start, replicate)
        run = self.policy_run(policy, replicate)
        return [self._fit(policy_arm(policy), replicate, start, policy=run)]

    def _sampled(self, replicate: int, sampling: str) -> Sequence[_ArmFit]:
        start = self._start(self.options.policy_start, replicate)
        run = SamplingRun(sampling, replicate)
        return [self._fit(sampling_arm(sampling), replicate, start, sampling=run)]

    def _start(self, arm: str, replicate: int) -> Mixture:
        if arm == "chosen":
            return self.rankings[replicate].top(self.options.top_k)
        return Mixture.equal([candidate.name for candidate in self.task.candidates], "all, equal")

    def _mixtures(self, replicate: int) -> Sequence[_ArmFit]:
        names = [candidate.name for candidate in self.task.candidates]
        fits = []
        if "chosen" in self.options.arms:
            fits.append(self._fit("chosen", replicate, self._start("chosen", replicate)))
        if "random_k" in self.options.arms:
            rng = np.random.default_rng([replicate, self.options.top_k])
            for _ in range(self.options.n_random):
                drawn = sorted(rng.choice(len(names), self.options.top_k, replace=False))
                mixture = Mixture.equal([names[i] for i in drawn], f"random {self.options.top_k}")
                fits.append(self._fit("random_k", replicate, mixture))
        if "all" in self.options.arms:
            fits.append(self._fit("all", replicate, self._start("all", replicate)))
        return fits

    def _untrained(self, replicate: int) -> Sequence[_ArmFit]:
        """Measure the model as it is; a model that needs a fit first has no such arm."""
        names = [candidate.name for candidate in self.task.candidates]
        mixture = Mixture.equal(names, "none, untrained")
        return [self._fit("none", replicate, mixture, max_steps=0, equal_size=False)]

    def _singles(self, replicate: int) -> Sequence[_ArmFit]:
        # the figure of a candidate alone does not depend on the real sample: it counts under each
        return [
            self._fit(
                "single",
                replicate,
                Mixture.equal([candidate.name], "single"),
                kind="probe",
                rankings=self.rankings,
            )
            for candidate in self.task.candidates
        ]

    def _oracle(self, replicate: int) -> Sequence[_ArmFit]:
        singles = self.outcomes["single"].get(replicate)
        if singles is None:
            return []
        best = self._best_by_validation(singles, self.options.top_k)
        mixture = Mixture.equal(best, f"top {self.options.top_k} by validation")
        return [self._fit("oracle_k", replicate, mixture)]

    def _short_probes(self, replicate: int) -> Sequence[_ArmFit]:
        """Train on each candidate so shortly that all of these fits together cost one fit."""
        return [
            self._fit(
                "short",
                replicate,
                Mixture.equal([candidate.name], "short probe"),
                kind="probe",
                max_steps=self._short_steps(),
            )
            for candidate in self.task.candidates
        ]

    def _probed(self, replicate: int) -> Sequence[_ArmFit]:
        best = self._best_by_validation(self.outcomes["short"][replicate], self.options.top_k)
        mixture = Mixture.equal(best, f"top {self.options.top_k} by short probes")
        return [self._fit("probed_k", replicate, mixture)]

    def _tuned(self, replicate: int) -> Sequence[_ArmFit]:
        """Search for a mixture with half of the steps of a fit, train it with the other half."""
        half = self.task.max_steps // 2
        n_trials = max(1, min(self.options.n_tuned, half))
        short, ranking = max(1, half // n_trials), self.rankings[replicate]
        space = MixtureSpace(tuple(row.name for row in ranking.order()), (1, len(ranking)))

        def value(mixture: Mixture) -> float:
            one = self._fit("trial", replicate, mixture, kind="trial", max_steps=short)
            ((_, outcome),) = self._watched([one.planned])
            self._collect(one, outcome)
            return outcome.metrics[f"val_{self.task.metric}"]

        trials = search_mixtures(
            value,
            space,
            n_trials=n_trials,
            mode=self.task.mode,
            starts=starting_mixtures(ranking, space),
            seed=replicate,
        )
        choose = max if self.task.mode == "max" else min
        best, _ = choose(trials, key=lambda trial: trial[1])
        rest = max(1, self.task.max_steps - n_trials * short)
        return [self._fit("tuned", replicate, best, max_steps=rest)]

    def _short_steps(self) -> int:
        return max(1, self.task.max_steps // len(self.task.candidates))

    def _unequal(self, replicate: int) -> Sequence[_ArmFit]:
        sizes = {candidate.name: len(candidate) for candidate in self.task.candidates}
        total = sum(sizes.values())
        mixture = Mixture({name: n / total for name, n in sizes.items()}, "all, unequal size")
        return [self._fit("all_unequal", replicate, mixture, equal_size=False)]

    def _best_by_validation(self, outcomes: Sequence[Outcome], k: int) -> list[str]:
        sign = -1 if self.task.mode == "max" else 1
        name = f"val_{self.task.metric}"
        order = sorted(range(len(outcomes)), key=lambda i: sign * outcomes[i].metrics[name])
        return [self.task.candidates[i].name for i in order[:k]]
