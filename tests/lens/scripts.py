"""A scripted language model that can tell sets of samples apart, for tests of LENS.

Samples are words like `w3x-2`: value −2 in column 3. The reasoner writes the mean of each column
of dataset B into its points; the judge compares a sample with the means of dataset A and B.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from synque_select.llm.scripted import ScriptedLLM

_WORD = re.compile(r"w(\d+)x(-?\d+)")
_MEAN = re.compile(r"mean (\d+) is (-?[\d.]+)")


def _means(text: str) -> dict[int, float]:
    values: dict[int, list[int]] = defaultdict(list)
    for column, value in _WORD.findall(text):
        values[int(column)].append(int(value))
    return {column: sum(shares) / len(shares) for column, shares in values.items()}


def write_points(prompt: str) -> str:
    means = _means(prompt.split("Samples of dataset B:")[1])
    first = "; ".join(f"mean {column} is {mean:.4f}" for column, mean in means.items())
    points = [f"Dataset B: {first}", *(f"point {i}" for i in range(2, 11))]
    return '{"points": [' + ", ".join(f'"{point}"' for point in points) + "]}"


def weigh_labels(prompt: str, choices: Sequence[str]) -> list[float]:
    """A binomial on the labels, higher the nearer the sample is to the set that is asked for.

    Without a rubric, values near 0 are taken for real.
    """
    rubric, _, rest = prompt.partition("You are shown")
    if "How dataset" not in rubric:
        values = _means(rest).values()
        p = math.exp(-sum(value**2 for value in values) / (8 * max(1, len(values))))
        name = "A" if "from dataset A?" in rest else "B"
        p = 0.05 + 0.9 * (p if f"Dataset {name} is real" in rubric else 1 - p)
        return [math.comb(4, i) * p**i * (1 - p) ** (4 - i) for i in range(len(choices))]
    _, about_a, about_b = rubric.split("How dataset")
    asked = about_a if "from dataset A?" in rest else about_b
    means = {int(column): float(mean) for column, mean in _MEAN.findall(asked)}
    sample = _means(rest)
    distance = sum((sample.get(column, 0.0) - mean) ** 2 for column, mean in means.items())
    p = 0.05 + 0.9 * math.exp(-distance / (4 * max(1, len(means))))
    return [math.comb(4, i) * p**i * (1 - p) ** (4 - i) for i in range(len(choices))]


def telling_llm() -> ScriptedLLM:
    return ScriptedLLM(write_points, weigh_labels, id="telling")
