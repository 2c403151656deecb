"""SelectionCallback(answers=): training follows what labels of real examples show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synque_select.data.answers import write_questions
from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import ConfigError, DataError
from synque_select.records.ranking_file import load_ranking
from synque_select.selection.ask import panel_of
from synque_select.selection.scorer import Scorer
from tests.callbacks.test_label_filter import WORDS, examples
from tests.lightning_package import SelectionCallback, SynqueDataModule
from tests.training.tiny import LetterEncoder, TinyData, TinyModel, trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
)


def candidates() -> list[Candidate]:
    parts = {f"c{k}": examples(k) for k in range(5)}
    parts["c4"] = [{**record, "label": 1 - record["label"]} for record in parts["c4"]]
    return [Candidate(name, records, "text", "label") for name, records in parts.items()]


REAL = RealSample("real", examples(99), view="text")


def answers(folder: Path, n: int = 20) -> Path:
    scorer = Scorer(["mmd"], encoder=LetterEncoder(), cache_dir=folder / "cache", progress=False)
    sheet = panel_of(candidates(), scorer.score(candidates(), REAL), 0).questions(REAL, n)
    for number, question in enumerate(sheet.questions):
        label = "0" if question.text.split()[0] in WORDS[0] else "1"
        sheet = sheet.with_label(number, label)
    write_questions(folder / "answers.csv", sheet)
    return folder / "answers.csv"


def callback(folder: Path, **options: Any) -> SelectionCallback:
    return SelectionCallback(
        ["mmd"],
        encoder=LetterEncoder(),
        cache_dir=folder / "cache",
        run_dir=folder / "run",
        **options,
    )


def test_training_leaves_out_what_the_answers_show_to_be_worse(tmp_path: Path):
    selection = callback(tmp_path, answers=answers(tmp_path))
    data = SynqueDataModule(candidates=candidates(), real=REAL, wraps=TinyData())
    trainer(tmp_path, selection, max_steps=2).fit(TinyModel(), datamodule=data)
    ranking = load_ranking(tmp_path / "run")
    assert ranking.top().names == data.mixture.names
    assert set(data.mixture.names) == {"c0", "c1", "c2", "c3"}
    assert ranking.decision is not None
    assert "by your 20 answers" in ranking.decision.sentence
    page = (tmp_path / "run" / "report.html").read_text()
    assert "by your 20 answers" in page.lower()


def test_answers_that_cannot_be_used_stop_before_training(tmp_path: Path):
    with pytest.raises(ConfigError, match="answers="):
        callback(tmp_path, answers="a.csv", ranking="ranking.json")
    path = answers(tmp_path)
    other = RealSample("real", examples(98), view="text")
    data = SynqueDataModule(candidates=candidates(), real=other, wraps=TinyData())
    with pytest.raises(DataError, match="about another real sample"):
        trainer(tmp_path, callback(tmp_path, answers=path), max_steps=2).fit(
            TinyModel(), datamodule=data
        )
