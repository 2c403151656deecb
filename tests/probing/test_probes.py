from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
import torch

from synque_select.errors import ConfigError, LightningError, RecordError
from synque_select.probing.probes import ProbeSweep, run_probes
from synque_select.probing.sweep import SweepOptions, run_sweep
from synque_select.records.correlation import correlate
from synque_select.records.correlation_file import load_correlations
from synque_select.records.run_folder import read_json
from synque_select.records.store import RunStore
from synque_select.selection.scorer import Scorer, rank
from synque_select.training.short_fit import ShortFitOptions
from synque_select.training.surrogate import SurrogateOptions
from tests.lightning_package import ProxyCorrelationCallback, SelectionCallback, pl
from tests.training.tiny import (
    WORDS,
    LetterEncoder,
    TinyData,
    TinyModel,
    candidates,
    collate,
    data_module,
    real_sample,
    seen_by,
    texts_of,
    trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


class Watched(TinyModel):
    """Remembers every fit of any copy: its first weights and the texts it was trained on."""

    fits: ClassVar[list[dict[str, Any]]] = []
    fails_after: ClassVar[int | None] = None

    def on_fit_start(self) -> None:
        if len(Watched.fits) == Watched.fails_after:
            raise RuntimeError("killed")
        weights = self.layer.weight.detach().clone()
        self.seen = []
        Watched.fits.append({"weights": weights, "seen": self.seen})

    def configure_callbacks(self) -> list[pl.Callback]:
        return [Stopping()]


class Stopping(pl.Callback):
    """A callback that the module brings; in a probe it would break the budget."""

    n_fits: ClassVar[int] = 0

    def on_fit_start(self, *_: Any) -> None:
        Stopping.n_fits += 1


@pytest.fixture(autouse=True)
def _forget() -> None:
    Watched.fits.clear()
    Watched.fails_after = None
    Stopping.n_fits = 0


@pytest.fixture
def fit(tmp_path: Path) -> Any:
    def run(
        probes: ProbeSweep | None = None, proxies: Any = ("mmd",), **options: Any
    ) -> tuple[ProxyCorrelationCallback, pl.Trainer, TinyModel]:
        torch.manual_seed(0)
        model = Watched()
        selection = SelectionCallback(
            list(proxies), top_k=2, encoder=LetterEncoder(), cache_dir=tmp_path / "cache"
        )
        callback = ProxyCorrelationCallback(store=tmp_path / "records.sqlite", probes=probes)
        runner = trainer(tmp_path, selection, callback, **options)
        runner.fit(model, datamodule=data_module())
        return callback, runner, model

    return run


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "records.sqlite")


def sweep(max_steps: int = 6, **options: Any) -> ProbeSweep:
    return ProbeSweep(max_steps, progress=False, **options)


def test_one_fit_gives_a_correlation_over_all_candidates(fit, store):
    callback, runner, model = fit(sweep())
    main, *probes = Watched.fits
    assert len(probes) == len(WORDS)
    for name, probe in zip(WORDS, probes, strict=True):
        texts = [text for batch in probe["seen"] for text in batch]
        assert len(texts) == 6 * 8
        assert set(texts) <= texts_of(name)
        assert torch.equal(probe["weights"], main["weights"])
    records = store.read(kind="probe")
    assert {record.mixture.names for record in records} == {(name,) for name in WORDS}
    assert len({record.key_hash for record in records}) == 1
    assert all(record.key["optimizer_steps"] == 6 for record in records)
    assert all(record.key["examples_drawn"] == 48 for record in records)
    assert all(set(record.metrics) == {"val_acc", "val_loss"} for record in records)
    assert callback.record.key["initial_weights_sha256"] in {
        record.key["initial_weights_sha256"] for record in records
    }
    mixtures, over_probes = callback.correlations
    assert (mixtures.kind, over_probes.kind) == ("mixture", "probe")
    assert over_probes.proxies["mmd"].n == 5
    assert runner.datamodule.trainer is runner
    assert runner.datamodule.wraps.trainer is runner
    assert model.trainer is runner
    assert Stopping.n_fits == 1


