"""The command `synque-select rank`."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import tempfile
from argparse import Action, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.cli.options import (
    NONE_IS_CLOSE,
    PROXIES_HELP,
    add_compute_options,
    add_reservoir_option,
    executor_of,
    flat,
    max_device_memory_of,
    proxy_options,
)
from synque_select.errors import ConfigError, SynqueError
from synque_select.utils.wording import listed, printable

if TYPE_CHECKING:  # at run time, `--help` must not wait for torch
    from jsonargparse import ArgumentParser

    from synque_select.data.groups import GroupSelector
    from synque_select.selection.label_filter import LabelFilterChoice
    from synque_select.selection.scorer import Scorer, ScoringJob
    from synque_select.selection.scoring import Scoring
    from synque_select.types import Findings, Gaps, LabelChecks, Ranking, SampleSizeAnalysis
    from synque_select.types.label_filter import DroppedLabel

__all__ = ["arguments", "prepared", "run"]


class _Extend(Action):
    """Add to what is there, which in a config may be one text in place of a list."""

    def __call__(
        self, parser: object, namespace: Namespace, values: object, option: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest) or []
        if isinstance(before, Mapping):
            raise ConfigError(
                f"{option} adds to a list, and the config has names with paths: change the config"
            )
        more = values if isinstance(values, list) else [values]
        setattr(namespace, self.dest, [*([before] if isinstance(before, str) else before), *more])


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    _add_inputs(parser)
    _add_choices(parser)
    parser.add_argument(
        "--json",
        help="also write the ranking to this file or directory, as JSON and as CSV; - prints the "
        "JSON and nothing else",
    )
    parser.add_argument(
        "--report",
        metavar="PATH",
        help="also write the page to this .html file, or as report.html to this directory, with "
        "examples, and a map if a proxy uses embeddings",
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="also print the ranks and scores of each proxy, and all notes",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help=f"end with exit status {NONE_IS_CLOSE} if no candidate is close to the real sample",
    )
    add_compute_options(parser, quiet="print only the decision, and no progress")


def _add_inputs(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file with any of these options; synque-select init writes one",
    )
    parser.add_argument(
        "--candidates",
        action=_Extend,  # a repeated option adds to the first
        nargs="+",
        required=True,
        help="files, folders or globs, each also as NAME=PATH; each file or subfolder is one "
        "candidate, and the shards of a dataset are one. JSON, JSONL, CSV, TSV, Parquet, Arrow, "
        "image folders, WebDataset tars, saved datasets, or hub:OWNER/NAME:CONFIG@REVISION#SPLIT",
    )
    parser.add_argument("--real", required=True, help="the unlabeled real sample: a file or folder")
    parser.add_argument(
        "--split", help="split of datasets that have several, for both sides (default: train)"
    )
    parser.add_argument("--real-split", help="split of the real sample (default: as --split)")
    parser.add_argument(
        "--real-groups",
        metavar="FIELD",
        help="field that real examples share if they do not vary independently: thread, author, "
        "session or page; intervals then count groups, not examples. false if all are independent "
        "(default: exact and near duplicates are groups)",
    )
    add_reservoir_option(parser)
    parser.add_argument(
        "--view",
        help="what the proxies read, required if it cannot be told from the fields: a field, a "
        "path such as turns.0.text, chat:user, chat:all, alpaca:prompt, premise+hypothesis (one "
        "text), task,page (one JSON object), or the dotted name of a function",
    )
    parser.add_argument("--real-view", help="view of the real sample (default: as --view)")
    parser.add_argument(
        "--encoder",
        help="model id (default: all-MiniLM-L6-v2 for text, efficientnet-lite0 for images), with "
        "options after colons, as in all-MiniLM-L6-v2:backend=openvino:precision=int8",
    )
    parser.add_argument(
        "--proxies",
        action=_Extend,  # a repeated option adds to the first
        nargs="+",
        help=PROXIES_HELP,
    )
    parser.add_argument(
        "--lens",
        help="config for the LENS proxies, required with any of them: a YAML file or a packaged "
        "name such as lens-small",
    )


def _add_choices(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--rank-by",
        help="a proxy's key or consensus. Default: the only proxy given, or transfer if the "
        "candidates' labels (--label) can judge each other, else the consensus. Labels can judge "
        "from 3 families on, unless two camps contradict each other or too few examples are like "
        "the real ones; a message says why not",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        help="number of candidates to select (default: all, minus each that is shown worse than at "
        "least half of the others)",
    )
    parser.add_argument(
        "--mixture",
        default="equal",
        help="weights of the selected candidates: equal; proportional, to exp(standardized score / "
        "temperature); or mmd_optimal, at most --top-k of them, weighted so that their kernel "
        "mean is nearest to the real sample's",
    )
    parser.add_argument(
        "--temperature", type=float, help="temperature of --mixture proportional (default: 1)"
    )
    parser.add_argument(
        "--label",
        help="field that holds the candidates' labels; warns where they look wrong, and adds the "
        "columns transfer and agreement to the default suite if they are classes",
    )
    parser.add_argument(
        "--family",
        metavar="REGEX",
        help="regular expression whose first group (or whole match) in a candidate's name is its "
        "family, such as ^[^_]+ for the generator; candidates of one family do not judge each "
        "other's labels (default: each is a family of its own)",
    )
    parser.add_argument(
        "--label-filter",
        default="off",
        help="find examples of the selected candidates whose label the classifiers of the others "
        "contradict: off; auto, if these can judge and most contradict it; or a share of their "
        "votes such as 0.8. With --json they are listed in dropped_labels.jsonl",
    )
    parser.add_argument(
        "--relabel",
        action="store_true",
        help="with --label-filter: give these examples the label with the most votes instead of "
        "dropping them",
    )
    parser.add_argument(
        "--answers",
        metavar="FILE",
        help="labels of some real examples: a file of `synque-select ask`, filled in; with --label",
    )
    parser.add_argument(
        "--gaps",
        action="store_true",
        help="list the real examples that no candidate covers, each with the nearest synthetic one",
    )
    parser.add_argument(
        "--sample-size-analysis",
        action="store_true",
        help="compare the selections made by disjoint halves of the real sample, to see whether "
        "more real examples would help",
    )


def run(options: Namespace, job: ScoringJob | None = None) -> int:
    """Rank candidates against a real sample. Prints the decision and a table; --json saves all."""
    if options.json != "-":
        return _rank(options, job, quiet=options.quiet)
    with tempfile.TemporaryDirectory() as folder:
        kept = Namespace(**{**vars(options), "json": folder})
        try:
            with contextlib.redirect_stdout(sys.stderr):
                status = _rank(kept, job, quiet=True)
        finally:  # a finding that fails does not cost the ranking
            if (Path(folder) / "ranking.json").exists():
                print(_all_json(Path(folder)))
    return status


def _all_json(folder: Path) -> str:
    """Return the ranking in a folder, with the other files there as its findings."""
    from synque_select.records.dropped_labels_file import DROPPED_LABELS

    state = json.loads((folder / "ranking.json").read_text("utf-8"))
    others = (path for path in folder.glob("*.json") if path.name != "ranking.json")
    findings = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(others)}
    dropped = folder / DROPPED_LABELS
    if dropped.exists():
        lines = dropped.read_text("utf-8").splitlines()
        findings[dropped.stem] = [json.loads(line) for line in lines]
    return json.dumps({**state, "findings": findings}, indent=2, ensure_ascii=False)


def _say_what_was_read(
    job: ScoringJob, given: str | Sequence[str] | Mapping[str, str], ranking: Ranking
) -> None:
    """Say on the error stream what the decision alone does not show: it must not be lost."""
    from synque_select.data.compressed import is_compressed
    from synque_select.data.left_out import left_out_messages

    candidates = job.given or job.candidates
    messages = [m for m in left_out_messages(candidates, job.real) if m not in ranking.messages]
    files = [Path(part.source) for part in candidates if part.source]
    packed = [file.name for file in files if is_compressed(file)]
    # in a folder, one may not expect them to be read
    if packed and not isinstance(given, Mapping) and len(candidates) > len(flat(given)):
        messages.insert(0, f"read, though compressed: {listed(packed, 8)}.")
    for message in messages:
        print(f"synque-select: {printable(message)}", file=sys.stderr)


def prepared(options: Namespace) -> ScoringJob:
    """Load the data of the options, and check all that can be checked before scoring."""
    from synque_select.data.sources import load_candidates, load_real
    from synque_select.llm.openai.masking import mask_secrets

    _targets(options)
    scorer = _scorer(options)
    given = options.candidates
    candidates = load_candidates(
        given if isinstance(given, Mapping) else flat(given),  # a mapping is from a config
        view=options.view,
        label=options.label,
        family=options.family,
        split=options.split,
        reservoir=options.reservoir,
        seed=options.seed,
    )
    real = load_real(
        options.real,
        view=options.real_view or options.view,
        real_groups=_groups(options.real_groups),
        split=options.split,
        real_split=options.real_split,
    )
    # JSON in place of a file may have the address of a server
    lens = None if options.lens is None else mask_secrets(options.lens)
    read_with = {"family": options.family, "lens": lens, "reservoir": options.reservoir}
    job = scorer.prepare(candidates, real, read_with)
    sizes = options.sample_size_analysis
    job.check_findings(gaps=options.gaps, sample_size_analysis=sizes, written=_as_option)
    return job


def _targets(options: Namespace) -> tuple[Path | None, Path | None]:
    """Return where the ranking and the page are saved; checks that they can be."""
    from synque_select.records.findings_file import check_findings_targets
    from synque_select.records.ranking_file import check_ranking_target

    target = None if options.json in (None, "-") else check_ranking_target(options.json)
    if target is not None:
        check_findings_targets(target, _finding_files(options))
    if options.report is None:
        return target, None
    from synque_select.report.page import check_page_target

    return target, check_page_target(options.report)


def _rank(options: Namespace, job: ScoringJob | None, *, quiet: bool) -> int:
    from synque_select.records.run_info import info_of_process
    from synque_select.report.terminal import print_ranking
    from synque_select.types import Findings
    from synque_select.utils.deferred_errors import DeferredErrors

    target, page = _targets(options)
    job = prepared(options) if job is None else job
    ranking = _ranked(job)
    labels, dropped = ranking.findings.labels, ranking.findings.dropped
    ranking = replace(ranking, made_by=info_of_process(), findings=Findings())
    scored = functools.cache(job.score)  # only what was not in the cache needs the scores
    decision = ranking.decision
    # where no candidate is like the real data, what to generate is the next question
    is_far = decision is not None and decision.opening == "far"
    # what cannot be saved is printed, and what fails does not cost the rest
    with DeferredErrors() as later:
        saved, gaps, sizes = _Saved(None, []), None, None
        if target is not None:
            saved = later.attempt(lambda: _save_ranking(ranking, target)) or saved
        later.attempt(lambda: saved.add_findings(labels=labels))
        if dropped is not None:
            later.attempt(lambda: saved.add_dropped(dropped, relabel=options.relabel))
        print_ranking(ranking, details=options.details, quiet=quiet)
        if quiet:
            _say_what_was_read(job, options.candidates, ranking)
        if options.gaps or (is_far and job.needs_embeddings and not quiet):
            kept = saved if options.gaps else None
            gaps = later.attempt(lambda: _add_gaps(scored(), kept, quiet=quiet))
        if options.sample_size_analysis:
            sizes = later.attempt(
                lambda: _add_sample_sizes(job, scored(), ranking, saved, quiet=quiet)
            )
        if page is not None:
            findings = Findings(labels, gaps, sizes)
            later.attempt(lambda: saved.paths.append(_write_page(page, ranking, findings, job)))
        if saved.paths and not quiet:
            print(f"\n{saved.sentence}")
    return NONE_IS_CLOSE if is_far and options.strict else 0


def _finding_files(options: Namespace) -> list[str]:
    """Return the names of the files that may be written beside the ranking."""
    from synque_select.records.dropped_labels_file import DROPPED_LABELS

    is_written = {
        "labels.json": options.label is not None,
        "gaps.json": options.gaps,
        "real_size.json": options.sample_size_analysis,
        DROPPED_LABELS: options.label_filter not in ("off", False),
    }
    return [name for name, is_asked in is_written.items() if is_asked]


@dataclass(frozen=True)
class _Saved:
    """The files of a run.

    Args:
        ranking: The JSON file of the ranking; None if the ranking is not saved, and then nothing
            is, as findings beside another ranking would be taken for its own.
        paths: All files written so far.
    """

    ranking: Path | None
    paths: list[Path]

    @property
    def sentence(self) -> str:
        """Say what was written, and where."""
        folders = dict.fromkeys(path.parent for path in self.paths)
        named = (
            f"{', '.join(path.name for path in self.paths if path.parent == folder)} to {folder}"
            for folder in folders
        )
        return f"wrote {'; '.join(named)}"

    def add_findings(
        self,
        *,
        labels: LabelChecks | None = None,
        gaps: Gaps | None = None,
        real_size: SampleSizeAnalysis | None = None,
    ) -> None:
        """Write the findings that are given."""
        from synque_select.records.findings_file import save_findings
        from synque_select.types import Findings

        if self.ranking is not None:
            findings = Findings(labels, gaps, real_size)
            folder, name = self.ranking.parent, self.ranking.name
            self.paths.extend(save_findings(folder, findings, ranking=name))

    def add_dropped(self, dropped: Mapping[str, Sequence[DroppedLabel]], *, relabel: bool) -> None:
        """Write what the label filter dropped."""
        from synque_select.records.dropped_labels_file import DROPPED_LABELS, save_dropped_labels
        from synque_select.records.run_folder import file_beside

        if self.ranking is not None:
            path = file_beside(self.ranking, DROPPED_LABELS)
            self.paths.append(save_dropped_labels(path, dropped, relabel=relabel))


def _save_ranking(ranking: Ranking, target: Path) -> _Saved:
    from synque_select.records.ranking_file import save_ranking

    save_ranking(ranking, target)
    return _Saved(target, [target, target.with_suffix(".csv")])


def _scorer(options: Namespace) -> Scorer:
    from synque_select.proxies.lens import with_lens
    from synque_select.selection.mixture import MixtureOptions
    from synque_select.selection.scorer import Scorer

    mixture = MixtureOptions(options.mixture, options.temperature)
    proxies = proxy_options(options.proxies)
    _check_lens(proxies, options.lens)
    progress = not options.quiet
    return Scorer(
        proxies=with_lens(proxies, options.lens, top_k=options.top_k, progress=progress),
        rank_by=options.rank_by,
        top_k=options.top_k,
        encoder=options.encoder,
        seed=options.seed,
        device=options.device,
        cache_dir=options.cache_dir,
        mixture=mixture,
        progress=progress,
        label_filter=_label_filter(options.label_filter, relabel=options.relabel),
        relabel=options.relabel,
        answers=options.answers,
        executor=executor_of(options),
        max_device_memory=max_device_memory_of(options),
    )


def _label_filter(text: str | bool, *, relabel: bool) -> LabelFilterChoice:
    from synque_select.selection.label_filter import check_label_filter

    choice: str | float = text
    if not isinstance(text, bool):  # as YAML reads the word off
        with contextlib.suppress(ValueError):
            choice = float(text)
    checked = check_label_filter(choice)
    if relabel and checked == "off":
        raise ConfigError(
            "--relabel changes what the label filter does with the examples that it finds: add "
            "--label-filter auto, or a share"
        )
    return checked


def _check_lens(proxies: Sequence[Mapping[str, object]] | None, lens: str | None) -> None:
    """Reject a LENS proxy without a config: its default models are only for trying it out."""
    from synque_select.lens.config import packaged_lens_configs
    from synque_select.proxies.lens import lens_keys

    keys = lens_keys()
    bare = [str(p["key"]) for p in proxies or () if p["key"] in keys and "config" not in p]
    if bare and lens is None:
        raise ConfigError(
            f"--proxies {','.join(bare)} needs --lens, the config of the models that judge: a YAML "
            f"file or the name of a packaged config ({', '.join(packaged_lens_configs())})"
        )


def _ranked(job: ScoringJob) -> Ranking:
    """Order the candidates; if no mixture can be chosen, print the scores before it fails."""
    from synque_select.report.terminal import print_ranking
    from synque_select.selection.mixture import MixtureOptions

    try:
        return job.filtered_ranking()
    except SynqueError:
        if MixtureOptions.of(job.scorer.mixture).kind != "equal":
            plain = replace(job, scorer=replace(job.scorer, mixture="equal"))
            print_ranking(plain.rank(), details=False)
        raise


def _as_option(name: str, value: object = None) -> str:
    option = f"--{name.replace('_', '-')}"
    return option if value is None else f"{option} {value}"


def _write_page(path: Path, ranking: Ranking, findings: Findings, job: ScoringJob) -> Path:
    from synque_select.records.run_folder import write_text
    from synque_select.report.examples_and_map import name_of_real
    from synque_select.report.page import ranking_page

    views = {part.name: part.views for part in job.candidates}
    views[name_of_real(views)] = job.real.views
    embeddings = job.embeddings()
    if embeddings is not None:  # those that could not be compared are not on the map
        real, rows = embeddings
        embeddings = real, {part.name: rows[part.name] for part in job.candidates}
    return write_text(path, ranking_page(ranking, findings, views=views, embeddings=embeddings))


def _add_gaps(scoring: Scoring, saved: _Saved | None, *, quiet: bool) -> Gaps:
    from synque_select.report.finding_tables import gaps_table
    from synque_select.report.terminal import print_table
    from synque_select.selection.findings import find_gaps

    gaps = find_gaps(scoring)
    if not quiet:
        print()
        print_table(gaps_table(gaps))
    if saved is not None:
        saved.add_findings(gaps=gaps)
    return gaps


def _add_sample_sizes(
    job: ScoringJob, scoring: Scoring, ranking: Ranking, saved: _Saved, *, quiet: bool
) -> SampleSizeAnalysis | None:
    from synque_select.report.finding_tables import sample_size_table
    from synque_select.report.table import terminal_width, wrap_text
    from synque_select.report.terminal import print_table

    sizes = job.sample_sizes(scoring, ranking)
    if isinstance(sizes, str):
        if not quiet:
            print("", *wrap_text(sizes, terminal_width()), sep="\n")
        return None
    if not quiet:
        print()
        print_table(sample_size_table(sizes))
    saved.add_findings(real_size=sizes)
    return sizes


def _groups(field: str | bool | None) -> GroupSelector | None:
    return False if str(field).lower() == "false" else field
