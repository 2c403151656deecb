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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Final, Literal, get_args

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
    Batch,
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
from synque_select.recipes.options import Dtype, FitOptions, LoRAOptions, OwnData
from synque_select.sql.runner import QueryRunner, compact_schema, is_ordered, same_result
from synque_select.sql.text import infer_schema, normalised, write_empty_database
from synque_select.utils.cache_dir import default_cache_dir
from synque_select.utils.validation import check_int

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
    """A language model that writes SQL; a test measures the loss and counts correct queries.

    After a test, `test_execution_accuracy` is the share of the first `n_generated` questions whose
    query returns the same rows as the correct one (NaN if the database has no rows), and
    `test_exact_match` is the share of queries that equal the correct one except for layout and
    case.

    Args:
        model_id: See `CausalLMModule`, as for all arguments that are not listed here.
        database: SQLite file that queries run on; None for the database of time zones.
        n_generated: Number of test questions for which queries are written; 0 for none.
        max_new_tokens: Largest number of tokens in a query.
    """

    def __init__(
        self,
        model_id: str = DEFAULT_MODEL,
        learning_rate: float = 2e-4,
        warmup_share: float = 0.05,
        weight_decay: float = 0.0,
        lora_rank: int = 16,
        lora_alpha: int = 32,
        lora_dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        dtype: Dtype = "bfloat16",
        database: str | None = None,
        n_generated: int = 0,
        max_new_tokens: int = 64,
    ) -> None:
        super().__init__(
            model_id,
            learning_rate,
            warmup_share,
            weight_decay,
            lora_rank,
            lora_alpha,
            lora_dropout,
            gradient_checkpointing,
            dtype,
        )
        self.save_hyperparameters()
        self._questions: list[Encoded] = []

    def on_test_epoch_start(self) -> None:
        """Clear the list of questions for which queries are written."""
        super().on_test_epoch_start()
        self._questions = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `test_loss`, and collect the questions."""
        super().test_step(batch, batch_idx)
        room = self.hparams["n_generated"] - len(self._questions)
        self._questions += batch["examples"][: max(0, room)]

    def on_test_epoch_end(self) -> None:
        """Write the queries, run them, and log the shares of correct ones."""
        super().on_test_epoch_end()
        if self._questions:
            written = self.write([example.prompt for example in self._questions])
            correct = [example.record[_SQL] for example in self._questions]
            self.log_dict({f"test_{n}": v for n, v in self._scores(correct, written).items()})

    def write(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Return the query that the model writes after each prompt."""
        tokenizer = load_tokenizer(self.hparams["model_id"])
        answers = self.answers(prompts, max_new_tokens=self.hparams["max_new_tokens"])
        return [_bare(str(tokenizer.decode(answer))) for answer in answers]

    def _scores(self, correct: Sequence[str], written: Sequence[str]) -> dict[str, float]:
        database = self.hparams["database"]
        path = _time_zones() if database is None else Path(database)
        pairs = list(zip(correct, written, strict=True))
        scores = {
            "exact_match": fmean(normalised(a) == normalised(b) for a, b in pairs),
            "n_generated": float(len(written)),
        }
        if not _has_rows(path):
            return {**scores, "execution_accuracy": math.nan}
        with QueryRunner(path) as runner:
            same = [
                same_result(runner.run(a), runner.run(b), ordered=is_ordered(a)) for a, b in pairs
            ]
        return {**scores, "execution_accuracy": fmean(same)}


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


def _has_rows(database: Path) -> bool:
    """Whether any table has a row."""
    tables = [line.partition("(")[0] for line in compact_schema(database).splitlines()]
    with QueryRunner(database) as runner:
        quoted = [table.replace('"', '""') for table in tables]
        return any(runner.run(f'SELECT 1 FROM "{table}" LIMIT 1').rows for table in quoted)


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
        database: SQLite file of the released database or of your own. If it is None, an empty one
            is built from the schema that the SQL of the candidates uses, and execution accuracy is
            not measured.
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
        self._generation = {"n_generated": n_generated, "max_new_tokens": max_new_tokens}
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
        pairs, failed = _running(pairs, database, labeled.where)
        messages += failed
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
    schema = infer_schema([[str(record[_SQL]) for record in c] for c in candidates])
    name = hashlib.sha256(json.dumps(schema).encode()).hexdigest()[:16]
    path = default_cache_dir() / "text2sql" / f"empty-{name}.sqlite"
    message = (
        "no database is given: prompts and sql_validity use an empty one, with the tables and "
        "columns that the SQL of half of the candidates names; execution accuracy needs the "
        "original one (data.database)"
    )
    return (path if path.is_file() else write_empty_database(path, schema)), (message,)


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
    """Return the pairs whose query runs, and say how many queries do not.

    Raises:
        DataError: No query runs.
    """
    with QueryRunner(database) as runner:
        errors = [runner.run(pair["SQL"]).error for pair in pairs]
    failed = [i for i, error in enumerate(errors) if error is not None]
    if not failed:
        return list(pairs), ()
    first = f"the first is example {failed[0]} (counted from 0): {errors[failed[0]]}"
    if len(failed) == len(pairs):
        raise DataError(f"{where}: no query runs on {database}; {first}")
    kept = [pair for pair, error in zip(pairs, errors, strict=True) if error is None]
    message = (
        f"{len(failed)} of {len(pairs)} labeled queries do not run on {database}; {first}. They "
        "are removed from validation and test"
    )
    return kept, (message,)


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
        f"[{pair.low:+.3f}, {pair.high:+.3f}], n {pair.n} questions, paired 95 % t-interval "
        f"over questions for the fits of these {len(shared)} replicates, not for new ones"
    )


def _accuracy(fits: _Fits, arm: str) -> str | None:
    """Say how many queries are correct; n of the interval is the number of questions of one fit."""
    all_metrics = [metrics for of_replicate in fits.values() for metrics in of_replicate]
    rates = [metrics.get("test_execution_accuracy", math.nan) for metrics in all_metrics]
    if any(map(math.isnan, rates)):
        return None
    n = int(all_metrics[0]["test_n_generated"])
    low, high = wilson_interval(fmean(rates) * n, n)
    exact = fmean(metrics["test_exact_match"] for metrics in all_metrics)
    return (
        f"execution accuracy, {arm}: {fmean(rates):.3f}, mean of {len(rates)} fits on the same {n} "
        f"questions; Wilson 95 % [{low:.3f}, {high:.3f}] at n {n}; exact match {exact:.3f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the small experiment, with the options of `synque-select experiment`."""
    return run_recipe("text2sql-small", arguments)


if __name__ == "__main__":
    sys.exit(main())
