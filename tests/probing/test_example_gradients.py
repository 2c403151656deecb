"""Gradients of single examples, against autograd, one example at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate
from torchmetrics import MeanMetric

from synque_select.errors import LightningError
from synque_select.probing.example_gradients import (
    ExampleGradients,
    chosen_parameters,
)
from synque_select.training.module_state import unchanged_module
from tests.lightning_package import pl


@contextmanager
def evaluated(module: pl.LightningModule) -> Iterator[None]:
    """As the module is while gradients are taken; `by_autograd` needs gradients of its own."""
    with unchanged_module(pl.Trainer(logger=False), module, seed=0), torch.enable_grad():
        yield


class Net(pl.LightningModule):
    """A head that is defined before what feeds it, with dropout, norms and a metric."""

    def __init__(self, reads_values: bool = False) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.body = nn.Sequential(
            nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()
        )
        self.dropout = nn.Dropout(0.5)
        self.seen = MeanMetric()
        self.reads_values = reads_values
        self.batch_sizes: list[int] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        self.batch_sizes.append(len(batch["x"]))
        logits = self.head(self.dropout(self.body(batch["x"])))
        loss = nn.functional.cross_entropy(logits, batch["y"])
        self.log("train_loss", loss)
        if self.reads_values and loss.item() > 0:  # vmap cannot follow this
            self.seen.update(loss)
        return {"loss": loss, "other": logits.detach()}


def examples(n: int = 7) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    return [{"x": torch.randn(2, 5, generator=generator), "y": i % 3} for i in range(n)]


def by_autograd(module: Net, names: list[str]) -> torch.Tensor:
    parameters = [dict(module.named_parameters())[name] for name in names]
    rows = []
    for example in examples():
        batch = default_collate([example])
        logits = module.head(module.body(batch["x"]))
        loss = nn.functional.cross_entropy(logits, batch["y"])
        parts = torch.autograd.grad(loss, parameters)
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


@pytest.mark.parametrize("reads_values", [False, True])
@pytest.mark.parametrize("kind", ["last_layer", "all"])
def test_they_are_those_of_autograd(kind: Any, reads_values: bool):
    torch.manual_seed(0)
    module = Net(reads_values)
    with evaluated(module):
        taken_kind, chosen = chosen_parameters(module, kind, default_collate(examples(1)))
        assert taken_kind == kind
        module.batch_sizes.clear()
        taken = ExampleGradients(module, chosen, default_collate, 16)(examples())
        n_passes = len(module.batch_sizes)
        expected = by_autograd(module, list(chosen))
    assert taken.shape == (7, sum(p.numel() for p in chosen.values()))
    assert torch.allclose(taken, expected, atol=1e-6)
    # one pass for all examples, or one try and then one pass per example
    assert n_passes == (8 if reads_values else 1)


class Texts(pl.LightningModule):
    """The mean of the embeddings of all tokens, also of those that pad a batch."""

    def __init__(self, time_major: bool) -> None:
        super().__init__()
        self.time_major = time_major
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def collate(self, rows: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row, _ in rows], batch_first=not self.time_major
        )
        return tokens, torch.tensor([label for _, label in rows])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        tokens, labels = batch
        if tokens.numel() == 1:
            return None
        dim = 0 if self.time_major else 1
        return nn.functional.cross_entropy(self.head(self.embedding(tokens).mean(dim)), labels)


@pytest.mark.parametrize("time_major", [False, True])
def test_no_example_is_padded_to_the_length_of_others(time_major: bool):
    torch.manual_seed(0)
    module = Texts(time_major)
    rows = [([1, 2, 3, 4], 0), ([5, 6], 1), ([7, 8, 1, 2], 1), ([3, 4, 5], 0)]
    with evaluated(module):
        _, chosen = chosen_parameters(module, "all", module.collate(rows[:1]))
        taken = ExampleGradients(module, chosen, module.collate, 16)(rows)
        expected = []
        for row in rows:
            loss = module.training_step(module.collate([row]), 0)
            parts = torch.autograd.grad(loss, list(chosen.values()))
            expected.append(torch.cat([part.flatten() for part in parts]))
    assert torch.allclose(taken, torch.stack(expected), atol=1e-6)


def test_an_example_that_training_skips_has_no_gradient():
    module = Texts(time_major=False)
    rows = [([1, 2], 0), ([5], 1)]
    with evaluated(module):
        _, chosen = chosen_parameters(module, "all", module.collate(rows[:1]))
        taken = ExampleGradients(module, chosen, module.collate, 16)(rows)
    assert taken[0].any()
    assert not taken[1].any()


def test_the_last_layer_is_the_one_that_is_called_last():
    module = Net()
    with evaluated(module):
        kind, chosen = chosen_parameters(module, "auto", default_collate(examples(1)))
    assert (kind, list(chosen)) == ("last_layer", ["head.weight", "head.bias"])


def test_lora_parameters_come_first():
    peft = pytest.importorskip("peft")

    class Adapted(Net):
        def __init__(self) -> None:
            super().__init__()
            self.head = peft.get_peft_model(
                nn.Sequential(nn.Linear(6, 3)),
                peft.LoraConfig(r=2, target_modules=["0"], init_lora_weights=False),
            )

    torch.manual_seed(0)
    module = Adapted()
    with evaluated(module):
        kind, chosen = chosen_parameters(module, "auto", default_collate(examples(1)))
        assert kind == "lora"
        assert all("lora_" in name for name in chosen)
        taken = ExampleGradients(module, chosen, default_collate, 16)(examples())
        assert torch.allclose(taken, by_autograd(module, list(chosen)), atol=1e-6)


class Tied(pl.LightningModule):
    """A language model whose embedding is its last layer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        logits = self.head(self.embedding(batch[:, :-1]))
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


