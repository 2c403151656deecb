"""Scoring by one proxy, with what may go wrong on a device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from synque_select.errors import ConfigError, ProxyError
from synque_select.proxies.base import BaseProxy, ProxyInput, ProxyScores
from synque_select.selection.sampling_error import with_sampling_error
from synque_select.utils.memory import is_out_of_memory
from synque_select.utils.process_state import free_device_memory, preserved_state
from synque_select.utils.wording import one_line

__all__ = ["score_by", "usable_device", "within_memory"]

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_MAX_SHOWN = 200  # characters of an error


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return the device; None for a GPU if there is one.

    Raises:
        ConfigError: It cannot be used.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device).cpu()  # a valid name does not mean that the device exists
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device={device!r} cannot be used here: {reason}") from error


def within_memory(
    what: str, compute: Callable[[torch.device], _Result], device: torch.device
) -> _Result:
    """Return what is computed on a device, or on the CPU if the memory of the device runs out.

    Raises:
        ProxyError: The memory of the CPU does not suffice either.
    """
    while True:
        try:
            return compute(device)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = one_line(f"{type(error).__name__}: {error}", _MAX_SHOWN)
            if device.type == "cpu":
                raise ProxyError(
                    f"{what}: out of memory while scoring ({reason}): use fewer examples per "
                    "candidate, or leave this proxy out"
                ) from error
        # after the error is dropped, whose traceback holds the tensors
        _log.warning(
            "%s: out of memory while scoring on %s (%s); going on with the CPU, which is slower.",
            *(what, device, reason),
        )
        device = torch.device("cpu")
        free_device_memory()


def score_by(
    proxy: BaseProxy, inputs: Sequence[ProxyInput], seed: int, device: torch.device
) -> ProxyScores:
    """Score all candidates by a proxy.

    Args:
        proxy: The proxy.
        inputs: The real sample and the candidates.
        seed: Random seed.
        device: Device to compute on.

    Raises:
        ProxyError: The proxy returned something else than a score per candidate.
    """
    scores = _scored(proxy, inputs, seed, device)
    # judges read a part of a candidate anyway, and their scores have an error of their own
    if proxy.family == "lens":
        return scores
    return with_sampling_error(
        scores,
        inputs,
        lambda parts: _scored(proxy, parts, seed, device).values,
        seed,
        reads_records=proxy.needs_records,
        reads_others=proxy.needs_labels,
    )


def _scored(
    proxy: BaseProxy, inputs: Sequence[ProxyInput], seed: int, device: torch.device
) -> ProxyScores:
    real, candidates = inputs[0], inputs[1:]
    with preserved_state():  # it may also be called later, when the example scores are asked for
        scores: object = within_memory(
            proxy.key, lambda place: proxy.score(real, candidates, seed=seed, device=place), device
        )
    shape = (len(inputs) - 1,)
    if not isinstance(scores, ProxyScores):
        raise ProxyError(
            f"{proxy.key}: score returned {type(scores).__name__}; expected ProxyScores with "
            f"values of shape {shape}, one per candidate"
        )
    values: object = scores.values
    if not isinstance(values, torch.Tensor) or values.shape != shape:
        shown = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise ProxyError(
            f"{proxy.key}: ProxyScores.values must be a tensor of shape {shape}, one value per "
            f"candidate, found {shown}"
        )
    return scores
