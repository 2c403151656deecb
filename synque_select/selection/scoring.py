"""Score candidates against the real sample with every proxy of a suite."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.duplicates import sample_messages
from synque_select.data.examples import Examples
from synque_select.data.left_out import left_out_messages
from synque_select.data.view_messages import view_messages
from synque_select.encoders import BaseEncoder, embed, get_encoder
from synque_select.errors import ConfigError, ProxyError
from synque_select.execution.base import Executor, UnitFailure
from synque_select.execution.encoding import EncoderSource, encode_missing
from synque_select.proxies.base import BaseProxy, ProxyInput, ProxyScores
from synque_select.selection.copies_cache import kept_real_copies
from synque_select.selection.degenerate import Degenerate
from synque_select.selection.proxy_scores import score_by, usable_device, within_memory
from synque_select.selection.proxy_units import proxy_units
from synque_select.selection.real_messages import real_messages
from synque_select.selection.reference import reference_scores
from synque_select.selection.score_cache import ScoreCache, unpacked_scores
from synque_select.types import EncoderInfo, Mixture
from synque_select.types.modality import Modality
from synque_select.utils.cache_dir import cache_root
from synque_select.utils.process_state import preserved_state
from synque_select.utils.progress import ProgressBar

__all__ = ["Scoring", "data_key", "labels_key", "score", "score_mixture"]


@dataclass(frozen=True, eq=False)
class Scoring:
    """The scores of all proxies of a suite, before anything is ranked.

    Args:
        real: The real sample as the proxies saw it.
        candidates: The candidates as the proxies saw them.
        suite: The proxies, in the order given.
        scores: Proxy key to scores, (K,) in the order of `candidates`.
        seconds: Proxy key to wall time of scoring, also if the scores come from an earlier run.
        real_sha256: Content hash of the real sample.
        sha256: Content hash of each candidate, of all examples if some were drawn.
        encoder: The encoder of the embeddings; None if no proxy uses any.
        n_encoded: Number of views that were encoded; the others came from the cache.
        seed: Random seed.
        messages: Sentences about the data, such as contamination, and from the proxies.
        wall_s: Stage ("encode", "score") to seconds.
        reused: Keys of the proxies whose scores came from the cache.
        copies: Names of the candidates that are the real sample or a near copy of it.
        reference: Proxy key to what a candidate of further real examples would score; see
            `reference_scores`.
        degenerate: The candidates that were not scored, see `split_degenerate`.
        given: Names of all candidates, in the order in which they were given; () if all were
            scored.
    """

    real: ProxyInput
    candidates: tuple[ProxyInput, ...]
    suite: tuple[BaseProxy, ...]
    scores: Mapping[str, ProxyScores]
    seconds: Mapping[str, float]
    real_sha256: str
    sha256: tuple[str, ...]
    encoder: EncoderInfo | None
    n_encoded: int
    seed: int
    messages: tuple[str, ...]
    wall_s: Mapping[str, float]
    reused: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    reference: Mapping[str, float] = field(default_factory=dict)
    degenerate: tuple[Degenerate, ...] = ()
    given: tuple[str, ...] = ()

    @property
    def modality(self) -> Modality:
        """What the views are."""
        return self.real.modality

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Group number of each real example, (n,) int64 from 0 on; None if all are independent."""
        return self.real.groups

    def embeddings(self, what: str) -> list[torch.Tensor]:
        """Return the embeddings of the real sample and of each candidate.

        Args:
            what: What needs them, for the message.

        Raises:
            ProxyError: No proxy of the suite uses embeddings.
        """
        sides = (self.real, *self.candidates)
        embeddings = [side.embeddings for side in sides if side.embeddings is not None]
        if len(embeddings) < len(sides):
            raise ProxyError(f"{what} needs embeddings: score with a proxy that uses them")
        return embeddings


