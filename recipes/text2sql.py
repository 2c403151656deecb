"""Which generator of questions and SQL is worth training a text-to-SQL model on?

A causal language model with LoRA learns to write the SQL of a question from the schema of a
database. `text2sql-small` runs on a CPU: SmolLM2-135M-Instruct, a database of the world's time
zones, 222 questions written by hand, 8 generators. `text2sql-paper` has the paper's model and
hyper-parameters on the released data. To run it: `synque-select experiment --config
text2sql-small`, or `python -m synque_select.recipes.text2sql`.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import LightningModule

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.sources import load_candidates, load_dataset_file, load_real
from synque_select.data.views import select
from synque_select.errors import ConfigError, DataError
from synque_select.functional.paired import compare_paired, wilson_interval
from synque_select.hub.language_models import DEFAULT_MODEL
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._causal_lm import (
    CausalLMModule,
    Encoded,
    Packer,
    encode_chat,
    load_tokenizer,
)
from synque_select.recipes._main import run_recipe
from synque_select.recipes._real_data import (
    SPLIT_SEED,
    RealDraws,
    labeled_file,
    released_task,
    selected,
    split_labeled,
    union,
)
from synque_select.recipes._task import RecipeTask
from synque_select.recipes._text2sql_database import build_time_zones
from synque_select.recipes._text2sql_generators import (
    FALSE_LABELS,
    GENERATORS,
    Record,
    generate,
    read_slots,
)
from synque_select.recipes.options import FitOptions, LoRAOptions, OwnData
from synque_select.sql.instance import write_made_up_database
from synque_select.sql.parsing import parsed_query
from synque_select.sql.reference import ReferenceAnswer
from synque_select.sql.runner import QueryRunner, compact_schema
from synque_select.sql.text import infer_schema, normalised
from synque_select.utils.cache_dir import default_cache_dir
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

__all__ = ["SQLData", "SQLModel", "Text2SQLTask", "main", "real_questions"]

_N_POOL, _N_VALIDATION = 120, 30
_N_PER_CANDIDATE = 240
_INSTRUCTION = "Write one SQLite query that answers the question. Answer with the query alone."
_QUESTION: Final = "question"
_SQL: Final = "SQL"
_Source = Literal["time_zones", "released"]


def real_questions() -> list[Record]:
    """Return the 222 questions about the database of time zones and their SQL, written by hand."""
    file = importlib.resources.files("synque_select.recipes") / "_text2sql_questions.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


class SQLModel(CausalLMModule):
    """A language model that writes SQL, whose queries are run and compared with the given ones.

    `val_execution_accuracy`, of `n_validated` questions, and `test_execution_accuracy`, of
    `n_generated`, are the share of questions whose written query returns the same rows as the
    given one. Questions whose own query fails or returns nothing are not counted, because a wrong
    query returns nothing, too, nor are those for which the right results are unknown (see
    `ReferenceAnswer.ties_are_unknown`); `val_n_unknown` and `test_n_unknown` are the numbers of
    these, and a warning says so. `val_n_compared` and `test_n_compared` are those of the others.
    The accuracy is NaN if there are none. `val_exact_match` and `test_exact_match` are the shares
    of queries that equal the given one except for layout and case.

    Args:
        model_id: A directory or a hub id, "id@revision" for a revision; some models come from
            packages.
        database: SQLite file that queries run on; None for the database of time zones.
        options: Other arguments of `CausalLMModule`.
    """

    def __init__(
        self, model_id: str = DEFAULT_MODEL, database: str | None = None, **options: Any
    ) -> None:
        super().__init__(model_id, **options)
        self.save_hyperparameters()

    def write(self, prompts: Sequence[Sequence[int]], *, batch_size: int = 32) -> list[str]:
        """Return the query that the model writes after each prompt."""
        return [_bare(text) for text in super().write(prompts, batch_size=batch_size)]

    def compare(self, examples: Sequence[Encoded], answers: Sequence[str]) -> dict[str, float]:
        """Return the share of queries with the right rows, and of those with the same text."""
        database = self.hparams["database"]
        path = _time_zones() if database is None else Path(database)
        pairs = [(str(e.record[_SQL]), query) for e, query in zip(examples, answers, strict=True)]
        with QueryRunner(path) as runner:
            references = [(ReferenceAnswer.of(runner, given), query) for given, query in pairs]
            known = [one for one in references if not one[0].ties_are_unknown]
            same = [
                reference.accepts(runner.run(query))
                for reference, query in known
                if reference.result.rows
            ]
        n_unknown = len(references) - len(known)
        if n_unknown:
            # once per process, not at every validation
            warnings.warn(_unknown_results(n_unknown, len(references)), stacklevel=2)
        return {
            "exact_match": fmean(normalised(a) == normalised(b) for a, b in pairs),
            "execution_accuracy": fmean(same) if same else math.nan,
            "n_compared": float(len(same)),
            "n_unknown": float(n_unknown),
        }


def _bare(text: str) -> str:
    r"""Extract the first query from the output of a model, without a code fence.

    Example:
        >>> _bare("```sql\nSELECT 1;\n```")
        'SELECT 1'
    """
    inner = text.partition("```")[2] if "```" in text else text
    query = inner.partition("```")[0].strip()
    if query[:6].lower() == "sqlite":
        query = query[6:]
    elif query[:3].lower() == "sql":
        query = query[3:]
    return query.strip().rstrip(";").strip()


def _time_zones() -> Path:
    return build_time_zones(default_cache_dir() / "text2sql")


@dataclass(frozen=True, kw_only=True)
class SQLData(OwnData):
    """Questions with SQL: those of the recipe, one released database, or files of your own.

    Args:
        candidates: Files of records with a question and its SQL; None for the data of `source`.
        real: Your unlabeled real questions; every replicate draws from them.
        labeled: Your real questions with SQL, for validation and test. Those whose SQL does not run
            on `database` are removed.
        n_real: Number of questions in a real sample.
        source: "time_zones" for the database and questions that come with the recipe; "released"
            for one database of the released SynQuE data. Not read with data of your own.
        path: A clone of the released repository, or its directory `data`; None for the value of
            SYNQUE_BENCHMARK_DATA.
        database_id: Id of the released database; None if there is only one.
        n_samples: How many of the released samples to use; nothing of these is in validation or
            test. None for all; later replicates draw from those that are used.
        database: SQLite file of the released database or of your own. If it is None, one is made
            up from the SQL of the candidates: its schema, and rows that meet its conditions.
        question_field: The field with the question, in data of your own.
        sql_field: The field with the query, in data of your own.

    Raises:
        ConfigError: A value is not allowed.
    """

    n_real: int | None = 30
    source: _Source = "time_zones"
    path: str | None = None
    database_id: str | None = None
    n_samples: int | None = None
    database: str | None = None
    question_field: str = _QUESTION
    sql_field: str = _SQL

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in get_args(_Source):
            allowed = ", ".join(map(repr, get_args(_Source)))
            raise ConfigError(f"source={self.source!r}: allowed is {allowed}")


_DATA = SQLData()
_MODEL = LoRAOptions(lora_rank=8, lora_alpha=16)
_FIT = FitOptions(n_distinct=96, max_steps=12, batch_size=8, learning_rate=2e-3)


@dataclass(frozen=True)
class _Loaded:
    """The data of a task, wherever it comes from."""

    candidates: Sequence[Candidate]
    draws: RealDraws
    validation: Examples
    test: Examples
    database: Path
    false_labels: Mapping[str, str] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


class Text2SQLTask(RecipeTask):
    """Candidates of questions and SQL, real questions without SQL, a language model with LoRA.

    The metric is the token loss of the correct SQL, in nats: the mean over the test questions of
    the mean over a question's tokens; lower is better. At the small size almost no query of the
    model is correct, so a share of correct queries could not distinguish any arms.

    Args:
        data: The questions and their database.
        fit: Budget of a fit; a generator of the recipe makes at least 240 examples.
        model: The language model and its adapters.
        block_size: Largest number of tokens in a packed row, from 16.
        n_generated: Number of test questions for which queries are written and run.
        n_validated: The same for validation questions, to tune or sweep by execution accuracy.
        max_new_tokens: Largest number of tokens in such a query.
        encoder: Encoder of the questions; None for the default.
        proxies: The proxies that score the candidates; None for the default suite. `sql_validity`
            runs queries on the task's database.
        seed: Random seed of the generators and of the draws of real samples.

    Raises:
        ConfigError: A value is not allowed.
        DataError: A file cannot be used.
    """

    name = "text2sql"
    metric = "loss"
    mode = "min"

    def __init__(
        self,
        data: SQLData = _DATA,
        fit: FitOptions = _FIT,
        model: LoRAOptions = _MODEL,
        block_size: int = 512,
        n_generated: int = 24,
        n_validated: int = 0,
        max_new_tokens: int = 48,
        encoder: str | None = None,
        proxies: list[ProxySpec] | None = None,
        seed: int = 0,
    ) -> None:
        check_int("block_size", block_size, 16)
        loaded = _load(data, max(fit.n_distinct or 0, _N_PER_CANDIDATE), seed)
        self._data = loaded
        own = {"key": "sql_validity", "database": str(loaded.database)}
        if proxies is not None:
            proxies = [own if proxy == "sql_validity" else proxy for proxy in proxies]
        super().__init__(loaded.candidates, loaded.draws, fit, encoder, proxies)
        self.false_labels = loaded.false_labels
        self.packer = self.collate_fn = Packer(block_size)
        self._model_arguments = model.arguments(fit)
        self._generation = {
            "n_generated": n_generated,
            "n_validated": n_validated,
            "max_new_tokens": max_new_tokens,
        }
        self._model_id = model.model_id

    @property
    def validation(self) -> Examples:
        """Real questions with SQL that are in no real sample."""
        return self._data.validation

    @property
    def test(self) -> Examples:
        """The other real questions with SQL."""
        return self._data.test

    def model(self, seed: int) -> LightningModule:
        """Create a model with fresh adapters."""
        return SQLModel(
            **self._model_arguments, **self._generation, database=str(self._data.database)
        )

    def fingerprint(self) -> Mapping[str, object]:
        """Return hyper-parameters, the schema and all SQL."""
        parts = (*self.candidates, self.validation, self.test)
        return {
            "model": {**self._model_arguments, **self._generation},
            "block_size": self.packer.block_size,
            "precision": self.fit.precision,
            "schema": self.schema,
            "labels": [_labels_sha256(examples) for examples in parts],
        }

    @cached_property
    def schema(self) -> str:
        """The tables and columns that are in every prompt."""
        return compact_schema(self._data.database)

    def transform(self, record: Record) -> Encoded:
        """Convert a record to the tokens of its prompt and of its SQL."""
        question = f"{self.schema}\n\n{record[_QUESTION]}"
        prompt = [
            {"role": "system", "content": _INSTRUCTION},
            {"role": "user", "content": question},
        ]
        return encode_chat(load_tokenizer(self._model_id), prompt, str(record[_SQL]), record)

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """Say what in the data is made by hand or missing."""
        return self._data.messages

    def arm_messages(
        self, metrics: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]
    ) -> Sequence[str]:
        """Return differences paired by question, and the shares of correct queries."""
        arms = [arm for arm in metrics if arm not in ("single", "short")]
        return [
            *(_by_question(metrics["chosen"], metrics[a], a) for a in arms if a != "chosen"),
            *filter(None, (_accuracy(metrics[arm], arm) for arm in arms)),
        ]


def _load(data: SQLData, n: int, seed: int) -> _Loaded:
    """Load the data; generators of the recipe make n examples each."""
    if data.paths is not None:
        return _own(data, data.paths, seed)
    return _generated(data, n, seed) if data.source == "time_zones" else _released(data, seed)


def _generated(data: SQLData, n: int, seed: int) -> _Loaded:
    database = _time_zones()
    slots, real = read_slots(database), real_questions()
    avoid = frozenset(record[_QUESTION].lower() for record in real)
    candidates = [
        Candidate(name, generate(name, slots, n, seed=seed, avoid=avoid), _QUESTION, _SQL)
        for name in GENERATORS
    ]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(real))
    pool, validation, test = (
        [real[i] for i in part.tolist()]
        for part in np.split(order, [_N_POOL, _N_POOL + _N_VALIDATION])
    )
    return _Loaded(
        candidates,
        RealDraws(_unlabeled("pool", pool), data.n_real or len(pool) // 2, seed=seed),
        Examples("validation", validation, _QUESTION, _SQL),
        Examples("test", test, _QUESTION, _SQL),
        database,
        FALSE_LABELS,
        (
            "the database is real (package tzdata); the 222 questions and their SQL were written "
            "by hand, before the generators and by the same author",
        ),
    )


def _released(data: SQLData, seed: int) -> _Loaded:
    groups = {group.name: group for group in released_task("text2sql", data.path).groups}
    only = next(iter(groups)) if len(groups) == 1 else None
    group = groups.get(data.database_id or only or "")
    if group is None:
        raise ConfigError(f"database_id={data.database_id!r}: allowed is {', '.join(groups)}")
    labeled = labeled_file(group, _QUESTION, _SQL)
    reals = list(group.reals.items())[: data.n_samples]
    samples = [_unlabeled(f"seed {draw}", list(real)) for draw, real in reals]
    return _split(data, group.candidates, labeled, samples, given=samples, seed=seed)


def _own(data: SQLData, paths: tuple[str | list[str], str, str], seed: int) -> _Loaded:
    candidates, real, labeled = paths
    question, query = data.question_field, data.sql_field
    loaded = load_candidates(candidates, view=question, label=query)
    views = load_real(real, view=question).views
    pool = RealSample("real", [{_QUESTION: str(view)} for view in views], _QUESTION)
    return _split(
        data,
        loaded,
        Examples("labeled", load_dataset_file(labeled), question, query, labeled),
        [pool],
        given=(),
        seed=seed,
    )


def _split(
    data: SQLData,
    candidates: Sequence[Candidate],
    labeled: Examples,
    samples: Sequence[RealSample],
    *,
    given: Sequence[RealSample],
    seed: int,
) -> _Loaded:
    """Split the labeled questions that are in no real sample; build a database if there is none."""
    candidates = [Candidate(c.name, _pairs(c), _QUESTION, _SQL) for c in candidates]
    pairs = _pairs(labeled)
    database, messages = _database(data, candidates)
    if data.database:
        pairs, notes = _running(pairs, database, labeled.where)
        messages += notes
    labeled = Examples(labeled.name, pairs, _QUESTION, _SQL, labeled.source)
    pool = union(samples)
    hint = ": use fewer samples (n_samples)" if given else ""
    split = split_labeled(labeled, pool, hint=hint)
    n_real = len(pool) // 2 if data.n_real is None else min(data.n_real, len(pool))
    return _Loaded(
        candidates,
        RealDraws(pool, n_real, given, seed),
        Examples("validation", selected(labeled, split.validation), _QUESTION, _SQL),
        Examples("test", selected(labeled, split.test), _QUESTION, _SQL),
        database,
        messages=(*messages, *split.messages),
    )


def _database(data: SQLData, candidates: Sequence[Candidate]) -> tuple[Path, tuple[str, ...]]:
    if data.database:
        path = Path(data.database)
        if not compact_schema(path):
            raise DataError(f"{path}: this database has no table")
        return path, ()
    queries = [[str(record[_SQL]) for record in c] for c in candidates]
    schema = infer_schema(queries)
    # one of each candidate in turn, so that any few of them are of all candidates
    mixed = [query for row in zip_longest(*queries) for query in row if query is not None]
    name = hashlib.sha256(json.dumps([schema, mixed]).encode()).hexdigest()[:16]
    path = default_cache_dir() / "text2sql" / f"made-up-{name}.sqlite"
    n_unread = sum(parsed_query(query) is None for query in mixed)
    message = (
        "no database is given: the tables and columns are those that the SQL of half of the "
        "candidates names, and rows are made up to meet its conditions. Different queries may "
        "return the same rows there, so execution accuracy is too high; for the true one, give the "
        "original database (data.database)"
    )
    if n_unread:
        message += (
            f". {n_unread} of {counted(len(mixed), 'query', 'queries')} of the candidates cannot "
            "be parsed within the limits and are left out of it"
        )
    if not path.is_file():
        write_made_up_database(path, schema, mixed, seed=0)
    return path, (message,)


def _pairs(examples: Examples) -> list[Record]:
    """Return questions and SQL under the names that the recipe uses.

    Raises:
        DataError: A record has no query.
    """
    pairs: list[Record] = []
    for i, question in enumerate(examples.views):
        query = select(examples[i], examples.label)  # type: ignore[arg-type]
        if not isinstance(query, str) or not query.strip():
            raise DataError(
                f"{examples.where}, example {i} (counted from 0): {examples.label}={query!r}; "
                "expected a query"
            )
        pairs.append({"question": str(question), "SQL": query})
    return pairs


def _running(
    pairs: Sequence[Record], database: Path, where: str
) -> tuple[list[Record], tuple[str, ...]]:
    """Return the pairs whose query runs; say how many do not, and of how many ties are unknown.

    Raises:
        DataError: No query runs.
    """
    with QueryRunner(database) as runner:
        answers = [ReferenceAnswer.of(runner, pair["SQL"]) for pair in pairs]
    errors = [answer.result.error for answer in answers]
    failed = [i for i, error in enumerate(errors) if error is not None]
    unknown = [i for i, answer in enumerate(answers) if answer.ties_are_unknown]
    notes: tuple[str, ...] = ()
    if unknown:
        first_unknown = f"The first is example {unknown[0]} (counted from 0)"
        notes = (f"{_unknown_results(len(unknown), len(pairs))}. {first_unknown}",)
    if not failed:
        return list(pairs), notes
    first = f"the first is example {failed[0]} (counted from 0): {errors[failed[0]]}"
    if len(failed) == len(pairs):
        raise DataError(f"{where}: no query runs on {database}; {first}")
    kept = [pair for pair, error in zip(pairs, errors, strict=True) if error is None]
    message = (
        f"{len(failed)} of {counted(len(pairs), 'labeled query', 'labeled queries')} do not run "
        f"on {database}; {first}. They are removed from validation and test"
    )
    return kept, (message, *notes)


def _unknown_results(n: int, n_all: int) -> str:
    return (
        f"For {n} of {counted(n_all, 'labeled query', 'labeled queries')}, it is unknown which "
        "results are right: rows tie and are too many to be read, the result depends on rows that "
        "SQLite may choose (the LIMIT of a subquery, tied rows of a window, a column that is "
        "neither grouped nor aggregated, values joined in any order), the query takes too long "
        "without its LIMIT, or it returns something else each time. They do not count in execution "
        "accuracies"
    )


def _unlabeled(name: str, records: Sequence[Record]) -> RealSample:
    """Return the questions alone: a real sample has no SQL."""
    return RealSample(name, [{_QUESTION: record["question"]} for record in records], view=_QUESTION)


def _labels_sha256(examples: Examples) -> str:
    joined = "\0".join(str(record[_SQL]) for record in examples)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


_Fits = Mapping[int, Sequence[Mapping[str, float]]]  # replicate to the metrics of its fits


def _question_losses(fits: _Fits) -> NDArray[np.float64]:
    """Return each test question's loss, averaged over the fits of an arm, (n,)."""
    rows = []
    for of_replicate in fits.values():
        for metrics in of_replicate:
            n = sum(name.startswith("test_loss_of_") for name in metrics)
            rows.append([metrics[f"test_loss_of_{i}"] for i in range(n)])
    losses: NDArray[np.float64] = np.asarray(rows, dtype=np.float64).mean(axis=0)
    return losses


