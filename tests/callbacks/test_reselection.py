"""Weights that change while a model trains: served, stored, resumed and logged."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from synque_select import SurrogateOptions
from synque_select.errors import ConfigError, LightningError
from synque_select.records.weights_file import load_weights
from synque_select.reselection import Proposal, ReselectionContext, ReselectionPolicy
from synque_select.training.mixture_loader import MixtureDataset
from synque_select.training.model_evaluation import TrainingEvaluation, check_whole_model
from synque_select.types import Mixture
from tests.lightning_package import (
    ProxyCorrelationCallback,
    ReselectionCallback,
    SelectionCallback,
    SynqueDataModule,
    pl,
)
from tests.training.tiny import (
    REAL_WORDS,
    WORDS,
    LetterEncoder,
    TinyData,
    TinyModel,
    candidates,
    collate,
    data_module,
    logged_texts,
    real_sample,
    seen_by,
    texts,
    trainer,
)

ModelCheckpoint = pl.callbacks.ModelCheckpoint
LearningRateFinder = pl.callbacks.LearningRateFinder
Tuner = pl.tuner.Tuner

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
    "ignore:You defined a `validation_step` but have no",
    "ignore:Be aware that when using `ckpt_path`, callbacks",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:ReselectionCallback. evaluation took",  # a busy machine
)

START = {"near": 0.5, "mixed": 0.25, "far": 0.25}


class Losses(ReselectionPolicy):
    """Draws in proportion to the losses; draws of its own, and a state."""

    id = "losses"

    def __init__(self, n: int | None = None, hold: int | None = None) -> None:
        self.n, self.hold = n, hold
        self.asked: list[tuple[int, int]] = []

    def start(self, names: Any, weights: Any, seed: int) -> None:
        self.names, self.means, self.generator = tuple(names), [0.0] * len(names), seed
        self.started = dict(weights)
        self.asked = []

    def propose(self, context: ReselectionContext) -> Proposal:
        self.asked.append((context.step, context.budget_examples))
        losses = context.candidate_losses(self.n)
        self.generator = (self.generator * 75 + 74) % 65537
        noise = self.generator / 65537 / 10
        self.means = [m / 2 + losses[name] for m, name in zip(self.means, self.names, strict=True)]
        raised = [mean + noise * i for i, mean in enumerate(self.means)]
        total = sum(raised)
        weights = {name: w / total for name, w in zip(self.names, raised, strict=True)}
        return Proposal(weights, self.hold)

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means, "generator": self.generator}

    def load_state_dict(self, state: Any) -> None:
        self.means, self.generator = list(state["means"]), state["generator"]


class Fixed(ReselectionPolicy):
    """Proposes what it is given."""

    id = "fixed"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def propose(self, context: ReselectionContext) -> Proposal:
        return self.answer() if callable(self.answer) else self.answer


def data(**options: Any) -> SynqueDataModule:
    given = {"real": real_sample(), "mixture": START, "batch_size": 8, "collate_fn": collate}
    return SynqueDataModule(candidates(), **(given | options))


class Fit:
    """A trainer with a ReselectionCallback, its parts, and their results."""

    def __init__(self, folder: Path, *callbacks: Any, **options: Any) -> None:
        pl.seed_everything(3, verbose=False)
        self.model = options.pop("model", TinyModel)()
        self.data = options.pop("datamodule", None) or data()
        policy = options.pop("policy", None) or Losses(3)
        self.policy = policy
        self.every = options.pop("every_n_steps", 4)
        given = {"budget": options.pop("budget", 0.5)}
        self.callback = ReselectionCallback(self.every, policy, **given)
        defaults = {"max_steps": 16, "limit_val_batches": 0}
        self.ckpt_path = options.pop("ckpt_path", None)
        self.trainer = trainer(folder, *callbacks, self.callback, **(defaults | options))

    def run(self) -> Any:
        self.trainer.fit(self.model, datamodule=self.data, ckpt_path=self.ckpt_path)
        return self

    @property
    def points(self) -> list[tuple[int, int, dict[str, float]]]:
        return [(p.step, p.draw, dict(p.weights)) for p in self.callback.trajectory.points]


def owners() -> dict[str, str]:
    return {record["text"]: c.name for c in candidates() for record in c.dataset}


def shares(seen: list[str]) -> Counter[str]:
    owner = owners()
    return Counter(owner[text] for text in seen)


def test_the_policy_is_asked_every_n_steps_and_its_weights_are_served(tmp_path):
    target = {"near": 0.0, "mixed": 0.25, "far": 0.75}
    fit = Fit(tmp_path, policy=Fixed(Proposal(target)), max_steps=40).run()
    # asked at step 4; the batch of that step has been fetched already
    assert fit.points == [(0, 0, START), (4, 40, target)]
    seen = seen_by(fit.model)
    # the weights of the start, as without the callback
    plain = Fit(tmp_path, policy="static", max_steps=40).run()
    assert seen[:40] == seen_by(plain.model)[:40]
    counts = shares(seen[40:])
    assert counts["near"] == 0
    assert abs(counts["far"] - 0.75 * 280) <= 25  # within a block of 1,000 the order is random
    assert set(counts) == {"mixed", "far"}


def test_no_example_comes_again_before_its_candidate_is_used_up(tmp_path):
    fit = Fit(tmp_path, max_steps=60, every_n_steps=3).run()
    assert len(fit.points) > 10
    owner = owners()
    for name in START:
        own = [text for text in seen_by(fit.model) if owner[text] == name]
        assert len(own) > 60
        for begin in range(0, len(own), 60):
            part = own[begin : begin + 60]
            assert len(set(part)) == len(part)


def test_the_control_trains_exactly_as_without_the_callback(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingEvaluation, "_open", lambda _: pytest.fail("it evaluates"))
    fit = Fit(tmp_path, policy="static").run()
    pl.seed_everything(3, verbose=False)
    model = TinyModel()
    trainer(tmp_path, max_steps=16, limit_val_batches=0).fit(model, datamodule=data())
    assert seen_by(fit.model) == seen_by(model)
    assert torch.equal(fit.model.layer.weight, model.layer.weight)
    assert fit.points == [(0, 0, START)]


def test_the_budget_counts_draws_of_this_process(tmp_path):
    policy = Losses()
    Fit(tmp_path, policy=policy, budget=0.25).run()
    # 3 forward passes per trained example, 4 steps of 8 examples, a quarter of it
    assert policy.asked == [(4, 24), (8, 24), (12, 24)]
    policy = Losses(hold=2)
    Fit(tmp_path, policy=policy, budget=0.25, accumulate_grad_batches=2, max_steps=8).run()
    assert policy.asked == [(4, 48), (6, 24)]


def test_a_budget_that_is_too_small_grows_until_it_pays_for_an_answer(tmp_path):
    """3 · 0.02 of 8 examples are 0.48 per step, and a loss of each candidate takes 3."""
    policy = Losses()
    fit = Fit(tmp_path, policy=policy, budget=0.02, max_steps=24)
    with pytest.warns(UserWarning, match="budget=") as warned:
        fit.run()
    messages = [str(w.message) for w in warned if "budget=" in str(w.message)]
    assert messages == [
        "ReselectionCallback: at step 4, budget=0.02 allows 1 example to be evaluated, but the "
        "policy 'losses' needs 3. The weights stay as they are until the budget has grown, at step "
        "8; for an answer after every 4 steps, give budget=0.032 or more"
    ]
    assert policy.asked == [(4, 1), (8, 3), (12, 1), (16, 3), (20, 1)]
    assert [point[0] for point in fit.points] == [0, 8, 16]
    assert fit.callback.trajectory.asked == 2
    # as large as the message says
    again = Fit(tmp_path, policy=Losses(), budget=0.032).run()
    assert [point[0] for point in again.points] == [0, 4, 8, 12]


@pytest.mark.filterwarnings("ignore:ReselectionCallback. at step .*, budget=0.02 allows")
def test_a_question_without_an_answer_leaves_no_trace_and_resumes(tmp_path):
    class Twice(Losses):
        """Evaluates examples, and changes its state, before it notices."""

        def propose(self, context: ReselectionContext) -> Proposal:
            self.means = [mean + 1 for mean in self.means]
            context.candidate_losses(1)
            return super().propose(context)

    saver = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=1, save_top_k=-1)
    options = {"budget": 0.02, "max_steps": 60}
    whole = Fit(tmp_path, saver, policy=Twice(1), enable_checkpointing=True, **options).run()
    # 0.48 examples per step: 3 are spent in vain at step 8, so that 6 more are there at step 20
    assert [step for step, _ in whole.policy.asked] == [8, 20, 28, 40, 48]
    assert [point[0] for point in whole.points] == [0, 20, 40]
    for step in (7, 8, 9, 20, 30):
        ckpt = tmp_path / "saved" / f"step={step}.ckpt"
        other = Fit(tmp_path, policy=Twice(1), ckpt_path=ckpt, **options).run()
        assert other.points == whole.points
        assert torch.equal(other.model.layer.weight, whole.model.layer.weight)
        assert other.policy.state_dict() == whole.policy.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 4}, "training ends after 4 steps, but .* asked after every 4, so the"),
        ({"budget": 0.001}, "at step 128, and training ends at step 16; .*give budget=0.032"),
        ({"budget": 0.001, "policy": Losses(500)}, "needs 1500.*every_n_steps=62500 or more"),
    ],
)
def test_a_training_that_is_too_short_for_a_change_says_so(tmp_path, options, message):
    fit = Fit(tmp_path, **({"policy": Losses()} | options))
    with pytest.warns(UserWarning, match=message):
        fit.run()
    assert fit.points == [(0, 0, START)]


def test_more_changes_than_can_be_are_refused_at_the_start(tmp_path):
    fit = Fit(tmp_path, max_steps=40_000, every_n_steps=2)
    with pytest.raises(ConfigError, match=r"every_n_steps=2: in 40,000 steps .* give 3 or more"):
        fit.run()
    assert fit.model.seen == []


@pytest.mark.parametrize("new", ["mixture", "weights", "datamodule"])
def test_a_fit_of_the_same_trainer_on_other_data_is_a_new_run(tmp_path, new):
    fit = Fit(tmp_path, max_steps=10, datamodule=data(epoch_length=400)).run()
    mixture = {"half": 0.5, "odd": 0.5} if new == "mixture" else {"near": 0.2, "far": 0.8}
    if new == "datamodule":
        fit.data = data(mixture=mixture, epoch_length=400)
    else:
        fit.data.set_mixture(Mixture(mixture))
    fit.trainer.fit_loop.epoch_loop.max_steps = 24
    fit.model.seen.clear()
    fit.run()
    assert fit.policy.started == mixture
    assert fit.policy.asked == [(14, 48), (18, 48), (22, 48)]
    assert [point[:2] for point in fit.points] == [(0, 0), (14, 40), (18, 72), (22, 104)]
    assert fit.points[0][2] == mixture
    assert set(shares(seen_by(fit.model))) == set(mixture)


def test_an_error_in_a_policy_names_it(tmp_path):
    fit = Fit(tmp_path, policy=Fixed(lambda: {}["missing"]))
    with pytest.raises(KeyError, match="missing") as error:
        fit.run()
    assert "raised by the policy 'fixed' at step 4" in error.value.__notes__


@pytest.mark.parametrize("place", ["before", "after"])
def test_beside_a_selection_in_any_order(tmp_path, place):
    selection = SelectionCallback(
        ["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=tmp_path / "cache"
    )
    fit = Fit(tmp_path, *([selection] if place == "before" else []), datamodule=data_module())
    if place == "after":
        fit.trainer.callbacks.append(selection)
    fit.run()
    assert set(fit.points[0][2]) == {"near", "mixed"}
    assert len(fit.points) == 4
    assert set(shares(seen_by(fit.model))) == {"near", "mixed"}
    assert fit.callback.run_dir == selection.run_dir
    assert load_weights(selection.run_dir) == fit.callback.trajectory
    page = (selection.run_dir / "report.html").read_text()
    assert "Weights over the steps" in page


def test_without_a_mixture_all_candidates_are_drawn(tmp_path):
    fit = Fit(tmp_path, datamodule=data(mixture=None), policy=Losses(1)).run()
    assert set(fit.points[0][2]) == set(WORDS)


def test_without_a_selection_the_run_has_a_directory_and_a_page(tmp_path):
    fit = Fit(tmp_path).run()
    run_dir = fit.callback.run_dir
    assert run_dir.parent == tmp_path / "runs" / "TinyModel"
    state = json.loads((run_dir / "weights.json").read_text())
    assert (state["policy"], state["steps"], state["asked"]) == ("losses", 16, 3)
    assert [point["step"] for point in state["points"]] == [0, 4, 8, 12]
    assert "Weights over the steps" in (run_dir / "report.html").read_text()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_continues_as_if_undisturbed(tmp_path, accumulate, workers):
    options = {"accumulate_grad_batches": accumulate, "max_steps": 14}
    loading = {"num_workers": workers}
    saver = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = Fit(
        tmp_path, saver, datamodule=data(**loading), enable_checkpointing=True, **options
    ).run()
    per_step = 8 * accumulate
    for step in (3, 4, 5, 9):
        ckpt = tmp_path / "saved" / f"step={step}.ckpt"
        other = Fit(tmp_path, datamodule=data(**loading), ckpt_path=ckpt, **options)
        other.model.layer.weight.data.zero_()
        other.run()
        rest = seen_by(other.model)
        assert len(rest) >= (14 - step - 2) * per_step
        assert rest == seen_by(whole.model)[-len(rest) :]
        assert other.points == whole.points
        assert torch.equal(other.model.layer.weight, whole.model.layer.weight)
        assert other.policy.state_dict() == whole.policy.state_dict()


class Predicting(TinyModel):
    def predict_step(self, batch: Any, _: int) -> torch.Tensor:
        return self.layer(batch[0]).softmax(1)


@pytest.mark.parametrize("policy", ["odm", "aioli:n_examples=2", "surrogate", "agreement"])
def test_every_policy_resumes_as_if_undisturbed(tmp_path, policy):
    def parts() -> dict[str, Any]:
        surrogate = SurrogateOptions(size=60, held_out=0.3, encoder=LetterEncoder())
        return {
            "model": Predicting,
            "policy": policy,
            "datamodule": data(val=surrogate),
            "max_steps": 20,
            "budget": 1.0,
        }

    saver = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = Fit(tmp_path, saver, enable_checkpointing=True, **parts()).run()
    assert len(whole.points) > 2
    assert whole.points[-1][2] != START
    for step in (4, 10):
        ckpt = tmp_path / "saved" / f"step={step}.ckpt"
        other = Fit(tmp_path, ckpt_path=ckpt, **parts()).run()
        assert other.points == whole.points
        assert seen_by(other.model) == seen_by(whole.model)[step * 8 :]
        assert torch.equal(other.model.layer.weight, whole.model.layer.weight)
        state = other.callback.policy.state_dict()
        assert state == whole.callback.policy.state_dict()


def test_a_policy_is_told_what_was_trained_on_since_it_was_last_asked(tmp_path):
    class Trained(Fixed):
        def __init__(self) -> None:
            super().__init__(Proposal({"near": 0.0, "mixed": 0.0, "far": 1.0}))
            self.trained: list[Any] = []

        def propose(self, context: ReselectionContext) -> Proposal:
            self.trained.append(dict(context.trained_weights or {}))
            return super().propose(context)

    policy = Trained()
    Fit(tmp_path, policy=policy).run()
    # set at step 4, in force one batch later: one of four batches had the weights of the start
    mixed = {"near": 0.125, "mixed": 0.0625, "far": 0.8125}
    assert policy.trained == [START, mixed, {"near": 0.0, "mixed": 0.0, "far": 1.0}]


def test_what_a_policy_needs_is_checked_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"'surrogate' needs .*val='surrogate'"):
        Fit(tmp_path, policy="surrogate").run()
    fit = Fit(tmp_path, policy="agreement")
    fit.callback = ReselectionCallback(4, "agreement", outputs="embed")
    fit.trainer = trainer(tmp_path, fit.callback)
    with pytest.raises(ConfigError, match="outputs='embed': TinyModel has no method"):
        fit.run()
    assert fit.model.seen == []


def test_streams_are_evaluated_on_the_examples_that_were_drawn(tmp_path):
    class Stream(IterableDataset[Any]):
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __iter__(self) -> Any:
            yield from self.dataset

    streams = {c.name: Stream(c.dataset) for c in candidates(150) if c.name in START}
    datamodule = SynqueDataModule(
        streams,
        real_sample(),
        view="text",
        reservoir=100,
        epoch_length=400,
        mixture=START,
        batch_size=8,
        collate_fn=collate,
    )
    fit = Fit(tmp_path, datamodule=datamodule).run()
    assert [point[0] for point in fit.points] == [0, 4, 8, 12]
    assert len(fit.model.seen) == 16


def test_a_strategy_that_splits_the_model_is_refused():
    strategy = pl.strategies.ModelParallelStrategy()
    run = pl.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False)
    with pytest.raises(LightningError, match="ModelParallelStrategy splits the model"):
        check_whole_model(run)


def test_a_checkpoint_by_a_callback_before_or_after_leads_to_the_same_question(tmp_path):
    class Save(pl.Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / self.name)

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / f"start {self.name}")

    whole = Fit(tmp_path, Save("before"))
    whole.trainer.callbacks.append(Save("after"))
    whole.run()
    for name in ("before", "after"):
        other = Fit(tmp_path, ckpt_path=tmp_path / name).run()
        assert other.points == whole.points
        assert torch.equal(other.model.layer.weight, whole.model.layer.weight)


@pytest.mark.parametrize("what", ["tuner", "callback"])
def test_a_search_for_the_learning_rate_leaves_no_trace(tmp_path, what):
    class Tunable(TinyModel):
        def __init__(self) -> None:
            super().__init__()
            self.lr = 0.1

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    plain = Fit(tmp_path / "plain", model=Tunable).run()
    finder = LearningRateFinder(num_training_steps=9, attr_name="lr", update_attr=False)
    policy = Losses(3)
    fit = Fit(
        tmp_path / "found",
        *([finder] if what == "callback" else []),
        model=Tunable,
        policy=policy,
    )
    if what == "tuner":
        Tuner(fit.trainer).lr_find(
            fit.model, datamodule=fit.data, num_training=9, update_attr=False
        )
        assert policy.asked == []
        assert not (tmp_path / "found" / "runs").exists()
        assert fit.callback.trajectory is None
    fit.run()
    n = len(seen_by(plain.model))
    assert len(seen_by(fit.model)) > n, "the finder trained, too"
    assert seen_by(fit.model)[-n:] == seen_by(plain.model)
    assert fit.points == plain.points
    assert torch.equal(fit.model.layer.weight, plain.model.layer.weight)
    assert len(list((tmp_path / "found" / "runs" / "Tunable").iterdir())) == 1


def test_several_fits_with_one_trainer_continue(tmp_path):
    whole = Fit(tmp_path, max_steps=24).run()
    fit = Fit(tmp_path, max_steps=10).run()
    fit.trainer.fit_loop.epoch_loop.max_steps = 24
    fit.run()
    assert fit.points == whole.points
    assert seen_by(fit.model) == seen_by(whole.model)
    assert fit.callback.run_dir is not None


def test_a_fit_with_another_trainer_begins_again(tmp_path):
    first = Fit(tmp_path).run()
    before = first.points
    again = Fit(tmp_path, policy=first.policy, datamodule=first.data)
    again.callback = first.callback
    csv = pl.loggers.CSVLogger(tmp_path / "again")
    again.trainer = trainer(tmp_path, first.callback, logger=csv, max_steps=16, limit_val_batches=0)
    again.run()
    rows = (Path(csv.log_dir) / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("synque_weights/far")
    assert float(rows[1].split(",")[column]) == START["far"], "not the last weights of the first"
    assert again.points == before
    assert seen_by(again.model) == seen_by(first.model)
    assert again.policy.asked == [(4, 48), (8, 48), (12, 48)]


def test_a_run_that_began_without_the_callback_begins_at_its_step(tmp_path):
    run = trainer(tmp_path, max_steps=6, limit_val_batches=0)
    run.fit(TinyModel(), datamodule=data())
    run.save_checkpoint(tmp_path / "plain.ckpt")
    fit = Fit(tmp_path, ckpt_path=tmp_path / "plain.ckpt").run()
    assert [point[0] for point in fit.points] == [0, 10, 14]


def test_a_fast_dev_run_changes_nothing(tmp_path):
    policy = Losses(3)
    fit = Fit(tmp_path, policy=policy, fast_dev_run=6, max_steps=6)
    fit.run()
    assert policy.asked == []
    assert fit.callback.trajectory is None
    assert not (tmp_path / "runs").exists()


def test_persistent_workers_see_each_change(tmp_path):
    class Persistent(TinyData):
        def train_dataloader(self) -> Any:
            return DataLoader(
                texts(REAL_WORDS, 32, 5),
                batch_size=8,
                collate_fn=collate,
                num_workers=2,
                persistent_workers=True,
            )

    options = {"max_steps": 40, "every_n_steps": 6}
    fit = Fit(tmp_path, datamodule=data_module(wraps=Persistent(), mixture=START), **options).run()
    # 1 + 2 workers · 2 batches ahead of the draws that were trained on
    assert [(step, draw - 8 * step) for step, draw, _ in fit.points[1:]] == [
        (step, 40) for step in range(6, 40, 6)
    ]
    main = data()
    changes = [(0, START), *((draw, weights) for _, draw, weights in fit.points[1:])]
    ends = [draw for draw, _ in changes[1:]] + [40 * 8]
    for (begin, weights), end in zip(changes, ends, strict=True):
        counts = shares(seen_by(fit.model)[begin:end])
        for name, weight in weights.items():
            assert abs(counts[name] - weight * (end - begin)) <= 20
    assert main.mixture is not None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: Proposal({"near": -1.0, "mixed": 1.0, "far": 1.0}), "0 or more, found"),
        (lambda: Proposal({"near": float("nan"), "mixed": 0.5, "far": 0.5}), "found {'near': nan}"),
        (lambda: Proposal({"near": 0.5, "mixed": 0.5, "far": 0.5}), "must sum to 1, found 1.5"),
        (lambda: Proposal({"near": 0.5, "mixed": 0.25, "fat": 0.25}), "to 'fat'.*mean 'far'"),
        (lambda: Proposal({"near": 0.5, "mixed": 0.5}), "gives no weight to far; 0 is allowed"),
        (lambda: {"near": 1.0}, "returned {'near': 1.0}; allowed is a Proposal"),
    ],
)
def test_what_a_policy_must_not_propose(tmp_path, answer, message):
    with pytest.raises(ConfigError, match=f"the policy 'fixed' at step 4.*{message}"):
        Fit(tmp_path, policy=Fixed(answer)).run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps=0: allowed is a whole number from 1"),
        ({"every_n_steps": 5, "policy": "oddm"}, "unknown policy 'oddm': did you mean 'odm'"),
        ({"every_n_steps": 5, "policy": 3}, "policy=3"),
        ({"every_n_steps": 5, "budget": 0}, "budget=0: allowed is a share above 0"),
        ({"every_n_steps": 5, "budget": 1.5}, "budget=1.5"),
        ({"every_n_steps": 5, "outputs": "a b"}, "outputs='a b': allowed is the name of a method"),
        ({"every_n_steps": 5, "seed": -1}, "seed=-1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ReselectionCallback(**arguments)


def test_another_datamodule_is_refused(tmp_path):
    fit = Fit(tmp_path, datamodule=TinyData())
    with pytest.raises(LightningError, match="must come from a SynqueDataModule"):
        fit.run()


def test_two_callbacks_are_refused(tmp_path):
    fit = Fit(tmp_path, ReselectionCallback(3, "static"))
    with pytest.raises(LightningError, match="2 callbacks of the kind ReselectionCallback"):
        fit.run()


def test_another_policy_than_that_of_the_checkpoint_is_refused(tmp_path):
    fit = Fit(tmp_path).run()
    fit.trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = Fit(tmp_path, policy="static", ckpt_path=tmp_path / "a.ckpt")
    with pytest.raises(LightningError, match="with the policy 'losses', and this run has 'static'"):
        other.run()


def test_other_options_than_those_of_the_checkpoint_are_refused(tmp_path):
    fit = Fit(tmp_path, policy="odm:smoothing=0.5").run()
    fit.trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = Fit(tmp_path, policy="odm", ckpt_path=tmp_path / "a.ckpt")
    with pytest.raises(LightningError, match=r"'smoothing': 0.5.* this run has .*0.9"):
        other.run()


def test_a_resumed_run_without_a_step_left_has_its_trajectory(tmp_path):
    fit = Fit(tmp_path).run()
    fit.trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = Fit(tmp_path, ckpt_path=tmp_path / "a.ckpt").run()
    assert other.points == fit.points
    assert len(other.points) > 1
    assert other.callback.run_dir == fit.callback.run_dir


def test_a_module_whose_outputs_cannot_be_computed_is_told_what_to_define(tmp_path):
    with pytest.raises(LightningError, match=r"Define a predict_step .*\(outputs='embed'\)"):
        Fit(tmp_path, policy="agreement", datamodule=data()).run()


def test_weights_are_logged_to_every_logger(tmp_path):
    csv = pl.loggers.CSVLogger(tmp_path / "csv")
    board = pl.loggers.TensorBoardLogger(tmp_path / "board")
    fit = Fit(tmp_path, logger=[csv, board]).run()
    rows = (Path(csv.log_dir) / "metrics.csv").read_text().splitlines()
    assert {f"synque_weights/{name}" for name in START} <= set(rows[0].split(","))
    assert "synque_reselection/overhead" in rows[0]
    column = rows[0].split(",").index("synque_weights/far")
    logged = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert logged == pytest.approx([weights["far"] for _, _, weights in fit.points])
    table = (Path(csv.log_dir) / "synque_weights.csv").read_text().splitlines()
    assert table[0] == "step,draw,near,mixed,far"
    assert len(table) == 1 + len(fit.points)
    assert "| step |" in str(logged_texts(board.log_dir))


def test_time_beyond_the_budget_is_measured_and_a_warning_says_so(tmp_path):
    class Slow(TinyModel):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            if not self.training:
                time.sleep(1.1)
            return super().training_step(batch, index)

    fit = Fit(tmp_path, model=Slow, max_steps=6, budget=0.3)
    with pytest.warns(UserWarning, match=r"evaluation took .* more than budget=0.3"):
        fit.run()
    trajectory = fit.callback.trajectory
    assert trajectory.evaluation_s > 3.3
    assert trajectory.overhead > 1


@pytest.mark.parametrize("limits", [{"max_steps": 20}, {"max_steps": -1, "max_epochs": 4}])
def test_a_policy_is_told_when_training_ends(tmp_path, limits):
    told = []

    class Told(ReselectionPolicy):
        id = "told"

        def propose(self, context: ReselectionContext) -> Proposal:
            told.append(context.max_steps)
            return Proposal(context.weights)

    Fit(tmp_path, policy=Told(), datamodule=data(epoch_length=40), **limits).run()
    assert told == [20] * 4


def test_epoch_ends_do_not_disturb_the_draws(tmp_path):
    fit = Fit(
        tmp_path, datamodule=data(epoch_length=40), every_n_steps=3, max_steps=20, max_epochs=4
    ).run()
    long = Fit(tmp_path, datamodule=data(epoch_length=400), every_n_steps=3, max_steps=20).run()
    assert [point[:2] for point in fit.points] == [point[:2] for point in long.points]


def test_the_served_draws_are_those_of_the_mixture_until_the_first_change(tmp_path):
    fit = Fit(tmp_path).run()
    dataset = MixtureDataset(candidates(), Mixture(START))
    first = fit.points[1][1]
    assert seen_by(fit.model)[:first] == [dataset[draw]["text"] for draw in range(first)]


@pytest.mark.parametrize("policy", ["static", "losses"])
def test_a_run_record_has_the_weights_and_is_compared_with_its_like(tmp_path, policy):
    def record(*callbacks: Any) -> Any:
        selection = SelectionCallback(
            ["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=tmp_path / "cache"
        )
        correlation = ProxyCorrelationCallback(store=tmp_path / "records.sqlite")
        pl.seed_everything(3, verbose=False)
        run = trainer(
            tmp_path, correlation, selection, *callbacks, max_steps=16, val_check_interval=16
        )
        run.fit(TinyModel(), datamodule=data_module())
        return correlation.record

    plain = record()
    callback = ReselectionCallback(4, Losses(3) if policy == "losses" else policy, budget=0.5)
    changed = record(callback)
    assert changed.mixture == plain.mixture
    assert changed.details["weights"] == callback.trajectory.to_dict()
    assert "weights" not in plain.details
    assert (changed.key_hash == plain.key_hash) == (policy == "static")
