"""LENS: a language model that reads both sets tells how real a candidate looks."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from synque_select.errors import ConfigError, ProxyError
from synque_select.functional.lens import (
    LensKind,
    lens_balanced,
    lens_debiased,
    lens_example_scores,
    lens_raw,
    lens_resampled,
)
from synque_select.lens.cache import AnswerCache
from synque_select.lens.config import LensConfig
from synque_select.lens.judge import Judged, Tally, judge
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import Rubric, load_rubrics, save_rubrics, write_rubric
from synque_select.lens.samples import drawn
from synque_select.llm.base import BaseLLM
from synque_select.llm.registry import get_llm
from synque_select.proxies.base import BaseProxy, Family, ProxyInput, ProxyScores
from synque_select.proxies.registry import ProxySpec
from synque_select.views import Modality

__all__ = ["Lens", "LensBalanced", "LensRaw", "with_lens"]

_log = logging.getLogger(__name__)
_QUESTIONS = 4  # a sample: two places of the synthetic set, two sets asked for
_TINY = "SmolLM2-135M"


class Lens(BaseProxy):
    """LENS: mean probability of a candidate's samples to be real, debiased by the real sample.

    A reasoner writes a rubric of the real sample and each candidate; a scorer then judges every
    sample of both sides by it, with the candidate shown as dataset A and as dataset B
    (`synque_select.functional.lens.lens_debiased` has the formula).

    Intervals redraw the real sample, and the judged part of a candidate where only a part was
    judged; rubrics are held fixed. Answers are kept, so the three LENS proxies together ask no
    more than one, and a second run asks nothing.

    Args:
        config: A `LensConfig`, a mapping with its values (also as JSON, as `options` gives it), a
            YAML file or the name of a packaged one ("lens-small"); None for the default: a model
            of 135M parameters, to try it out.

    Raises:
        ConfigError: The config cannot be read, or a value is not allowed.

    Source:
        SynQuE, arXiv 2511.03928.

    Example:
        >>> Lens({"way": "label"}).config.way
        'label'
    """

    key: ClassVar[str] = "lens"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "probability to be real, 0 to 1"
    source: ClassVar[str] = "SynQuE, arXiv 2511.03928"
    family: ClassVar[Family] = "lens"
    needs_embeddings: ClassVar[bool] = False
    modalities: ClassVar[frozenset[Modality]] = frozenset(("text",))
    kind: ClassVar[LensKind] = "debiased"

    def __init__(self, config: LensConfig | Mapping[str, Any] | str | Path | None = None) -> None:
        self.config = LensConfig() if config is None else LensConfig.read(config)

    def options(self) -> Mapping[str, Any]:
        """Return what changes a score, as JSON."""
        return {"config": json.dumps(self.config.plain())}

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Have rubrics written and samples judged; engines choose their device themselves."""
        run = _Run(self.config, real, candidates, seed)
        try:
            judged = run.judge()
        finally:
            run.close()
        values = [self._value(part) for part in judged]
        whole = all(len(p) == len(c) for p, c in zip(run.parts, candidates, strict=True))

        def resample(weights: torch.Tensor) -> torch.Tensor:
            columns = [
                self._resample(part, weights[:, run.normalising], len(candidate), seed)
                for part, candidate in zip(judged, candidates, strict=True)
            ]
            return torch.stack(columns, dim=1)

        def example_scores(position: int) -> torch.Tensor:
            part = judged[position]
            means = None if self.kind == "raw" else _answered(part.real)
            scores = torch.full((len(part.synthetic),), torch.nan, dtype=torch.float64)
            answered = ~part.synthetic.isnan().any(dim=-1).any(dim=-1)
            scores[answered] = lens_example_scores(means, part.synthetic[answered])
            return scores

        return ProxyScores(
            torch.tensor(values, dtype=torch.float64),
            # the real sample enters a raw score by the rubric alone, which is held fixed
            resample=None if self.kind == "raw" else resample,
            example_scores=example_scores if whole else None,
            messages=run.messages(self.key, judged),
        )

    def close(self) -> None:
        """Free the engines that were given as engines; those made from a config are gone by now."""
        for engine in (self.config.scorer, self.config.reasoner):
            if isinstance(engine, BaseLLM):
                engine.close()

    def _value(self, judged: Judged) -> float:
        real, synthetic = _answered(judged.real), _answered(judged.synthetic)
        if self.kind == "raw":
            return lens_raw(synthetic)
        return (lens_balanced if self.kind == "balanced" else lens_debiased)(real, synthetic)

    def _resample(
        self, judged: Judged, weights: torch.Tensor, n_candidate: int, seed: int
    ) -> torch.Tensor:
        answered = ~judged.real.isnan().any(dim=-1).any(dim=-1)
        # a resample without any answered real example falls back to all of them
        used = weights[:, answered]
        total = used.sum(dim=1, keepdim=True)
        used = torch.where(total > 0, used / total, 1 / used.shape[1])
        synthetic = _answered(judged.synthetic)
        return lens_resampled(
            judged.real[answered],
            synthetic,
            used,
            kind=self.kind,
            n_candidate=n_candidate,
            seed=seed,
        )


