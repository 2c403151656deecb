"""Scoring and ranking: the only code path from candidates and a real sample to a ranking."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypedDict, Unpack, cast

import torch

from synque_select.data.answers import QuestionSheet, read_questions
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.families import FamilySpec, no_other_family
from synque_select.data.groups import GroupSelector, label_error
from synque_select.data.label_sets import LabelKind, label_kind, labeled_positions
from synque_select.data.sources import load_candidates, load_real
from synque_select.data.view_messages import view_messages
from synque_select.data.views import Selector
from synque_select.encoders import BaseEncoder, embed, get_encoder
from synque_select.errors import ConfigError, DataError, ProxyError, RecordError
from synque_select.execution import ExecutorSpec, get_executor, opened_executor
from synque_select.proxies.base import BaseProxy
from synque_select.proxies.registry import ProxySpec, default_suite, resolve_suite
from synque_select.records.dropped_labels_file import (
    DROPPED_LABELS,
    load_dropped_labels,
    save_dropped_labels,
)
from synque_select.records.findings_file import load_findings, save_findings
from synque_select.records.run_info import info_of_call
from synque_select.selection.ask import ANSWERS, AnswerReport, assess, check_answers, panel_of
from synque_select.selection.default_order import NOT_BY_TRANSFER
from synque_select.selection.degenerate import Degenerate, split_degenerate
from synque_select.selection.findings import (
    as_argument,
    check_embeds,
    check_sample_sizes,
    find_gaps,
    scoring_findings,
)
from synque_select.selection.label_filter import (
    LabelFilterChoice,
    camps_of,
    check_filter_data,
    check_label_filter,
    filter_selected,
    offer,
)
from synque_select.selection.labels import check_labeled, check_scored_labels, uncheckable_labels
from synque_select.selection.mixture import MixtureChoice, MixtureOptions, mixture_scores
from synque_select.selection.mixture_sample import mixture_candidate
from synque_select.selection.origin import origin_of
from synque_select.selection.proxy_scores import usable_device
from synque_select.selection.ranking import check_rank_by, ranking_from, with_origins
from synque_select.selection.ranking_cache import (
    keep_ranking,
    load_kept_ranking,
    ranking_path,
)
from synque_select.selection.sample_size import sample_size_analysis
from synque_select.selection.score_cache import ScoreCache, is_kept, is_packaged
from synque_select.selection.scoring import Scoring, data_key, labels_key, score, score_mixture
from synque_select.types import (
    DroppedLabel,
    Findings,
    LabelCheck,
    LabelChecks,
    Mixture,
    Ranking,
    RankOrigin,
    SampleSizeAnalysis,
)
from synque_select.utils.cache_dir import cache_root
from synque_select.utils.device import max_device_memory
from synque_select.utils.json_types import Json
from synque_select.utils.process_state import free_device_memory, preserved_state
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

__all__ = ["Scorer", "ScoringJob", "rank"]

_log = logging.getLogger(__name__)

# kinds of labels with which the default suite has the columns that read labels
_JUDGED_KINDS = ("classes", "lists")


class ComputeOptions(TypedDict, total=False):
    """Where, how and with which answers a ranking is computed; see `Scorer`."""

    answers: str | Path | None
    seed: int
    device: str | torch.device | None
    cache_dir: str | Path | None
    progress: bool
    executor: ExecutorSpec
    max_device_memory: int | None


class RankOptions(ComputeOptions, total=False):
    """The options of `rank` that are not arguments: how data is read and scored, what is found.

    `real_view` is the view of the real sample, by default that of the candidates; `split` the split
    of datasets that have several, by default "train", and `real_split` that of the real sample; the
    others are those of `synque-select rank`.
    """

    real_view: Selector | None
    split: str | None
    real_split: str | None
    reservoir: int | None
    gaps: bool
    sample_size_analysis: bool
    label_filter: LabelFilterChoice
    relabel: bool


def rank(
    candidates: object,
    real: object,
    *,
    view: Selector | None = None,
    label: Selector | None = None,
    family: FamilySpec | None = None,
    encoder: str | BaseEncoder | None = None,
    proxies: Sequence[ProxySpec] | None = None,
    rank_by: str | None = None,
    top_k: int | None = None,
    mixture: MixtureChoice = "equal",
    real_groups: GroupSelector | None = None,
    **options: Unpack[RankOptions],
) -> Ranking:
    """Rank candidates against a small unlabeled real sample.

    Args:
        candidates: Candidates, or anything that `load_candidates` takes (a glob, a folder, a
            mapping from names to datasets).
        real: The real sample, or anything that `load_real` takes; its labels are never read.
        view: What the proxies see: a field name, a position, a function of an example, or a text
            such as "chat:user"; see `load_candidates`.
        label: The candidates' labels: a field name, a position, or a function of an example. With
            labels that are classes, the default suite also has the columns `transfer` and
            `agreement`. A label of the real sample is never read.
        family: Which candidates come from the same generator and so do not judge each other's
            labels; see `load_candidates`.
        encoder: A model id or an encoder; None for the default of the modality.
        proxies: Keys, instances, or mappings with "key" and options; None for the default suite.
        rank_by: A proxy's key or "consensus"; None for the only proxy given, else for `transfer`
            where the candidates' labels can judge each other (at least 3 families, labels that
            are one class per example, enough examples like the real ones, and no two camps that
            contradict each other), else for the consensus. A message says why not `transfer`.
        top_k: Number of candidates to select, at most all; None for what is
            recommended: all candidates, minus each that is shown worse than at least half of the
            others. Copies of the real sample are never selected.
        mixture: How the selected candidates are weighted: "equal", "proportional", "mmd_optimal",
            or `synque_select.selection.MixtureOptions`.
        real_groups: What real examples share that do not vary independently, such as a thread,
            author, session or page; see `load_real`. None groups exact and near duplicates.
        **options: `real_view`, the view of the real sample if it has another one; `split` of
            datasets that have several, by default "train", and `real_split` for the real sample
            alone; `reservoir`, the number of examples that are drawn at random from each larger
            candidate, for proxies to score (None for all), see `load_candidates`; `gaps`, whether
            to look for real examples that no candidate covers, and `sample_size_analysis`, whether
            more real examples would change the selection, both in `ranking.findings`;
            `label_filter` ("off",
            "auto" or a share of votes) and `relabel`, see `Scorer`; `answers`, a file of
            `synque-select ask` with labels of real examples, the only ones that are ever read;
            `seed` (default 0) for everything that is drawn; `device` for encoding and scoring, None
            for a GPU if there is one; `cache_dir` of embeddings and scores, None for the default
            cache; `progress` (default True), whether to show progress of anything that takes more
            than two seconds; `executor`, where to encode and score, such as "local:devices=0,1" or
            "ray://HOST:PORT", and `max_device_memory`, both in `Scorer`.

    Returns:
        The ranking, with the label checks in its `findings`. `print` and a notebook show it,
        `to_frame` and `plot` give its figures, `top` the mixture to train on.

    Raises:
        TypeError: An argument is unknown.
        ConfigError: An argument is not allowed; the message says what is.
        DataError: Data cannot be used; the message names the file, line or field.
        EncoderError: The encoder cannot be loaded, or returned embeddings that are not finite.
        ProxyError: A proxy cannot score this modality.

    Source:
        SynQuE, arXiv 2511.03928, for the task. The consensus and its uncertainty are not in the
        paper.

    Example:
        >>> real = [{"text": t} for t in ("how many apps", "list all users", "which app is free")]
        >>> near = [{"text": t} for t in ("how many users", "list all free apps", "which is new")]
        >>> far = [{"text": t} for t in ("qx zz", "vv kk", "zz vv")]
        >>> ranking = rank(
        ...     {"near": near, "far": far}, real, proxies=["ngram"], top_k=1, progress=False
        ... )
        >>> ranking.top().names
        ('near',)
    """
    for name in options.keys() - RankOptions.__annotations__.keys():
        raise TypeError(f"rank() got an unexpected keyword argument {name!r}")
    given: dict[str, object] = {
        "view": view,
        "label": label,
        "family": family,
        "encoder": encoder,
        "proxies": proxies,
        "rank_by": rank_by,
        "top_k": top_k,
        "mixture": None if mixture == "equal" else mixture,
        "real_groups": real_groups,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    call = info_of_call("rank", {"candidates": candidates, "real": real}, **asked, **options)
    real_view, split = options.pop("real_view", None), options.pop("split", None)
    real_split, reservoir = options.pop("real_split", None), options.pop("reservoir", None)
    gaps = options.pop("gaps", False)
    sample_sizes = options.pop("sample_size_analysis", False)
    scorer = Scorer(
        proxies=proxies,
        rank_by=rank_by,
        top_k=top_k,
        encoder=encoder,
        mixture=mixture,
        keep_models=True,
        **cast("ComputeOptions", options),
    )
    loaded = load_candidates(
        candidates,
        view=view,
        label=label,
        family=family,
        split=split,
        reservoir=reservoir,
        seed=scorer.seed,
    )
    sample_view = view if real_view is None else real_view
    sample = load_real(
        real, view=sample_view, real_groups=real_groups, split=split, real_split=real_split
    )
    read_with: Mapping[str, Json] = {"family": family, "reservoir": reservoir}
    ranking = scorer.prepare(loaded, sample, read_with).ranking_with_findings(
        gaps=gaps, sample_size_analysis=sample_sizes
    )
    return replace(ranking, made_by=call)


@dataclass(frozen=True)
class Scorer:
    """Scores, orders and mixes candidates; the library creates every ranking with a `Scorer`.

    Args:
        proxies: As for `rank`.
        rank_by: As for `rank`.
        top_k: Number of candidates to select; None for what is recommended, as for `rank`.
        encoder: A model id or an encoder; None for the default of the modality.
        seed: Random seed for everything that is drawn.
        device: Device for encoding and scoring; None for a GPU if there is one.
        cache_dir: Directory of cached embeddings, scores and rankings; None for the default cache.
        mixture: How the selected candidates are weighted.
        n_resamples: Number of bootstrap resamples of the real sample for the intervals.
        progress: Whether to show progress of anything that takes more than two seconds.
        keep_models: Whether encoders and proxies that were given as instances stay loaded after
            scoring. By default they are closed, to free memory for training.
        label_filter: Whether `cached_selection` drops examples of the selected candidates whose
            label the classifiers of the others contradict: "off", "auto" (if these can judge), or
            the share of their votes that must contradict a label.
        relabel: Whether these examples get the label with the most votes instead.
        answers: A file of `synque-select ask` with labels of real examples: candidates that it
            shows to be worse are not recommended, and it decides between two camps.
        executor: Where to encode and score what is not in the cache: "local" or None for this
            process, "local:devices=0,1" for one process per GPU, "ray" or "ray://HOST:PORT" for a
            Ray cluster; see `synque_select.execution.get_executor`. The ranking is the same.
        max_device_memory: Bytes that a batch of scoring may take on a GPU, beside the real
            sample and the scores; None for half of what is free. Where they do not suffice for one
            candidate, its proxy is computed on the CPU. They bound scoring in this process, not
            encoding. The ranking is the same up to the rounding of floats.
        notify: Called with sentences for the user, such as which scores came from the cache.

    Raises:
        ConfigError: top_k, seed, n_resamples, mixture or label_filter is not allowed.

    Example:
        >>> real = RealSample("real", ["how many apps", "list all users", "which app is free"])
        >>> near = Candidate("near", ["how many users", "list all free apps", "which is new"])
        >>> far = Candidate("far", ["qx zz", "vv kk", "zz vv"])
        >>> Scorer(["ngram"], top_k=1, progress=False).rank([near, far], real).top().names
        ('near',)
    """

    proxies: Sequence[ProxySpec] | None = None
    rank_by: str | None = None
    top_k: int | None = None
    encoder: str | BaseEncoder | None = None
    seed: int = 0
    device: str | torch.device | None = None
    cache_dir: str | Path | None = None
    mixture: MixtureChoice = "equal"
    n_resamples: int = 2000
    progress: bool = True
    keep_models: bool = False
    label_filter: LabelFilterChoice = "off"
    relabel: bool = False
    answers: str | Path | None = None
    executor: ExecutorSpec = field(default=None, compare=False)
    max_device_memory: int | None = field(default=None, compare=False)
    notify: Callable[[str], None] = field(default=_log.info, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.top_k is not None:
            check_int("top_k", self.top_k, 1)
        check_int("n_resamples", self.n_resamples, 100)
        check_int("seed", self.seed, 0)
        MixtureOptions.of(self.mixture)
        with max_device_memory(self.max_device_memory):  # it checks the number
            pass
        get_executor(self.executor)  # a wrong name is an error before anything is read
        object.__setattr__(self, "label_filter", check_label_filter(self.label_filter))

    @classmethod
    def like(
        cls,
        ranking: Ranking,
        *,
        device: str | torch.device | None = None,
        cache_dir: str | Path | None = None,
    ) -> Scorer:
        """Return the scorer that a given ranking describes."""
        return cls(
            [
                {"key": key, **info.options}
                for key, info in ranking.proxies.items()
                if key != ANSWERS
            ],
            ranking.rank_by,
            ranking.top_k,
            encoder=None if ranking.encoder is None else ranking.encoder.id,
            seed=ranking.seed,
            device=device,
            cache_dir=cache_dir,
        )

    def on_executor(self, executor: ExecutorSpec) -> Scorer:
        """Return the scorer with this executor, unless it has one or none is given."""
        is_set = executor is None or self.executor is not None
        return self if is_set else replace(self, executor=executor)

    def prepare(
        self,
        candidates: Sequence[Candidate],
        real: RealSample,
        read_with: Mapping[str, Json] | None = None,
    ) -> ScoringJob:
        """Resolve the suite and check everything that can be checked before anything is scored.

        Args:
            candidates: The candidates.
            real: The real sample.
            read_with: Options of `rank` that neither they nor the scorer have, such as "family",
                for the ranking's `origin`.

        Raises:
            ConfigError: There are fewer than 2 candidates, the device cannot be used, a proxy is
                unknown or needs labels that are not there, or the candidates cannot be ordered by
                `rank_by`.
            DataError: Candidates and real sample are of different modalities, or an example of
                the real sample has no group.
            ProxyError: A proxy cannot score this modality.
        """
        _check_data(candidates, real)
        if self.device is not None:  # a wrong one is an error even if everything is in the cache
            usable_device(self.device)
        given, (candidates, degenerate) = candidates, split_degenerate(candidates)
        suite = resolve_suite(_with_label_proxies(self.proxies, candidates, real), real.modality)
        _check_labels_given(suite, candidates)
        check_rank_by(self.rank_by, suite)
        sheet = None if self.answers is None else read_questions(Path(self.answers))
        origin = origin_of(self, real, read_with or {})
        job = ScoringJob(self, candidates, real, suite, sheet, given, degenerate, origin)
        if sheet is not None:
            embedded = job.needs_embeddings
            check_answers(sheet, candidates, real, str(self.answers), needs_embeddings=embedded)
        check_filter_data(self.label_filter, candidates, needs_embeddings=job.needs_embeddings)
        return job

    def score(self, candidates: Sequence[Candidate], real: RealSample) -> Scoring:
        """Score with every proxy; embeddings and the scores of packaged proxies may be cached."""
        return self.prepare(candidates, real).score()

    def order(
        self,
        scoring: Scoring,
        labels: Sequence[LabelCheck] = (),
        camps: Sequence[str] = (),
        answers: AnswerReport | None = None,
    ) -> Ranking:
        """Order the scored candidates and decide on the mixture.

        Args:
            scoring: The result of `score`.
            labels: The label checks of the candidates; a candidate whose labels stand out is named
                first.
            camps: What `Camps.messages` says of the candidates; empty without two camps.
            answers: What `ScoringJob.answer_report` says of them.
        """
        return ranking_from(
            scoring,
            rank_by=self.rank_by,
            top_k=self.top_k,
            n_resamples=self.n_resamples,
            mixture=self.mixture,
            labels=labels,
            camps=camps,
            answers=answers,
        )

    def rank(self, candidates: Sequence[Candidate], real: RealSample) -> Ranking:
        """Score, check labels that are classes (a message says why not), and order.

        The label checks are in the ranking's `findings`.
        """
        return self.prepare(candidates, real).rank()

    def cached_ranking(self, candidates: Sequence[Candidate], real: RealSample) -> Ranking:
        """Return the cached ranking of exactly this content and these options, or compute it.

        A cached ranking needs no model and no scoring. It is stored in the cache directory as
        `rankings/<hash>.json`.
        """
        return self.prepare(candidates, real).cached_ranking()

    def cached_selection(
        self, candidates: Sequence[Candidate], real: RealSample
    ) -> tuple[Ranking, Path]:
        """Return the ranking, and the folder with the other findings of scoring.

        The findings are the gaps, the sample-size analysis and, if all candidates have labels that
        are classes, the label checks. The ranking's messages include the warnings of the label
        checks.
        """
        return self.prepare(candidates, real).cached_selection()

    def mixture_scores(
        self, name: str, candidates: Sequence[Candidate], real: RealSample, mixture: Mixture
    ) -> dict[str, float]:
        """Score a mixture by every proxy of the suite, from the candidates' scores if possible.

        Proxies that cannot do this score a seeded sample of the mixture together with the
        candidates. The sample is as large as the weights allow without repeating an example.

        Args:
            name: Name of that sample.
            candidates: The candidates.
            real: The real sample.
            mixture: The mixture to score.

        Returns:
            Proxy key to score.
        """
        return self.prepare(candidates, real).mixture_scores(name, mixture)

    def embeddings(
        self, candidates: Sequence[Candidate], real: RealSample
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]] | None:
        """Return the embeddings of the real sample and of each candidate, from the cache.

        Returns:
            (n, d), and a mapping from name to (N, d); None if no proxy of the suite uses
            embeddings.
        """
        return self.prepare(candidates, real).embeddings()


@dataclass(frozen=True)
class ScoringJob:
    """Input that `Scorer.prepare` has checked; the methods do not check it again.

    Args:
        scorer: The scorer.
        candidates: The candidates that are compared.
        real: The real sample.
        suite: The proxies.
        sheet: Questions with answers; None without.
        given: All candidates, in the order in which they were given.
        degenerate: Those that are not compared, see `split_degenerate`.
        origin: Where and how the ranking is made.
    """

    scorer: Scorer
    candidates: Sequence[Candidate]
    real: RealSample
    suite: tuple[BaseProxy, ...]
    sheet: QuestionSheet | None = None
    given: Sequence[Candidate] = ()
    degenerate: tuple[Degenerate, ...] = ()
    origin: RankOrigin = field(default_factory=RankOrigin)

    @property
    def needs_embeddings(self) -> bool:
        """Whether a proxy of the suite uses embeddings."""
        return any(proxy.needs_embeddings for proxy in self.suite)

    @property
    def _reads_labels(self) -> bool:
        return any(proxy.needs_labels for proxy in self.suite)

    def score(self) -> Scoring:
        """See `Scorer.score`."""
        scorer = self.scorer
        bound = max_device_memory(scorer.max_device_memory)
        with bound, opened_executor(scorer.executor) as executor:
            scoring = score(
                self.candidates,
                self.real,
                self.suite,
                encoder=scorer.encoder,
                seed=scorer.seed,
                device=scorer.device,
                cache_dir=scorer.cache_dir,
                progress=scorer.progress,
                executor=executor,
            )
        if scoring.reused:
            scorer.notify(
                f"scores of {len(scoring.reused)} of "
                f"{counted(len(self.suite), 'proxy', 'proxies')} are taken from the "
                f"cache: {', '.join(scoring.reused)}"
            )
        if not scorer.keep_models:
            self._close_models()
        nobody = _only_one_family(self.candidates) if scorer.proxies is None else None
        if nobody is not None and scorer.rank_by is None:
            message = f"{NOT_BY_TRANSFER}: {nobody}."
            scoring = replace(scoring, messages=(*scoring.messages, message))
        if not self.degenerate:
            return scoring
        given = tuple(candidate.name for candidate in self.given)
        return replace(scoring, degenerate=self.degenerate, given=given)

    def _close_models(self) -> None:
        if isinstance(self.scorer.encoder, BaseEncoder):  # `score` closes what it made itself
            self.scorer.encoder.close()
        for proxy in self.suite:
            proxy.close()
        free_device_memory()

    @cached_property
    def unchecked(self) -> str | None:
        """A sentence on why the labels are not checked; empty without labels, None if they are."""
        if all(candidate.label is None for candidate in self.candidates):
            return ""
        reason = None
        if not self.needs_embeddings:
            reason = "the label checks need a proxy that uses embeddings, such as pad"
        else:
            try:
                uncheckable_labels(self.candidates)
            except ConfigError as error:
                reason = str(error)
        return None if reason is None else f"The labels were not checked: {reason}."

    @property
    def _left_out(self) -> str | None:
        """Say which columns the default suite leaves out, as not all labels are classes."""
        if self.unchecked == "" or self.scorer.proxies is not None or self._reads_labels:
            return None
        if self.unchecked is None and _have_classes(self.candidates):
            return None  # all labels are checked: another message says why nothing can judge them
        plain, labeled = (
            default_suite(self.real.modality, labels=with_) for with_ in (False, True)
        )
        left_out = " and ".join(key for key in labeled if key not in plain)
        if self.unchecked is None:
            return f"{left_out} are left out: they need labels of all candidates."
        if _kind_of(self.candidates) != "numbers":
            return f"{left_out} are left out for the same reason."
        return (
            f"{left_out} are left out for the same reason; they take numbers as well if they are "
            f"named (proxies=, or --proxies {','.join(labeled)})."
        )

    def rank(self, scoring: Scoring | None = None) -> Ranking:
        """See `Scorer.rank`.

        Args:
            scoring: Scores of this data by this suite, if they are known; None to compute them.
        """
        ranking, labels = self.checked_ranking(scoring or self.score())
        return replace(ranking, findings=Findings(labels))

    def checked_ranking(self, scoring: Scoring) -> tuple[Ranking, LabelChecks | None]:
        """Check the labels, and order the candidates.

        Args:
            scoring: Scores of this data by this suite.

        Returns:
            The ranking, whose messages begin with what the label checks say, or with the reason
            why there are none; and the checks, None without.
        """
        answers = self.answer_report(scoring)
        if self.unchecked is not None:
            ranking = with_origins(
                self.scorer.order(scoring, answers=answers), self.given, self.origin
            )
            messages = tuple(text for text in (self.unchecked, self._left_out) if text)
            return replace(ranking, messages=(*messages, *ranking.messages)), None
        checks = check_scored_labels(self.candidates, scoring)
        camps = camps_of(self.candidates, scoring)
        labels = LabelChecks(tuple(checks))
        sentences: tuple[str, ...] = ()
        if camps is not None:
            views = {c.name: c.views for c in self.candidates}
            labels = LabelChecks(labels.checks, has_camps=True, contested=camps.contested(views))
            sentences = camps.messages(views)
        ranking = self.scorer.order(scoring, checks, sentences, answers)
        ranking = with_origins(ranking, self.given, self.origin)
        left_out = () if self._left_out is None else (self._left_out,)
        messages = (*labels.messages, *left_out, *ranking.messages)
        return replace(ranking, messages=messages), labels

    def ranking_with_findings(self, *, gaps: bool, sample_size_analysis: bool) -> Ranking:
        """Score, check and filter labels, order, and look for what else was asked for.

        Args:
            gaps: Whether to look for real examples that no candidate covers.
            sample_size_analysis: Whether to compare selections by disjoint real samples.

        Raises:
            ConfigError: What was asked for cannot be found with this suite or these sizes.
        """
        self.check_findings(gaps=gaps, sample_size_analysis=sample_size_analysis)
        scoring = self.score() if gaps or sample_size_analysis else None
        ranking = self.filtered_ranking(scoring)
        if scoring is None:
            return ranking
        sizes = self.sample_sizes(scoring, ranking) if sample_size_analysis else None
        if isinstance(sizes, str):
            ranking, sizes = replace(ranking, messages=(*ranking.messages, sizes)), None
        gaps_found = find_gaps(scoring) if gaps else None
        return replace(
            ranking, findings=replace(ranking.findings, gaps=gaps_found, real_size=sizes)
        )

    def filtered_ranking(self, scoring: Scoring | None = None) -> Ranking:
        """Score, check and filter labels, and order; all of it from the cache if it is there.

        What proxies of the user or LENS say is computed anew, as `ScoreCache` does not keep it.

        Args:
            scoring: Scores of this data by this suite, if they are known; None to compute them.

        Returns:
            The ranking, with the label checks and dropped examples in its `findings`.
        """
        path = self._path("filtered") if all(map(is_kept, self.suite)) else None
        kept = None if path is None else load_kept_ranking(path)
        if kept is not None:
            self.scorer.notify("the ranking is taken from the cache")
            ranking = replace(kept[0], findings=_kept_findings(*kept))
            return with_origins(ranking, self.given, self.origin)
        scoring = scoring or self.score()
        (ranking, labels), dropped = self.checked_ranking(scoring), None
        if labels is not None:
            ranking, dropped = self.filter_labels(scoring, ranking)
        findings, relabel = Findings(labels, dropped=dropped), self.scorer.relabel
        if path is not None:
            with suppress(RecordError):  # a full disk must not cost the ranking
                keep_ranking(ranking, path, lambda f: save_findings(f, findings, relabel=relabel))
        return replace(ranking, findings=findings)

    def check_findings(
        self,
        *,
        gaps: bool,
        sample_size_analysis: bool,
        written: Callable[..., str] = as_argument,
    ) -> None:
        """Before anything is scored, reject requests that could not be met afterwards.

        Args:
            gaps: As for `ranking_with_findings`.
            sample_size_analysis: As for `ranking_with_findings`.
            written: How an argument is written where it was given: its name, and its value unless
                that is None.

        Raises:
            ConfigError: A request cannot be met.
        """
        if MixtureOptions.of(self.scorer.mixture).kind == "mmd_optimal":
            check_embeds(self.suite, written("mixture", "mmd_optimal"), "mmd")
        if gaps:
            check_embeds(self.suite, written("gaps"), "pad")
        if sample_size_analysis:
            check_sample_sizes(
                self.suite,
                n_real=len(self.real),
                n_candidates=len(self.candidates),
                rank_by=self.scorer.rank_by,
                top_k=self.scorer.top_k,
                written=written,
            )

    def sample_sizes(self, scoring: Scoring, ranking: Ranking) -> SampleSizeAnalysis | str:
        """Return the sample-size analysis of a ranking, or a sentence on why there is none.

        Args:
            scoring: The scores.
            ranking: Their ranking.
        """
        try:
            return sample_size_analysis(scoring, top_k=ranking.stability_k, rank_by=ranking.rank_by)
        except ProxyError as error:  # must not cost the ranking
            return f"{str(error)[0].upper()}{str(error)[1:]}."

    def cached_ranking(self) -> Ranking:
        """See `Scorer.cached_ranking`."""
        # not the key of `cached_selection`, whose files say that its findings are there
        path = self._path("ranking")
        kept = load_kept_ranking(path)
        if kept is not None:
            ranking = replace(kept[0], findings=load_findings(kept[1]))
            return with_origins(ranking, self.given, self.origin)
        ranking = self.rank()
        keep_ranking(ranking, path, lambda folder: save_findings(folder, ranking.findings))
        return ranking

    def cached_selection(self) -> tuple[Ranking, Path]:
        """See `Scorer.cached_selection`."""
        path = self._path("selection")
        kept = load_kept_ranking(path)
        if kept is not None:
            return with_origins(kept[0], self.given, self.origin), kept[1]
        scoring = self.score()
        ranking, labels = self.checked_ranking(scoring)
        k, by = ranking.stability_k, ranking.rank_by
        findings = scoring_findings(scoring, labels, top_k=k, rank_by=by)
        dropped = None
        if labels is not None:
            ranking, dropped = self.filter_labels(scoring, ranking)
        self._keep_mixture_scores(scoring, ranking.top())

        def write(folder: Path) -> None:
            save_findings(folder, findings)
            if dropped is not None:
                save_dropped_labels(folder / DROPPED_LABELS, dropped, relabel=self.scorer.relabel)

        return ranking, keep_ranking(ranking, path, write)

    def answer_report(self, scoring: Scoring) -> AnswerReport | None:
        """Return what the given answers say about the scored candidates; None without answers."""
        if self.sheet is None:
            return None
        return assess(panel_of(self.candidates, scoring, self.sheet.seed), self.sheet)

    def filter_labels(
        self, scoring: Scoring, ranking: Ranking
    ) -> tuple[Ranking, Mapping[str, Sequence[DroppedLabel]] | None]:
        """Apply the label filter to the selected candidates, or say what it would do.

        Args:
            scoring: The scores, with embeddings, of candidates with labels that are classes.
            ranking: Their ranking.

        Returns:
            The ranking with the filter's decision or with a message about it, and the dropped
            examples; None if the filter is off or closed.
        """
        choice = self.scorer.label_filter
        if choice == "off":
            messages = offer(self.candidates, scoring, ranking)
            return replace(ranking, messages=(*ranking.messages, *messages)), None
        result = filter_selected(
            self.candidates, scoring, ranking, choice, relabel=self.scorer.relabel
        )
        messages = (*ranking.messages, result.record.sentence)
        ranking = replace(ranking, label_filter=result.record, messages=messages)
        return ranking, result.dropped if result.record.is_open else None

    def mixture_scores(self, name: str, mixture: Mixture) -> dict[str, float]:
        """See `Scorer.mixture_scores`."""
        scores: dict[str, float] = {}
        # a mixture cannot be judged by labels: its judges are the candidates that it consists of
        suite = [proxy for proxy in self.suite if not proxy.needs_labels]
        direct = [proxy for proxy in suite if proxy.family != "lens"]
        if direct and len(mixture.names) == 1:
            scores = mixture_scores(self.with_suite(direct).score(), mixture)
        elif direct:
            scorer = self.scorer
            with max_device_memory(scorer.max_device_memory):
                scores = score_mixture(
                    self.candidates,
                    self.real,
                    direct,
                    mixture,
                    self._mixture_cache(direct),
                    encoder=scorer.encoder,
                    seed=scorer.seed,
                    device=scorer.device,
                    cache_dir=scorer.cache_dir,
                    progress=scorer.progress,
                )
            if not scorer.keep_models:
                self._close_models()
        rest = [proxy for proxy in suite if proxy.key not in scores]
        if rest:
            sample = mixture_candidate(name, self.candidates, mixture, self.scorer.seed)
            job = self.with_suite(rest)
            job = replace(job, candidates=[*self.candidates, sample], given=[*self.given, sample])
            row = job.cached_ranking()[name]
            scores |= {key: score.value for key, score in row.scores.items()}
        return {proxy.key: scores[proxy.key] for proxy in suite}

    def _keep_mixture_scores(self, scoring: Scoring, mixture: Mixture) -> None:
        """Keep the mixture's scores by the user's proxies, while those of the candidates are here.

        Scores of candidates by such a proxy are not kept, so the end of a fit would score again.
        """
        owned = [
            proxy
            for proxy in self.suite
            if not is_packaged(proxy) and scoring.scores[proxy.key].mixture is not None
        ]
        if not owned or len(mixture.names) == 1:
            return
        kept = self._mixture_cache(owned)
        weights = [mixture.weights.get(candidate.name, 0.0) for candidate in self.candidates]
        # an error is shown where the score is needed, and must not cost the ranking
        with preserved_state(), suppress(Exception):
            for key, score in mixture_scores(scoring, mixture, [p.key for p in owned]).items():
                proxy = next(proxy for proxy in owned if proxy.key == key)
                kept.keep_mixture(proxy, weights, score)

    def _mixture_cache(self, suite: Sequence[BaseProxy]) -> ScoreCache:
        needs_embeddings = any(proxy.needs_embeddings for proxy in suite)
        return ScoreCache(
            cache_root(self.scorer.cache_dir) / "scores",
            data_key(self.candidates, self.real, self.scorer.seed),
            self.encoder().key if needs_embeddings else None,
        )

    def has_scores(self, proxy: BaseProxy) -> bool:
        """Return whether the scores of a proxy are in the cache."""
        labels = labels_key(self.candidates) if proxy.needs_labels else ()
        return ScoreCache(
            cache_root(self.scorer.cache_dir) / "scores",
            data_key(self.candidates, self.real, self.scorer.seed),
            self.encoder().key if proxy.needs_embeddings else None,
            labels,
        ).has(proxy)

    def with_suite(self, suite: Sequence[BaseProxy]) -> ScoringJob:
        """Return the job for a part of the suite, without regard to `rank_by`."""
        scorer = replace(self.scorer, rank_by=suite[0].key, mixture="equal")
        return replace(self, scorer=scorer, suite=tuple(suite), sheet=None)

    def embeddings(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]] | None:
        """See `Scorer.embeddings`."""
        if not self.needs_embeddings:
            return None
        encoder, folder = self.encoder(), self.scorer.cache_dir
        real, *parts = (
            embed(encoder, examples, cache_dir=folder).embeddings
            for examples in (self.real, *self.given)
        )
        names = [candidate.name for candidate in self.given]
        return real, dict(zip(names, parts, strict=True))

    @property
    def encoder_key(self) -> str | None:
        """Key of the encoder, with revision and precision; None if no proxy uses embeddings."""
        return self.encoder().key if self.needs_embeddings else None

    def encoder(self) -> BaseEncoder:
        """Return the encoder; its model is loaded when it is needed."""
        device = None if self.scorer.device is None else torch.device(self.scorer.device)
        return get_encoder(self.scorer.encoder, self.real.modality, device=device)

    def _path(self, what: Literal["ranking", "selection", "filtered"]) -> Path:
        scorer, unchecked = self.scorer, self.unchecked
        options: Mapping[str, object] = {
            "rank_by": scorer.rank_by,
            "top_k": scorer.top_k,
            "mixture": vars(MixtureOptions.of(scorer.mixture)),
            "n_resamples": scorer.n_resamples,
            "what": what,
            "labels": _hashes(self.candidates) if unchecked is None else unchecked,
            "answers": self.sheet,  # its text form lists all answers
            "label_filter": [scorer.label_filter, scorer.relabel],
            "families": [candidate.family for candidate in self.candidates],
            # messages say them
            "notes": [part.notes for part in (self.real, *self.candidates)],
            "views": view_messages((*self.candidates, self.real)),
            "judges": labels_key(self.candidates) if self._reads_labels else None,
            "encoder": self.encoder_key,
            "seed": scorer.seed,
        }
        return ranking_path(scorer.cache_dir, self.given, self.real, self.suite, options)


def _kept_findings(ranking: Ranking, folder: Path) -> Findings:
    findings, record = load_findings(folder), ranking.label_filter
    if record is None or not record.is_open:
        return findings
    dropped = load_dropped_labels(folder / DROPPED_LABELS)
    # the file does not name those of which nothing is dropped
    return replace(findings, dropped={name: dropped.get(name, ()) for name in record.dropped})


def _check_data(candidates: Sequence[Candidate], real: RealSample) -> None:
    if len(candidates) < 2:
        raise ConfigError(f"{len(candidates)} candidate: ranking takes at least 2")
    repeated = sorted(name for name, n in Counter(c.name for c in candidates).items() if n > 1)
    if repeated:
        raise ConfigError(f"candidates: names must differ, found more than once: {repeated}")
    for candidate in candidates:
        if candidate.modality != real.modality:
            raise DataError(
                f"{candidate.where} shows {candidate.modality}s, but {real.where} shows "
                f"{real.modality}s: all must be of one modality"
            )
    _check_groups(candidates, real)


def _check_groups(candidates: Sequence[Candidate], real: RealSample) -> None:
    """Read the groups, so that their errors come before anything is scored."""
    by = real.group_by
    if isinstance(by, str | int) and any(by == candidate.label for candidate in candidates):
        raise label_error(by)
    _ = real.groups


def _kind_of(candidates: Sequence[Candidate]) -> LabelKind:
    return label_kind([c.labels for c in candidates if c.label is not None])


def _have_classes(candidates: Sequence[Candidate]) -> bool:
    """Return whether all candidates have labels that are classes, or lists of them."""
    if any(c.label is None or len(labeled_positions(c.labels)) < 2 for c in candidates):
        return False
    return _kind_of(candidates) in _JUDGED_KINDS


def _hashes(candidates: Sequence[Candidate]) -> list[str | None]:
    return [None if c.label is None else c.labels_sha256 for c in candidates]


def _only_one_family(candidates: Sequence[Candidate]) -> str | None:
    """Return why labels of the kinds that `transfer` reads cannot be judged; None if they can."""
    if any(candidate.label is None for candidate in candidates):
        return None
    return no_other_family(candidates) if _kind_of(candidates) in _JUDGED_KINDS else None


def _with_label_proxies(
    proxies: Sequence[ProxySpec] | None, candidates: Sequence[Candidate], real: RealSample
) -> Sequence[ProxySpec] | None:
    """Add the columns that read labels to the default suite, if all labels are classes."""
    if proxies is not None or any(candidate.label is None for candidate in candidates):
        return proxies
    judged = _have_classes(candidates) and _only_one_family(candidates) is None
    return default_suite(real.modality, labels=judged)


def _check_labels_given(suite: Sequence[BaseProxy], candidates: Sequence[Candidate]) -> None:
    keys = [proxy.key for proxy in suite if proxy.needs_labels]
    missing = [candidate.where for candidate in candidates if candidate.label is None]
    if keys and missing:
        raise ConfigError(
            f"{', '.join(keys)} reads the candidates' labels: give label= (--label on the command "
            f"line), the field that holds them. Without it: {', '.join(missing)}"
        )
    if keys:
        check_labeled(candidates, keys[0])
