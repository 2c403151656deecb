"""What stays valid if candidates are added, removed, regenerated, relabeled, reordered, renamed."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

optuna = pytest.importorskip("optuna")

from synque_select.data.candidate import Candidate  # noqa: E402 - needs the module above
from synque_select.errors import ConfigError  # noqa: E402
from synque_select.probing.probes import opened_fits, run_probes  # noqa: E402
from synque_select.records.correlation import correlate  # noqa: E402
from synque_select.records.store import RunStore  # noqa: E402
from synque_select.report.study_tables import study_table  # noqa: E402
from synque_select.selection.scorer import Scorer  # noqa: E402
from synque_select.training.surrogate import SurrogateOptions  # noqa: E402
from synque_select.tuning import TuneOptions, TuningResult, tune_mixture  # noqa: E402
from synque_select.types import Mixture  # noqa: E402
from tests.training.tiny import (  # noqa: E402
    WORDS,
    LetterEncoder,
    TinyModel,
    candidates,
    collate,
    data_module,
    real_sample,
    seen_by,
    texts,
    texts_of,
)
from tests.warm_processes import run_warm  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")

CHANGED = "half"


class Watched(TinyModel):
    """Counts the fits of this process."""

    fits: ClassVar[int] = 0

    def on_fit_start(self) -> None:
        Watched.fits += 1


@pytest.fixture(autouse=True)
def _forget() -> None:
    Watched.fits = 0


def changed(how: str) -> list[Candidate]:
    """The candidates of `tiny`, changed in one way."""
    before = candidates()
    by_name = {candidate.name: candidate for candidate in before}
    records = list(by_name[CHANGED].dataset)
    if how == "same":
        return before
    if how == "added":
        new = texts("apple owl grape moon xenon river", 60, 77)
        return [*before, Candidate("extra", new, view="text", label="label")]
    if how == "removed":
        return [c for c in before if c.name != CHANGED]
    if how == "reordered":
        return before[::-1]
    other = {
        "regenerated": Candidate(CHANGED, texts(WORDS[CHANGED], 60, 78), "text", "label"),
        # the texts, which are all that proxies see, stay the same
        "relabeled": Candidate(
            CHANGED, [{**r, "label": 1 - r["label"]} for r in records], "text", "label"
        ),
        "renamed": replace(by_name[CHANGED], name="halved"),
    }[how]
    return [other if c.name == CHANGED else c for c in before]


KINDS = ("same", "added", "removed", "regenerated", "relabeled", "reordered", "renamed")
# the probes that are trained; a renamed candidate draws its examples in another order
TRAINED = {
    "same": [],
    "added": ["extra"],
    "removed": [],
    "regenerated": [CHANGED],
    "relabeled": [CHANGED],
    "reordered": [],
    "renamed": ["halved"],
}


def scorer(folder: Path) -> Scorer:
    return Scorer(proxies=["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=folder / "cache")


def probes(folder: Path, given: list[Candidate], store: str = "records.sqlite") -> Any:
    data = data_module(candidates=given)
    ranking = scorer(folder).cached_ranking(data.candidates, data.real)
    records = run_probes(
        Watched,
        data,
        ranking,
        max_steps=4,
        store=RunStore(folder / store),
        trainer_options={"accelerator": "cpu"},
        progress=False,
    )
    return {record.mixture.names[0]: dict(record.metrics) for record in records}


def tune(
    folder: Path,
    given: list[Candidate],
    *,
    store: str = "records.sqlite",
    model: Any = Watched,
    data: Any = None,
    **options: Any,
) -> TuningResult:
    return tune_mixture(
        model,
        data or data_module(candidates=given),
        max_steps=4,
        options=TuneOptions(**{"n_trials": 9, "n_startup": 2, "pruner": "none"} | options),
        scorer=scorer(folder),
        store=folder / store,
        trainer_options={"accelerator": "cpu"},
        progress=False,
    )


def reused(result: TuningResult) -> list[Any]:
    return [trial for trial in result.trials if trial.role == "reused"]


@pytest.mark.parametrize("how", KINDS)
def test_probes_of_the_other_candidates_stay_valid(tmp_path, capfd, caplog, how):
    probes(tmp_path, changed("same"))
    Watched.fits = 0
    caplog.clear()
    with caplog.at_level("INFO"):
        again = probes(tmp_path, changed(how))
    assert Watched.fits == len(TRAINED[how])
    # what is reused is what would be measured
    assert again == probes(tmp_path, changed(how), "other.sqlite")
    n = len(again)
    rest = f"; trained now: {TRAINED[how][0]}" if TRAINED[how] else ""
    sentence = f"{n - len(TRAINED[how])} of {n} probes are reused from the run store{rest}"
    assert sentence in caplog.text


@pytest.mark.parametrize("how", KINDS)
def test_embeddings_of_the_other_candidates_stay_valid(tmp_path, how):
    scorer(tmp_path).cached_ranking(changed("same"), real_sample())
    again = scorer(tmp_path)
    again.cached_ranking(changed(how), real_sample())
    assert again.encoder.n_encoded == (60 if how in ("added", "regenerated") else 0)


@pytest.mark.parametrize("how", KINDS)
def test_trials_without_the_changed_candidate_stay_valid_and_others_are_priors(tmp_path, how):
    first = tune(tmp_path, changed("same"))
    Watched.fits = 0
    result = tune(tmp_path, changed(how), n_trials=2)
    if how in ("same", "reordered"):
        assert result.study_name == first.study_name
        assert result.trials == first.trials
        assert not Watched.fits
        return
    assert result.study_name != first.study_name
    is_touched = {
        trial.number: how != "added" and CHANGED in trial.weights for trial in first.trials
    }
    assert 0 < sum(is_touched.values()) < 9 or how == "added"
    by_source = {trial.source: trial for trial in (*reused(result), *result.priors)}
    for trial in first.trials:
        source = f"study {first.study_name} #{trial.number}"
        if not is_touched[trial.number]:
            assert by_source[source].role == "reused"
            assert (by_source[source].weights, by_source[source].value) == (
                trial.weights,
                trial.value,
            )
        elif source in by_source:  # some of them are at the same point now
            now = by_source[source]
            assert now.role == "prior" or set(now.weights) < set(trial.weights)
            assert now.weights == pytest.approx(mapped(trial.weights, how))
    assert len(reused(result)) >= sum(not touched for touched in is_touched.values())
    assert len(result.priors) > 0 or how == "added"
    # the trials that were not there before are new fits, counted by n_trials
    own = [trial for trial in result.trials if trial.role != "reused"]
    assert len(own) == 2
    assert Watched.fits == 2


def mapped(weights: Mapping[str, float], how: str) -> dict[str, float]:
    if how == "renamed":
        return {"halved" if name == CHANGED else name: w for name, w in weights.items()}
    left = {name: weight for name, weight in weights.items() if name != CHANGED}
    return {name: weight / sum(left.values()) for name, weight in left.items()}


def test_a_reused_trial_is_what_the_fit_gives_again(tmp_path):
    tune(tmp_path, changed("same"))
    result = tune(tmp_path, changed("removed"), n_trials=1)
    data = data_module(candidates=changed("removed"))
    options = TuneOptions(pruner="none")
    with opened_fits(
        data,
        result.ranking,
        max_steps=4,
        options=options,
        trainer_options={"accelerator": "cpu"},
    ) as fits:
        for trial in reused(result):
            mixture = Mixture(trial.weights)
            fit, _ = fits.run(Watched, mixture, finished=lambda _: None)
            assert fit.metrics["val_acc"] == trial.value
    assert len(reused(result)) >= 3


class Liked(Watched):
    """Validation likes the mixtures with the candidate that is removed later."""

    def validation_step(self, batch: Any, index: int) -> None:
        is_liked = not texts_of(CHANGED).isdisjoint(seen_by(self))
        self.log("val_acc", 0.1 + 0.8 * is_liked, batch_size=1)


def test_a_prior_is_never_chosen_before_it_is_run_again(tmp_path):
    """All trials with the removed candidate were best; none of these values holds now."""
    before = tune(tmp_path, changed("same"), model=Liked)
    assert before.value == pytest.approx(0.9)
    assert CHANGED in before.mixture.weights
    for n_trials in (1, 4):
        result = tune(tmp_path, changed("removed"), model=Liked, n_trials=n_trials)
        assert max(prior.value for prior in result.priors) == pytest.approx(0.9)
        assert result.value == pytest.approx(0.1)
        assert all(trial.value == pytest.approx(0.1) for trial in result.trials)
        assert {p.number for p in result.priors}.isdisjoint(t.number for t in result.trials)
        assert f"best of {len(result.trials)} complete trials" in result.mixture.source
        assert all(p.best_so_far is None for p in result.priors)
    # what was best before is tried first, without the removed candidate
    first = next(trial for trial in result.trials if trial.role != "reused")
    assert (first.role, first.start) == ("start", "earlier best")
    best = max(result.priors, key=lambda prior: prior.value)
    assert first.weights == pytest.approx(dict(best.weights))


def test_a_new_candidate_is_tried_beside_what_was_best(tmp_path):
    before = tune(tmp_path, changed("same"))
    result = tune(tmp_path, changed("added"), n_trials=1)
    assert len(reused(result)) == 9
    assert not result.priors
    first = result.trials[-1]
    assert first.start == "earlier best with extra"
    n = len(before.mixture.weights)
    assert first.weights["extra"] == pytest.approx(1 / (n + 1))
    for name, weight in before.mixture.weights.items():
        assert first.weights[name] == pytest.approx(weight * n / (n + 1))


def test_no_two_starts_are_the_same_mixture(tmp_path):
    n = len(changed("same"))
    tune(tmp_path, changed("same"), n_trials=1, k_range=(n, n))  # all candidates, equal shares
    result = tune(tmp_path, changed("added"), n_trials=5)
    assert "earlier best with extra" in [trial.start for trial in result.trials]
    starts = [trial for trial in result.trials if trial.start]
    mixtures = {tuple(sorted((a, round(w, 9)) for a, w in t.weights.items())) for t in starts}
    assert len(mixtures) == len(starts)


def test_the_sampler_sees_priors(tmp_path):
    seen: list[list[Any]] = []

    class Noting(optuna.samplers.TPESampler):
        def sample_relative(self, study: Any, trial: Any, space: Any) -> Any:
            seen.append([t.user_attrs.get("earlier") for t in study.get_trials(deepcopy=False)])
            return super().sample_relative(study, trial, space)

    tune(tmp_path, changed("same"))
    with_priors = tune(tmp_path, changed("removed"), n_trials=6, n_startup=0)
    plain = tune(tmp_path, changed("removed"), n_trials=6, n_startup=0, reuse=False)
    assert not plain.priors
    assert not reused(plain)
    assert with_priors.study_name != plain.study_name
    drawn = [
        [t.weights for t in result.trials if t.role == "adaptive"]
        for result in (with_priors, plain)
    ]
    assert drawn[0]
    assert drawn[0] != drawn[1]
    given = tune(
        tmp_path,
        changed("removed"),
        n_trials=7,
        n_startup=0,
        sampler=Noting(seed=0, n_startup_trials=1),
        study_name="mine",
    )
    n = len(given.priors) + len(reused(given))
    assert sum(mark is not None for mark in seen[0]) == n > 5


def test_probes_are_trials_of_a_study(tmp_path):
    measured = probes(tmp_path, changed("same"))
    probes(tmp_path, changed("regenerated"))
    Watched.fits = 0
    result = tune(tmp_path, changed("same"), n_trials=3)
    assert {t.source: t.value for t in reused(result)} == {
        f"probe of {name}": values["val_acc"] for name, values in measured.items()
    }
    assert Watched.fits == 3
    assert result.messages[0] == "5 of 5 probes are reused as measured"
    starts = [trial.start for trial in result.trials if trial.role == "start"]
    assert "top 1" not in starts  # its probe is known
    larger = reused(tune(tmp_path, changed("same"), n_trials=1, k_range=(2, 3)))
    assert larger
    assert all(len(trial.weights) > 1 for trial in larger)


def test_a_probe_is_a_prior_where_trials_are_validated_on_the_way(tmp_path):
    measured = probes(tmp_path, changed("same"))
    result = tune(tmp_path, changed("same"), n_trials=1, pruner="median", n_reports=2)
    assert not reused(result)
    assert {p.source: p.value for p in result.priors} == {
        f"probe of {name}": values["val_acc"] for name, values in measured.items()
    }
    assert result.messages[0] == (
        "0 of 5 probes are reused as measured, 5 others are priors for the sampler (probes are not "
        "validated during training: pruner='none' reuses them)"
    )
    # none of the candidates is another one
    shown = " ".join(str(study_table(result.to_dict())).split())
    assert "or was not validated at the same steps as a trial" in shown


def test_what_is_reused_is_said_and_shown(tmp_path, caplog):
    probes(tmp_path, changed("same"))
    first = tune(tmp_path, changed("same"))
    probes(tmp_path, changed("regenerated"))
    caplog.clear()
    with caplog.at_level("INFO"):
        result = tune(tmp_path, changed("regenerated"), n_trials=3)
    n_first = len(first.trials)
    n = sum(CHANGED not in trial.weights for trial in first.trials)
    sentence = result.messages[0]
    assert sentence in caplog.text
    assert sentence == (
        f"5 of 5 probes and {n} of {n_first} trials of study {first.study_name} are reused as "
        f"measured, {len(result.priors)} others are priors for the sampler (regenerated: {CHANGED})"
    )
    table = str(study_table(result.to_dict()))
    prior = result.priors[0]
    assert f"({prior.value:.3f}) prior" in table
    assert f"reused: {prior.source}" not in table
    assert "probe of near" in table
    again = TuningResult.from_dict(json.loads(json.dumps(result.to_dict())), result.ranking)
    assert again.priors == result.priors
    assert again.trials == result.trials
    store = RunStore(tmp_path / "records.sqlite")
    records = [r for r in store.read("trial") if r.details["study"] == result.study_name]
    taken = [r for r in records if r.details["role"] == "reused"]
    assert {r.details["reused_from"] for r in taken} == {t.source for t in reused(result)}
    own = [r for r in records if r.details["role"] != "reused"]
    assert len(own) == 3
    assert {r.details["earlier"]["study"] for r in own} == {first.study_name}
    # only trials that this study has drawn at random may enter a correlation
    for entry in correlate(records):
        assert len(entry.points) <= sum(r.details["startup"] for r in own)


def test_with_a_surrogate_all_trials_are_priors(tmp_path):
    """The validation set consists of the candidates: it is another one."""
    options = SurrogateOptions(size=50, held_out=0.4, encoder=LetterEncoder())

    def study(how: str, n_trials: int) -> TuningResult:
        data = data_module(
            candidates=changed(how), wraps=None, val=options, collate_fn=collate, batch_size=8
        )
        return tune(tmp_path, [], data=data, n_trials=n_trials)

    first = study("same", 8)
    result = study("removed", 1)
    assert not reused(result)
    assert 0 < len(result.priors) <= len(first.trials)
    assert result.messages[0].startswith(f"0 of 8 trials of study {first.study_name} are reused")


def test_nothing_is_reused_if_anything_else_differs(tmp_path):
    tune(tmp_path, changed("same"), n_trials=3)
    for options in ({"seed": 1}, {"monitor": "val_loss", "mode": "min"}, {"task": "other"}):
        result = tune(tmp_path, changed("removed"), n_trials=1, **options)
        assert not result.priors
        assert not reused(result)
    with pytest.raises(ConfigError, match="made with other settings"):
        tune(tmp_path, changed("removed"), n_trials=1, study_name=result.study_name)


def test_hyper_parameters_of_earlier_trials(tmp_path):
    def choose(trial: Any) -> dict[str, Any]:
        return {"lr": trial.suggest_float("lr", 0.1, 1.0, log=True)}

    first = tune(tmp_path, changed("same"), hyper_parameters=choose)
    result = tune(tmp_path, changed("removed"), n_trials=8, n_startup=0, hyper_parameters=choose)
    rates = {f"study {first.study_name} #{t.number}": t.hyper_parameters for t in first.trials}
    for trial in (*reused(result), *result.priors):
        assert trial.hyper_parameters == rates[trial.source]
    own = [trial for trial in result.trials if trial.role != "reused"]
    best = max((*reused(result), *result.priors), key=lambda trial: trial.value)
    if best.role == "prior":
        assert own[0].hyper_parameters == best.hyper_parameters
    assert any(trial.role == "adaptive" for trial in own)


KILLED = """
import os, signal, sys
from pathlib import Path
import optuna
from tests.tuning.test_reuse import Watched, changed, tune
folder, n_added, n_fits = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
add_trial, start = optuna.Study.add_trial, Watched.on_fit_start
added = []
def add(study, trial):
    if len(added) == n_added:
        os.kill(os.getpid(), signal.SIGKILL)
    added.append(trial)
    add_trial(study, trial)
def begin(model):
    if Watched.fits == n_fits:
        os.kill(os.getpid(), signal.SIGKILL)
    start(model)
optuna.Study.add_trial, Watched.on_fit_start = add, begin
tune(folder, changed("removed"), n_trials=5, n_startup=1)
"""


def test_a_study_that_is_killed_while_it_begins_or_trains_goes_on(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        tune(tmp_path / name, changed("same"))
    whole = tune(tmp_path / "whole", changed("removed"), n_trials=5, n_startup=1)
    for n_added, n_fits in ((0, 0), (3, 0), (1000, 0), (1000, 2)):
        command = ["-c", KILLED, tmp_path / "killed", f"{n_added}", f"{n_fits}"]
        done = run_warm(command)
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    result = tune(tmp_path / "killed", changed("removed"), n_trials=5, n_startup=1)
    assert result.study_name == whole.study_name
    assert [(p.source, p.weights, p.value) for p in result.priors] == [
        (p.source, p.weights, p.value) for p in whole.priors
    ]
    done = [trial for trial in result.trials if trial.state == "complete"]
    assert [(t.role, t.weights, t.value) for t in done] == [
        (t.role, t.weights, t.value) for t in whole.trials
    ]