class LensRaw(Lens):
    """LENS without debiasing: it also measures what the model leans to by itself.

    Source:
        SynQuE, arXiv 2511.03928, ablation.
    """

    key: ClassVar[str] = "lens_raw"
    kind: ClassVar[LensKind] = "raw"


class LensBalanced(Lens):
    """LENS of both sides: whether real samples look synthetic counts too, as in released code.

    Source:
        The code released with SynQuE, arXiv 2511.03928.
    """

    key: ClassVar[str] = "lens_balanced"
    kind: ClassVar[LensKind] = "balanced"


def with_lens(
    proxies: Sequence[ProxySpec] | None, lens: LensConfig | Mapping[str, Any] | str | Path | None
) -> Sequence[ProxySpec] | None:
    """Give a config to every LENS proxy of a suite that has none of its own.

    Args:
        proxies: As for `rank`.
        lens: What `Lens` takes as its config; None leaves the suite as it is.

    Raises:
        ConfigError: The config cannot be read, or the suite has no LENS proxy.

    Example:
        >>> suite = with_lens(["ngram", "lens"], {"way": "label"})
        >>> suite[0], suite[1]["config"].way
        ('ngram', 'label')
    """
    if lens is None:
        return proxies
    config = LensConfig.read(lens)
    keys = tuple(cls.key for cls in (Lens, LensRaw, LensBalanced))
    suite: list[ProxySpec] = []
    for proxy in proxies or ():
        given = {"key": proxy} if isinstance(proxy, str) else proxy
        is_open = isinstance(given, Mapping) and given.get("key") in keys
        suite.append({"config": config, **given} if is_open else proxy)
    if not any(isinstance(p, Lens) or (isinstance(p, Mapping) and "config" in p) for p in suite):
        raise ConfigError(
            f"a config of LENS is given, but the proxies have none of {', '.join(sorted(keys))}"
        )
    return suite


def _answered(judgements: torch.Tensor) -> torch.Tensor:
    return judgements[~judgements.isnan().any(dim=-1).any(dim=-1)]


