"""Scoring for callbacks: a ranking is kept by the content of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder, embed, get_encoder
from synque_select.errors import ConfigError, RecordError
from synque_select.proxies.base import BaseProxy
from synque_select.proxies.registry import ProxySpec, resolve_suite
from synque_select.records.findings_file import save_findings
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.selection.findings import label_messages, scoring_findings
from synque_select.selection.labels import check_classes, check_scored_labels
from synque_select.selection.mixture import MixtureChoice, mixture_scores
from synque_select.selection.mixture_sample import mixture_candidate
from synque_select.selection.ranking import checked_suite, ranking_from
from synque_select.selection.score_cache import package_versions, source_hash
from synque_select.selection.scoring import Scoring, score
from synque_select.types import Mixture, Ranking
from synque_select.utils.cache_dir import default_cache_dir
from synque_select.utils.process_state import free_device_memory
from synque_select.utils.source_code import source_of

__all__ = ["Scorer", "ranking_differences", "scorer_of"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scorer:
    """How candidates are scored and mixed; the arguments are those of `rank` and `with_mixture`."""

    proxies: Sequence[ProxySpec] | None = None
    rank_by: str | None = None
    top_k: int = 3
    encoder: str | BaseEncoder | None = None
    seed: int = 0
    device: str | torch.device | None = None
    cache_dir: str | Path | None = None
    mixture: MixtureChoice = "equal"
    temperature: float | None = None
    budget: int | None = None

    def ranking(self, candidates: Sequence[Candidate], real: RealSample) -> Ranking:
        """Return the ranking kept for exactly this content and these options, else make it.

        A ranking that comes from the cache needs no model and no scoring; it is kept beside the
        embeddings, as `rankings/<hash>.json`.
        """
        suite = resolve_suite(self.proxies, real.modality)
        path = self._path(self._key(suite, candidates, real))
        kept = _kept(path)
        if kept is not None:
            return kept
        scoring = self._scoring(suite, candidates, real)
        return self._ranked(scoring, path)

    def selection(self, candidates: Sequence[Candidate], real: RealSample) -> tuple[Ranking, Path]:
        """Return the ranking, and the folder that holds what scoring found beside it.

        Found are gaps, whether more real examples would pay, and, where all candidates carry
        labels that are classes, the label checks, whose warnings are among the ranking's messages.
        """
        suite = resolve_suite(self.proxies, real.modality)
        labels = _label_hashes(candidates) if _any_embeddings(suite) else None
        path = self._path(self._key(suite, candidates, real, findings=labels or ""))
        kept = _kept(path)
        if kept is not None:
            return kept, path.with_suffix("")
        scoring = self._scoring(suite, candidates, real)
        checks = None if labels is None else check_scored_labels(candidates, scoring)
        found = scoring_findings(scoring, checks, top_k=self.top_k, rank_by=self.rank_by)
        save_findings(path.with_suffix(""), found)
        messages = () if checks is None else label_messages(checks)
        return self._ranked(scoring, path, messages), path.with_suffix("")

    def mixture_scores(
        self, name: str, candidates: Sequence[Candidate], real: RealSample, mixture: Mixture
    ) -> dict[str, float]:
        """Score a mixture by every proxy of the suite: from the candidates where a proxy can.

        The others score a seeded sample of the mixture, as large as its weights allow without
        repeating an example, beside the candidates.
        """
        suite = resolve_suite(self.proxies, real.modality)
        found: dict[str, float] = {}
        direct = [proxy for proxy in suite if proxy.family != "lens"]
        if direct:
            scoring = replace(self, rank_by=direct[0].key)._scoring(direct, candidates, real)
            found = mixture_scores(scoring, mixture)
        rest = [proxy for proxy in suite if proxy.key not in found]
        if rest:
            sample = mixture_candidate(name, candidates, mixture, self.seed)
            by_sample = replace(self, proxies=rest, rank_by=rest[0].key)
            row = by_sample.ranking([*candidates, sample], real)[name]
            found |= {key: score.value for key, score in row.scores.items()}
        return {proxy.key: found[proxy.key] for proxy in suite}

    def _path(self, key: str) -> Path:
        folder = default_cache_dir() if self.cache_dir is None else Path(self.cache_dir)
        return folder / "rankings" / f"{key}.json"

    def _scoring(
        self, suite: Sequence[BaseProxy], candidates: Sequence[Candidate], real: RealSample
    ) -> Scoring:
        suite = checked_suite(candidates, real, suite, rank_by=self.rank_by, top_k=self.top_k)
        scoring = score(
            candidates,
            real,
            encoder=self.encoder,
            proxies=suite,
            seed=self.seed,
            device=self.device,
            cache_dir=self.cache_dir,
        )
        if scoring.reused:
            _log.info(
                f"scores of {len(scoring.reused)} of {len(suite)} proxies are taken from the "
                f"cache: {', '.join(scoring.reused)}"
            )
        if isinstance(self.encoder, BaseEncoder):  # `rank` closes only what it made itself
            self.encoder.close()
        for proxy in suite:
            proxy.close()
        free_device_memory()
        return scoring

    def _ranked(self, scoring: Scoring, path: Path, messages: tuple[str, ...] = ()) -> Ranking:
        ranking = ranking_from(
            scoring,
            rank_by=self.rank_by,
            top_k=self.top_k,
            mixture=self.mixture,
            temperature=self.temperature,
            budget=self.budget,
        )
        ranking = replace(ranking, messages=(*messages, *ranking.messages))
        save_ranking(ranking, path)
        return ranking

    def scoring(self, candidates: Sequence[Candidate], real: RealSample) -> Scoring:
        """Score anew, with the embeddings from the cache: for what a ranking does not hold."""
        return self._scoring(resolve_suite(self.proxies, real.modality), candidates, real)

    def embeddings(
        self, candidates: Sequence[Candidate], real: RealSample
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]] | None:
        """Return the embeddings of the real sample and of each candidate, from the cache.

        None where no proxy of the suite uses any.
        """
        if not _any_embeddings(resolve_suite(self.proxies, real.modality)):
            return None
        encoder = self._model(real)
        folder = None if self.cache_dir is None else Path(self.cache_dir)
        found = [embed(encoder, e, cache_dir=folder).embeddings for e in (real, *candidates)]
        names = [candidate.name for candidate in candidates]
        return found[0], dict(zip(names, found[1:], strict=True))

    def _model(self, real: RealSample) -> BaseEncoder:
        device = None if self.device is None else torch.device(self.device)
        return get_encoder(self.encoder, real.modality, device=device)

    def _key(
        self,
        suite: Sequence[BaseProxy],
        candidates: Sequence[Candidate],
        real: RealSample,
        findings: Any = None,
    ) -> str:
        encoder = None
        if _any_embeddings(suite):
            encoder = self._model(real).key
        parts = {
            "candidates": [(c.name, c.sha256) for c in candidates],
            "real": real.sha256,
            "proxies": [(p.key, dict(p.options()), _code_of(type(p))) for p in suite],
            "rank_by": self.rank_by,
            "top_k": self.top_k,
            "mixture": (self.mixture, self.temperature, self.budget),
            "findings": findings,
            "encoder": encoder,
            "seed": self.seed,
            "code": source_hash(),
            "packages": package_versions(),
        }
        text = json.dumps(parts, sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()


def _any_embeddings(suite: Sequence[BaseProxy]) -> bool:
    return any(proxy.needs_embeddings for proxy in suite)


def _label_hashes(candidates: Sequence[Candidate]) -> list[str] | None:
    """Hash each candidate's labels; None where one has none, or they are no classes."""
    if any(candidate.label is None for candidate in candidates):
        return None
    try:
        check_classes(candidates)
    except ConfigError as error:
        _log.info("labels were not checked: %s", error)
        return None
    labels = [json.dumps(candidate.labels) for candidate in candidates]
    return [hashlib.sha256(text.encode()).hexdigest() for text in labels]


