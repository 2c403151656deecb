"""Options of `measure_influence`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from synque_select.errors import ConfigError
from synque_select.records.run_folder import check_plain_name
from synque_select.types import GradientKind
from synque_select.utils.validation import check_int

__all__ = ["InfluenceOptions"]

_KINDS = ("auto", *get_args(GradientKind))


@dataclass(frozen=True, kw_only=True)
class InfluenceOptions:
    """Options of `measure_influence`.

    Args:
        checkpoints: Number of checkpoints of the fit, evenly spaced; the last one is its end.
        examples: Most examples per candidate whose gradients are taken, drawn at random.
        validation_examples: Most validation examples whose gradients are taken, drawn at random
            from labeled data; `SurrogateOptions` has the size of a surrogate.
        gradients: Parameters whose gradients are taken: "lora" for the LoRA parameters of peft,
            "last_layer" for the layer with trainable parameters that is called last, "all" for all
            trainable ones; "auto" for the first of these that exists.
        unit_length: Whether each gradient is scaled to length 1, as in LESS, so that no example
            counts more because its loss, or its text, is large; False to leave lengths as they
            are, as in TracIn, which is the first-order change of the loss.
        dims: Dimensions that gradients are randomly projected to; fewer parameters than that are
            not projected.
        seed: Random seed of the initial weights and the fit (except for the order of examples,
            which follows the DataModule's own seed), of the drawn examples and of the projection.
        task: Name of the task, part of the name of a new run directory; None for the module's
            class.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        >>> InfluenceOptions(dims=0)
        Traceback (most recent call last):
        synque_select.errors.ConfigError: dims=0: allowed is a whole number from 1
    """

    checkpoints: int = 3
    examples: int = 200
    validation_examples: int = 1000
    gradients: Literal["auto", "lora", "last_layer", "all"] = "auto"
    unit_length: bool = True
    dims: int = 2048
    seed: int = 0
    task: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("checkpoints", 1), ("examples", 2), ("validation_examples", 3)):
            check_int(name, getattr(self, name), least)
        check_int("dims", self.dims, 1)
        check_int("seed", self.seed, 0)
        if self.gradients not in _KINDS:
            raise ConfigError(
                f"gradients={self.gradients!r}: allowed are {', '.join(map(repr, _KINDS))}"
            )
        if self.task is not None:
            check_plain_name("task", self.task)