@dataclass
class _Run:
    """One run of LENS over all candidates."""

    config: LensConfig
    real: ProxyInput
    candidates: Sequence[ProxyInput]
    seed: int

    def __post_init__(self) -> None:
        self.cache = AnswerCache(self.config.answers)
        self.prompts = load_prompts(self.config.prompts)
        self.scorer = get_llm(self.config.scorer)
        reasoner = self.config.reasoner
        self.reasoner = self.scorer if reasoner is None else get_llm(reasoner)
        order = np.array(drawn(_texts(self.real, np.arange(len(self.real))), self.seed))
        half = len(order) // 2 if self.config.split_real else len(order)
        if self.config.split_real and half < 2:
            raise ProxyError(f"split_real takes a real sample of 4 or more, found {len(self.real)}")
        # what rubrics are written from, and what debiases
        self.rubric_real = np.sort(order[:half])
        self.normalising = np.sort(order[half:]) if self.config.split_real else np.sort(order)
        self.parts = [self._part(candidate) for candidate in self.candidates]
        n_judged = sum(len(self.normalising) + len(part) for part in self.parts)
        self.tally = Tally(_QUESTIONS * n_judged, self.config.failure_threshold)

    def _part(self, candidate: ProxyInput) -> NDArray[np.int64]:
        """Positions of the samples that are judged."""
        n, limit = len(candidate), self.config.max_samples
        if limit is None or limit >= n:
            return np.arange(n)
        return np.sort(drawn(_texts(candidate, np.arange(n)), self.seed)[:limit])

    def judge(self) -> list[Judged]:
        """Write the rubrics that are missing, and judge all candidates."""
        rubrics = self._rubrics()
        if self.reasoner is not self.scorer:
            self._close(self.reasoner, self.config.reasoner)
        _log.info("lens: %d questions to %s", self.tally.n_planned, self.scorer.id)
        bar = tqdm(
            total=self.tally.n_planned,
            desc="judging",
            unit=" questions",
            delay=2,
            leave=False,
            disable=not self.config.progress,
        )
        with bar:
            return [
                self._judged(rubric, candidate, part, bar)
                for rubric, candidate, part in zip(
                    rubrics, self.candidates, self.parts, strict=True
                )
            ]

    def _rubrics(self) -> list[Rubric]:
        config = self.config
        known = load_rubrics(config.rubrics, config.rubrics_group) if config.rubrics else {}
        real = _texts(self.real, self.rubric_real)
        rubrics = {}
        bar = tqdm(
            self.candidates,
            desc="writing rubrics",
            unit=" rubrics",
            delay=2,
            leave=False,
            disable=not config.progress,
        )
        for candidate in bar:
            rubrics[candidate.name] = known.get(candidate.name) or write_rubric(
                self.reasoner,
                real,
                _texts(candidate, np.arange(len(candidate))),
                self.prompts,
                config.sampling,
                self.cache,
            )
        if config.save_rubrics:
            about = {"model": self.reasoner.id, "prompts": self.prompts.name}
            save_rubrics(config.save_rubrics, rubrics, about)
        return [rubrics[candidate.name] for candidate in self.candidates]

    def _judged(
        self, rubric: Rubric, candidate: ProxyInput, part: NDArray[np.int64], bar: Any
    ) -> Judged:
        answers = judge(
            self.scorer,
            rubric,
            _texts(self.real, self.normalising),
            _texts(candidate, part),
            self.prompts,
            self.cache,
            self.tally,
            way=self.config.way,
            max_sample_chars=self.config.max_sample_chars,
        )
        bar.set_postfix_str(candidate.name, refresh=False)
        for found in answers:
            if isinstance(found, Judged):
                if not len(_answered(found.real)) or not len(_answered(found.synthetic)):
                    raise ProxyError(f"lens: no question about {candidate.name} was answered")
                return found
            bar.update(found)
        raise RuntimeError("judge ended without judgements")

    def messages(self, key: str, judged: Sequence[Judged]) -> tuple[str, ...]:
        """What a reader must know: cost, cuts, failures, and a model too small to rely on."""
        tally, said = self.tally, []
        said.append(
            f"{key}: judged by {self.scorer.id}, rubrics by "
            f"{self.config.rubrics or self.reasoner.id}; {tally.n_asked} questions asked, "
            f"{tally.n_kept} answers kept from earlier."
        )
        if tally.n_failed:
            said.append(f"{key}: {tally.n_failed} questions failed: {'; '.join(tally.failures)}.")
        n_cut = sum(part.n_cut for part in judged)
        if n_cut:
            limit = self.config.max_sample_chars
            said.append(f"{key}: {n_cut} samples were judged by their first {limit} characters.")
        if _TINY in self.scorer.id or _TINY in self.reasoner.id:
            said.append(
                f"{key}: a model of 135M parameters writes weak rubrics and judges hardly better "
                "than chance: this shows that LENS runs, not how good the candidates are."
            )
        return tuple(said)

    def close(self) -> None:
        """Free the models that were made here; a user's own engine stays the user's."""
        self._close(self.scorer, self.config.scorer)
        self._close(self.reasoner, self.config.reasoner or self.config.scorer)

    @staticmethod
    def _close(engine: BaseLLM, spec: Any) -> None:
        if engine is not spec:
            engine.close()


def _texts(part: ProxyInput, positions: NDArray[np.int64]) -> list[str]:
    return [cast("str", part.views[int(i)]) for i in positions]
