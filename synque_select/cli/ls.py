"""`synque-select ls`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.cli.options import packaged_configs, print_tables
from synque_select.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from synque_select.report.table import Table

__all__ = ["KINDS", "arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument("what", choices=list(KINDS), help="what to list")
    parser.add_argument(
        "where", nargs="?", help="directory of the runs (default: runs) or of the cache"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the list as JSON to this file; - prints it"
    )


def run(options: Namespace) -> int:
    """List proxies, encoders, engines, packaged configs, runs or what the cache holds."""
    if options.where is not None and options.what not in ("runs", "cache"):
        raise ConfigError(f"ls {options.what} takes no directory, found {options.where!r}")
    print_tables([KINDS[options.what](options.where)], options.json)
    return 0


def _table(title: str, heads: str, rows: Iterator[tuple[str, ...]], *notes: str) -> Table:
    from synque_select.report.table import Column, Table

    columns = tuple(Column(head, is_name=True) for head in heads.split(", "))
    return Table(title, columns, tuple(rows), notes)


def _proxies(_: str | None) -> Table:
    from synque_select.proxies.registry import PROXIES

    rows = (
        (
            key,
            "higher" if proxy.higher_is_better else "lower",
            proxy.family,
            "labels" if proxy.needs_labels else "embeddings" if proxy.needs_embeddings else "",
            _sentence(proxy),
        )
        for key, proxy in PROXIES.items()
    )
    note = "LENS proxies also need --lens, the config of the models that judge"
    return _table("Proxies", "key, better, family, reads, description", rows, note)


def _encoders(_: str | None) -> Table:
    from synque_select.encoders.registry import DEFAULT_ENCODERS, ENCODERS

    rows = ((key, encoder.modality, _sentence(encoder)) for key, encoder in ENCODERS.items())
    defaults = (f"default for {kind}: {name}" for kind, name in DEFAULT_ENCODERS.items())
    return _table("Encoders", "key, reads, description", rows, *defaults)


def _engines(_: str | None) -> Table:
    from synque_select.llm.registry import ENGINES

    rows = ((key, _sentence(engine)) for key, engine in ENGINES.items())
    return _table("Engines of language models", "key, description", rows)


def _configs(_: str | None) -> Table:
    rows = ((name, _first_comment(path)) for name, path in packaged_configs().items())
    note = "give the name, or a copy of the file, to --config or --lens"
    return _table("Packaged configs", "name, description", rows, note)


def _runs(where: str | None) -> Table:
    from synque_select.report.run_list import list_runs, runs_table
    from synque_select.report.table import Table

    if where is None and not Path("runs").exists():
        return Table("No runs yet: fit, sweep, tune and experiment make them in runs", (), ())
    return runs_table(list_runs(where or "runs"))


def _cache(where: str | None) -> Table:
    from synque_select.cli.cache import local_table
    from synque_select.utils.cache_dir import cache_root

    return local_table(cache_root(where))


KINDS: Mapping[str, Callable[[str | None], Table]] = {
    "proxies": _proxies,
    "encoders": _encoders,
    "engines": _engines,
    "configs": _configs,
    "runs": _runs,
    "cache": _cache,
}


def _sentence(kind: type) -> str:
    """Return the first sentence of a class's docstring."""
    text = " ".join(str(kind.__doc__ or "").split())
    return text.partition(". ")[0].rstrip(".")


def _first_comment(path: Path) -> str:
    """Return the first sentence of the comment at the top of a config."""
    comment: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        # what is indented is a command
        if not line.startswith("# ") or line.startswith("#  "):
            break
        comment.append(line.removeprefix("# ").strip())
    return re.split(r"(?<=\.) (?=[A-Z])", " ".join(comment))[0].rstrip(".:")
