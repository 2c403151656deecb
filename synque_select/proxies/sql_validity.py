"""Share of a candidate's SQL queries that run: a proxy for text-to-SQL data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch

from synque_select.data.examples import MapDataset
from synque_select.data.views import select
from synque_select.errors import DataError, ProxyError
from synque_select.proxies.base import BaseProxy, Family, ProxyInput, ProxyScores
from synque_select.proxies.inputs import check_count, undefined_scores
from synque_select.sql.runner import QueryRunner
from synque_select.types.modality import Modality

__all__ = ["SQLValidity"]


class SQLValidity(BaseProxy):
    """Share of a candidate's queries that run on the database, in 0..1; higher is better.

    Each query runs read-only, in a separate process, with limits on time and memory
    (`QueryRunner`). A query that fails or exceeds a limit counts as invalid. On a database without
    rows, the score says whether queries parse and refer to existing tables and columns. Only the
    candidates' SQL is read, never the real sample, so like a baseline this proxy is not part of a
    consensus.

    Args:
        database: Path of a SQLite file with the schema of the real task.
        field: Field of an example that contains the SQL.
        time_limit_s: Time limit per query, in seconds.
        memory_limit_mb: Memory limit per query, in MiB.

    Raises:
        ConfigError: A limit is not allowed.

    Source:
        This library. Execution as a check of generated SQL: Zhong et al. 2017 (Seq2SQL,
        arXiv 1709.00103), section 2.
    """

    key: ClassVar[str] = "sql_validity"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "share of queries in 0..1"
    source: ClassVar[str] = "share of queries that run, after Zhong et al. 2017"
    family: ClassVar[Family] = "baseline"
    needs_embeddings: ClassVar[bool] = False
    needs_records: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset(("text",))

    def __init__(
        self,
        database: str,
        field: str = "SQL",
        time_limit_s: float = 5.0,
        memory_limit_mb: int = 256,
    ) -> None:
        self.database, self.field = database, field
        self.time_limit_s = time_limit_s
        self.memory_limit_mb = check_count("memory_limit_mb", memory_limit_mb, at_least=1)

    def options(self) -> Mapping[str, Any]:
        """Return the constructor's arguments, with the file name of the database only."""
        # rankings are shared between machines, and a path of this one means nothing there
        return {**vars(self), "database": Path(self.database).name}

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Run all queries of each candidate; nothing is random, so `seed` is not used.

        Raises:
            DataError: The database cannot be read.
            ProxyError: An example of a candidate does not have the field.
        """
        without = [candidate.name for candidate in candidates if candidate.records is None]
        if without:
            message = f"sql_validity is undefined without records: {', '.join(without)}"
            return undefined_scores(len(candidates), message)
        with QueryRunner(
            self.database, time_limit_s=self.time_limit_s, memory_limit_mb=self.memory_limit_mb
        ) as runner:
            errors_of = [self._errors(candidate, runner) for candidate in candidates]
        shares = [sum(error is None for error in errors) / len(errors) for errors in errors_of]
        return ProxyScores(
            torch.tensor(shares, dtype=torch.float64), messages=_messages(candidates, errors_of)
        )

    def _errors(self, candidate: ProxyInput, runner: QueryRunner) -> list[str | None]:
        errors = []
        records = cast("MapDataset", candidate.records)
        for i in range(len(candidate)):
            try:
                query = str(select(records[i], self.field))
            except DataError as error:
                raise ProxyError(f"{candidate.name}, example {i}: {error}") from error
            errors.append(runner.run(query).error)
        return errors


def _messages(
    candidates: Sequence[ProxyInput], errors_of: Sequence[Sequence[str | None]]
) -> tuple[str, ...]:
    """Return a message for each candidate of which no query runs, with its first error."""
    # if every query fails, the likely cause is a wrong database or field, and its error says which
    return tuple(
        f"sql_validity: no query of {candidate.name} runs; the first says {errors[0]!r}"
        for candidate, errors in zip(candidates, errors_of, strict=True)
        if all(error is not None for error in errors)
    )
