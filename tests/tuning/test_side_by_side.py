"""Trials that are trained at the same time; this process alone writes the study."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from synque_select.errors import ConfigError, LightningError
from synque_select.records.store import RunStore
from synque_select.selection.scorer import Scorer
from synque_select.tuning import TuneOptions, TuningResult, tune_mixture
from tests.training.tiny import LetterEncoder, TinyModel, data_module

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


class Killed(TinyModel):
    """Ends its process, as the kernel does when memory runs out, unless a file says not to."""

    def on_fit_start(self) -> None:
        if not Path(os.environ["KILLED_MARK"]).exists():
            os.kill(os.getpid(), signal.SIGKILL)


def tune(folder: Path, model: Any = TinyModel, **options: Any) -> TuningResult:
    given = {"n_trials": 8, "n_startup": 2, "sampler": "random"} | options
    return tune_mixture(
        model,
        data_module(),
        max_steps=4,
        options=TuneOptions(**given),
        scorer=Scorer(["mmd"], encoder=LetterEncoder(), cache_dir=folder / "cache", top_k=2),
        store=folder / "records.sqlite",
        trainer_options={"accelerator": "cpu"},
        progress=False,
    )


def trials(result: TuningResult) -> list[tuple[object, ...]]:
    return [(t.number, t.role, t.start, t.weights, t.value, t.state) for t in result.trials]


def test_trials_at_the_same_time_are_those_of_one_after_another(tmp_path: Path):
    alone = tune(tmp_path / "alone", pruner="none")
    together = tune(tmp_path / "together", n_workers=2)
    # of a sampler that does not look at results, all trials; of others, those before them
    assert trials(together) == trials(alone)
    assert any("no trial was pruned, as trials in other" in text for text in together.messages)
    records = RunStore(tmp_path / "together" / "records.sqlite").read(kind="trial")
    assert sorted(r.details["number"] for r in records) == list(range(8))
    assert len({r.details["probe"] for r in records}) == len({r.run_id for r in records}) == 8
    assert tune(tmp_path / "together", n_workers=2).value == together.value


def test_a_study_goes_on_after_the_loss_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mark = tmp_path / "mark"
    monkeypatch.setenv("KILLED_MARK", str(mark))
    with pytest.raises(LightningError, match=r"the process of trial \d ended with status -9"):
        tune(tmp_path, Killed, n_trials=3, n_workers=2)
    mark.touch()
    result = tune(tmp_path, Killed, n_trials=3, n_workers=2)
    assert sum(trial.state == "complete" for trial in result.trials) == 3


def test_workers_and_an_executor_are_one_choice():
    with pytest.raises(ConfigError, match="n_workers=2 and executor='ray': give one of them"):
        TuneOptions(n_workers=2, executor="ray")
    with pytest.raises(ConfigError, match="executor='rey': did you mean 'ray'"):
        TuneOptions(executor="rey")
    assert TuneOptions(executor="local").n_validations == 4
    assert TuneOptions(executor="local:workers=2").n_validations == 1