def score(
    candidates: Sequence[Candidate],
    real: RealSample,
    suite: Sequence[BaseProxy],
    *,
    encoder: str | BaseEncoder | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    executor: Executor | None = None,
) -> Scoring:
    """Score candidates against the real sample with every proxy of a suite.

    This is the private side of `synque_select.selection.scorer.Scorer`, which checks its arguments.

    Args:
        candidates: At least two candidates, of the modality of the real sample.
        real: The real sample.
        suite: The proxies, as `resolve_suite` returns them.
        encoder: A model id or an encoder; None for the default of the modality.
        seed: Random seed for the proxies.
        device: Where to encode and score; None for a GPU if there is one.
        cache_dir: Where embeddings and scores are kept; None for the default cache.
        progress: Whether to show progress bars.
        executor: Where to encode and score what is not in the cache; None for this process.

    Raises:
        ConfigError: The device or the encoder cannot be used.
        ExecutorError: The executor cannot be used.
        EncoderError: The encoder cannot be loaded, or returned embeddings that are not finite.
        ProxyError: A proxy cannot score this data.
    """
    folder = cache_root(cache_dir)
    remote = None
    if executor is not None and executor.is_remote:
        remote = _Elsewhere(executor, None if device is None else str(device))
    with preserved_state():
        started = time.perf_counter()
        place = usable_device(device) if remote is None else _device_here(device)
        encoded = _encoded([real, *candidates], suite, encoder, place, folder, progress, remote)
        encode_s = time.perf_counter() - started
        copied, copies = kept_real_copies(candidates, real, folder)
        messages = view_messages((*candidates, real)) + left_out_messages(candidates, real)
        messages += real_messages(real)
        messages += sample_messages(candidates) + copied
        data = data_key(candidates, real, seed)
        labels = labels_key(candidates) if any(proxy.needs_labels for proxy in suite) else ()
        kept = ScoreCache(folder / "scores", data, encoded.key, labels)
        scores, seconds, reused = _scores(
            encoded.inputs, suite, seed, place, kept, progress, remote
        )
        size, sample = min(len(part) for part in candidates), encoded.inputs[0]
        reference = within_memory(
            "scores of the real sample",
            lambda device: reference_scores(sample, suite, size, seed=seed, device=device),
            place,
        )
    return Scoring(
        real=encoded.inputs[0],
        candidates=tuple(encoded.inputs[1:]),
        suite=tuple(suite),
        scores=scores,
        seconds=seconds,
        real_sha256=real.sha256,
        sha256=tuple(c.sha256_of_all for c in candidates),
        encoder=encoded.info,
        n_encoded=encoded.n_encoded,
        seed=seed,
        messages=messages + _said(scores),
        wall_s={"encode": encode_s, "score": sum(s for k, s in seconds.items() if k not in reused)},
        reused=reused,
        copies=copies,
        reference=reference,
    )


