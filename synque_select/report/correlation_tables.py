"""Correlations of proxies with validation, as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from synque_select.functional.correlation import Correlation
from synque_select.records.correlation import (
    KeyCorrelations,
    MeanCorrelation,
    distinct_units,
    mean_correlations,
)
from synque_select.report.formats import (
    UNDEFINED,
    figure_decimals,
    format_interval,
    format_number,
    format_p,
    format_signed,
)
from synque_select.report.table import Column, Table
from synque_select.report.untrained import UNTRAINED_NAME, untrained_notes

__all__ = [
    "correlation_table",
    "correlation_tables",
    "mean_table",
    "short_units",
    "units_table",
]


def correlation_table(proxies: Mapping[str, Correlation], *, title: str = "") -> Table:
    """Return the correlation of each proxy with validation over the same units.

    Args:
        proxies: Proxy key to its correlation.
        title: Title of the table, which says what the units are and which metric is meant.
    """
    heads = ("n", "Pearson", "p", "Spearman", "95 % interval", "p", "Kendall", "p")
    kept = ("p", "95 % interval")
    columns = (
        Column("proxy", is_name=True),
        *(Column(head, stays=head in kept) for head in heads),
        Column("with validation"),
    )
    methods = dict.fromkeys(one.p_method for one in proxies.values() if one.p_method)
    notes = ["+ means that the proxy was right: better scores went with better figures"]
    notes += [f"p: two-sided permutation test, {method}" for method in methods]
    if len(proxies) > 1:
        notes.append(
            "agrees, contradicts: the interval excludes 0, for one proxy alone; by chance, about 1 "
            "in 20 proxies does"
        )
    notes += [f"{key}: {one.message}" for key, one in proxies.items() if one.message]
    rows = tuple(_correlation_row(key, one) for key, one in proxies.items())
    return Table(title or "Correlation of proxies with validation", columns, rows, tuple(notes))


def _correlation_row(key: str, one: Correlation) -> tuple[str, ...]:
    spearman = one.spearman
    return (
        key,
        str(one.n),
        format_signed(one.pearson.value),
        format_p(one.pearson.p),
        format_signed(spearman.value),
        format_interval(spearman.low, spearman.high) or UNDEFINED,
        format_p(spearman.p),
        format_signed(one.kendall.value),
        format_p(one.kendall.p),
        one.verdict,
    )


def correlation_tables(correlations: Sequence[KeyCorrelations]) -> list[Table]:
    """Return a table for each comparability key and kind, then the means of the within-key values.

    A key with fewer than 5 distinct units has no figures, only a sentence on what is missing.
    """
    tables = [_key_table(entry) for entry in correlations]
    for kind, proxies in mean_correlations(correlations).items():
        several = {key: mean for key, mean in proxies.items() if mean.n_keys > 1}
        if several:
            tables.append(mean_table(several, title=f"Mean over keys, kind {kind}"))
    return tables


def units_table(entry: KeyCorrelations) -> Table:
    """Return the validation figure of each unit of a comparability key, best first.

    The last row is the model as it is, if it was measured without training.
    """
    sign = -1 if entry.mode == "max" else 1
    points = sorted(entry.points, key=lambda point: sign * point.validation)
    names = short_units([point.unit for point in points])
    values = {name: point.validation for name, point in zip(names, points, strict=True)}
    decimals = figure_decimals(values.values())
    rows = [
        (name, format_number(point.validation, decimals), str(point.n_seeds))
        for name, point in zip(names, points, strict=True)
    ]
    if entry.untrained is not None:
        rows.append((UNTRAINED_NAME, format_number(entry.untrained, decimals), UNDEFINED))
    columns = (Column("trained on", is_name=True), Column(entry.monitor), Column("runs"))
    better = "higher" if entry.mode == "max" else "lower"
    note = f"{better} is better; figures at the end of an equal budget, the mean over runs"
    unit: Literal["candidate", "mixture"] = "candidate" if entry.kind == "probe" else "mixture"
    notes = untrained_notes(values, entry.untrained, entry.monitor, entry.mode, unit=unit)
    return Table(f"Validation of each {entry.kind}", columns, tuple(rows), (note, *notes))


def short_units(units: Sequence[str]) -> list[str]:
    """Leave out the content hashes of units if their names alone are distinct.

    Example:
        >>> short_units(["a @0123abcd", "b @4567cdef"])
        ['a', 'b']
    """
    short = [re.sub(r" @[0-9a-f]{8}$", "", unit) for unit in units]
    return short if len(set(short)) == len(short) else list(units)


def mean_table(proxies: Mapping[str, MeanCorrelation], *, title: str) -> Table:
    """Return the means over keys of the values within each key."""
    heads = ("keys", "Pearson", "Spearman", "Kendall")
    rows = tuple(
        (
            key,
            str(m.n_keys),
            format_signed(m.pearson),
            format_signed(m.spearman),
            format_signed(m.kendall),
        )
        for key, m in proxies.items()
    )
    note = "means of the values within each key; the points of several keys are not pooled"
    return Table(title, (Column("proxy", is_name=True), *map(Column, heads)), rows, (note,))


def _key_table(entry: KeyCorrelations) -> Table:
    task = entry.key.get("task")
    units = distinct_units(entry.kind, len(entry.points))
    title = (
        f"{f'{task}: ' if task else ''}{units}, runs of kind {entry.kind}, "
        f"{entry.monitor} ({entry.mode}), key {entry.key_hash[:8]}"
    )
    if not entry.proxies:
        return Table(title, (), (), entry.messages)
    table = correlation_table(entry.proxies, title=title)
    return Table(title, table.columns, table.rows, (*table.notes, *entry.messages))
