"""Scores of finished proxies, kept beside the embeddings: a killed run only computes the others."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synque_select.proxies.base import BaseProxy, Contributions, ProxyScores
from synque_select.utils.cache_dir import note_not_written
from synque_select.utils.checksums import checksummed_file, read_checked, remove_damaged
from synque_select.utils.source_code import source_of
from synque_select.utils.versions import package_versions, source_hash

__all__ = [
    "ScoreCache",
    "code_of",
    "is_kept",
    "is_packaged",
    "packed_scores",
    "unpacked_scores",
]

_FORMAT = 2
_COLUMNS = ("values", "spread", "p_values")
_PARTS = tuple(part.name for part in fields(Contributions))


@dataclass(frozen=True)
class ScoreCache:
    """Scores of packaged proxies, one file per proxy, named after everything that they depend on.

    Not kept are the scores of LENS, whose answers are kept one by one, of proxies that read
    records, and of the user's own proxies, whose code may have changed in places that a hash of
    their class does not see. A cache that cannot be read or written costs time, not the run.

    Args:
        folder: The directory of the files.
        data: What is scored, as plain values: content hashes, names, seed.
        encoder: The key of the encoder; None where no proxy uses embeddings.
        labels: Hash and family of each candidate's labels, for proxies that read them.
    """

    folder: Path
    data: Mapping[str, Any]
    encoder: str | None
    labels: Sequence[tuple[str, str | None]] = ()

    def load(
        self,
        proxy: BaseProxy,
        score: Callable[[], ProxyScores],
        mixture_score: Callable[[], Callable[[torch.Tensor], float] | None],
    ) -> tuple[ProxyScores, float] | None:
        """Return what is kept for a proxy and the seconds that it took; None where nothing is.

        Args:
            proxy: The proxy.
            score: Scores again; called where the realness of examples is asked for, which is not
                kept, and where `mixture_score` cannot do without.
            mixture_score: What `BaseProxy.mixture_score` returns; called where the score of a
                mixture is asked for.
        """
        path = self._path(proxy)
        if path is None:
            return None
        try:
            return unpacked_scores(read_checked(path), score, mixture_score)
        except OSError:
            return None
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            remove_damaged(path, error, f"{proxy.key} is scored again")
            return None

    def keep(self, proxy: BaseProxy, scores: ProxyScores, seconds: float) -> None:
        """Write the scores of a proxy, if they can be kept."""
        if self.can_keep(proxy) and (packed := packed_scores(scores, seconds)) is not None:
            self.keep_packed(proxy, packed)

    def can_keep(self, proxy: BaseProxy) -> bool:
        """Return whether the scores of a proxy are kept, if they can be saved."""
        return self._path(proxy) is not None

    def has(self, proxy: BaseProxy) -> bool:
        """Return whether scores of a proxy are kept; they are checked when they are read."""
        path = self._path(proxy)
        return path is not None and path.is_file()

    def keep_packed(self, proxy: BaseProxy, packed: bytes) -> None:
        """Write scores that were packed by `packed_scores`."""
        path = self._path(proxy)
        assert path is not None
        try:
            with checksummed_file(path) as stream:
                stream.write(packed)
        except OSError as error:
            note_not_written(path.parent, error)

    def load_mixture(self, proxy: BaseProxy, weights: Sequence[float]) -> float | None:
        """Return the kept score of a mixture; None if there is none.

        Args:
            proxy: The proxy; scores by one of the user's are kept as well, as long as its code is
                the same.
            weights: Weight of each candidate.
        """
        path = self._mixture_path(proxy, weights)
        if path is None:
            return None
        try:
            return float(read_checked(path))
        except OSError:
            return None
        except ValueError as error:
            remove_damaged(path, error, f"the mixture is scored again by {proxy.key}")
            return None

    def keep_mixture(self, proxy: BaseProxy, weights: Sequence[float], score: float) -> None:
        """Write the score of a mixture, if it can be kept."""
        path = self._mixture_path(proxy, weights)
        if path is None:
            return
        try:
            with checksummed_file(path) as stream:
                stream.write(repr(float(score)).encode())
        except OSError as error:
            note_not_written(path.parent, error)

    def _mixture_path(self, proxy: BaseProxy, weights: Sequence[float]) -> Path | None:
        code = code_of(type(proxy))
        if code is None or proxy.family == "lens":
            return None
        return self._named(proxy, {"mixture": list(weights), "code of the proxy": code}, "txt")

    def _path(self, proxy: BaseProxy) -> Path | None:
        if not is_kept(proxy):
            return None
        return self._named(proxy, {}, "npz")

    def _named(self, proxy: BaseProxy, further: Mapping[str, Any], suffix: str) -> Path | None:
        """Return the file of what depends on a proxy, its input and `further` plain values."""
        parts = {
            "format": _FORMAT,
            "proxy": [type(proxy).__qualname__, dict(proxy.options())],
            "data": self.data,
            "encoder": self.encoder if proxy.needs_embeddings else None,
            "labels": self.labels if proxy.needs_labels else None,
            "code": source_hash(),
            "packages": package_versions(),
            **further,
        }
        try:
            text = json.dumps(parts, sort_keys=True)
        except TypeError:  # an option that is not a plain value
            return None
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.{suffix}"


def is_packaged(proxy: BaseProxy) -> bool:
    """Return whether a proxy is one of this package, whose code has a version."""
    return type(proxy).__module__.startswith("synque_select.proxies.")


def is_kept(proxy: BaseProxy) -> bool:
    """Return whether scores of a proxy are kept, unless an option is not a plain value."""
    return is_packaged(proxy) and proxy.family != "lens" and not proxy.needs_records


def code_of(cls: type[BaseProxy]) -> str | None:
    """Return what identifies the code of a proxy: one of the user's has no version, but a source.

    None where results cannot be known to be the same.
    """
    if cls.needs_records:
        return None  # records may have changed where their views have not
    source = source_of(cls)
    return None if source is None else f"{cls.__qualname__}{source}"


def packed_scores(scores: ProxyScores, seconds: float) -> bytes | None:
    """Return scores as the bytes of an .npz file; None if they cannot be saved.

    Args:
        scores: The scores of all candidates.
        seconds: Wall time of scoring.
    """
    if not isinstance(scores.resample, Contributions | None):
        return None
    columns = {name: getattr(scores, name) for name in _COLUMNS}
    parts = {name: getattr(scores.resample, name, None) for name in _PARTS}
    arrays = {name: t.numpy() for name, t in (columns | parts).items() if t is not None}
    about = {
        "seconds": seconds,
        "messages": scores.messages,
        "reliable": scores.reliable,
        "details": dict(scores.details),
        "example_scores": scores.example_scores is not None,
        "mixture": scores.mixture is not None,
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def unpacked_scores(
    packed: bytes,
    score: Callable[[], ProxyScores],
    mixture_score: Callable[[], Callable[[torch.Tensor], float] | None],
) -> tuple[ProxyScores, float]:
    """Return the scores and seconds that `packed_scores` has saved.

    Args:
        packed: The bytes.
        score: As for `ScoreCache.load`.
        mixture_score: As for `ScoreCache.load`.
    """
    with np.load(io.BytesIO(packed), allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    about = json.loads(arrays.pop("about").numpy().tobytes())
    scores = _restored(arrays, about, cache(score), cache(mixture_score))
    return scores, float(about["seconds"])


def _restored(
    arrays: Mapping[str, torch.Tensor],
    about: Mapping[str, Any],
    score: Callable[[], ProxyScores],
    mixture_score: Callable[[], Callable[[torch.Tensor], float] | None],
) -> ProxyScores:
    def example_scores(position: int) -> torch.Tensor:
        return score().example_scores(position)  # type: ignore[misc]

    def mixture(weights: torch.Tensor) -> float:
        return (mixture_score() or score().mixture)(weights)  # type: ignore[misc]

    parts = {name: arrays[name] for name in _PARTS if name in arrays}
    return ProxyScores(
        values=arrays["values"],
        resample=Contributions(**parts) if parts else None,
        spread=arrays.get("spread"),
        p_values=arrays.get("p_values"),
        example_scores=example_scores if about["example_scores"] else None,
        mixture=mixture if about["mixture"] else None,
        messages=tuple(about["messages"]),
        reliable=about["reliable"],
        details=about["details"],
    )
