"""Options that the recipes share: data of your own, the budget of a fit, LoRA adapters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

from synque_select.errors import ConfigError
from synque_select.hub.language_models import DEFAULT_MODEL
from synque_select.utils.validation import check_int, is_number

__all__ = ["Dtype", "FitOptions", "LoRAOptions", "OwnData", "check_above_zero"]

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """Data of your own. Without it a task uses the data that its recipe provides.

    Args:
        candidates: Files or directories of synthetic data, anything that `load_candidates` takes.
        real: Your unlabeled real examples; every replicate draws from them.
        labeled: Your labeled real examples, for validation and test.
        n_real: Number of real examples that a replicate draws; None for the default of the recipe.

    Raises:
        ConfigError: Some of the three are missing, or `n_real` is not allowed.

    Example:
        >>> OwnData(candidates="candidates/*.csv", real="real.csv")
        Traceback (most recent call last):
        synque_select.errors.ConfigError: labeled is missing: data of your own needs candidates, ...
    """

    candidates: str | list[str] | None = None
    real: str | None = None
    labeled: str | None = None
    n_real: int | None = None

    def __post_init__(self) -> None:
        given = {"candidates": self.candidates, "real": self.real, "labeled": self.labeled}
        missing = [name for name, value in given.items() if not value]
        if 0 < len(missing) < len(given):
            verb = "is" if len(missing) == 1 else "are"
            raise ConfigError(
                f"{' and '.join(missing)} {verb} missing: data of your own needs candidates, real "
                "and labeled"
            )
        if self.n_real is not None:
            check_int("n_real", self.n_real, 2)

    @property
    def paths(self) -> tuple[str | list[str], str, str] | None:
        """Candidates, real and labeled examples; None without data of your own."""
        if not (self.candidates and self.real and self.labeled):
            return None
        return self.candidates, self.real, self.labeled


class LearningRate(TypedDict, total=False):
    """The learning rate as a keyword argument of a module, if it is given."""

    learning_rate: float


class LoRAArguments(TypedDict):
    """Keyword arguments of `CausalLMModule`."""

    model_id: str
    learning_rate: NotRequired[float]
    warmup_share: float
    lora_rank: int
    lora_alpha: int
    gradient_checkpointing: bool
    dtype: Dtype


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """The budget of a fit, the same for every arm, and how it is trained.

    Args:
        n_distinct: Number of distinct examples that every arm trains on; None for the size of the
            smallest candidate.
        max_steps: Number of optimizer steps; None for `epochs` passes over the distinct examples.
        epochs: Number of passes; read only if `max_steps` is None.
        batch_size: Number of examples per step.
        learning_rate: Learning rate, at its peak if there is a schedule; None for the default of
            the model.
        precision: Precision of the Trainer, such as "bf16-mixed"; None for the Trainer's default.

    Raises:
        ConfigError: A number is not allowed.

    Example:
        >>> FitOptions(epochs=3, batch_size=32).steps(100)
        10
    """

    n_distinct: int | None = None
    max_steps: int | None = None
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.n_distinct is not None:
            check_int("n_distinct", self.n_distinct, 2)
        if self.max_steps is not None:
            check_int("max_steps", self.max_steps, 1)
        check_int("epochs", self.epochs, 1)
        check_int("batch_size", self.batch_size, 1)
        if self.learning_rate is not None:
            check_above_zero("learning_rate", self.learning_rate)

    def steps(self, n_distinct: int) -> int:
        """Return the number of optimizer steps for this many distinct examples."""
        return self.max_steps or math.ceil(self.epochs * n_distinct / self.batch_size)

    @property
    def rate(self) -> LearningRate:
        """The learning rate as a keyword argument of a module; empty for the module's default."""
        return {} if self.learning_rate is None else {"learning_rate": self.learning_rate}


@dataclass(frozen=True, kw_only=True)
class LoRAOptions:
    """A causal language model with LoRA adapters; the arguments of `CausalLMModule`.

    Args:
        model_id: A directory or a hub id, "id@revision" for a revision; some models come from
            packages.
        warmup_share: Share of the steps in which the learning rate rises.
        lora_rank: Rank of the adapters.
        lora_alpha: Scale of the adapters, times their rank.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        dtype: Type of the frozen weights; the adapters are float32.

    Raises:
        ConfigError: A number is not allowed.
    """

    model_id: str = DEFAULT_MODEL
    warmup_share: float = 0.05
    lora_rank: int = 16
    lora_alpha: int = 32
    gradient_checkpointing: bool = False
    dtype: Dtype = "bfloat16"

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_share < 1:
            raise ConfigError(f"warmup_share={self.warmup_share}: allowed is 0 to below 1")
        check_int("lora_rank", self.lora_rank, 1)
        check_above_zero("lora_alpha", self.lora_alpha)

    def arguments(self, fit: FitOptions) -> LoRAArguments:
        """Return the keyword arguments of `CausalLMModule`, the learning rate among them."""
        return {
            "model_id": self.model_id,
            **fit.rate,
            "warmup_share": self.warmup_share,
            "lora_rank": self.lora_rank,
            "lora_alpha": self.lora_alpha,
            "gradient_checkpointing": self.gradient_checkpointing,
            "dtype": self.dtype,
        }


def check_above_zero(name: str, value: object) -> None:
    """Refuse an argument that is not a finite number above 0.

    Raises:
        ConfigError: It is not.

    Example:
        >>> check_above_zero("learning_rate", 0.1)
    """
    if not (is_number(value) and isinstance(value, (int, float)) and 0 < value < math.inf):
        raise ConfigError(f"{name}={value!r}: allowed is a number above 0")