class Bag(pl.LightningModule):
    """Embeddings, whose gradients may be sparse, and nothing else."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(9, 3, sparse=sparse, mode="sum")

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.embedding(batch), batch[:, 0] % 3)


@pytest.mark.parametrize("module", [Tied(), Bag(sparse=False), Bag(sparse=True)])
@pytest.mark.parametrize("kind", ["last_layer", "all"])
def test_weights_that_are_tied_and_gradients_of_embeddings_alone(module: Any, kind: Any):
    rows = [torch.tensor(row) for row in ([1, 2, 3, 4], [5, 6, 7, 8], [2, 2, 1, 0])]
    with evaluated(module):
        _, chosen = chosen_parameters(module, kind, torch.stack(rows[:1]))
        assert list(chosen) == ["embedding.weight"]
        taken = ExampleGradients(module, chosen, torch.stack, 16)(rows)
        for row, gradient in zip(rows, taken, strict=True):
            loss = module.training_step(row.unsqueeze(0), 0)
            (expected,) = torch.autograd.grad(loss, [module.embedding.weight])
            assert torch.allclose(gradient, expected.to_dense().flatten(), atol=1e-6)


def test_the_module_is_left_as_it_was():
    module = Net(reads_values=True)
    module.body[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with evaluated(module):
        _, chosen = chosen_parameters(module, "last_layer", default_collate(examples(1)))
        ExampleGradients(module, chosen, default_collate, 16)(examples())
        assert not module.training
    assert module.training
    assert module.dropout.training
    assert not module.body[1].training
    assert all(torch.equal(module.state_dict()[name], t) for name, t in before.items())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert not {"log", "log_dict"} & vars(module).keys()
    assert module.seen.update_count == 0


@pytest.mark.parametrize(
    ("kind", "message"), [("lora", "has no LoRA parameters"), ("all", "has no trainable")]
)
def test_a_module_without_such_parameters(kind: Any, message: str):
    module = Net().requires_grad_(False)
    with evaluated(module), pytest.raises(LightningError, match=message):
        chosen_parameters(module, kind, default_collate(examples(1)))


def test_a_step_without_a_loss():
    class Silent(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            super().training_step(batch, batch_idx)
            return None

    module = Silent()
    with evaluated(module), pytest.raises(LightningError, match="returned NoneType"):
        chosen_parameters(module, "auto", default_collate(examples(1)))
