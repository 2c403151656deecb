"""Studies of mixtures: their starts, what a trial trains on, what is stored and rejected."""

from __future__ import annotations

import sqlite3
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import optuna
import pytest
import torch

from synque_select.errors import ConfigError, DependencyError, LightningError, RecordError
from synque_select.records import store as store_module
from synque_select.records.correlation import correlate, surrogate_reliability
from synque_select.records.store import RunStore
from synque_select.report.study_tables import study_table
from synque_select.selection.scorer import Scorer
from synque_select.training.surrogate import SurrogateOptions
from synque_select.tuning import TuneOptions, TuningResult, storages, tune_mixture
from synque_select.tuning.storages import shown_storage
from synque_select.tuning.studies import is_own_attribute
from synque_select.utils.process_state import seeded
from tests.lightning_package import SynqueDataModule
from tests.training.tiny import (
    N_VAL,
    REAL_WORDS,
    WORDS,
    LetterEncoder,
    TinyData,
    TinyModel,
    candidates,
    collate,
    data_module,
    real_sample,
    seen_by,
    texts,
    texts_of,
    trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


class Watched(TinyModel):
    """Remembers every fit: its first weights, what it was trained on, its learning rate."""

    fits: ClassVar[list[dict[str, Any]]] = []

    def on_fit_start(self) -> None:
        weights = self.layer.weight.detach().clone()
        Watched.fits.append({"weights": weights, "seen": self.seen, "lr": self.hparams["lr"]})


@pytest.fixture(autouse=True)
def _forget() -> None:
    Watched.fits.clear()


@pytest.fixture
def tune(tmp_path: Path) -> Any:
    def run(
        model: Any = Watched,
        datamodule: SynqueDataModule | None = None,
        max_steps: int | None = 4,
        trainer_options: Mapping[str, Any] = MappingProxyType({"accelerator": "cpu"}),
        **options: Any,
    ) -> TuningResult:
        given = {"n_trials": 8, "n_startup": 2, "pruner": "none"} | options
        return tune_mixture(
            model,
            data_module() if datamodule is None else datamodule,
            max_steps=max_steps,
            options=TuneOptions(**given),
            scorer=scorer(tmp_path),
            store=tmp_path / "records.sqlite",
            trainer_options=trainer_options,
            progress=False,
        )

    return run


def scorer(folder: Path, **options: Any) -> Scorer:
    given: dict[str, Any] = {"proxies": ["mmd"], "top_k": 2} | options
    return Scorer(encoder=LetterEncoder(), cache_dir=folder / "cache", **given)


def texts_seen(fit: dict[str, Any]) -> set[str]:
    return {text for batch in fit["seen"] for text in batch}


def test_a_study_starts_where_the_proxies_point_and_each_trial_trains_on_its_mixture(tune):
    result = tune()
    roles = [(trial.role, trial.start) for trial in result.trials]
    starts = ["top 2", "all", "MMD-optimal", "top 1", "top 3"]
    assert roles == [*(("start", name) for name in starts), ("random", ""), ("random", ""),
                     ("adaptive", "")]  # fmt: skip
    assert result.trials[0].weights == {"near": 0.5, "mixed": 0.5}
    assert result.trials[1].weights == dict.fromkeys(result.trials[1].weights, 0.2)
    assert len(Watched.fits) == 8
    for trial, fit in zip(result.trials, Watched.fits, strict=True):
        assert texts_seen(fit) <= texts_of(*trial.weights)
        assert sum(map(len, fit["seen"])) == 4 * 8
        assert torch.equal(fit["weights"], Watched.fits[0]["weights"])
    assert result.value == max(trial.value for trial in result.trials)
    assert result.trials[-1].best_so_far == result.value
    assert dict(result.mixture.weights) in [dict(trial.weights) for trial in result.trials]
    assert any("optimistic" in message for message in result.messages)


def test_the_result_can_be_trained_on(tune, tmp_path):
    result = tune(n_trials=2)
    data = data_module()
    data.set_mixture(result.mixture)
    model = TinyModel()
    trainer(tmp_path).fit(model, datamodule=data)
    assert set(seen_by(model)) <= texts_of(*result.mixture.names)


def test_trials_are_runs_of_their_own_kind_and_only_random_ones_are_correlated(tune, tmp_path):
    tune(n_trials=12, n_startup=5)
    records = RunStore(tmp_path / "records.sqlite").read(kind="trial")
    assert len({record.run_id for record in records}) == len(records) == 12
    random = [record for record in records if record.details["startup"]]
    assert [record.details["role"] for record in random] == ["random"] * 5
    assert all(set(record.scores) == {"mmd"} for record in random)
    assert not any(record.scores for record in records if not record.details["startup"])
    assert len({record.key_hash for record in records}) == 1
    (entry,) = correlate(records)
    assert entry.kind == "trial"
    assert {point.unit for point in entry.points} == {record.unit for record in random}
    assert entry.proxies["mmd"].n == 5
    assert "7 runs left out" in entry.messages[0]


def test_the_model_as_it_is_is_measured_beside_the_trials(tune, tmp_path):
    result = tune(n_trials=2, n_startup=1)
    (record,) = RunStore(tmp_path / "records.sqlite").read(kind="mixture")
    assert record.details["untrained"]
    assert record.key["optimizer_steps"] == 0
    assert len(Watched.fits) == 2  # without a fit
    with seeded(0):
        model = TinyModel()
    inputs, labels, _ = collate(texts(REAL_WORDS, N_VAL, 7))
    expected = float((model.layer(inputs).argmax(1) == labels).float().mean())
    assert result.untrained == record.metrics["val_acc"] == pytest.approx(expected)
    table = study_table(result.to_dict())
    assert table.rows[-1][1:4] == ("the model as it is", "no training", f"{expected:.3f}")
    assert len(table.rows) == 3
    n_better = sum(trial.value > result.untrained for trial in result.trials)
    assert n_better
    assert f"{n_better} of 2 mixtures" in result.messages[-1]
    assert tune(n_trials=2, n_startup=1).untrained == result.untrained
    assert len(RunStore(tmp_path / "records.sqlite").read(kind="mixture")) == 1


class Harmed(Watched):
    """Training makes it worse: it starts from a solution and climbs."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return -super().training_step(batch, index)


@pytest.mark.parametrize("is_surrogate", [False, True])
def test_where_no_mixture_beats_the_model_as_it_is_a_message_says_so(tune, is_surrogate):
    data = surrogate_module(wraps=None) if is_surrogate else data_module()
    result = tune(
        Harmed, data, max_steps=40, n_trials=3, n_startup=1, monitor="val_loss", mode="min"
    )
    metric = "surrogate/val_loss" if is_surrogate else "val_loss"
    assert result.metric == metric
    assert min(trial.value for trial in result.trials) > result.untrained
    (message,) = [m for m in result.messages if "beats the model as it is" in m]
    assert message.startswith(
        "no mixture beats the model as it is: of 3 mixtures, the best differs"
    )
    assert f"in {metric} (1 pair; a verdict needs 5)" in message
    note = "surrogate validation of the model as it is uses examples of all candidates, that of a"
    assert any(note in m for m in result.messages) == is_surrogate


def test_a_model_that_needs_a_fit_is_tuned_without_that_row(tune):
    class Unfit(Watched):
        def validation_step(self, batch: Any, index: int) -> None:
            if not self.seen:
                raise RuntimeError("fit me first")
            super().validation_step(batch, index)

    result = tune(Unfit, n_trials=2, n_startup=1)
    assert result.untrained is None
    assert result.messages[-1] == (
        "the model as it is is left out, as it cannot be measured before a fit: RuntimeError: fit "
        "me first"
    )
    assert len(study_table(result.to_dict()).rows) == 2


def test_a_random_trial_has_the_score_that_the_same_mixture_has_elsewhere(tune, tmp_path):
    tune(n_trials=8, n_startup=3)
    data, own = data_module(), scorer(tmp_path)
    for record in RunStore(tmp_path / "records.sqlite").read(kind="trial"):
        if record.details["startup"] and len(record.mixture.names) > 1:
            expected = own.mixture_scores("m", data.candidates, data.real, record.mixture)
            assert record.scores == pytest.approx(expected)


def test_a_study_goes_on_and_draws_as_if_it_had_not_stopped(tune, tmp_path):
    whole = tune(n_trials=9, storage=tmp_path / "whole.sqlite")
    n_whole = len(Watched.fits)
    for n in (3, 7, 9, 9):
        resumed = tune(n_trials=n, storage=tmp_path / "parts.sqlite")
    plain = [(trial.weights, trial.value) for trial in whole.trials]
    assert [(trial.weights, trial.value) for trial in resumed.trials] == plain
    # the first study has finished the fits of the second one
    assert len(Watched.fits) == n_whole == 9
    assert len(RunStore(tmp_path / "records.sqlite").read(kind="trial")) == 18


def test_the_dashboard_has_numbers_of_each_trial(tune, tmp_path):
    path = tmp_path / "studies.sqlite"
    result = tune(storage=path, study_name="mine", n_trials=7)
    study = optuna.load_study(study_name="mine", storage=f"sqlite:///{path}")
    assert len(study.trials) == len(result.trials) == 7
    for trial, row in zip(study.trials, result.trials, strict=True):
        weights = {
            key.removeprefix("weight/"): value
            for key, value in trial.user_attrs.items()
            if key.startswith("weight/")
        }
        assert weights == trial.user_attrs["mixture"] == row.weights
        assert isinstance(trial.user_attrs["proxy/mmd"], float)
    options = {"model": None, "max_steps": None, "proxy": "mmd", "n_trials": 3}
    by_proxy = tune(storage=path, study_name="proxy", **options)
    study = optuna.load_study(study_name="proxy", storage=f"sqlite:///{path}")
    scores = [trial.user_attrs["proxy/mmd"] for trial in study.trials]
    assert scores == [trial.value for trial in by_proxy.trials]


def test_another_seed_draws_other_mixtures(tune, tmp_path):
    first, second = (tune(seed=seed) for seed in (0, 1))
    assert first.study_name != second.study_name
    assert [t.weights for t in first.trials[5:]] != [t.weights for t in second.trials[5:]]


def test_a_study_about_other_trials_is_refused(tune):
    tune(study_name="mine", n_trials=1)
    with pytest.raises(ConfigError, match=r"'mine' was made with other settings.*max_steps 4, now"):
        tune(study_name="mine", n_trials=1, max_steps=5)


@pytest.mark.parametrize("name", ["study.sqlite", "study.journal"])
def test_storages(tune, tmp_path, name):
    first = tune(storage=tmp_path / name, n_trials=2)
    second = tune(storage=tmp_path / name, n_trials=3)
    assert [t.value for t in second.trials[:2]] == [t.value for t in first.trials]
    assert len(Watched.fits) == 3
    storage = optuna.storages.InMemoryStorage()
    assert len(tune(storage=storage, n_trials=2).trials) == 2


def test_a_password_is_not_shown(tune, monkeypatch):
    assert shown_storage("postgresql://me:secret@host/db") == "postgresql://host/db"
    assert shown_storage("postgresql://host/db?password=secret") == "postgresql://host/db?…"
    monkeypatch.setattr(storages, "_PAUSES_S", ())
    for url in ("postgresql://host/db?password=s3cret", "foo://me:s3cret@[host/db?a=s3cret"):
        with pytest.raises(RecordError) as caught:
            storages.open_storage(url, 30)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(RecordError, match="storage of studies"):
        tune(storage="nosuchdatabase://host/db")


@pytest.mark.parametrize("sampler", ["random", "gp", "qmc"])
def test_samplers_by_name(tune, sampler):
    result = tune(sampler=sampler, n_trials=9)
    assert [trial.role for trial in result.trials[-2:]] == ["adaptive"] * 2


def test_a_sampler_whose_package_is_missing(tune, monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(ConfigError, match="sampler='cmaes' needs the package cmaes"):
        tune(sampler="cmaes")


def test_a_sampler_of_optunas(tune):
    drawn = []

    class Noting(optuna.samplers.RandomSampler):
        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            drawn.append(trial.number)
            return super().sample_independent(study, trial, name, distribution)

    tune(sampler=Noting(seed=3), n_trials=9)
    assert set(drawn) == {7, 8}


def test_hyper_parameters_of_the_user(tune, tmp_path):
    def choose(trial: optuna.Trial) -> dict[str, Any]:
        return {"lr": trial.suggest_float("lr", 0.1, 1.0, log=True)}

    result = tune(hyper_parameters=choose, n_trials=6)
    rates = [trial.hyper_parameters["lr"] for trial in result.trials]
    assert len(set(rates)) == 6
    assert [fit["lr"] for fit in Watched.fits] == rates
    best = next(trial for trial in result.trials if trial.value == result.value)
    (untrained,) = RunStore(tmp_path / "records.sqlite").read(kind="mixture")
    assert untrained.key["hyper_parameters"]["module"] == best.hyper_parameters
    assert result.untrained == untrained.metrics["val_acc"]
    assert result.hyper_parameters == best.hyper_parameters
    # trials with different hyper-parameters have different keys and are never correlated together
    records = RunStore(tmp_path / "records.sqlite").read(kind="trial")
    assert len({record.key_hash for record in records}) == 6
    with pytest.raises(ConfigError, match="allowed is a mapping"):
        tune(hyper_parameters=lambda trial: {"lr": trial}, n_trials=7)


def test_the_number_of_candidates_is_kept(tune):
    result = tune(k_range=(2, 3), n_trials=10)
    assert {len(trial.weights) for trial in result.trials} <= {2, 3}
    assert [trial.start for trial in result.trials[:3]] == ["top 2", "MMD-optimal", "top 3"]
    with pytest.raises(ConfigError, match=r"k_range=\(2, 9\)"):
        tune(k_range=(2, 9))


def test_a_proxy_of_the_mixture_without_any_fit(tune, tmp_path):
    options = {"model": None, "max_steps": None, "proxy": "mmd", "n_trials": 12}
    result = tune(**options)
    assert result.mode == "min"
    assert not Watched.fits
    assert not (tmp_path / "records.sqlite").exists()
    assert result.value == min(trial.value for trial in result.trials)
    single = next(trial for trial in result.trials if trial.start == "top 1")
    ranking = result.ranking
    (name,) = single.weights
    assert single.value == pytest.approx(ranking[name].scores["mmd"].value)
    assert any("nothing was trained" in message for message in result.messages)
    assert not any("test split" in message for message in result.messages)
    with pytest.raises(ConfigError, match=r"proxy='mdd': did you mean 'mmd'"):
        tune(**{**options, "proxy": "mdd"})
    with pytest.raises(ConfigError, match="trains nothing"):
        tune(proxy="mmd")


def test_pruned_trials_are_kept_apart(tune, tmp_path):
    pruner = optuna.pruners.ThresholdPruner(lower=2.0)  # prunes every trial that it is asked about
    result = tune(pruner=pruner, n_trials=9, n_reports=2, max_steps=4)
    by_role: dict[str, set[str]] = {}
    for trial in result.trials:
        by_role.setdefault(trial.role, set()).add(trial.state)
    # random trials are spared, because the remaining ones would be a selected sample
    assert by_role == {"start": {"pruned"}, "random": {"complete"}, "adaptive": {"pruned"}}
    assert [len(fit["seen"]) for fit in Watched.fits].count(2) == 7
    records = RunStore(tmp_path / "records.sqlite").read(kind="trial")
    pruned = [record for record in records if record.details.get("pruned")]
    assert len(pruned) == 7
    assert not any(record.metrics for record in pruned)
    assert len({record.key_hash for record in records}) == 1
    (entry,) = correlate(records)
    assert "7 runs left out: pruned" in entry.messages
    assert len(entry.points) == 2


class Diverging(Watched):
    undefined: ClassVar[float] = float("nan")

    def validation_step(self, batch: Any, _: int) -> None:
        n = len(Watched.fits)
        self.log("val_acc", 0.5 + 0.01 * n if n % 2 else self.undefined, batch_size=1)


@pytest.mark.parametrize("undefined", [float("nan"), float("inf"), -float("inf")])
def test_a_trial_whose_metric_is_not_finite_has_failed_and_ends_nothing(tune, undefined):
    Diverging.undefined = undefined
    result = tune(model=Diverging, n_trials=4)
    rows = [(trial.state, trial.value) for trial in result.trials]
    assert rows == [
        ("complete", pytest.approx(0.51)),
        ("failed", None),
        ("complete", pytest.approx(0.53)),
        ("failed", None),
    ]
    assert result.value == pytest.approx(0.53)
    assert any("2 trials failed because val_acc was NaN or infinite" in m for m in result.messages)
    # they are not tried again
    assert tune(model=Diverging, n_trials=4).trials == result.trials


def test_a_study_without_any_finite_metric_is_an_error(tune):
    class Never(Watched):
        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_acc", float("nan"), batch_size=1)

    with pytest.raises(LightningError, match=r"no trial .* finite val_acc: in 3 trials it is NaN"):
        tune(model=Never, n_trials=3)
    assert len(Watched.fits) == 3


@pytest.mark.parametrize("name", ["k", "share near", "n"])
def test_a_hyper_parameter_of_any_name(tune, name):
    result = tune(
        hyper_parameters=lambda trial: {"lr": trial.suggest_float(name, 0.1, 0.5)}, n_trials=7
    )
    assert all(0.1 <= trial.hyper_parameters["lr"] <= 0.5 for trial in result.trials)
    assert len({trial.hyper_parameters["lr"] for trial in result.trials}) == 7


@pytest.mark.parametrize("name", ["mixture/k", f"mixture/share {candidates()[0].name}"])
def test_a_hyper_parameter_with_the_name_of_ours_is_an_error(tune, name):
    with pytest.raises(ConfigError, match=f"suggests '{name}', which is the name of a parameter"):
        tune(hyper_parameters=lambda trial: {"lr": trial.suggest_float(name, 0.01, 0.1)})
    with pytest.raises(ConfigError, match="choose another name"):
        tune(hyper_parameters=lambda trial: {"lr": trial.suggest_int(name=name, low=1, high=3)})


@pytest.mark.parametrize(
    "name", ["mixture", "role", "start", "repeats", "worker", "hyper_parameters", "weight/near"]
)
def test_an_attribute_that_the_study_is_read_by_cannot_be_set(tune, name):
    def parameters(trial):
        trial.set_user_attr("note", 1)
        trial.set_user_attr(name, {"near": 1.0})
        return {"lr": 0.1}

    with pytest.raises(ConfigError, match=f"sets the attribute '{name}'"):
        tune(hyper_parameters=parameters)


def test_all_attributes_of_a_study_are_its_own(tune, tmp_path):
    result = tune(storage=tmp_path / "s.sqlite", hyper_parameters=lambda _: {"lr": 0.1})
    study = optuna.load_study(
        study_name=result.study_name, storage=f"sqlite:///{tmp_path / 's.sqlite'}"
    )
    names = {name for trial in study.trials for name in trial.user_attrs}
    assert {"mixture", "role", "worker", "synque_select_crc32"} <= names
    assert all(map(is_own_attribute, names))


@pytest.mark.parametrize("choice", [(1, 2), [1], {"a": 1}])
def test_a_choice_that_a_storage_changes_is_an_error(tune, choice):
    def parameters(trial):
        assert trial.suggest_categorical("kind", ["x"]) == "x"
        return {"lr": trial.suggest_categorical("lr", [None, choice])}

    with pytest.raises(ConfigError, match="suggest a name, and look up its value"):
        tune(hyper_parameters=parameters)


def test_a_hyper_parameter_that_is_not_finite_is_an_error(tune):
    for value in (float("nan"), float("inf"), [float("nan")]):
        with pytest.raises(ConfigError, match="finite number or text"):
            tune(hyper_parameters=lambda _, value=value: {"lr": value})


def test_options_of_the_trainer_may_name_what_the_ranks_leave_out(tune):
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    assert len(tune(n_trials=2, trainer_options=options).trials) == 2


class Damaging(Watched):
    """From the second fit on, the run store is not one any more."""

    damage: ClassVar[Callable[[], None]]

    def on_train_end(self) -> None:
        if len(Watched.fits) == 2:
            Damaging.damage()


@pytest.mark.parametrize("kind", ["damaged", "locked", "directory", "removed"])
def test_a_store_that_breaks_in_a_study_costs_no_trial(tune, tmp_path, monkeypatch, kind):
    for name in ("_BUSY_TIMEOUT_S", "_BUSY_TIMEOUT_OF_UNSTORED_S"):
        monkeypatch.setattr(store_module, name, 0.1)
    store = RunStore(tmp_path / "records.sqlite")
    locks: list[sqlite3.Connection] = []

    def damage() -> None:
        if kind == "locked":
            locks.append(sqlite3.connect(store.path, isolation_level=None))
            locks[0].execute("BEGIN EXCLUSIVE")
        elif kind == "damaged":
            store.path.write_bytes(b"garbage" * 1000)
        else:
            store.path.unlink()
            if kind == "directory":
                store.path.mkdir()

    monkeypatch.setattr(Damaging, "damage", staticmethod(damage), raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = tune(Damaging, n_trials=4)
    assert [trial.state for trial in result.trials] == ["complete"] * 4
    told = " ".join(str(one.message) for one in caught)
    assert ("could not be stored" in told) == ("cannot be read" in told) == (kind != "removed")
    for lock in locks:
        lock.close()
    if kind != "locked":
        (store.path.rmdir if kind == "directory" else store.path.unlink)()
        if kind == "removed":
            return
    # what was kept in files is taken in by the next store; the first trial was in the old one
    trials = store.read(kind="trial")
    assert len(trials) == (4 if kind == "locked" else 3)


def test_a_study_on_a_full_disk_is_one_error_and_goes_on_later(tune, tmp_path, monkeypatch):
    storage = tmp_path / "study.sqlite"

    class Full(Watched):
        def on_train_end(self) -> None:
            if len(Watched.fits) == 2:  # as on a full disk, SQLite cannot grow
                fill(storage)

    def fill(path: Path) -> None:
        patched = optuna.storages.RDBStorage.set_trial_state_values

        def fails(*_: Any, **__: Any) -> bool:
            raise optuna.exceptions.StorageInternalError("x") from OSError(28, "No space left")

        monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", fails)
        Full.restore = lambda: monkeypatch.setattr(
            optuna.storages.RDBStorage, "set_trial_state_values", patched
        )

    Full.restore = None
    with pytest.raises(RecordError, match=r"cannot be written .*No space left.*start it again"):
        tune(Full, n_trials=4, storage=str(storage))
    Full.restore()
    result = tune(Full, n_trials=4, storage=str(storage))
    assert sum(trial.state == "complete" for trial in result.trials) == 4


def test_a_store_that_is_damaged_before_a_study_is_an_error_at_once(tune, tmp_path):
    (tmp_path / "records.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(RecordError, match="is not a run store"):
        tune()
    assert Watched.fits == []


def test_errors_name_what_is_wrong(tune):
    with pytest.raises(LightningError, match=r"does not log 'accuracy'"):
        tune(monitor="accuracy", n_trials=1)
    with pytest.raises(ConfigError, match=r"sampler='tpee': did you mean 'tpe'"):
        tune(sampler="tpee")
    with pytest.raises(ConfigError, match=r"pruner='medium': did you mean 'median'"):
        tune(pruner="medium")
    with pytest.raises(ConfigError, match=r"n_trials=0"):
        tune(n_trials=0)
    with pytest.raises(ConfigError, match=r"max_steps=None"):
        tune(max_steps=None)
    with pytest.raises(ConfigError, match=r"model=None"):
        tune(model=None)
    with pytest.raises(LightningError, match="needs candidates and a real sample"):
        tune(datamodule=data_module(real=None))
    with pytest.raises(LightningError, match="starts new processes for every fit"):
        tune(trainer_options={"accelerator": "cpu", "devices": 2, "strategy": "ddp_spawn"})


def test_without_optuna(tune, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DependencyError, match=r"pip install 'synque-select\[tune\]'"):
        tune()


def test_a_failed_trial_leaves_the_study_usable(tune):
    class Failing(Watched):
        def training_step(self, batch: Any, i: int) -> Any:
            if len(Watched.fits) == 3:
                raise RuntimeError("out of memory")
            return super().training_step(batch, i)

    with pytest.raises(RuntimeError, match="out of memory"):
        tune(model=Failing, study_name="s", n_trials=5)
    Watched.fits.append({})
    result = tune(model=Failing, study_name="s", n_trials=5)
    assert [trial.state for trial in result.trials].count("complete") == 5
    assert [trial.state for trial in result.trials].count("failed") == 1
    assert set(WORDS) >= set(result.mixture.names)


def test_a_start_that_failed_is_tried_again(tune):
    class Fragile(Watched):
        is_broken: ClassVar[bool] = True

        def training_step(self, batch: Any, i: int) -> Any:
            if Fragile.is_broken:
                raise RuntimeError("a bug of the user's")
            return super().training_step(batch, i)

    for _ in range(2):
        with pytest.raises(RuntimeError, match="a bug of the user's"):
            tune(model=Fragile, study_name="s", n_trials=5)
    Fragile.is_broken = False
    result = tune(model=Fragile, study_name="s", n_trials=5)
    states = [(trial.start, trial.state) for trial in result.trials]
    assert states[0] == ("top 2", "failed")
    assert states.count(("top 2", "complete")) == 1
    assert [state for _, state in states].count("complete") == 5
    assert any("ended with an error in an earlier call" in message for message in result.messages)


def test_a_study_without_any_labeled_example(tune, tmp_path):
    data = surrogate_module(wraps=None)
    result = tune(datamodule=data, n_trials=12, n_startup=5, n_reports=2, pruner="median")
    assert result.metric == "surrogate/val_acc"
    assert any("no labeled real example" in message for message in result.messages)
    assert not any("Spearman" in message for message in result.messages)
    assert any("k_range=(3, 3) compares mixtures" in message for message in result.messages)
    records = RunStore(tmp_path / "records.sqlite").read(kind="trial")
    assert {record.monitor for record in records} == {"surrogate/val_acc"}
    assert {record.key["metric"] for record in records} == {"surrogate/val_acc"}
    assert not any("val_acc" in record.metrics for record in records)
    held = {data.surrogate[i]["text"] for i in range(len(data.surrogate))}
    assert not held & {text for fit in Watched.fits for text in texts_seen(fit)}
    again = tune(datamodule=surrogate_module(wraps=None), n_trials=12, n_startup=5, n_reports=2,
                 pruner="median")  # fmt: skip
    assert (again.trials, again.messages) == (result.trials, result.messages)


def test_the_reliability_of_a_surrogate_is_reported_where_labels_exist(tune, tmp_path):
    result = tune(datamodule=surrogate_module(), n_trials=12, n_startup=6, max_steps=20)
    (message,) = [m for m in result.messages if "against labeled validation" in m]
    assert "the surrogate against labeled validation (val_acc): Spearman" in message
    assert "over 6 distinct mixtures" in message
    records = RunStore(tmp_path / "records.sqlite").read(kind="trial")
    (entry,) = surrogate_reliability(records)
    assert (entry.monitor, list(entry.proxies), len(entry.points)) == ("val_acc", ["surrogate"], 6)
    assert entry.key_hash not in {record.key_hash for record in records}


def surrogate_module(**options: Any) -> SynqueDataModule:
    options = {"candidates": candidates(100), "wraps": TinyData(), "collate_fn": collate} | options
    val = SurrogateOptions(size=50, held_out=0.3, encoder=LetterEncoder())
    return SynqueDataModule(real=real_sample(), val=val, batch_size=8, **options)
