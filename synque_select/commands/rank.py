"""`synque-select rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synque_select.commands._options import PROXIES_HELP, flat, proxy_options

__all__ = ["arguments", "run"]


def arguments(parser: Any) -> None:
    """Declare the options."""
    parser.add_argument(
        "--candidates",
        nargs="+",
        required=True,
        help="files, folders or globs, one candidate a file or sub-folder: JSON, JSONL, CSV, "
        "Parquet, Arrow, image folders, or hub:OWNER/NAME",
    )
    parser.add_argument(
        "--real", required=True, help="the unannotated real sample: a file or folder"
    )
    parser.add_argument("--view", help="the field that the proxies see; needed where several fit")
    parser.add_argument(
        "--encoder",
        help="model id; default: all-MiniLM-L6-v2 for text, efficientnet-lite0 for images",
    )
    parser.add_argument(
        "--proxies",
        nargs="+",
        help=PROXIES_HELP,
    )
    parser.add_argument(
        "--lens",
        help="config of the LENS proxies: a YAML file or a packaged name such as lens-small",
    )
    parser.add_argument(
        "--rank-by", help="a proxy's key or consensus (default: consensus, or the only proxy given)"
    )
    parser.add_argument("--top-k", type=int, default=3, help="how many to select")
    parser.add_argument("--json", help="write ranking.json here (and ranking.csv beside it)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument(
        "--cache-dir",
        help="where embeddings are kept (default: $SYNQUE_CACHE or ~/.cache/synque-select)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(options: Any) -> int:
    """Rank candidates against a real sample. Prints the table; --json keeps it."""
    from synque_select.proxies.lens import with_lens
    from synque_select.records.ranking_file import check_ranking_target, save_ranking
    from synque_select.report.tables import ranking_table
    from synque_select.selection.ranking import rank

    if options.json is not None:
        check_ranking_target(options.json)
    ranking = rank(
        flat(options.candidates),
        options.real,
        view=_position(options.view),
        encoder=options.encoder,
        proxies=with_lens(proxy_options(options.proxies), options.lens),
        rank_by=options.rank_by,
        top_k=options.top_k,
        seed=options.seed,
        device=options.device,
        cache_dir=options.cache_dir,
        progress=not options.quiet,
    )
    print(ranking_table(ranking))
    if options.json is not None:
        print(f"\nwrote {save_ranking(ranking, Path(options.json))}")
    return 0


def _position(view: str | None) -> str | int | None:
    return int(view) if view is not None and view.isdecimal() else view
