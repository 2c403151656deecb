"""A model that is evaluated in the middle of its training is trained as if it had not been."""

from __future__ import annotations

import hashlib
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from synque_select.data.candidate import RealSample
from synque_select.errors import ConfigError, LightningError
from synque_select.training.example_positions import ExamplePositions
from synque_select.training.model_evaluation import TrainingEvaluation
from tests.lightning_package import SynqueDataModule, pl
from tests.training.tiny import (
    LETTERS,
    REAL_WORDS,
    TinyData,
    TinyModel,
    candidates,
    collate,
    letters,
    real_sample,
    texts,
    trainer,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
    "ignore:You defined a `validation_step` but have no",
)

MIXTURE = {"near": 0.5, "mixed": 0.25, "far": 0.25}


class Loaded(TinyModel):
    """Has all that an evaluation could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(len(LETTERS))
        self.dropout = torch.nn.Dropout(0.3)
        self.accuracy = MulticlassAccuracy(2)
        self.mean = MeanMetric()
        self.generator = torch.Generator().manual_seed(5)
        self.calls = {"n": 0, "last": torch.zeros(2)}
        self.hooked: list[bool] = []
        self.norm.register_forward_hook(self._hook)
        self.is_training: list[bool] = []

    def _hook(self, *_: Any) -> None:
        self.hooked.append(self.training)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        inputs, labels, names = batch
        self.seen.append(names)
        self.is_training.append(self.training and self.norm.training)
        self.calls["n"] += 1
        noise = torch.randn(inputs.shape, generator=self.generator) * 0.01
        logits = self.layer(self.dropout(self.norm(inputs + noise)))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.calls["last"] += logits.detach()[0]
        self.mean(loss)
        self.log("train_acc", self.accuracy(logits, labels), prog_bar=True)
        self.log_dict({"train_mean": self.mean, "draw": random.random() + np.random.rand()})
        if self.logger is not None:
            self.logger.log_metrics({"direct": float(loss.detach())}, step=index)
        return loss

    def predict_step(self, batch: Any, index: int) -> torch.Tensor:
        inputs, _, names = batch
        self.seen.append(names)
        return self.layer(self.norm(inputs)).softmax(1)

    def embed(self, batch: Any) -> torch.Tensor:
        return batch[0]


class Memory(pl.loggers.logger.Logger):
    """Keeps what is logged."""

    name, version = "memory", "0"

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Any] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append((dict(metrics), step))

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...


class Evaluate(pl.Callback):
    """Evaluates before every third batch, and checks at once that nothing has changed."""

    def __init__(self, outputs: str | None = None) -> None:
        self.outputs, self.results = outputs, []
        self.positions = ExamplePositions(3)

    def on_train_batch_start(self, trainer: Any, module: Any, _: Any, index: int) -> None:
        if index % 3:
            return
        before = state_of(module, trainer)
        evaluation = TrainingEvaluation(
            trainer, trainer.datamodule, self.positions, outputs=self.outputs, seed=index
        )
        with evaluation:
            self.results.append(
                [
                    evaluation.candidate_loss("near", 20),
                    evaluation.candidate_loss("far", 9),
                    evaluation.real_outputs(11),
                    evaluation.candidate_outputs("mixed", 3),
                ]
            )
        assert state_of(module, trainer) == before


def state_of(module: Any, trainer: Any) -> dict[str, Any]:
    """What an evaluation must leave as it was, as values that can be compared."""
    gradients = [None if p.grad is None else p.grad.tolist() for p in module.parameters()]
    return {
        "weights": {k: v.tolist() for k, v in module.state_dict().items()},
        "modes": [part.training for part in module.modules()],
        "gradients": gradients,
        "hooks": [list(part._forward_hooks) for part in module.modules()],
        "attributes": [sorted(vars(part)) for part in module.modules()],
        "generator": module.generator.get_state().tolist(),
        "calls": (module.calls["n"], module.calls["last"].tolist()),
        "seen": [list(names) for names in module.seen],
        "hooked": list(module.hooked),
        "metric": (module.accuracy.tp.tolist(), module.mean.mean_value.tolist()),
        "updates": module.accuracy._update_count,
        "torch": torch.get_rng_state().tolist(),
        "numpy": hashlib.sha256(pickle.dumps(np.random.get_state())).hexdigest(),
        "python": random.getstate(),
        "logged": {k: float(v) for k, v in trainer.callback_metrics.items()},
        "loggers": [id(logger) for logger in trainer.loggers],
        "grad": torch.is_grad_enabled(),
    }


def data(**options: Any) -> SynqueDataModule:
    given = {"real": real_sample(), "mixture": MIXTURE, "batch_size": 8, "collate_fn": collate}
    return SynqueDataModule(candidates(), **(given | options))


def fit(folder: Path, *callbacks: Any, **options: Any) -> tuple[Any, Memory]:
    pl.seed_everything(7, verbose=False)
    model, memory = options.pop("model", None) or Loaded(), Memory()
    datamodule = options.pop("datamodule", None) or data()
    run = trainer(folder, *callbacks, logger=memory, limit_val_batches=0, **options)
    run.fit(model, datamodule=datamodule)
    return model, memory


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fit_with_evaluations_is_bit_equal_to_one_without(tmp_path, accumulate):
    options = {"accumulate_grad_batches": accumulate, "max_steps": 8}
    plain, plain_log = fit(tmp_path, **options)
    evaluate = Evaluate()
    model, log = fit(tmp_path, evaluate, **options)
    assert len(evaluate.results) >= 3
    assert model.seen == plain.seen
    assert all(model.is_training)
    assert log.lines == plain_log.lines
    assert any("direct" in metrics for metrics, _ in log.lines)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_it_is_left_as_it_was_when_the_module_fails(tmp_path):
    class Failing(Loaded):
        def predict_step(self, batch: Any, index: int) -> torch.Tensor:
            super().predict_step(batch, index)
            self.norm(batch[0])
            raise ValueError("no prediction today")

    class Catch(Evaluate):
        def on_train_batch_start(self, trainer: Any, module: Any, *rest: Any) -> None:
            before = state_of(module, trainer)
            with pytest.raises(LightningError, match=r"predict_step fails.*no prediction today"):
                super().on_train_batch_start(trainer, module, None, 0)
            assert state_of(module, trainer) == before

    fit(tmp_path, Catch(), model=Failing(), max_steps=2)


def test_losses_and_outputs_are_those_of_the_module(tmp_path):
    class Check(Evaluate):
        def on_train_batch_start(self, trainer: Any, module: Any, _: Any, index: int) -> None:
            if index != 2:
                return
            evaluation = TrainingEvaluation(
                trainer, trainer.datamodule, self.positions, outputs="embed", seed=0
            )
            with evaluation:
                loss = evaluation.candidate_loss("near", 60)
                embedded = evaluation.real_outputs(30)
            near = next(c for c in trainer.datamodule.candidates if c.name == "near")
            inputs, labels, _ = collate(list(near.dataset))
            with torch.no_grad():
                expected = torch.nn.functional.cross_entropy(module.layer(inputs), labels)
            # 60 examples in batches of 8, the last one of 4
            assert loss == pytest.approx(float(expected), abs=1e-6)
            views = [letters(view) for view in real_sample().views]
            assert sorted(embedded.tolist()) == sorted(torch.stack(views).tolist())
            self.results.append(loss)

    class Plain(TinyModel):
        def embed(self, batch: Any) -> torch.Tensor:
            return batch[0]

    check = Check()
    fit(tmp_path, check, model=Plain(), max_steps=4)
    assert len(check.results) == 1


def evaluate_once(folder: Path, ask: Any, **options: Any) -> Any:
    """Return what `ask` gets from the evaluation before the third batch."""
    outputs = options.pop("outputs", None)

    class Once(pl.Callback):
        result: Any = None

        def on_train_batch_start(self, trainer: Any, module: Any, _: Any, index: int) -> None:
            if index == 2:
                evaluation = TrainingEvaluation(
                    trainer, trainer.datamodule, ExamplePositions(0), outputs=outputs, seed=0
                )
                with evaluation:
                    self.result = ask(evaluation)

    once = Once()
    fit(folder, once, max_steps=3, **options)
    return once.result


def test_no_label_of_the_real_sample_reaches_the_module(tmp_path):
    class Spy(Loaded):
        def spy(self, batch: Any) -> torch.Tensor:
            return batch[1][:, None]

    labels = [3, 4, 5, 6]
    records = [{"text": f"apple {i}", "label": label} for i, label in enumerate(labels)]
    options = {"real": RealSample("real", records, view="text", label="label")}
    labeled = [type(c)(c.name, c.dataset, view="text", label="label") for c in candidates()]
    datamodule = SynqueDataModule(
        labeled, **options, mixture=MIXTURE, batch_size=8, collate_fn=collate
    )
    seen = evaluate_once(
        tmp_path,
        lambda evaluation: evaluation.real_outputs(4),
        outputs="spy",
        model=Spy(),
        datamodule=datamodule,
    )
    assert set(seen.flatten().tolist()) <= {0.0, 1.0}


def test_real_examples_without_the_fields_of_the_candidates(tmp_path):
    plain = [f"apple banana {i}" for i in range(5)]
    rows = evaluate_once(
        tmp_path,
        lambda evaluation: evaluation.real_outputs(5),
        outputs="embed",
        model=Loaded(),
        datamodule=data(real=plain),
    )
    assert sorted(rows.tolist()) == sorted(torch.stack([letters(t) for t in plain]).tolist())


def test_held_out_examples_come_from_the_surrogate_validation_set(tmp_path):
    def ask(evaluation: TrainingEvaluation) -> Any:
        sizes = {name: evaluation.n_surrogate(name) for name in ("near", "far")}
        return sizes, evaluation.surrogate_loss("near", 3)

    from synque_select import SurrogateOptions
    from tests.training.tiny import LetterEncoder

    surrogate = SurrogateOptions(size=40, held_out=0.3, encoder=LetterEncoder())
    sizes, loss = evaluate_once(tmp_path, ask, datamodule=data(val=surrogate))
    assert all(size >= 3 for size in sizes.values())
    assert 0 < loss < 5


@pytest.mark.parametrize(
    ("ask", "options", "kind", "message"),
    [
        (
            lambda evaluation: evaluation.n_surrogate("near"),
            {},
            ConfigError,
            r"give SynqueDataModule\(val='surrogate'\)",
        ),
        (
            lambda evaluation: evaluation.n_real(),
            {"datamodule": {"real": None}},
            ConfigError,
            "needs a real sample",
        ),
        (
            lambda evaluation: evaluation.real_outputs(3),
            {"outputs": "embedding"},
            ConfigError,
            "outputs='embedding': Loaded has no method of this name",
        ),
        (
            lambda evaluation: evaluation.real_outputs(3),
            {"model": TinyModel},
            LightningError,
            r"TinyModel.predict_step fails .*Define a predict_step that takes a batch",
        ),
    ],
    ids=["no surrogate", "no real sample", "no method", "no predict_step"],
)
def test_what_is_missing_is_named(tmp_path, ask, options, kind, message):
    given = dict(options)
    if "datamodule" in given:
        given["datamodule"] = data(**given["datamodule"])
    if "model" in given:
        given["model"] = given["model"]()
    with pytest.raises(kind, match=message):
        evaluate_once(tmp_path, ask, **given)


class Manual(Loaded):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = super().training_step(batch, index)
        self.manual_backward(loss)
        optimizer = self.optimizers()
        optimizer.step()
        optimizer.zero_grad()
        return loss


class Gathering(Loaded):
    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.all_gather(batch[0])
        return super().training_step(batch, index)


class Pairs(Loaded):
    def predict_step(self, batch: Any, index: int) -> Any:
        return super().predict_step(batch, index), batch[2]


@pytest.mark.parametrize(
    ("model", "ask", "message"),
    [
        (Manual, lambda e: e.candidate_loss("near", 3), r"automatic_optimization=False"),
        (Gathering, lambda e: e.candidate_loss("near", 3), "calls all_gather"),
        (Pairs, lambda e: e.real_outputs(3), "returns tuple for a batch of 3 examples"),
    ],
)
def test_modules_that_cannot_be_evaluated(tmp_path, model, ask, message):
    with pytest.raises(LightningError, match=message):
        evaluate_once(tmp_path, ask, model=model())


class Average(Loaded):
    """Has a moving average of its layer, as the key encoder of MoCo."""

    def __init__(self) -> None:
        super().__init__()
        self.average = torch.nn.Linear(len(LETTERS), 2).requires_grad_(False)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.average.weight.data = 0.9 * self.average.weight + 0.1 * self.layer.weight.detach()
        return super().training_step(batch, index)


def test_a_module_whose_step_changes_parameters_is_refused(tmp_path):
    message = r"Average changes parameters when it is only evaluated: average\.weight\."
    with pytest.raises(LightningError, match=message):
        evaluate_once(tmp_path, lambda e: e.candidate_loss("near", 3), model=Average())
    rows = evaluate_once(tmp_path, lambda e: e.real_outputs(3), model=Average())
    assert rows.shape == (3, 2), "predict_step changes nothing"


class AnyArguments(Loaded):
    def training_step(self, *arguments: Any) -> torch.Tensor:
        batch, index = arguments
        return super().training_step(batch, index)


class OneArgument(Loaded):
    def training_step(self, batch: Any, **_: Any) -> torch.Tensor:
        return super().training_step(batch, 0)


@pytest.mark.parametrize("model", [AnyArguments, OneArgument])
def test_a_step_gets_the_number_of_the_batch_as_in_training(tmp_path, model):
    loss = evaluate_once(tmp_path, lambda e: e.candidate_loss("near", 3), model=model())
    assert loss == evaluate_once(tmp_path, lambda e: e.candidate_loss("near", 3), model=Loaded())


def test_a_method_with_an_option_gets_the_batch_alone(tmp_path):
    class Option(Loaded):
        def embed(self, batch: Any, scale: float = 2.0) -> torch.Tensor:
            return batch[0] * scale

    class Numbered(Loaded):
        def embed(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return batch[0] * (2 + batch_idx)

    def rows(model: Any) -> torch.Tensor:
        return evaluate_once(tmp_path, lambda e: e.real_outputs(3), model=model, outputs="embed")

    assert torch.equal(rows(Option()), 2 * rows(Loaded()))
    assert torch.equal(rows(Option()), rows(Numbered()))


def test_a_batch_that_training_skips_has_no_loss(tmp_path):
    class Skipping(Loaded):
        def training_step(self, batch: Any, index: int) -> torch.Tensor | None:
            is_skipped = len(batch[2]) == 1 or any("moon" in text for text in batch[2])
            return None if is_skipped and not self.training else super().training_step(batch, index)

    def loss(model: Any, name: str, n: int) -> float:
        return evaluate_once(tmp_path, lambda e: e.candidate_loss(name, n), model=model)

    assert loss(Skipping(), "near", 9) == loss(Loaded(), "near", 8)
    assert np.isnan(loss(Skipping(), "near", 1))


def test_a_metric_in_a_list_is_left_as_it_was(tmp_path):
    class Listed(Loaded):
        def __init__(self) -> None:
            super().__init__()
            self.listed = [MeanMetric()]

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = super().training_step(batch, index)
            self.listed[0].update(loss.detach())
            return loss

    model = Listed()
    evaluate_once(tmp_path, lambda e: e.candidate_loss("near", 20), model=model)
    assert model.listed[0].update_count == 3


def test_a_metric_that_is_synchronized_does_not_wait_for_other_ranks(tmp_path):
    """They do not evaluate, so that rank 0 would wait until a timeout."""

    class Synchronized(Loaded):
        def __init__(self) -> None:
            super().__init__()
            self.waited = 0
            self.synchronized = MeanMetric(
                dist_sync_on_step=True,
                dist_sync_fn=self._gather,
                distributed_available_fn=lambda: True,
            )

        def _gather(self, value: torch.Tensor, group: Any) -> list[torch.Tensor]:
            self.waited += 1
            return [value]

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = super().training_step(batch, index)
            self.synchronized(loss.detach())
            self.synchronized.compute()
            return loss

    model = Synchronized()
    waited = []

    def ask(evaluation: Any) -> None:
        before = model.waited
        evaluation.candidate_loss("near", 20)
        waited.append(model.waited - before)

    evaluate_once(tmp_path, ask, model=model)
    assert waited == [0]
    assert model.waited > 0, "in training"


def test_a_module_that_optimizes_by_itself_has_outputs(tmp_path):
    rows = evaluate_once(tmp_path, lambda e: e.real_outputs(3), model=Manual())
    assert rows.shape == (3, 2)


def test_a_collection_of_loaders_is_refused(tmp_path):
    class Several(TinyData):
        def train_dataloader(self) -> Any:
            return [DataLoader(texts(REAL_WORDS, 32, 5), batch_size=8, collate_fn=collate)]

    class First(Loaded):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return super().training_step(batch[0], index)

    with pytest.raises(LightningError, match="a collection of 1 loader"):
        evaluate_once(
            tmp_path,
            lambda e: e.candidate_loss("near", 3),
            model=First(),
            datamodule=data(wraps=Several()),
        )


def test_positions_go_through_all_examples_before_one_comes_again():
    positions = ExamplePositions(1)
    passes = [[*positions.take("a", 3, of=10), *positions.take("a", 7, of=10)] for _ in range(3)]
    assert [sorted(taken) for taken in passes] == [list(range(10))] * 3
    assert passes[0] != passes[1]
    positions.take("a", 8, of=10)
    assert len(set(positions.take("a", 4, of=10))) == 4
    assert ExamplePositions(1).take("a", 10, of=10) != ExamplePositions(2).take("a", 10, of=10)
    assert ExamplePositions(1).take("a", 10, of=10) != ExamplePositions(1).take("b", 10, of=10)


def test_positions_continue_from_their_state():
    whole, first = ExamplePositions(4), ExamplePositions(4)
    taken = [whole.take("a", 3, of=10) for _ in range(6)]
    resumed = [first.take("a", 3, of=10) for _ in range(2)]
    second = ExamplePositions(4, first.state_dict())
    resumed += [second.take("a", 3, of=10) for _ in range(4)]
    assert resumed == taken