def _kept(path: Path) -> Ranking | None:
    if not path.exists():
        return None
    try:
        return load_ranking(path)
    except RecordError as error:  # a broken file costs a scoring, not the training
        _log.warning("scoring again: %s", error)
        return None


def _code_of(cls: type[BaseProxy]) -> str:
    """A user's proxy has no version: a hash of its source replaces it."""
    if cls.needs_records:
        return uuid.uuid4().hex  # records may have changed where their views have not
    source = source_of(cls)
    # code that cannot be read may have changed: score again
    return uuid.uuid4().hex if source is None else f"{cls.__qualname__}{source}"


def ranking_differences(
    ranking: Ranking, candidates: Sequence[Candidate], real: RealSample | None
) -> list[str]:
    """Say what keeps a ranking made elsewhere from being used on this data; empty if nothing does.

    Args:
        ranking: Made elsewhere.
        candidates: The DataModule's.
        real: The DataModule's real sample; None where it has none, which is no difference.
    """
    rows = {row.name: row for row in ranking.candidates}
    here = {candidate.name: candidate for candidate in candidates}
    return [
        *_named("in the ranking, but no candidate here", rows.keys() - here.keys()),
        *_named("candidate here, but not in the ranking", here.keys() - rows.keys()),
        *[
            f"{name}: {here[name].where} has {len(here[name])} examples with sha256 "
            f"{here[name].sha256[:12]}…, the ranking saw {row.n} with {row.sha256[:12]}…"
            for name, row in rows.items()
            if name in here and here[name].sha256 != row.sha256
        ],
        *_real_difference(ranking, real),
    ]


def _named(what: str, names: Any) -> list[str]:
    return [f"{what}: {', '.join(sorted(names))}"] if names else []


def _real_difference(ranking: Ranking, real: RealSample | None) -> list[str]:
    if real is None or real.sha256 == ranking.real_sha256:
        return []
    return [
        f"real sample: {real.where} has {len(real)} examples with sha256 {real.sha256[:12]}…, "
        f"the ranking saw {ranking.n_real} with {ranking.real_sha256[:12]}…"
    ]


def scorer_of(ranking: Ranking, **options: Any) -> Scorer:
    """Return the scorer that a ranking made elsewhere describes."""
    proxies: list[Mapping[str, Any]] = [
        {"key": key, **info.options} for key, info in ranking.proxies.items()
    ]
    encoder = None if ranking.encoder is None else ranking.encoder.id
    return Scorer(
        proxies, ranking.rank_by, ranking.top_k, encoder=encoder, seed=ranking.seed, **options
    )