def _by_question(chosen: _Fits, other: _Fits, arm: str) -> str:
    shared = chosen.keys() & other.keys()
    first, second = (
        _question_losses({r: fits[r] for r in sorted(shared)}) for fits in (chosen, other)
    )
    pair = compare_paired(first, second, mode="min")
    return (
        f"by question, chosen minus {arm}: {pair.difference:+.3f} nats "
        f"[{pair.low:+.3f}, {pair.high:+.3f}], n {counted(pair.n, 'question')}, paired 95 % "
        "t-interval over questions for the fits of these "
        f"{counted(len(shared), 'replicate')}, not for new "
        "ones"
    )


def _accuracy(fits: _Fits, arm: str) -> str | None:
    """Say how many queries are correct; n of the interval is the number of questions of one fit."""
    all_metrics = [metrics for of_replicate in fits.values() for metrics in of_replicate]
    rates = [metrics.get("test_execution_accuracy", math.nan) for metrics in all_metrics]
    if any(map(math.isnan, rates)):
        return None
    n = int(all_metrics[0]["test_n_compared"])
    low, high = wilson_interval(fmean(rates) * n, n)
    exact = fmean(metrics["test_exact_match"] for metrics in all_metrics)
    return (
        f"execution accuracy, {arm}: {fmean(rates):.3f}, mean of {counted(len(rates), 'fit')} on "
        f"the same {counted(n, 'question')}; Wilson 95 % "
        f"[{low:.3f}, {high:.3f}] at n {n}; exact match {exact:.3f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the small experiment, with the options of `synque-select experiment`."""
    return run_recipe("text2sql-small", arguments)


if __name__ == "__main__":
    sys.exit(main())
