"""Options of the generator loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch

from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError
from synque_select.generation.ledger import Prices
from synque_select.lens.rubric import RubricSampling
from synque_select.proxies.registry import ProxySpec
from synque_select.utils.validation import check_int, is_number

__all__ = ["ImproveOptions", "Keep"]

Keep = Literal["add", "replace"]
_ROLES = ("generator", "reasoner")


@dataclass(frozen=True)
class ImproveOptions:
    """Options of `improve`.

    Args:
        rounds: Maximum number of rounds.
        n_examples: Number of examples to ask for in a round.
        per_call: Number of examples to ask for in a call.
        keep: What is compared with the old data, and kept if it is better: "add" for the old data
            with the batch, "replace" for the batch alone.
        temperature: Sampling temperature of the generator.
        max_answer_tokens: Maximum number of tokens in an answer of the generator.
        max_chars: Maximum number of characters of each text of an example, in prompts and answers.
        sampling: How the rubric is written.
        error: Maximum probability that data which is not better is kept in any of the rounds; each
            round is tested at error / rounds.
        prices: Price per million tokens, in any currency: {"generator": {"input": …, "output": …},
            "reasoner": …}; without "reasoner", its price is that of the generator.
        max_cost: Maximum cost of the run at these prices; a round that could cost more than what
            is left is not started.
        proxies: Proxies that compare old and new; None for the default suite.
        encoder: A model id or an encoder; None for the default.
        seed: Random seed of the split, of what prompts show, and of answers.
        device: Device for encoding and scoring; None for a GPU if there is one.
        cache_dir: Directory of cached embeddings and scores; None for the default cache.
        progress: Whether to show the estimated cost and progress.

    Raises:
        ConfigError: A value is not allowed.
    """

    rounds: int = 3
    n_examples: int = 50
    per_call: int = 5
    keep: Keep = "add"
    temperature: float = 1.0
    max_answer_tokens: int = 4096
    max_chars: int = 2000
    sampling: RubricSampling = field(default_factory=RubricSampling)
    error: float = 0.05
    prices: Prices | None = None
    max_cost: float | None = None
    proxies: Sequence[ProxySpec] | None = None
    encoder: str | BaseEncoder | None = None
    seed: int = 0
    device: str | torch.device | None = None
    cache_dir: str | Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("rounds", "n_examples", "per_call", "max_answer_tokens", "max_chars"):
            check_int(name, getattr(self, name), 1)
        check_int("seed", self.seed, 0)
        if self.keep not in get_args(Keep):
            raise ConfigError(f"keep={self.keep!r}: allowed are {', '.join(get_args(Keep))}")
        if not is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise ConfigError(
                f"temperature={self.temperature!r}: allowed are finite numbers from 0"
            )
        if not is_number(self.error) or not 0 < self.error < 1:
            raise ConfigError(f"error={self.error!r}: allowed are values in (0, 1)")
        if not isinstance(self.sampling, RubricSampling):
            raise ConfigError(f"sampling={self.sampling!r}: expected an instance of RubricSampling")
        _check_prices(self.prices)
        if self.max_cost is not None:
            if not is_number(self.max_cost) or not 0 <= self.max_cost < math.inf:
                raise ConfigError(f"max_cost={self.max_cost!r}: allowed are finite numbers from 0")
            if self.prices is None:
                raise ConfigError("max_cost needs prices, which say what a token costs")

    @property
    def prices_of_roles(self) -> Prices | None:
        """The price of each role; None without prices."""
        if self.prices is None:
            return None
        return {"reasoner": self.prices["generator"], **self.prices}

    def requests(self) -> list[int]:
        """Return the number of examples that each call of a round asks for.

        Example:
            >>> ImproveOptions(n_examples=12, per_call=5).requests()
            [5, 5, 2]
        """
        whole, rest = divmod(self.n_examples, self.per_call)
        return [self.per_call] * whole + ([rest] if rest else [])


def _check_prices(prices: object) -> None:
    if prices is None:
        return
    form = 'expected {"generator": {"input": 1.0, "output": 2.0}}, and the same for "reasoner"'
    if not isinstance(prices, Mapping) or not {"generator"} <= set(prices) <= set(_ROLES):
        raise ConfigError(f"prices={prices!r}: {form}")
    for role, price in prices.items():
        if not isinstance(price, Mapping) or set(price) != {"input", "output"}:
            raise ConfigError(f"prices, {role}: found {price!r}; {form}")
        for name, value in price.items():
            if not is_number(value) or not 0 <= value < math.inf:
                raise ConfigError(f"prices, {role}, {name}: expected 0 or more, found {value!r}")
