"""LENS: a language model reads both sets and judges how real a candidate looks."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from synque_select.errors import ConfigError
from synque_select.functional.lens import (
    LensKind,
    lens_balanced,
    lens_debiased,
    lens_example_scores,
    lens_raw,
    lens_resampled,
)
from synque_select.lens.config import LensConfig
from synque_select.lens.details import adaptive_details, lens_details
from synque_select.lens.judge import Judged
from synque_select.lens.rubric import SampleSet
from synque_select.lens.run import LensRun, answered
from synque_select.llm.base import BaseLLM
from synque_select.llm.registry import LLMSpec, get_llm
from synque_select.proxies.base import BaseProxy, Family, ProxyInput, ProxyScores
from synque_select.proxies.inputs import real_groups
from synque_select.proxies.registry import ProxySpec
from synque_select.types.modality import Modality
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.execution import Executor

__all__ = ["Lens", "LensBalanced", "LensRaw", "LensZeroShot", "lens_keys", "with_lens"]

# questions per example: is it real, is it synthetic, each with the synthetic set shown as dataset A
# and as dataset B, because models prefer one of two places whatever it contains
_QUESTIONS = 4
# engines whose id contains this name are too small to judge: their scores come with a warning
_TINY = "SmolLM2-135M"


class Lens(BaseProxy):
    """Mean probability that a candidate's examples are real, debiased by the real sample.

    A reasoning model writes a rubric that compares the real sample with a candidate. A scoring
    model then judges each example of both sets by the rubric, with the candidate shown once as
    dataset A and once as dataset B. `synque_select.functional.lens.lens_debiased` has the formula.
    Higher is more realistic.

    Intervals resample the real sample, and also the candidate if only a part of it was judged;
    rubrics are held fixed. Answers are stored: the proxies "lens", "lens_raw" and "lens_balanced"
    together ask no more questions than one of them, and a second run asks none.

    Args:
        config: A `LensConfig`, a mapping with its values (or the same as JSON, the form that
            `options` returns), the path of a YAML file, or the name of a packaged config such as
            "lens-small". None for the default, a model of 135M parameters that is only suitable
            for trying LENS out.

    Raises:
        ConfigError: The config cannot be read, or a value is not allowed.

    Source:
        SynQuE, arXiv 2511.03928. Adaptive judging is an addition of this library
        (`synque_select.functional.racing`).

    Example:
        >>> Lens({"readout": "label"}).config.readout
        'label'
    """

    key: ClassVar[str] = "lens"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "probability to be real, 0 to 1"
    source: ClassVar[str] = "SynQuE, arXiv 2511.03928"
    family: ClassVar[Family] = "lens"
    needs_embeddings: ClassVar[bool] = False
    modalities: ClassVar[frozenset[Modality]] = frozenset(("text", "image"))
    kind: ClassVar[LensKind] = "debiased"

    def __init__(self, config: LensConfig | Mapping[str, Any] | str | Path | None = None) -> None:
        self.config = LensConfig() if config is None else LensConfig.read(config)
        # the bounds of adaptive judging hold for a mean of terms between 0 and 1, one per example;
        # the balanced score also depends on the mean judgments of the whole candidate
        if self.config.adaptive is not None and self.kind == "balanced":
            raise ConfigError(
                f"the proxy {self.key!r} is not a mean over a candidate's samples, so adaptive "
                "judging has no bounds for it: allowed is adaptive=None, or lens or lens_raw"
            )

    def options(self) -> Mapping[str, Any]:
        """Return the config as JSON, so that a ranking file can keep it."""
        return {"config": json.dumps(self.config.to_dict())}

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Write rubrics and judge the examples; the engines choose their own device."""
        sides = {candidate.name: _side(candidate) for candidate in candidates}
        run = LensRun(
            self.config, _side(real), sides, real.modality, seed, real_groups=real_groups(real)
        )
        try:
            judged = run.judge(self._realness)
        finally:
            # also after an error: the model must leave the device before training starts there
            run.close()
        realness = {name: self._of_all(part) for name, part in judged.items()}
        # scores of a part would have to be placed among all examples of the candidate, and the rest
        # is unknown: then there are none
        whole = all(len(run.parts[c.name]) == len(c) for c in candidates)
        order = [candidate.name for candidate in candidates]

        # scores depend on the real sample through the mean judgments that debias them, so new
        # weights need no new answers. With `split_real`, only the half that debiases has weights
        def resample(weights: torch.Tensor) -> torch.Tensor:
            columns = [
                self._resample(judged[c.name], weights[:, run.normalising], c.n_all, seed)
                for c in candidates
            ]
            return torch.stack(columns, dim=1)

        values = [self._value(judged[name]) for name in order]
        return ProxyScores(
            torch.tensor(values, dtype=torch.float64),
            # a raw score depends on the real sample through the rubric alone, which is held fixed
            resample=None if self.kind == "raw" else resample,
            example_scores=(lambda i: realness[order[i]]) if whole else None,
            messages=_messages(self.key, run, judged),
            details=lens_details(run, judged, realness),
        )

    def _realness(self, real: torch.Tensor, synthetic: torch.Tensor) -> torch.Tensor:
        return lens_example_scores(None if self.kind == "raw" else real, synthetic)

    def _of_all(self, judged: Judged) -> torch.Tensor:
        """Return the realness of every judged example; NaN if a question about it failed."""
        # all four answers or none: with one missing, the two places of the synthetic set would not
        # be averaged, and the example would carry the model's preference for a place
        scores = torch.full((len(judged.synthetic),), torch.nan, dtype=torch.float64)
        is_answered = ~judged.synthetic.isnan().any(dim=-1).any(dim=-1)
        scores[is_answered] = self._realness(answered(judged.real), answered(judged.synthetic))
        return scores

    def on_executor(self, executor: Executor) -> Lens:
        """Return a copy whose models answer on an executor; a server is asked from here.

        Args:
            executor: Where to ask.
        """
        from synque_select.execution.judging import ExecutedLLM

        def moved(spec: LLMSpec) -> LLMSpec:
            servers = ("synque_select.llm.openai", "synque_select.llm.anthropic")
            is_server = type(get_llm(spec)).__module__.startswith(servers)
            return spec if is_server else ExecutedLLM(spec, executor)

        reasoner = None if self.config.reasoner is None else moved(self.config.reasoner)
        sent = copy.copy(self)
        sent.config = dataclasses.replace(
            self.config, scorer=moved(self.config.scorer), reasoner=reasoner
        )
        return sent

    def close(self) -> None:
        """Free the engines that were passed as objects.

        Engines that were created from a config are freed at the end of `score`.
        """
        for engine in (self.config.scorer, self.config.reasoner):
            if isinstance(engine, BaseLLM):
                engine.close()

    def _value(self, judged: Judged) -> float:
        real, synthetic = answered(judged.real), answered(judged.synthetic)
        if self.kind == "raw":
            return lens_raw(synthetic)
        return (lens_balanced if self.kind == "balanced" else lens_debiased)(real, synthetic)

    def _resample(
        self, judged: Judged, weights: torch.Tensor, n_candidate: int, seed: int
    ) -> torch.Tensor:
        is_answered = ~judged.real.isnan().any(dim=-1).any(dim=-1)
        # a resample may have no real example with answers: dividing by its total weight of 0 would
        # give NaN, so it uses all of them equally
        used = weights[:, is_answered]
        total = used.sum(dim=1, keepdim=True)
        used = torch.where(total > 0, used / total, 1 / used.shape[1])
        # the size of the whole candidate gives the finite-population correction: judged in full, a
        # candidate is not random and only the real sample is resampled
        return lens_resampled(
            answered(judged.real),
            answered(judged.synthetic),
            used,
            kind=self.kind,
            n_candidate=n_candidate,
            seed=seed,
        )