def test_probes_leave_the_fit_and_the_random_state_as_they_are(fit, tmp_path):
    results = []
    for probes in (None, sweep()):
        _, runner, model = fit(probes)
        results.append((model.layer.weight.tolist(), torch.rand(2).tolist(), seen_by(model)))
        assert runner.global_step == 8
    assert results[0] == results[1]


def test_finished_probes_are_reused(fit, store):
    fit(sweep())
    first = store.read(kind="probe")
    fit(sweep())
    assert len(Watched.fits) == 1 + 5 + 1
    assert store.read(kind="probe") == first
    fit(sweep(), proxies=["mmd", "mdm"])
    assert len(Watched.fits) == 1 + 5 + 1 + 1
    keys = {record.key_hash for record in store.read(kind="probe")}
    assert len(keys) == 2
    fit(sweep(max_steps=7))
    assert len(Watched.fits) == 1 + 5 + 1 + 1 + 1 + 5


def test_a_killed_sweep_goes_on_where_it_was(fit, store):
    Watched.fails_after = 3
    with pytest.raises(RuntimeError, match="killed"):
        fit(sweep())
    assert len(store.read(kind="probe")) == 2
    Watched.fails_after = None
    Watched.fits.clear()
    fit(sweep())
    assert len(Watched.fits) == 1 + 3
    assert len(store.read(kind="probe")) == 5


def test_probes_write_no_checkpoints_and_no_logs(fit, tmp_path):
    fit(sweep(), enable_checkpointing=True)
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1
    assert not (tmp_path / "lightning_logs").exists()


def test_probes_of_a_primary_that_is_not_logged_are_not_run(tmp_path, store):
    callback = ProxyCorrelationCallback("accuracy", store=store, probes=sweep())
    selection = SelectionCallback(
        ["mmd"], encoder=LetterEncoder(), cache_dir=tmp_path / "cache", top_k=2
    )
    with pytest.warns(UserWarning, match="no metric 'accuracy'"):
        trainer(tmp_path, selection, callback).fit(Watched(), datamodule=data_module())
    assert len(Watched.fits) == 1


class Uncopyable(TinyModel):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("no copies")


def test_a_module_that_cannot_be_copied_needs_a_factory(tmp_path, store):
    def run(probes: ProbeSweep) -> list[Any]:
        selection = SelectionCallback(
            ["mmd"], encoder=LetterEncoder(), cache_dir=tmp_path / "cache", top_k=2
        )
        callback = ProxyCorrelationCallback(store=store, probes=probes)
        trainer(tmp_path, selection, callback).fit(Uncopyable(), datamodule=data_module())
        return store.read(kind="probe")

    with pytest.raises(LightningError, match=r"cannot be copied.*ProbeSweep\(model_factory=…\)"):
        run(sweep())
    assert len(run(sweep(model_factory=TinyModel))) == 5


def test_a_factory_must_make_the_same_weights(fit):
    made: list[int] = []

    def factory() -> TinyModel:
        made.append(0)
        torch.manual_seed(len(made))
        return TinyModel()

    with pytest.warns(UserWarning, match="did not finish.*model_factory made a module with other"):
        callback, *_ = fit(sweep(model_factory=factory))
    assert callback.record is not None


class Counted(TinyData):
    calls: ClassVar[list[str]] = []

    def prepare_data(self) -> None:
        self.calls.append("prepare")

    def setup(self, stage: str) -> None:
        self.calls.append(f"setup {stage}")

    def teardown(self, stage: str) -> None:
        self.calls.append(f"teardown {stage}")


