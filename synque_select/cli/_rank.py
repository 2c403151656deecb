"""What `synque-select rank` does, apart from its options: this imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synque_select.cli.options import flat, proxy_options
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.sources import load_candidates, load_real
from synque_select.data.views import Selector, fields_view
from synque_select.errors import ConfigError, SynqueError
from synque_select.lens.config import packaged_lens_configs
from synque_select.proxies.base import BaseProxy
from synque_select.proxies.lens import lens_keys, with_lens
from synque_select.records.findings_file import save_findings
from synque_select.records.ranking_file import check_ranking_target, save_ranking
from synque_select.report.finding_tables import gaps_table, sample_size_table
from synque_select.report.ranking_tables import ranking_tables
from synque_select.selection.findings import find_gaps, label_messages
from synque_select.selection.labels import check_classes, check_scored_labels
from synque_select.selection.mixture import check_mixture_choice
from synque_select.selection.ranking import checked_suite, ranking_from
from synque_select.selection.sample_size import sample_size_analysis
from synque_select.selection.scoring import Scoring, score
from synque_select.types import Findings, LabelCheck, LabelChecks, Ranking

__all__ = ["rank_and_print"]

_LEAST_HALVED = 4


def rank_and_print(options: Any) -> int:
    """Rank as the options of the command say; print and keep what was asked for."""
    if options.json is not None:
        check_ranking_target(options.json)
    check_mixture_choice(options.mixture, options.temperature)
    specs = proxy_options(options.proxies)
    _check_lens(specs, options.lens)
    view = _view(options.view)
    pool = load_candidates(flat(options.candidates), view=view, label=_position(options.label))
    sample = load_real(options.real, view=view)
    proxies = with_lens(
        specs,
        options.lens,
        top_k=options.top_k,
        progress=not options.quiet,
    )
    suite = checked_suite(pool, sample, proxies, rank_by=options.rank_by, top_k=options.top_k)
    _check_findings(options, suite, pool, sample)
    scoring = _scoring(options, pool, sample, suite)
    ranking = _ranking(options, scoring)
    checks = check_scored_labels(pool, scoring) if options.label is not None else None
    if checks is not None:
        ranking = replace(ranking, messages=(*label_messages(checks), *ranking.messages))
    print(*ranking_tables(ranking), sep="\n\n")
    # kept before anything that can still fail
    path = None if options.json is None else save_ranking(ranking, Path(options.json))
    findings = _findings(options, scoring, checks)
    if path is not None:
        prefix = "" if path.name == "ranking.json" else f"{path.stem}."
        written = [path, *save_findings(path.parent, findings, prefix=prefix)]
        print("\nwrote " + ", ".join(map(str, written)))
    return 0


def _check_lens(specs: Sequence[Mapping[str, Any]] | None, lens: str | None) -> None:
    """Refuse LENS without a word on which models judge: the default is one to try it out."""
    keys = lens_keys()
    bare = [s["key"] for s in specs or () if s["key"] in keys and "config" not in s]
    if bare and lens is None:
        raise ConfigError(
            f"--proxies {','.join(bare)} needs --lens, which says what models judge: a YAML file "
            f"or a packaged config ({', '.join(packaged_lens_configs())})"
        )


def _scoring(
    options: Any, pool: Sequence[Candidate], sample: RealSample, suite: Sequence[BaseProxy]
) -> Scoring:
    return score(
        pool,
        sample,
        encoder=options.encoder,
        proxies=suite,
        seed=options.seed,
        device=options.device,
        cache_dir=options.cache_dir,
        progress=not options.quiet,
    )


def _ranking(options: Any, scoring: Scoring) -> Ranking:
    """Order the candidates; what was scored is shown also where no mixture can be chosen."""
    try:
        return ranking_from(
            scoring,
            rank_by=options.rank_by,
            top_k=options.top_k,
            mixture=options.mixture,
            temperature=options.temperature,
        )
    except SynqueError:
        if options.mixture != "equal":
            plain = ranking_from(scoring, rank_by=options.rank_by, top_k=options.top_k)
            print(*ranking_tables(plain), sep="\n\n")
        raise


def _check_findings(
    options: Any, suite: Sequence[BaseProxy], pool: Sequence[Candidate], sample: RealSample
) -> None:
    """Refuse before anything is scored what could not be found afterwards."""
    embedded = any(proxy.needs_embeddings for proxy in suite)
    for name, given in (("--gaps", options.gaps), ("--label", options.label is not None)):
        if given and not embedded:
            raise ConfigError(f"{name} needs embeddings: add a proxy that uses them, such as pad")
    if options.mixture == "mmd_optimal" and not embedded:
        raise ConfigError("--mixture mmd_optimal needs embeddings: add a proxy such as mmd")
    if options.label is not None:
        check_classes(pool)
    if options.sample_size_analysis and len(sample) < _LEAST_HALVED:
        raise ConfigError(
            f"--sample-size-analysis compares halves of the real sample: it needs {_LEAST_HALVED} "
            f"examples, found {len(sample)}"
        )
    if options.sample_size_analysis and options.top_k >= len(pool):
        raise ConfigError(
            f"--sample-size-analysis needs --top-k below {len(pool)}, or all are selected"
        )


def _findings(options: Any, scoring: Scoring, checks: Sequence[LabelCheck] | None) -> Findings:
    """Print what was asked for beside the ranking, and return it."""
    gaps = find_gaps(scoring) if options.gaps else None
    if gaps is not None:
        print(f"\n{gaps_table(gaps)}")
    sizes = None
    if options.sample_size_analysis:
        sizes = sample_size_analysis(scoring, top_k=options.top_k, rank_by=options.rank_by)
        print(f"\n{sample_size_table(sizes)}")
    labels = None if checks is None else LabelChecks(tuple(checks))
    return Findings(labels=labels, gaps=gaps, real_size=sizes)


def _view(fields: str | None) -> Selector | None:
    if fields is not None and "," in fields:
        return fields_view(*fields.split(","))
    return _position(fields)


def _position(field: str | None) -> str | int | None:
    return int(field) if field is not None and field.isdecimal() else field
