"""The influence of candidates as a table."""

from __future__ import annotations

from synque_select.report.formats import UNDEFINED, format_interval, format_signed
from synque_select.report.table import Column, Table
from synque_select.types.influence import InfluenceResult
from synque_select.utils.wording import counted

__all__ = ["influence_table"]

_DECIMALS = 3
_GRADIENTS = {
    "lora": "the LoRA parameters",
    "last_layer": "the last layer",
    "all": "all trainable parameters",
}


def influence_table(result: InfluenceResult) -> Table:
    """Return the influence of each candidate, the largest first."""
    columns = (
        Column("candidate", is_name=True),
        Column("influence"),
        Column("95 % interval", stays=True),
        Column("examples"),
        Column("verdict"),
    )
    rows = tuple(
        (
            one.name,
            format_signed(one.value, _DECIMALS),
            format_interval(one.low, one.high, _DECIMALS) or UNDEFINED,
            f"{one.n:,} of {one.n_all:,}",
            one.verdict,
        )
        for one in result.order()
    )
    title = f"Influence on the {result.validation} validation loss"
    return Table(title, columns, rows, _notes(result))


def _notes(result: InfluenceResult) -> tuple[str, ...]:
    scaled = ", scaled as steps of Adam are" if result.is_preconditioned else ""
    parts = counted(result.n_parameters, "parameter")
    if result.n_dims < result.n_parameters:
        dimensions = counted(result.n_dims, "dimension")
        parts += f", projected to {dimensions} with seed {result.seed}"
    product = (
        "mean cosine of the gradients of its examples and of the validation examples"
        if result.unit_length
        else "mean inner product of the gradients of its examples and of the validation examples, "
        "whose root mean square length is 1"
    )
    return (
        f"influence: {product}; + means that a small step on the candidate lowers the loss",
        f"gradients of {_GRADIENTS[result.gradients]} ({parts}){scaled}, after steps "
        f"{', '.join(map(str, result.steps))} of one fit of {result.max_steps} on all candidates, "
        f"seed {result.seed}, weighted by the learning rate",
        _about_validation(result),
        "each interval is for one candidate alone, and for one fit: it does not say which of two "
        "candidates is better, nor how much another seed would change",
        *result.messages,
    )


def _about_validation(result: InfluenceResult) -> str:
    examples = counted(result.n_validation, "validation example")
    if result.validation == "labeled":
        return f"{examples}, labeled; the interval is over these and the drawn examples"
    return (
        f"{examples}, a surrogate: held-out examples of the candidates, and none of a candidate's "
        "own family; the interval is over the other families and the drawn examples"
    )