def test_a_sweep_outside_of_a_fit(tmp_path, store):
    Counted.calls.clear()
    cache = tmp_path / "cache"
    ranking = rank(
        candidates(),
        real_sample(),
        encoder=LetterEncoder(),
        proxies=["mmd"],
        cache_dir=cache,
        progress=False,
    )
    options = {"accelerator": "cpu", "default_root_dir": tmp_path}
    records = run_probes(
        TinyModel,
        data_module(wraps=Counted()),
        ranking,
        max_steps=4,
        store=store,
        options=ShortFitOptions(task="letters"),
        trainer_options=options,
        progress=False,
    )
    assert Counted.calls == ["prepare", "setup fit", "teardown fit"]
    assert [record.mixture.names[0] for record in records] == list(WORDS)
    assert store.read(kind="probe") == sorted(records, key=lambda r: (r.created, r.run_id))
    assert records[0].key["task"] == "letters"
    assert records[0].scores == {"mmd": ranking["near"].scores["mmd"].value}
    with pytest.raises(LightningError, match=r"does not log 'accuracy'.*val_acc, val_loss"):
        run_probes(
            TinyModel,
            data_module(),
            ranking,
            max_steps=4,
            options=ShortFitOptions(monitor="accuracy"),
            store=store,
            trainer_options=options,
            progress=False,
        )


def test_a_sweep_checks_where_it_writes_before_it_scores(tmp_path):
    (tmp_path / "file").touch()
    encoder = LetterEncoder()
    scorer = Scorer(["mmd"], encoder=encoder, cache_dir=tmp_path / "cache")
    given = [
        ({"options": SweepOptions(task="a/b")}, ConfigError),
        ({"run_dir": str(tmp_path / "file")}, RecordError),
    ]
    for options, error in given:
        with pytest.raises(error):
            run_sweep(TinyModel(), data_module(), max_steps=1, scorer=scorer, **options)
    assert encoder.n_encoded == 0


