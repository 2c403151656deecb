"""Files that version 0.1 wrote (commit 3b6928b) are read, shown, and gone on with.

What the files are, and how each was made, is in `fixtures/v0_1/README.md`; `make.py.txt` beside it
made them, from the small data and models that are defined here. Tests work on copies.

Files that came later have folders of their own with the same rules, `fixtures/influence_v1/` and
`fixtures/weights_v1/`.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from synque_select import SynqueDataModule

# --- what may move with a refactoring -----------------------------------------------------------
from synque_select.benchmark.released import BenchmarkOptions, render, run_released
from synque_select.benchmark.result import BenchmarkResult
from synque_select.callbacks import ProxyCorrelationCallback, SelectionCallback
from synque_select.cli.main import main
from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder
from synque_select.encoders.shards import open_shard
from synque_select.errors import ConfigError
from synque_select.experiment import ExperimentOptions, run_experiment
from synque_select.lens.cache import AnswerCache
from synque_select.lens.config import LensConfig
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import RubricSampling, load_rubrics
from synque_select.llm.scripted import ScriptedLLM
from synque_select.probing.probes import ProbeSweep, run_probes
from synque_select.records.correlation import correlate
from synque_select.records.correlation_file import load_correlations
from synque_select.records.experiment_result import load_result, save_result
from synque_select.records.influence_file import load_influence, save_influence
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.records.run_folder import read_json
from synque_select.records.store import RunStore
from synque_select.records.weights_file import load_weights, save_weights
from synque_select.report.lens import feedback
from synque_select.report.page import write_report
from synque_select.selection.scorer import Scorer, rank
from synque_select.training.short_fit import ShortFitOptions
from synque_select.tuning import TuneOptions, TuningResult, tune_mixture
from synque_select.types import Mixture, Ranking

# ------------------------------------------------------------------------------------------------

OLD = Path(__file__).parent / "fixtures" / "v0_1"

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*examples are also in the validation data"),
    pytest.mark.filterwarnings("ignore:.*is_leaf"),
]


# --- the data and the models that the files were made with: changing them makes tests fail -------

LETTERS = "abcdefghijklmnopqrstuvwxyz"
REAL_WORDS = "apple banana cherry grape violet yellow xenon zebra"
OTHER_WORDS = "moon night owl pillow quiet river stone tower"
WORDS = {
    "near": REAL_WORDS,
    "mixed": "apple banana cherry owl pillow violet stone zebra",
    "half": "apple banana night owl violet yellow stone tower",
    "far": OTHER_WORDS,
    "odd": "qqq www kkk jjj fff hhh mmm nnn",
}
N, N_REAL = 24, 16


def letters(text: str) -> torch.Tensor:
    counts = torch.tensor([float(text.count(letter)) for letter in LETTERS])
    return counts / counts.sum().clamp(min=1)


def texts(words: str, n: int, seed: int) -> list[dict[str, Any]]:
    """Records of 5 words; the label is whether the first one is among the first half of `words`."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = words.split()
    records = []
    for i in range(n):
        drawn = torch.randint(len(vocabulary), (5,), generator=generator).tolist()
        text = " ".join(vocabulary[j] for j in drawn)
        label = int(drawn[0] < len(vocabulary) // 2)
        records.append({"text": f"{text} {LETTERS[i % 26]}{i}", "label": label})
    return records


def candidates() -> list[Candidate]:
    return [
        Candidate(name, texts(words, N, seed), view="text", label="label")
        for seed, (name, words) in enumerate(WORDS.items())
    ]


def real_sample() -> RealSample:
    return RealSample("real", real_records(), view="text")


def real_records() -> list[dict[str, Any]]:
    """The last five are like each other, and like nothing in any candidate."""
    strange = [{"text": f"fuzzy jazz pizza dizzy {LETTERS[i]}{i}", "label": 0} for i in range(5)]
    return [*texts(REAL_WORDS, N_REAL - 5, seed=99), *strange]


class LetterEncoder(BaseEncoder):
    """Shares of letters; counts the views that it was given."""

    id, modality, revision = "letters", "text", "1"

    def __init__(self) -> None:
        self.n_encoded = 0

    def encode(self, views: Any) -> torch.Tensor:
        self.n_encoded += len(views)
        return torch.stack([letters(view) for view in views])


def collate(records: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = torch.stack([letters(record["text"]) for record in records])
    return inputs, torch.tensor([record["label"] for record in records])


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(texts(REAL_WORDS, 32, 5), batch_size=8, collate_fn=collate)

    def val_dataloader(self) -> Any:
        return DataLoader(texts(REAL_WORDS, 40, 7), batch_size=20, collate_fn=collate)


def data_module(**options: Any) -> SynqueDataModule:
    given = {"candidates": candidates(), "real": real_sample(), "wraps": Data()} | options
    return SynqueDataModule(**given)


class Linear(pl.LightningModule):
    """Logistic regression on letters."""

    n_fits = 0

    def __init__(self, lr: float = 0.5) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(len(LETTERS), 2)

    def on_train_start(self) -> None:
        Linear.n_fits += 1

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        logits = self.layer(batch[0])
        loss = torch.nn.functional.cross_entropy(logits, batch[1])
        right = (logits.argmax(1) == batch[1]).float().mean()
        self.log_dict({"val_acc": right, "val_loss": loss}, batch_size=len(batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


# wherever this file lies: the comparability key names the model, and a probe's id its source
Linear.__module__ = "old_formats"


def model() -> Linear:
    torch.manual_seed(0)
    return Linear()


def trainer(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """Of which everything is in the working folder, so that no file names a path."""
    defaults: dict[str, Any] = {
        "max_steps": 8,
        "val_check_interval": 8,
        "check_val_every_n_epoch": None,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": ".",
    }
    return pl.Trainer(callbacks=list(callbacks), **(defaults | options))


def known_words(text: str) -> list[str]:
    words = dict.fromkeys(re.findall(r"[a-z]{3,}", text))
    return [word for word in words if word in f"{REAL_WORDS} {OTHER_WORDS} {WORDS['odd']}".split()]


def answer(prompt: str) -> str:
    """A reasoner's list of two points: the words of dataset B."""
    words = known_words(str(prompt).split("Samples of dataset B:")[1])
    points = [f"Dataset B has {', '.join(words) or 'nothing'}.", "Dataset B counts its samples."]
    return json.dumps({"points": points})


def weigh(prompt: str, choices: Sequence[str]) -> list[float]:
    """A judge who looks for the words of a sample in the points on the set that is asked for."""
    rubric, _, rest = str(prompt).partition("You are shown")
    _, about_a, about_b = rubric.split("How dataset")
    asked = known_words(about_a if "from dataset A?" in rest else about_b)
    words = known_words(rest)
    share = sum(word in asked for word in words) / max(1, len(words))
    return [0.2 + share * i for i in range(len(choices))]


def unasked(*_: Any) -> Any:
    raise AssertionError("a model was asked although the answer was kept")


def lens(
    reasoner: Any = answer, judge: Any = weigh, answers: str = "fit-answers.sqlite"
) -> LensConfig:
    return LensConfig(
        scorer=ScriptedLLM(None, judge, id="judge", revision="1"),
        reasoner=ScriptedLLM(reasoner, id="reasoner", revision="1"),
        sampling=RubricSampling(n_samples=3, n_points=2),
        max_samples=3,
        answers=answers,
        progress=False,
    )


def rank_lens(config: LensConfig) -> Ranking:
    """Judge a small part of the data, so that the file of answers stays small."""
    pool = [c for c in candidates() if c.name in ("near", "far")]
    real = RealSample("real", real_records()[:6], view="text")
    proxy = {"key": "lens", "config": config}
    return rank(pool, real, proxies=[proxy], top_k=1, cache_dir="cache", progress=False)


def selection(**options: Any) -> SelectionCallback:
    given = {
        "proxies": ["mmd", "mdm", "lens"],
        "rank_by": "mmd",
        "top_k": 2,
        "encoder": LetterEncoder(),
        "lens": lens(),
        "run_dir": "fit_run",
        "cache_dir": "cache",
    } | options
    return SelectionCallback(**given)


def correlation(**options: Any) -> ProxyCorrelationCallback:
    given = {"monitor": "val_loss", "mode": "min", "store": "records.sqlite"} | options
    return ProxyCorrelationCallback(**given)


def scorer() -> Scorer:
    return Scorer(["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir="cache")


TUNE: dict[str, Any] = {
    "n_startup": 2,
    "monitor": "val_loss",
    "mode": "min",
    "pruner": "none",
}
N_TRIALS = 7
EXPERIMENT: dict[str, Any] = {
    "top_k": 2,
    "replicates": 2,
    "n_random": 1,
    "single_replicates": 1,
    "arms": ["chosen", "random_k", "all", "mean_single", "best_single", "oracle_k"],
    "progress": False,
}
BENCHMARK: dict[str, Any] = {
    "proxies": ["mmd", "mdm", "energy"],
    "corrupt": ["truncated"],
}


def write_lines(folder: Path) -> None:
    """Write candidates and real sample as files, for the command line."""
    folder.mkdir()
    for candidate in candidates():
        path = folder / f"{candidate.name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in candidate.dataset))
    rows = "".join(json.dumps(row) + "\n" for row in real_records())
    (folder.parent / "real.jsonl").write_text(rows)


# --- tests ---------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old files as the working folder, and a cache of its own."""
    folder = tmp_path / "v0_1"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "own-cache"))
    Linear.n_fits = 0
    return folder


def assert_close(new: object, old: object, where: str = "") -> None:
    """Assert that values are equal, numbers up to the rounding of scores in float32."""
    if isinstance(old, dict):
        assert isinstance(new, dict), where
        assert [*new] == [*old], where
        for key, value in old.items():
            assert_close(new[key], value, f"{where}.{key}")
    elif isinstance(old, list | tuple):
        assert isinstance(new, list | tuple), where
        assert len(new) == len(old), where
        for place, value in enumerate(old):
            assert_close(new[place], value, f"{where}[{place}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=1e-6, abs=1e-9, nan_ok=True), where
    else:
        assert new == old, where


def packages_are_other() -> bool:
    """A fit of other packages is another fit: nothing that was trained then counts now."""
    made_by = load_ranking(OLD / "fit_run").packages
    return any(version(name) != made_by[name] for name in ("torch", "pytorch-lightning"))


needs_its_packages = pytest.mark.skipif(packages_are_other(), reason="other torch or Lightning")


def test_a_ranking_of_version_1():
    ranking = load_ranking(OLD / "ranking_v1")
    assert read_json(OLD / "ranking_v1" / "ranking.json")["version"] == 1
    assert [row.name for row in ranking] == ["near", "mixed", "half", "odd", "far"]
    assert ranking.order("mdm")[0].name == "far"
    assert (ranking.rank_by, ranking.top_k, ranking.n_real, ranking.seed) == ("consensus", 2, 16, 0)
    assert (ranking.modality, ranking.encoder.dim) == ("text", 384)
    assert ranking.encoder.id == "sentence-transformers/all-MiniLM-L6-v2"
    assert ranking.mixture is None
    assert ranking.top() == Mixture({"near": 0.5, "mixed": 0.5}, "top 2 by consensus")
    near, far = ranking["near"], ranking["far"]
    assert (near.n, far.n) == (24, 24)
    score = near.scores["mmd"]
    assert score.value == 0.043140705724152406
    assert (score.low, score.high) == (-0.07044847295573838, 0.15672988440404317)
    assert (score.p_value, score.spread) == (0.014, None)
    assert far.scores["pad"].value == 1.0556766140576113
    assert far.scores["ngram"].value == 9.622334182998191
    assert ranking["half"].scores["mdm"].low is None
    assert (far.ranks["ngram"], far.ranks["consensus"], far.mean_rank) == (4.5, 5.0, 29 / 6)
    assert ranking["mixed"].selection_stability is None  # of a method that was wrong too often
    assert not any("told apart" in message for message in ranking.messages)  # old name
    assert ranking.messages[-1].startswith("This ranking was made by an older version")
    assert ranking.proxies["mmd"].options["p_value"] is True
    assert [info.higher_is_better for info in ranking.proxies.values()] == [
        False, False, True, False,
    ]  # fmt: skip
    assert [key for key, info in ranking.proxies.items() if info.in_consensus] == [
        "mmd", "pad", "ngram",
    ]  # fmt: skip
    assert len(ranking.messages) == 6
    assert ranking.packages["synque-select"] == "0.1.0"


def test_a_ranking_of_version_2_has_a_mixture_of_its_own():
    ranking = load_ranking(OLD / "ranking_v2" / "ranking.json")
    assert read_json(OLD / "ranking_v2" / "ranking.json")["version"] == 2
    weights = {"near": 0.9513259836652763, "mixed": 0.0486740163347236}
    assert ranking.top() == Mixture(weights, "top 2 by mmd, proportional at temperature 0.5")
    assert ranking.top(3).weights == dict.fromkeys(("near", "mixed", "half"), 1 / 3)
    assert [ranking[name].selection_stability for name in WORDS] == [None] * 5


RANKINGS = ("ranking_v1", "ranking_v2", "ranking_lens", "fit_run", "sweep_run", "tune_run",
            "experiment_run")  # fmt: skip


@pytest.mark.parametrize("name", RANKINGS)
def test_a_ranking_is_the_same_when_it_is_written_again(name: str, tmp_path: Path):
    ranking = load_ranking(OLD / name)
    assert load_ranking(save_ranking(ranking, tmp_path)) == ranking


@pytest.mark.parametrize("name", ["ranking_v1", "ranking_v2", "fit_run", "sweep_run", "tune_run"])
def test_a_ranking_is_about_the_data_that_it_was_made_of(name: str, here: Path):
    """The hashes of contents are what they were: no candidate counts as another one."""
    data, callback = data_module(), SelectionCallback(ranking=name, run_dir="new")
    trainer(callback, max_steps=1).fit(model(), datamodule=data)
    assert data.mixture == load_ranking(OLD / name).top()
    assert callback.ranking == load_ranking("new") == load_ranking(OLD / name)


def test_the_same_data_get_the_same_scores(here: Path):
    old, encoder = load_ranking("fit_run"), LetterEncoder()
    new = rank(
        candidates(), real_sample(), encoder=encoder, proxies=["mmd", "mdm"], rank_by="mmd",
        top_k=2, cache_dir="cache", progress=False,
    )  # fmt: skip
    assert encoder.n_encoded == 0  # the embeddings are found in the cache
    for name in WORDS:
        for key in ("mmd", "mdm"):
            actual, expected = new[name].scores[key], old[name].scores[key]
            assert actual.value == pytest.approx(expected.value, rel=1e-6)
            assert (actual.low is None) == (expected.low is None) == (key == "mdm")
            assert key == "mdm" or actual.low == pytest.approx(expected.low, rel=1e-6)
            assert new[name].ranks[key] == old[name].ranks[key]


def test_a_file_of_embeddings(here: Path):
    ranking = load_ranking("fit_run")
    (path,) = Path("cache").rglob(f"{ranking['near'].sha256}.safetensors")
    shard = open_shard(path)
    expected = torch.stack([letters(row["text"]) for row in candidates()[0].dataset])
    assert shard.rows.shape == (24, 26)
    actual = sorted(map(tuple, shard.rows.tolist()))
    assert actual == sorted(map(tuple, expected.tolist()))


def test_the_findings_of_a_fit():
    folder = OLD / "fit_run"
    gaps = read_json(folder / "gaps.json")
    assert (gaps["version"], gaps["n_real"], gaps["n_uncovered"]) == (1, 16, 5)
    first = gaps["gaps"][0]
    assert (first["real"], first["candidate"], first["synthetic"]) == (14, "mixed", 6)
    assert (first["distance"], first["radius"]) == (0.4438910287966663, 0.07071068180650404)
    labels = {check["name"]: check for check in read_json(folder / "labels.json")["checks"]}
    assert labels["mixed"]["agreement"] == 0.7027972027972028
    assert labels["far"]["warnings"][0].startswith("far: labels hardly follow from the inputs")
    size = read_json(folder / "real_size.json")
    (measured,) = size["measured"]
    assert (measured["m"], measured["overlap"], size["k"]) == (8, 0.9975, 2)
    assert size["extrapolated"][0] == {"n": 16, "border_error": 0.024294389297295643}


def test_correlations_of_a_fit():
    mixture, probes = load_correlations(OLD / "fit_run")
    (point,) = mixture.points
    assert (mixture.kind, mixture.monitor, mixture.mode) == ("mixture", "val_loss", "min")
    assert (point.unit, point.validation) == ("mixed 0.5 + near 0.5 @5fc2a045", 0.726224422454834)
    assert point.scores["mdm"] == 0.10503456144870157
    assert (mixture.n_missing, mixture.proxies, len(mixture.messages)) == (4, {}, 1)
    assert (probes.kind, probes.key_hash, probes.n_missing) == ("probe", "dd1efe4cfa53f994", 0)
    assert [point.validation for point in probes.points] == [
        0.6769867539405823, 0.7057647109031677, 0.7487074136734009, 0.6885002255439758,
        0.6828975677490234,
    ]  # fmt: skip
    assert probes.orientation == {"mmd": False, "mdm": True, "lens": True}
    points = probes.proxies["mdm"]
    assert (points.n, points.verdict) == (5, "too few to tell")
    assert points.spearman.value == pytest.approx(0.9)
    assert (points.spearman.low, points.spearman.high) == (-0.16889565860999664, 0.9960685924750513)
    assert points.pearson.value == 0.4600211950025479
    assert points.kendall.p == pytest.approx(1 / 12)


def test_correlations_of_a_sweep_and_of_a_study():
    (sweep,) = load_correlations(OLD / "sweep_run")
    assert sweep.proxies["mmd"].spearman.value == pytest.approx(0.1)
    assert sweep.key["model"] == "old_formats.Linear"
    assert sweep.points[0].unit == "near @f453eac4"
    (study,) = load_correlations(OLD / "tune_run")
    assert (study.kind, study.proxies, study.n_missing) == ("trial", {}, 3)
    assert [point.scores["mmd"] for point in study.points] == [
        0.06567051736655252, 0.1326120929969201,
    ]  # fmt: skip


def test_the_run_store(here: Path):
    store = RunStore("records.sqlite")
    kinds = {kind: len(store.read(kind=kind)) for kind in ("probe", "mixture", "trial")}
    assert kinds == {"probe": 10, "mixture": 1, "trial": 7}
    (record,) = store.read(kind="mixture")
    assert record.mixture == Mixture({"near": 0.5, "mixed": 0.5}, "top 2 by mmd")
    assert record.metrics == {"val_acc": 0.4000000059604645, "val_loss": 0.726224422454834}
    assert record.scores["mmd"] == 0.09839420992710093
    assert record.details["candidates"]["far"]["mdm"] == 0.10329417677493942
    assert (record.details["run_dir"], record.details["final_step"]) == ("fit_run", 8)
    assert record.key["examples_drawn"] == 64
    assert record.key["hyper_parameters"]["optimizers"][0]["lr"] == 0.5
    assert record.key_hash == "5c5ad479f6980cd4"
    assert len(store.read(key_hash="cfdf1e9e26b54049")) == 5 + 7
    assert [len(result.points) for result in correlate(store.read())] == [1, 5, 5, 2]
    assert list(correlate(store.read(kind="probe"))[0].proxies) == ["mmd", "mdm", "lens"]


def test_the_run_store_goes_on(here: Path):
    store = RunStore("records.sqlite")
    (record,) = store.read(kind="mixture")
    store.write(replace(record, run_id="new", metrics={"val_loss": 0.25}))
    store.write(replace(record, seed=7))
    records = RunStore("records.sqlite").read(kind="mixture")
    assert {(r.run_id, r.seed, r.metrics["val_loss"]) for r in records} == {
        (record.run_id, 7, 0.726224422454834), ("new", 0, 0.25),
    }  # fmt: skip


@needs_its_packages
def test_finished_probes_are_not_trained_again(here: Path):
    store = RunStore("records.sqlite")
    before = store.read()
    records = run_probes(
        model, data_module(), load_ranking("sweep_run"), max_steps=4, store=store, progress=False,
        options=ShortFitOptions(monitor="val_loss", mode="min"),
        trainer_options={"accelerator": "cpu", "default_root_dir": "."},
    )  # fmt: skip
    assert Linear.n_fits == 0
    assert store.read() == before
    assert [record.metrics["val_loss"] for record in records] == [
        0.706935465335846, 0.6960003972053528, 0.7045923471450806, 0.7140288949012756,
        0.677747368812561,
    ]  # fmt: skip


@needs_its_packages
def test_the_same_fit_finds_its_probes_and_the_same_figures(here: Path):
    result = correlation(probes=ProbeSweep(6, progress=False))
    chosen = selection(run_dir="new")
    trainer(chosen, result).fit(model(), datamodule=data_module())
    assert Linear.n_fits == 1
    assert result.record.metrics == {"val_acc": 0.4000000059604645, "val_loss": 0.726224422454834}
    mixtures, probes = result.correlations
    assert len(mixtures.points) == 1  # two runs of one mixture: the same unit
    assert mixtures.points[0].n_seeds == 2
    assert_close(asdict(probes), asdict(load_correlations("fit_run")[1]))
    assert (
        chosen.ranking.details["lens"]["candidates"]["near"]
        == (load_ranking("fit_run").details["lens"]["candidates"]["near"])
    )


def test_a_study(here: Path):
    result = TuningResult.from_dict(read_json("tune_run/study.json"), load_ranking("tune_run"))
    assert result.value == 0.6798820495605469
    assert result.mixture == result.ranking.top()
    assert result.mixture.weights == {"near": 0.5, "mixed": 0.5}
    assert (result.metric, result.mode, result.study_name) == ("val_loss", "min", "old")
    assert [trial.role for trial in result.trials] == ["start"] * 5 + ["random"] * 2
    assert [trial.start for trial in result.trials[:3]] == ["top 2", "all", "MMD-optimal"]
    assert result.trials[6].value == 0.7312883138656616
    assert result.trials[6].weights == {
        "half": 0.4752565380877821, "mixed": 0.2784966946249342, "odd": 0.24624676728728365,
    }  # fmt: skip
    assert result.budget["k_range"] == [1, 5]


def tuned(n_trials: int, storage: str, name: str) -> TuningResult:
    return tune_mixture(
        model, data_module(), max_steps=4, scorer=scorer(), store="records.sqlite", progress=False,
        options=TuneOptions(n_trials=n_trials, storage=storage, study_name=name, **TUNE),
        trainer_options={"accelerator": "cpu"},
    )  # fmt: skip


@pytest.mark.parametrize("storage", ["studies.sqlite", "studies.journal"])
def test_a_study_of_0_1_is_refused_and_a_new_one_trains_nothing_twice(storage: str, here: Path):
    pytest.importorskip("optuna")
    content = Path(storage).read_bytes()
    with pytest.raises(ConfigError, match=r"made by another version.*not trained again"):
        tuned(1, storage, "old")
    assert Path(storage).read_bytes().startswith(content)  # a journal keeps the attempt, too
    result = tuned(2, storage, "new")
    old = read_json("tune_run/study.json")["trials"]
    assert [(t.start, t.weights) for t in result.trials] == [
        (t["start"], t["weights"]) for t in old[:2]
    ]
    if packages_are_other():  # their results cannot be compared
        return
    assert Linear.n_fits == 0
    assert [t.value for t in result.trials] == [t["value"] for t in old[:2]]


def test_the_result_of_an_experiment():
    result = read_json(OLD / "experiment_run" / "result.json")
    assert (result["version"], result["recipe"], result["replicates"]) == (1, "shades", 2)
    assert result["arms"]["all"]["values"] == [1.0, 0.5]
    assert result["arms"]["mean_single"]["mean"] == pytest.approx(5 / 6)
    assert result["comparisons"]["chosen_vs_all"]["difference"] == -0.25
    assert result["comparisons"]["chosen_vs_all"]["low"] == -3.4265511840436735
    assert result["correlations"]["mmd"]["pearson"]["value"] == -0.4141443289157405
    assert result["candidates"]["false"]["test"] == 0.0
    assert load_ranking(OLD / "experiment_run")["false"].scores["mmd"].value == (
        -0.032508140444346134
    )
    records = RunStore(OLD / "experiment.sqlite")
    assert records.path.is_file()


def test_the_result_of_an_experiment_is_read_and_written_without_a_change(tmp_path: Path):
    state = load_result(OLD / "experiment_run")
    assert state.arms["all"].values == (1.0, 0.5)
    save_result(tmp_path, state)
    old = read_json(OLD / "experiment_run" / "result.json")
    new = read_json(tmp_path / "result.json")
    before, after = old.pop("comparisons"), new.pop("comparisons")
    assert new == old
    # the old verdicts, here on two pairs, are replaced
    for name, pair in before.items():
        assert after[name].items() >= (pair | {"verdict": "hint only"}).items()


def test_the_store_of_an_experiment(here: Path):
    records = RunStore("experiment.sqlite").read()
    assert len(records) == 19
    assert {record.monitor for record in records} == {"test_acc"}
    entry = next(e for e in correlate(records) if e.kind == "probe" and
                 e.key_hash == "64ad539890891145")  # fmt: skip
    assert entry.proxies["mmd"].spearman.value == pytest.approx(-0.6546536707079772)


@needs_its_packages
def test_an_experiment_trains_nothing_again(here: Path):
    shades = pytest.importorskip("tests.training.shades")
    task = shades.Shades()
    options = ExperimentOptions(
        run_dir="again", store="experiment.sqlite", cache_dir="cache", **EXPERIMENT
    )
    again = run_experiment(task, options)
    assert not any(fit["steps"] for fit in task.fits)
    old = read_json("experiment_run/result.json")
    new = read_json("again/result.json")
    for part in ("arms", "candidates", "correlations", "budget", "data"):
        assert_close(new[part], old[part], part)
    for name, pair in old["comparisons"].items():
        # two pairs give a hint only; an interval of accuracies ends at a difference of 1
        ends = {
            end: None if pair[end] is None else max(-1.0, min(pair[end], 1.0))
            for end in ("low", "high")
        }
        expected = pair | ends | {"verdict": "hint only"}
        assert new["comparisons"][name].items() >= expected.items()
    messages = again.result.messages
    assert any("13 of 13 fits had finished before" in message for message in messages)


def test_the_influence_of_candidates(tmp_path: Path):
    result = load_influence(OLD.parent / "influence_v1")
    assert result.values["odd"] == 0.05527998461908496
    assert [one.name for one in result.order()] == ["odd", "near", "far", "mixed", "half"]
    assert math.isnan(result["near"].low)  # too few families for an interval
    assert (result["near"].n, result["near"].n_all, result["near"].n_units) == (50, 71, 2)
    assert (result.validation, result.gradients, result.n_dims) == ("surrogate", "last_layer", 54)
    assert (result.steps, result.rates, result.seed) == ((4, 8, 12), (0.5, 0.5, 0.5), 0)
    assert "102 examples of 5 candidates" in result.messages[0]
    path = save_influence(result, tmp_path)
    assert read_json(path) == read_json(OLD.parent / "influence_v1" / "influence.json")
    page = write_report(tmp_path).read_text()
    assert "Influence on the surrogate validation loss" in page
    assert "+0.055" in page


def test_weights_that_change_in_training(tmp_path: Path):
    folder = OLD.parent / "weights_v1"
    trajectory = load_weights(folder)
    assert trajectory.names == tuple(WORDS)
    assert (trajectory.policy, trajectory.every_n_steps, trajectory.budget) == ("odm", 4, 0.5)
    assert (trajectory.steps, trajectory.asked) == (16, 3)
    assert [(point.step, point.draw) for point in trajectory.points] == [(0, 0), (12, 104)]
    assert trajectory.points[1].weights["near"] == 0.19966134349484188
    assert trajectory.overhead == pytest.approx(0.815, abs=5e-4)
    path = save_weights(tmp_path, trajectory)
    assert read_json(path) == read_json(folder / "weights.json")
    page = write_report(tmp_path).read_text()
    assert "Weights over the steps" in page


def test_the_figures_of_the_benchmark(here: Path):
    result = read_json("benchmark.json")
    task = result["tasks"]["sentiment_analysis"]
    assert (result["version"], task["seeds"]) == (1, [7, 8])
    assert task["noise_ceiling"] == 0.991511823502661
    assert task["proxies"]["mdm"]["pearson"] == 0.8751791639074675
    assert task["proxies"]["mdm"]["top3"]["p"] == 0.1
    assert task["corruptions"]["truncated:0.5"]["mmd"]["noticed"] == 0.8
    text = render(BenchmarkResult.from_dict(result))
    for shown in ("sentiment_analysis", "0.875", "[0.356, 1.000]", "truncated"):
        assert shown in text, shown


def test_the_benchmark_goes_on_from_its_parts(here: Path):
    layout = pytest.importorskip("tests.benchmark.released_layout")
    layout.write_sentiment(Path("released"))
    encoder = LetterEncoder()
    result = run_released(
        "released",
        BenchmarkOptions(**BENCHMARK),
        encoder=encoder,
        out="benchmark.json",
        cache_dir="b-cache",
        progress=False,
    )
    (task,) = result.to_dict()["tasks"].values()
    (old,) = read_json(OLD / "benchmark.json")["tasks"].values()
    for key in ("mmd", "mdm", "energy"):
        for figure in ("pearson", "spearman", "top3"):
            assert task["proxies"][key][figure] == pytest.approx(old["proxies"][key][figure])
    for corruption, columns in old["corruptions"].items():
        # there are more baselines now
        kept = {key: task["corruptions"][corruption][key] for key in columns}
        assert kept == columns
    if version("synque-select") == "0.1.0":  # part of what a part is named after
        assert task["cost"]["scores_resumed"] == 10


PAGES = {
    "ranking_v1": ["Train on near, mixed: top 2 by consensus", "fuzzy jazz pizza dizzy e4",
                   "Would more real examples", "5 of 16 real examples are not covered by any"],
    "ranking_v2": ["proportional at temperature 0.5", "0.951"],
    "ranking_lens": ["LENS: what distinguishes the candidates", "Least real examples",
                     "The real sample has apple, violet, xenon"],
    "fit_run": ["near, mixed: top 2 by mmd", "LENS: what distinguishes the candidates",
                '<figure class="plot">', "+0.90", "Would more real examples",
                "mixed 0.5 + near 0.5"],
    "sweep_run": ["+0.10", "near"],
    "tune_run": ["tuned: best of 7 complete trials of the study old", "MMD-optimal", "0.680",
                 "c4=0.50, c3=0.50"],
    "experiment_run": ["Arms of the experiment", "hint only", "-0.65", "false labels"],
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_the_page_of_a_run_is_built_again(name: str, here: Path):
    page = write_report(name).read_text().replace("<wbr>", "")
    missing = [words for words in PAGES[name] if words not in page and words not in plain(page)]
    assert not missing
    assert "told apart" not in page  # old name
    assert "selection_stability" not in page
    assert "made by an older version" in page
    assert "extrapolated rows" not in page
    (here / name / "report.html").unlink()
    assert main(["report", name]) == 0
    assert (here / name / "report.html").read_text().replace("<wbr>", "") == page


def plain(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_state_of_a_datamodule(here: Path):
    state = read_json("checkpoint_state.json")["SynqueDataModule"]
    data = data_module()
    data.load_state_dict(state)
    assert data.mixture == Mixture({"near": 0.5, "mixed": 0.5}, "top 2 by mmd")
    assert state["position"] == {"epoch": 0, "start": 0, "drawn": 40}
    saved = data.state_dict()
    assert saved["version"] == 1
    assert saved["mixture"] == state["mixture"]
    assert {n: c["sample"] for n, c in saved["candidates"].items()} == {
        n: c["sample"] for n, c in state["candidates"].items()
    }


def test_the_state_of_a_datamodule_with_labeled_real_data(here: Path):
    state = read_json("labelled_state.json")
    rows = texts(REAL_WORDS, 12, 3)
    data = data_module(labeled_real=rows, real_share=0.25, view="text", label="label", seed=3)
    data.load_state_dict(state)  # warns, as an error, where a content counts as changed
    assert data.mixture == Mixture({"near": 0.75, "far": 0.25}, "by hand")
    assert data.state_dict()["labeled_real"]["sample"] == state["labelled_real"]["sample"]
    assert data.state_dict()["labeled_real"]["share"] == 0.25


def test_a_fit_goes_on_from_a_checkpoint(here: Path):
    kept = read_json("checkpoint_state.json")
    # what is chosen now is overruled by the checkpoint's mixture
    chosen, result = selection(run_dir=None), correlation()
    fit, data = trainer(chosen, result), data_module()
    fit.fit(model(), datamodule=data, ckpt_path="half.ckpt")
    assert fit.global_step == 8
    assert data.mixture.weights == {"near": 0.5, "mixed": 0.5}
    assert (chosen.run_id, chosen.run_dir) == (kept["synque_select"]["run_id"], Path("fit_run"))
    # three more batches of the epoch's eight: the same examples, the same figures, one record
    assert result.record.metrics["val_loss"] == pytest.approx(0.726224422454834, rel=1e-5)
    assert result.record.key["examples_drawn"] == 64
    assert result.record.key_hash == "5c5ad479f6980cd4"
    assert len(RunStore("records.sqlite").read(kind="mixture")) == 1


def test_a_checkpoint_overrules_another_choice(here: Path):
    data = data_module(mixture={"far": 1.0})
    with pytest.warns(UserWarning, match="continues with the mixture of the checkpoint"):
        trainer().fit(model(), datamodule=data, ckpt_path="half.ckpt")
    assert data.mixture.weights == {"near": 0.5, "mixed": 0.5}


def test_what_lens_found():
    ranking = load_ranking(OLD / "ranking_lens")
    assert ranking["near"].scores["lens"].value == 0.49779024670253974
    assert ranking["far"].scores["lens"].high == 0.32271438878881886
    details = ranking.details["lens"]
    assert (details["version"], details["scorer"], details["reasoner"]) == (1, "judge", "reasoner")
    near = details["candidates"]["near"]
    assert (near["n"], near["n_judged"]) == (24, 3)
    assert near["rubric"]["only_real"][0].startswith("Dataset B has apple, violet, xenon")
    assert near["least_real"][0]["position"] == 7


def test_kept_answers_are_not_asked_for_again(here: Path):
    config = lens(unasked, unasked, "answers.sqlite")
    ranking, old = rank_lens(config), load_ranking("ranking_lens")
    for name in ("near", "far"):
        assert ranking[name].scores == old[name].scores
        assert (
            ranking.details["lens"]["candidates"][name] == (old.details["lens"]["candidates"][name])
        )
    assert ranking.details["lens"]["questions"]["asked"] == 0


def test_the_file_of_answers_goes_on(here: Path):
    cache = AnswerCache("answers.sqlite")
    cache.put({"new": [0.25, 0.75]})
    assert cache.get(["new", "absent"]) == {"new": [0.25, 0.75]}


def test_rubrics_are_read_and_judged_by(here: Path):
    rubrics = load_rubrics("fit_run/rubrics/rubrics.json")
    assert list(rubrics) == list(WORDS)
    result = load_ranking("fit_run").details["lens"]["candidates"]["far"]["rubric"]
    assert list(rubrics["far"].only_synthetic) == result["only_synthetic"]
    assert rubrics["half"].only_real[0] == (
        "Dataset B has apple, violet, banana, xenon, zebra, grape, yellow."
    )
    given = replace(lens(unasked, weigh), rubrics="fit_run/rubrics/rubrics.json")
    ranking = rank_lens(replace(given, reasoner=None))
    assert ranking["near"].scores["lens"].value > ranking["far"].scores["lens"].value


def test_feedback_from_an_old_ranking(here: Path):
    old = read_json("feedback.json")
    assert old["version"] == 1
    result = feedback(load_ranking("ranking_lens"))
    assert [entry.to_dict() for entry in result] == old["candidates"]
    assert result[1].candidate == "far"
    assert main(["feedback", "ranking_lens", "--json", "again.json"]) == 0
    assert read_json("again.json") == old


def test_a_config_and_prompts_of_lens():
    config = LensConfig.from_file(OLD / "lens.yaml")
    assert (config.max_samples, config.readout, config.prompts) == (40, "expectation", "text")
    assert (config.sampling.n_samples, config.sampling.max_answer_tokens) == (6, 1500)
    prompts = load_prompts(OLD / "prompts.txt")
    assert set(prompts.sections) >= {"similarities", "differences", "shared", "sample", "question"}
    assert prompts.sections == load_prompts("text").sections