class LensRaw(Lens):
    """LENS without debiasing.

    The score also contains the model's own tendency to call examples real. Higher is more
    realistic.

    Source:
        SynQuE, arXiv 2511.03928, ablation.
    """

    key: ClassVar[str] = "lens_raw"
    kind: ClassVar[LensKind] = "raw"


class LensBalanced(Lens):
    """LENS that also counts how likely real examples are judged synthetic, as in the released code.

    Higher is more realistic.

    Source:
        The code released with SynQuE, arXiv 2511.03928.
    """

    key: ClassVar[str] = "lens_balanced"
    kind: ClassVar[LensKind] = "balanced"


class LensZeroShot(Lens):
    """LENS without rubrics: the model is only told that one set is real and the other synthetic.

    Higher is more realistic.

    Source:
        SynQuE, arXiv 2511.03928, ablation.
    """

    key: ClassVar[str] = "lens_zero_shot"

    def __init__(self, config: LensConfig | Mapping[str, Any] | str | Path | None = None) -> None:
        super().__init__(config)
        self.config = dataclasses.replace(self.config, zero_shot=True, rubrics=None)


def lens_keys() -> tuple[str, ...]:
    """Return the keys of the LENS proxies.

    Example:
        >>> lens_keys()
        ('lens', 'lens_raw', 'lens_balanced', 'lens_zero_shot')
    """
    return tuple(cls.key for cls in (Lens, LensRaw, LensBalanced, LensZeroShot))


