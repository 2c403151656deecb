"""The page: self-contained, escaped, rebuilt from whatever the folder holds."""

from __future__ import annotations

import base64
import io
import re
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synque_select.data.preview import shown_view
from synque_select.errors import ConfigError, RecordError
from synque_select.experiment.summary import summary
from synque_select.functional.correlation import correlate_scores
from synque_select.records.correlation import correlate
from synque_select.records.correlation_file import save_correlations
from synque_select.records.experiment_result import load_result
from synque_select.records.findings_file import save_findings
from synque_select.records.ranking_file import save_ranking
from synque_select.records.run_folder import read_json, write_json
from synque_select.report.examples_and_map import (
    examples_state,
    map_state,
    project,
    write_examples,
    write_map,
)
from synque_select.report.page import ranking_page, write_report
from synque_select.selection.decision import decided
from synque_select.types import (
    DoubtfulLabel,
    Evidence,
    Findings,
    Gaps,
    LabelCheck,
    LabelChecks,
    ShownGap,
)
from tests.records.records_data import SCRIPT, make_ranking, make_record
from tests.report.test_tables import RESULT_STATE

NAMES = [SCRIPT, "b", "c", "d", "e\" onload='alert(1)", "f"]
VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = self.script = self.style = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            setattr(self, self.open[-1], data)
        else:
            self.words += data.replace("\N{NO-BREAK SPACE}", " ")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with everything in it, and hostile names everywhere."""
    folder = tmp_path / "digits" / f"run {SCRIPT.replace('/', '')}"
    ranking = make_ranking(NAMES, messages=(f"message {SCRIPT}",))
    save_ranking(ranking, folder)
    save_correlations(correlate([make_record(n, i / 9) for i, n in enumerate(NAMES)]), folder)
    correlation = correlate_scores(range(6), [2, 1, 3, 4, 6, 5], higher_is_better=True, mode="max")
    singles = {
        name: {"n": 10, "test": i / 10, "std": 0.1, "n_seeds": 2, "false_labels": i == 0}
        for i, name in enumerate(NAMES)
    }
    result = {
        **RESULT_STATE,
        "candidates": singles,
        "correlations": {"pad": correlation.to_dict()},
        "correlations_messages": [f"note {SCRIPT}"],
        "wall_s": {"fit": 2.0},
    }
    write_json(folder / "result.json", result)
    generator = torch.Generator().manual_seed(0)
    embeddings = {name: torch.randn(30, 8, generator=generator) for name in NAMES}
    write_map(folder, torch.randn(20, 8, generator=generator), embeddings)
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    write_examples(folder, {SCRIPT: [SCRIPT, "text"], "images": [image, image]})
    examples = read_json(folder / "examples.json")
    examples[SCRIPT][0]["realness"] = 0.5  # as in 0.1
    write_json(folder / "examples.json", examples)
    return folder


def test_the_page_shows_every_part(folder: Path):
    page = read(folder)
    assert "Ranking by consensus" in page.words
    assert "selected: mixture of the top k" in page.words
    assert "Weights and hashes" in page.words
    assert "synque-select rank" in page.words
    assert "encode1.5 s (75 %)" in page.words
    assert "Each candidate alone" in page.words
    assert "Proxies against test_acc over the probes" in page.words
    assert "1 table, one per comparability key" in page.words
    assert "Map of the real sample" in page.words
    assert "realness 0.5" in page.words
    assert "cannot see wrong labels" in page.words
    assert "some/encoder" in page.words
    assert "torch 2.14.1" in page.words
    kinds = [figure["class"] for figure in page.all("figure")]
    assert {kind: kinds.count(kind) for kind in kinds} == {"dots": 8, "map": 2, "plot": 3}


def test_the_page_begins_with_what_was_chosen_how_sure_that_is_and_whether_it_paid(folder: Path):
    words = read(folder).words
    first = words[: words.index("selection_stability")]
    assert f"Train on {NAMES[0]}, {NAMES[1]}: top 2 by consensus." in first
    assert "reliability of consensus on your task is unknown" in first.lower()
    assert "+0.040 test_acc against mixture of k at random: beats" in first
    assert "95 % interval [0.010, 0.070]." in first
    assert "1 note on these data stands under Ranking." in first
    assert f"message {SCRIPT}" in words
    assert "p below 0.05 after Holm over the" in words
    assert words.index("Did it pay?") < words.index("some/encoder")


def test_of_many_chosen_ten_are_named(tmp_path: Path):
    names = [f"{'n' * 80}{i}" for i in range(100)]
    save_ranking(make_ranking(names, top_k=40), tmp_path / "run")
    assert f"{names[9]} and 30 more: top 40 by consensus." in read(tmp_path / "run").words


def test_the_labels_in_doubt_are_shown_with_what_contradicts_them(tmp_path: Path):
    image = Image.new("L", (8, 8))
    doubtful = (
        DoubtfulLabel(3, f"text {SCRIPT}", "spam", "ham", 0.83, "ham"),
        DoubtfulLabel(0, shown_view(image), "spam", None, None, "ham"),
    )
    check = LabelCheck("a", 60, 0.5, 0.5, {"spam": 1.0}, {}, outlier=True, doubtful=doubtful)
    save_ranking(make_ranking(["a", "b", "c"]), tmp_path)
    save_findings(tmp_path, Findings(labels=LabelChecks((check,))))
    page = read(tmp_path)
    assert "a: labels to read first" in page.words
    assert "other candidates: 'ham' (83 %); its other examples: 'ham'; example 3" in page.words
    assert page.words.count("labeled 'spam'") == 2
    assert page.words.count("its other examples: 'ham'") == 2
    assert f"text {SCRIPT}" in page.words
    assert [each["src"][:14] for each in page.all("img")] == ["data:image/png"]


def test_hostile_texts_stay_texts(folder: Path):
    page = read(folder)
    assert len(page.all("script")) == 1
    assert SCRIPT not in page.script
    assert page.words.count(SCRIPT) >= 5
    allowed = {"class", "scope", "role", "tabindex", "aria-label", "src", "alt", "lang", "name"}
    allowed |= {"charset", "http-equiv", "content", "id", "type", "readonly", "hidden", "loading"}
    allowed |= {"aria-hidden", "value", "data-n", "viewbox", "preserveaspectratio", "text-anchor"}
    allowed |= {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "d", "dy", "points"}
    assert {name for _, attributes in page.tags for name in attributes} <= allowed


def test_the_page_asks_for_nothing_from_anywhere(folder: Path):
    text = write_report(folder).read_text(encoding="utf-8")
    page = Page(text)
    assert all((image["src"] or "").startswith("data:image/") for image in page.all("img"))
    assert page.all("link") == page.all("iframe") == page.all("a") == []
    assert not re.search(
        r"url\(|@import|https?://|fetch\(|import\(", re.sub(r"base64,[\w+/=]+", "", text)
    )
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_page_can_be_read_by_a_machine_that_reads_aloud(folder: Path):
    page = read(folder)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert all(image.get("alt") for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))


def test_p_top_k_stands_with_the_measured_reliability(tmp_path: Path):
    evidence = Evidence("consensus", 50, 50.0, 0, 15, stability_k=2)
    ranking = decided(make_ranking(list("abcdef")), evidence)
    save_ranking(ranking, tmp_path)
    assert "reliability of consensus on your task is unknown" in read(tmp_path).words
    correlation = correlate_scores(range(6), [1, 0, 2, 3, 5, 4], higher_is_better=True, mode="max")
    write_json(
        tmp_path / "result.json", {**RESULT_STATE, "correlations": {"pad": correlation.to_dict()}}
    )
    # what was measured is pad; the ranking is by the consensus
    assert "reliability of consensus on your task is unknown" in read(tmp_path).words
    write_json(
        tmp_path / "result.json",
        {**RESULT_STATE, "correlations": {"consensus": correlation.to_dict()}},
    )
    assert "measured reliability of consensus on this task: Spearman +0.89" in read(tmp_path).words
    assert "on your task is unknown" not in read(tmp_path).words
    # and the same in the terminal
    text = " ".join(summary(load_result(tmp_path), ranking).split())
    assert "measured reliability of consensus on this task: Spearman +0.89" in text
    assert "on your task is unknown" not in text


def test_a_ranking_in_memory_has_a_page_with_its_map_and_examples():
    names = ["a", "b"]
    views = {name: [f"{name} {i}" for i in range(5)] for name in names}
    rows = {name: torch.randn(5, 3) for name in names}
    page = Page(
        ranking_page(make_ranking(names), views=views, embeddings=(torch.randn(4, 3), rows))
    )
    assert "a: nearest to the real sample" in page.words
    assert page.all("select")
    assert "a 0" in page.words
    assert not Page(ranking_page(make_ranking(names))).all("select")


@pytest.mark.parametrize(
    "kept", ["ranking.json", "result.json", "correlations.json", "map.json", "examples.json"]
)
def test_what_is_absent_is_left_out(folder: Path, kept: str):
    for path in folder.glob("*.json"):
        if path.name != kept:
            path.unlink()
    page = read(folder)
    heads = [tag for tag in page.words.splitlines() if tag]
    assert "How to reproduce it" in heads
    expected = {"ranking.json": 4, "result.json": 4, "correlations.json": 2}
    assert len(page.all("section")) == expected.get(kept, 2)
    assert kept in page.words


def test_run_records_alone_are_shown_with_their_figures(folder: Path):
    (folder / "result.json").unlink()
    page = read(folder)
    assert "within each comparability key" in page.words
    assert "digits: 6 distinct candidates, runs of kind probe" in page.words
    labels = [area["aria-label"] or "" for area in page.all("svg") if area.get("role") == "img"]
    assert any("val_acc over pad" in label for label in labels)


def test_an_empty_folder_is_an_error(tmp_path: Path):
    with pytest.raises(RecordError, match=r"none of ranking\.json"):
        write_report(tmp_path)
    with pytest.raises(
        RecordError, match="nowhere does not exist: allowed is the directory of a run or the file"
    ):
        write_report(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="file, line 1: not JSON"):
        write_report(tmp_path / "file")


def test_a_ranking_file_has_its_page_and_its_findings_beside_it(tmp_path: Path):
    save_ranking(make_ranking(), tmp_path / "mine.json")
    gaps = Gaps(50, 1, (ShownGap(3, "a", 4, 2.0, 1.0, "the real one", "the nearest"),))
    save_findings(tmp_path, Findings(gaps=gaps), ranking="mine.json")
    save_findings(tmp_path, Findings(gaps=Gaps(50, 0, ())))  # of another ranking
    path = write_report(tmp_path / "mine.json")
    assert path == tmp_path / "mine.report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert "real example 3" in page.words
    assert "nearest: a, example 4, 2.00x" in page.words
    assert "the nearest" in page.words
    assert "the real one" in Page(ranking_page(make_ranking(), Findings(gaps=gaps))).words


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([], "the file must be an object, found a list"),
        ({"version": 3}, "version must be 1, found 3"),
        ({**RESULT_STATE, "metric": 3}, "metric must be an object, found a number"),
        ({**RESULT_STATE, "budget": "x"}, "budget must be an object, found a text"),
        ({**RESULT_STATE, "wall_s": None}, "wall_s must be an object, found null"),
        (
            {**RESULT_STATE, "correlations": {"consensus": 3}},
            "correlations.consensus must be an object, found a number",
        ),
        ({"version": 1, "arms": {}}, "metric must be an object"),
    ],
)
def test_a_result_of_other_types_is_named_with_its_field(tmp_path: Path, state, message):
    save_ranking(make_ranking(["a", "b", "c"]), tmp_path)
    write_json(tmp_path / "result.json", state)
    with pytest.raises(RecordError, match=rf"result\.json is damaged: .*{re.escape(message)}"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("file", "state"),
    [
        ("result.json", []),
        ("result.json", {"arms": {"chosen": {}}}),
        ("result.json", {"correlations": {"pad": {"n": 3}}, "metric": {"name": "a"}}),
        ("map.json", {"points": [{"set": "a"}]}),
        ("map.json", {"points": [{"set": "a", "x": "?", "y": 0}]}),
        ("map.json", []),
        ("examples.json", {"a": [{}]}),
        ("examples.json", {"a": [{"view": {"png": "no base64!"}}]}),
        ("examples.json", {"a": [{"view": {"png": base64.b64encode(b"<svg/>").decode()}}]}),
        ("examples.json", []),
        ("correlations.json", {}),
        ("study.json", {"trials": [{"number": 0, "value": 10**400}]}),
        ("labels.json", {"checks": [{"name": "a"}]}),
        ("gaps.json", {"gaps": [], "n_real": 3}),
        ("real_size.json", {"measured": [], "extrapolated": []}),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, state):
    write_json(tmp_path / file, state)
    with pytest.raises(RecordError, match=re.escape(file)):
        write_report(tmp_path)


def test_the_page_needs_no_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert read(folder).all("figure")


def test_a_label_warning_stands_once(tmp_path: Path):
    check = LabelCheck("a", 10, 0.5, 0.5, {"x": 1.0}, {}, warnings=("a: labels may be wrong",))
    save_ranking(make_ranking(messages=("a: labels may be wrong", "another note")), tmp_path)
    save_findings(tmp_path, Findings(labels=LabelChecks((check,))))
    words = read(tmp_path).words
    assert words.count("labels may be wrong") == 1
    assert words.count("another note") == 1


def test_one_number_for_one_candidate_everywhere(tmp_path: Path):
    ranking = make_ranking(["x", "y", "z"])
    ranks = (1.0, 2.5, 2.5)
    rows = tuple(
        replace(row, ranks={**row.ranks, "consensus": rank})
        for row, rank in zip(ranking.candidates, ranks, strict=True)
    )
    save_ranking(replace(ranking, candidates=rows), tmp_path)
    words = read(tmp_path).words
    assert "2=y" in words
    assert "2=z" in words
    assert "3z" not in words
    assert "2.5y" not in words


@pytest.mark.parametrize("n", [10, 1000])
def test_the_page_is_small_whatever_the_candidates_are(tmp_path: Path, n: int):
    names = [f"candidate-{i:04d}-{'of-a-long-name-' * 4}" for i in range(n)]
    ranking = make_ranking(names, top_k=n // 2)
    evidence = Evidence(
        "consensus", 50, 50.0, 1, n * (n - 1) // 2, shown_better={names[0]: (names[1],)}
    )
    save_ranking(decided(ranking, evidence), tmp_path)
    generator = torch.Generator().manual_seed(0)
    embeddings = {name: torch.randn(60, 16, generator=generator) for name in names}
    real = torch.randn(100, 16, generator=generator)
    write_map(tmp_path, real, embeddings)
    texts = ["word " * 2000] * 60
    write_examples(tmp_path, dict.fromkeys(names, texts), embeddings=(real, embeddings))
    checks = tuple(LabelCheck(name, 60, 0.5, 0.5, {"x": 0.5, "y": 0.5}, {}) for name in names)
    save_findings(tmp_path, Findings(labels=LabelChecks(checks)))
    start = time.process_time()
    size = write_report(tmp_path).stat().st_size
    seconds = time.process_time() - start
    assert size < 2_000_000
    assert seconds < 5
    if n > 100:
        assert "the first 100 of 1,000 rows; ranking.csv has all" in read(tmp_path).words


# map.json and examples.json


def test_a_map_holds_the_real_sample_whole_and_a_part_of_each_candidate(tmp_path: Path):
    big = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    state = map_state(big[:40], {"a": big, "b": big[:10]}, n_shown=100)
    sets = [point["set"] for point in state["points"]]
    assert {name: sets.count(name) for name in sets} == {"real sample": 40, "a": 100, "b": 10}
    few = map_state(big[:40], {"a": big, "b": big[:10]}, n_all=30)
    assert [point["set"] for point in few["points"]].count("a") == 15
    assert state["real"] == "real sample"
    assert "up to 100 random examples" in state["method"]
    again = map_state(big[:40], {"a": big, "b": big[:10]}, n_shown=100)
    assert again == state


def test_a_candidate_may_be_called_real_sample(tmp_path: Path):
    rows = torch.eye(4)
    state = read_json(write_map(tmp_path, rows, {"real sample": rows}))
    assert len({point["set"] for point in state["points"]}) == 2
    assert state["real"] != "real sample"


def test_bfloat16_and_one_dimension_can_be_mapped(tmp_path: Path):
    rows = torch.arange(6, dtype=torch.bfloat16)[:, None]
    state = read_json(write_map(tmp_path, rows, {"a": rows}))
    assert all(point["y"] == 0 for point in state["points"])


@pytest.mark.parametrize(
    "candidates", [{}, {"a": torch.zeros(3, 5)}, {"a": torch.zeros(3, 4), "b": torch.zeros(3, 5)}]
)
def test_a_map_needs_one_dimension(tmp_path: Path, candidates):
    with pytest.raises(ConfigError, match="one dimension"):
        write_map(tmp_path, torch.zeros(3, 4), candidates)


def test_the_plane_is_that_of_sklearn():
    from sklearn.decomposition import PCA

    rows = torch.randn(60, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows[:, 0] *= 5
    rows[:, 1] *= 3
    (plane,), share = project([rows])
    reference = PCA(2).fit(rows.numpy())
    expected = torch.from_numpy(reference.transform(rows.numpy()))
    assert torch.allclose(plane.abs(), expected.abs(), atol=1e-9)
    assert share == pytest.approx(reference.explained_variance_ratio_.sum())


def test_a_set_given_twice_as_often_weighs_no_more():
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(30, 5, generator=generator, dtype=torch.float64) + 2
    (once, _), share = project([a, b])
    (twice, _), share_twice = project([a, torch.cat([b, b])])
    assert torch.allclose(once, twice, atol=1e-9)
    assert share_twice == pytest.approx(share)


def test_examples_are_cut_and_shrunk_and_say_so(tmp_path: Path):
    wide = Image.fromarray(np.zeros((50, 400), dtype=np.uint8))
    views = {"texts": ["x" * 1000, "short"], "images": [wide, wide.convert("CMYK")]}
    state = examples_state(views, max_chars=10, n_shown=2)
    assert [e["view"] for e in state["texts"]] == ["xxxxxxxxxx … (1,000 characters)", "short"]
    for entry in state["images"]:
        image = Image.open(io.BytesIO(base64.b64decode(entry["view"]["png"])))
        assert image.size == (96, 12)
    assert wide.size == (400, 50)


def test_examples_are_drawn_at_random():
    texts = [str(i) for i in range(100)]
    state = examples_state({"a": texts}, seed=3)
    assert len(state["a"]) == len({each["view"] for each in state["a"]}) == 6
    assert state != examples_state({"a": texts}, seed=4)


def test_with_embeddings_the_examples_are_the_nearest_and_the_farthest(tmp_path: Path):
    views = {"real sample": ["r"], "a": [str(i) for i in range(10)], "b": ["x", "y", "z"]}
    rows = {"a": torch.arange(10.0)[:, None], "b": torch.arange(3.0)[:, None]}
    state = read_json(write_examples(tmp_path, views, embeddings=(torch.zeros(1, 1), rows)))
    shown = [(entry["view"], entry["group"]) for entry in state["a"]]
    assert shown[:3] == [("0", "nearest"), ("1", "nearest"), ("2", "nearest")]
    assert shown[3:] == [("9", "farthest"), ("8", "farthest"), ("7", "farthest")]
    assert [entry["view"] for entry in state["b"]] == ["x", "y", "z"]
    assert "group" not in state["real sample"][0]
    words = read(tmp_path).words
    assert "a: nearest to the real sample" in words
    assert "a: farthest from the real sample" in words
    many = {f"c{i}": ["x"] for i in range(100)}
    assert len(read_json(write_examples(tmp_path, many))) == 24


def test_realness_is_shown_where_it_is_known(tmp_path: Path):
    entries = [{"view": "x", "realness": None}, {"view": "y", "realness": 0.5}]
    write_json(tmp_path / "examples.json", {"a": entries})
    words = read(tmp_path).words
    assert words.count("realness 0.5") == 1
    assert "realness nan" not in words


def test_the_page_has_the_distinguished_pairs_folded(tmp_path: Path):
    evidence = Evidence("consensus", 50, 50.0, 1, 15, shown_better={"a": ("f",)})
    save_ranking(decided(make_ranking(list("abcdef")), evidence), tmp_path)
    page = read(tmp_path)
    assert "Pairs distinguished by consensus: 1 of 15" in page.words
    assert "details" in [tag for tag, _ in page.tags]
