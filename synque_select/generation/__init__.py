"""The generator loop: a model writes further examples, and those that make the data better stay."""

from synque_select.generation.comparison import Comparison, ProxyComparison
from synque_select.generation.ledger import Spent
from synque_select.generation.loop import improve
from synque_select.generation.options import ImproveOptions
from synque_select.generation.result import Improvement, Round

__all__ = [
    "Comparison",
    "ImproveOptions",
    "Improvement",
    "ProxyComparison",
    "Round",
    "Spent",
    "improve",
]