def with_lens(
    proxies: Sequence[ProxySpec] | None,
    lens: LensConfig | Mapping[str, Any] | str | Path | None,
    *,
    top_k: int | None = None,
    progress: bool = True,
) -> Sequence[ProxySpec] | None:
    """Set the config of every LENS proxy in a suite that has no config of its own.

    Args:
        proxies: Proxies in any form that `rank` accepts.
        lens: Config in any form that `Lens` accepts; None to return the suite unchanged.
        top_k: Number of candidates that adaptive judging separates from the rest, if the config
            does not set it.
        progress: Whether progress may be shown; False overrides the config.

    Returns:
        The suite, with the config in place.

    Raises:
        ConfigError: The config cannot be read, or the suite has no LENS proxy.

    Example:
        >>> suite = with_lens(["ngram", "lens"], {"readout": "label"})
        >>> suite[0], suite[1]["config"].readout
        ('ngram', 'label')
    """
    if lens is None:
        return proxies
    config = LensConfig.read(lens).for_top_k(top_k)
    if not progress:
        config = dataclasses.replace(config, progress=False)
    keys = lens_keys()
    suite: list[ProxySpec] = []
    for proxy in proxies or ():
        given: Any = {"key": proxy} if isinstance(proxy, str) else proxy
        is_open = isinstance(given, Mapping) and given.get("key") in keys
        suite.append({"config": config, **given} if is_open else proxy)
    if not any(isinstance(p, Lens) or (isinstance(p, Mapping) and "config" in p) for p in suite):
        raise ConfigError(
            f"a config of LENS is given, but the proxies have none of {', '.join(sorted(keys))}"
        )
    return suite


def _side(part: ProxyInput) -> SampleSet:
    """Return the real sample or a candidate in the form that LENS judges."""
    # keys identify examples in the stored answers: a text is its own key, an image has the hash of
    # its content, so that no image is loaded before it is shown to a model
    if part.modality == "text":
        return SampleSet.of_texts([cast("str", view) for view in part.views])
    return SampleSet(part.views, [digest.tobytes().hex() for digest in part.digests])


def _messages(key: str, run: LensRun, judged: Mapping[str, Judged]) -> tuple[str, ...]:
    """Return messages on cost, truncated examples, failures, and a model that is too small."""
    tally, config, messages = run.tally, run.config, []
    rubrics = "without rubrics" if config.zero_shot else f"rubrics by {_reasoner(run)}"
    messages.append(
        f"{key}: judged by {run.scorer.id}, {rubrics}; {counted(tally.n_asked, 'question')} asked, "
        f"{counted(tally.n_kept, 'answer')} kept from earlier."
    )
    if tally.n_failed:
        messages.append(
            f"{key}: {counted(tally.n_failed, 'question')} failed: {'; '.join(tally.failures)}."
        )
    n_cut = sum(part.n_cut for part in judged.values())
    if n_cut:
        limit = f"{config.max_sample_chars} characters or {config.image_side} pixels"
        messages.append(
            f"{key}: {counted(n_cut, 'sample was', 'samples were')} cut or made smaller to {limit} "
            "to be judged."
        )
    notes = [note for engine in (run.scorer, run.reasoner) for note in engine.notes]
    messages += [f"{key}: {note}" for note in dict.fromkeys(notes)]
    messages += _adaptive_messages(key, run)
    if any(_TINY in engine.id for engine in (run.scorer, run.reasoner)):
        messages.append(
            f"{key}: a model of 135M parameters writes weak rubrics and judges hardly better "
            "than chance: this shows that LENS runs, not how good the candidates are."
        )
    return tuple(messages)


def _reasoner(run: LensRun) -> str:
    return run.rubrics_by


def _adaptive_messages(key: str, run: LensRun) -> list[str]:
    race = adaptive_details(run)
    if race is None:
        return []
    total = race["n_judged"] + race["n_saved"]
    rounds = counted(race["rounds"], "round")
    saved = counted(_QUESTIONS * race["n_saved"], "question")
    message = (
        f"{key}: adaptive judging stopped after {rounds}: {race['n_judged']:,} of "
        f"{counted(total, 'sample')} judged, {saved} saved. With probability "
        f"{1 - race['delta']:.3g} over which samples were drawn, every candidate that is decided "
        f"is on the right side of the border of the top {race['top_k']}, for these rubrics and "
        "this real sample."
    )
    adaptive = run.config.adaptive
    if adaptive is not None and adaptive.top_k is None:
        message += (
            " Without top_k this is the better half: by default, only candidates that are worse "
            "than at least half of the others can be left out."
        )
    if race["undecided"]:
        message += f" Not decided: {', '.join(race['undecided'])}."
    return [message]