class Harmed(TinyModel):
    """Training makes it worse."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return -super().training_step(batch, index)


class Unfit(TinyModel):
    """Cannot be measured before it has been trained."""

    def validation_step(self, batch: Any, index: int) -> None:
        if not self.seen:
            raise RuntimeError("fit me first")
        super().validation_step(batch, index)


def run_small_sweep(
    module: pl.LightningModule, folder: Path, options: Any = MappingProxyType({}), **data: Any
) -> Path:
    scorer = Scorer(["mmd"], encoder=LetterEncoder(), cache_dir=folder / "cache", progress=False)
    return run_sweep(
        module,
        data_module(**data),
        max_steps=20,
        options=SweepOptions(monitor="val_loss", mode="min", task="tiny", **options),
        scorer=scorer,
        store=str(folder / "records.sqlite"),
        run_dir=str(folder / "run"),
        trainer_options={"accelerator": "cpu"},
    )


@pytest.mark.parametrize("is_surrogate", [False, True])
def test_a_sweep_has_a_row_of_the_model_as_it_is(tmp_path, store, capsys, is_surrogate):
    val = SurrogateOptions(size=50, held_out=0.3, encoder=LetterEncoder())
    data = {"val": val, "wraps": None, "collate_fn": collate, "batch_size": 8}
    run = run_small_sweep(TinyModel(), tmp_path, **(data if is_surrogate else {}))
    (record,) = store.read(kind="mixture")
    metric = "surrogate/val_loss" if is_surrogate else "val_loss"
    figure = record.metrics[metric]
    (entry,) = load_correlations(run)
    assert entry.monitor == metric
    assert entry.untrained == figure
    assert len(entry.points) == 5
    n_better = sum(point.validation < figure for point in entry.points)
    assert n_better
    printed = " ".join(capsys.readouterr().out.split())
    page = (run / "report.html").read_text()
    sentence = (
        f"{n_better} of 5 candidates {'is' if n_better == 1 else 'are'} better than the model as "
        f"it is by {metric} (1 pair; a verdict needs 5)"
    )
    note = "surrogate validation of the model as it is uses examples of all candidates, that of a"
    for text in (printed, " ".join(page.split())):
        assert sentence in text
        assert (note in text) == is_surrogate
    assert f"the model as it is {figure:.3f} -" in printed
    run_small_sweep(TinyModel(), tmp_path, **(data if is_surrogate else {}))


def test_where_no_candidate_beats_the_model_as_it_is_the_sweep_says_so(tmp_path, capsys):
    run_small_sweep(Harmed(), tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "no candidate beats the model as it is: of 5 candidates, the best differs by +" in printed
    )
    assert "in val_loss (1 pair; a verdict needs 5)" in printed


def test_a_sweep_of_a_model_that_needs_a_fit_says_that_the_row_is_left_out(tmp_path, capsys):
    (entry,) = load_correlations(run_small_sweep(Unfit(), tmp_path))
    assert entry.untrained is None
    printed = " ".join(capsys.readouterr().out.split())
    assert "it cannot be measured before a fit: RuntimeError: fit me first" in printed
    assert "beats the model" not in printed


@pytest.mark.parametrize("max_steps", [0, -1, 2.5, True])
def test_bad_budget(max_steps):
    with pytest.raises(ConfigError, match="allowed is a whole number from 1"):
        ProbeSweep(max_steps)


def test_probes_that_cannot_be_saved_are_printed(
    tmp_path: Path, store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def full(ranking: object, run_dir: Path) -> None:
        raise RecordError(f"cannot write {run_dir}: no space left")

    monkeypatch.setattr("synque_select.probing.sweep.save_ranking", full)
    with pytest.raises(RecordError, match="no space left"):
        run_small_sweep(TinyModel(), tmp_path)
    printed = capsys.readouterr().out
    assert "val_loss" in printed
    assert "report:" not in printed


def test_probes_side_by_side_are_equal_bit_by_bit(tmp_path, store):
    model, results = TinyModel(), []
    for options in ({"n_workers": 1}, {"n_workers": 2}, {"executor": "local:devices=0,1"}):
        run_small_sweep(model, tmp_path, options)
        results.append({r.run_id: (r.kind, r.key_hash, dict(r.metrics)) for r in store.read()})
        store.path.unlink()
    assert len(results[0]) == 6
    assert results[0] == results[1] == results[2]


def test_probes_that_are_stopped_early_are_never_compared_as_finished(tmp_path, store, capsys):
    torch.manual_seed(0)
    model = TinyModel()
    run = run_small_sweep(model, tmp_path, {"stop_early": True})
    stopped = store.read(kind="trial")
    assert not store.read(kind="probe")
    by_step: dict[int, dict[str, float]] = {}
    for record in stopped:
        (name,) = record.mixture.names
        step = record.key["optimizer_steps"]
        assert record.details.get("stopped_after") == (None if step == 20 else step)
        by_step.setdefault(step, {})[name] = record.metrics["val_loss"]
    assert {step: len(values) for step, values in by_step.items()} == {2: 5, 6: 2, 20: 1}
    for step, following in ((2, 6), (6, 20)):
        order = sorted(by_step[step], key=by_step[step].__getitem__)
        assert set(by_step[following]) == set(order[: len(by_step[following])])
    assert all(entry.proxies == {} for entry in load_correlations(run))
    assert not any(entry.points for entry in correlate(stopped))
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 probe of 5 trained to step 20" in printed
    assert printed.count("stopped at step 2 (") == 3
    assert printed.count("stopped at step 6 (") == 1
    assert "Spearman" not in printed
    probes = read_json(run / "probes.json")["probes"]
    assert [probe["step"] for probe in probes] == [20, 6, 2, 2, 2]
    # the one that went on is the same fit as without stopping, and is not trained again
    run_small_sweep(model, tmp_path)
    whole = {r.mixture.names[0]: r.metrics["val_loss"] for r in store.read(kind="probe")}
    assert len(whole) == 5
    assert by_step[20].items() <= whole.items()