def score_mixture(
    candidates: Sequence[Candidate],
    real: RealSample,
    suite: Sequence[BaseProxy],
    mixture: Mixture,
    kept: ScoreCache,
    *,
    encoder: str | BaseEncoder | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Score a mixture by every proxy that can without concatenating data.

    Candidates are scored for this only by proxies without `BaseProxy.mixture_score`, and nothing is
    computed where the score is in the cache.

    Args:
        candidates: As for `score`.
        real: As for `score`.
        suite: As for `score`.
        mixture: A mixture of some of the candidates.
        kept: Where scores of mixtures are kept.
        encoder: As for `score`.
        seed: As for `score`.
        device: As for `score`.
        cache_dir: As for `score`.
        progress: As for `score`.

    Returns:
        Proxy key to score; a proxy that would need a sample of the mixture is left out.
    """
    folder = cache_root(cache_dir)
    weights = [mixture.weights.get(candidate.name, 0.0) for candidate in candidates]
    scores = {proxy.key: kept.load_mixture(proxy, weights) for proxy in suite}
    left = [proxy for proxy in suite if scores[proxy.key] is None]
    with preserved_state():
        place = usable_device(device)
        encoded = _encoded([real, *candidates], left, encoder, place, folder, progress)
        of_all = replace(kept, encoder=encoded.key)
        for proxy in left:
            function = _mixture_score(proxy, encoded.inputs, seed, place, of_all)
            if function is not None:
                value = function(torch.tensor(weights, dtype=torch.float64))
                scores[proxy.key] = value
                kept.keep_mixture(proxy, weights, value)
    return {key: value for key, value in scores.items() if value is not None}


def _mixture_score(
    proxy: BaseProxy,
    inputs: Sequence[ProxyInput],
    seed: int,
    device: torch.device,
    kept: ScoreCache,
) -> Callable[[torch.Tensor], float] | None:
    function = proxy.mixture_score(inputs[0], inputs[1:], seed=seed, device=device)
    if function is not None:
        return function
    score = partial(score_by, proxy, inputs, seed, device)
    loaded = kept.load(proxy, score, lambda: None)  # it says whether there is such a function
    return (score() if loaded is None else loaded[0]).mixture


def data_key(candidates: Sequence[Candidate], real: RealSample, seed: int) -> dict[str, object]:
    """Return what is scored, as plain values, for keys of cached results.

    Args:
        candidates: The candidates.
        real: The real sample.
        seed: Random seed.
    """
    return {
        "sets": [e.content for e in (real, *candidates)],
        "groups": real.groups_sha256,
        "seed": seed,
    }


def labels_key(candidates: Sequence[Candidate]) -> list[tuple[str, str | None]]:
    """Return the hash of each candidate's labels and its family, for keys of cached results.

    Args:
        candidates: Candidates with labels.
    """
    return [(candidate.labels_sha256, candidate.family) for candidate in candidates]


def _said(scores: Mapping[str, ProxyScores]) -> tuple[str, ...]:
    """Return the messages of the proxies, each once, with the keys of those that send it."""
    senders: dict[str, list[str]] = {}
    for key, part in scores.items():
        for message in part.messages:
            senders.setdefault(message, []).append(key)
    return tuple(
        message if message.startswith(keys[0]) else f"{', '.join(keys)}: {message}"
        for message, keys in senders.items()
    )


class _Encoded(NamedTuple):
    """The real sample and the candidates as proxies see them, and by which encoder."""

    inputs: Sequence[ProxyInput]
    info: EncoderInfo | None = None
    key: str | None = None
    n_encoded: int = 0


def _encoded(
    examples: Sequence[Examples],
    suite: Sequence[BaseProxy],
    encoder: str | BaseEncoder | None,
    device: torch.device,
    folder: Path,
    progress: bool,
    elsewhere: _Elsewhere | None = None,
) -> _Encoded:
    """Hash every view, and embed them if a proxy asks for it; the encoder is freed afterwards."""
    with_labels = any(proxy.needs_labels for proxy in suite)
    if not any(proxy.needs_embeddings for proxy in suite):
        return _Encoded([_input(e, None, with_labels) for e in examples])
    model = get_encoder(encoder, examples[0].modality, device=device)
    try:
        n_elsewhere = 0
        if elsewhere is not None:
            source = EncoderSource(encoder, model.modality, elsewhere.device, model.key)
            n_elsewhere = encode_missing(
                elsewhere.executor, source, model, examples, folder, progress=progress
            )
        embedded = [embed(model, e, cache_dir=folder, progress=progress) for e in examples]
        info = EncoderInfo(model.id, model.revision, int(embedded[0].embeddings.shape[1]))
        key = model.key  # final by now: loading the model may have settled the precision
    finally:
        if model is not encoder:  # the caller's own instance stays the caller's
            model.close()
    inputs = [_input(e, r.embeddings, with_labels) for e, r in zip(examples, embedded, strict=True)]
    return _Encoded(inputs, info, key, n_elsewhere + sum(r.n_encoded for r in embedded))


def _input(examples: Examples, embeddings: torch.Tensor | None, with_labels: bool) -> ProxyInput:
    seen = ProxyInput(
        name=examples.name,
        views=examples.views,
        modality=examples.modality,
        digests=examples.digests,
        embeddings=embeddings,
        groups=examples.groups if isinstance(examples, RealSample) else None,
    )
    if not isinstance(examples, Candidate):
        return seen
    labels = examples.labels if with_labels and examples.label is not None else None
    return replace(
        seen,
        records=examples.dataset,
        labels=labels,
        family=examples.family,
        population=examples.population,
    )


def _scores(
    inputs: Sequence[ProxyInput],
    suite: Sequence[BaseProxy],
    seed: int,
    device: torch.device,
    kept: ScoreCache,
    progress: bool,
    elsewhere: _Elsewhere | None,
) -> tuple[dict[str, ProxyScores], dict[str, float], tuple[str, ...]]:
    scores, seconds, reused = {}, {}, []
    computed: dict[str, bytes] = {}
    if elsewhere is not None and elsewhere.executor.takes_data:
        computed = _scored_elsewhere(elsewhere, inputs, suite, seed, kept, progress)
    bar = ProgressBar(
        suite, desc="scoring", unit="proxy", delay=2, leave=False, disable=not progress
    )
    for proxy in bar:
        bar.set_postfix_str(proxy.key)
        here = proxy if elsewhere is None else proxy.on_executor(elsewhere.executor)
        score = partial(score_by, here, inputs, seed, device)
        of_mixture = partial(proxy.mixture_score, inputs[0], inputs[1:], seed=seed, device=device)
        if proxy.key in computed:
            packed = computed[proxy.key]
            scores[proxy.key], seconds[proxy.key] = unpacked_scores(packed, score, of_mixture)
            kept.keep_packed(proxy, packed)
            continue
        kept_scores = kept.load(proxy, score, of_mixture)
        if kept_scores is not None:
            scores[proxy.key], seconds[proxy.key] = kept_scores
            reused.append(proxy.key)
            continue
        started = time.perf_counter()
        scores[proxy.key] = score()
        seconds[proxy.key] = time.perf_counter() - started
        kept.keep(proxy, scores[proxy.key], seconds[proxy.key])
    return scores, seconds, tuple(reused)


class _Elsewhere(NamedTuple):
    """Other processes, and the device that the user asked for; None for a GPU if there is one."""

    executor: Executor
    device: str | None


def _device_here(device: str | torch.device | None) -> torch.device:
    """Return the device for what this process computes itself, which may have none like that."""
    try:
        return usable_device(device)
    except ConfigError:
        return usable_device(None)


def _scored_elsewhere(
    elsewhere: _Elsewhere,
    inputs: Sequence[ProxyInput],
    suite: Sequence[BaseProxy],
    seed: int,
    kept: ScoreCache,
    progress: bool,
) -> dict[str, bytes]:
    """Score on an executor by all proxies whose scores are not in the cache but can be kept there.

    The others read what is not sent: records, answers of language models, the user's own code.
    """
    missing = [proxy for proxy in suite if kept.can_keep(proxy) and not kept.has(proxy)]
    units = proxy_units(
        elsewhere.executor,
        missing,
        inputs,
        seed=seed,
        device=elsewhere.device,
        content={**kept.data, "encoder": kept.encoder},
    )
    keys = {unit.key: unit.proxy.key for unit in units}
    packed: dict[str, bytes] = {}
    with ProgressBar(
        total=len(units), desc="scoring", unit="proxy", delay=2, leave=False, disable=not progress
    ) as bar:
        for unit, result in elsewhere.executor.run(units):
            if isinstance(result, UnitFailure):
                raise result.error
            if result is not None:
                packed[keys[unit.key]] = result
            bar.update()
    return packed
