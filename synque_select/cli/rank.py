"""`synque-select rank`."""

from __future__ import annotations

from typing import Any

from synque_select.cli.options import PROXIES_HELP

__all__ = ["arguments", "run"]


def arguments(parser: Any) -> None:
    """Declare the options."""
    _add_inputs(parser)
    _add_choices(parser)
    parser.add_argument("--json", help="write ranking.json here (and ranking.csv beside it)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument(
        "--cache-dir",
        help="where embeddings are kept (default: $SYNQUE_CACHE or ~/.cache/synque-select)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _add_inputs(parser: Any) -> None:
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
    parser.add_argument(
        "--view",
        help="the field that the proxies see; needed where several fit; task,page: both, as JSON",
    )
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
        help="config of the LENS proxies, which need it: a YAML file or a packaged name such as "
        "lens-small",
    )


def _add_choices(parser: Any) -> None:
    parser.add_argument(
        "--rank-by", help="a proxy's key or consensus (default: consensus, or the only proxy given)"
    )
    parser.add_argument("--top-k", type=int, default=3, help="how many to select")
    parser.add_argument(
        "--mixture",
        default="equal",
        help="how the selected are weighted: equal, proportional (to exp of the standardised "
        "score), or mmd_optimal (at most top-k, whose kernel mean is nearest to the real sample's)",
    )
    parser.add_argument("--temperature", type=float, help="of --mixture proportional (default: 1)")
    parser.add_argument(
        "--label", help="the field of the candidates' labels: warns where they look wrong"
    )
    parser.add_argument(
        "--gaps",
        action="store_true",
        help="show the real examples that no candidate covers, with what comes nearest",
    )
    parser.add_argument(
        "--sample-size-analysis",
        action="store_true",
        help="compare the choices of disjoint halves of the real sample: would more of it pay?",
    )


def run(options: Any) -> int:
    """Rank candidates against a real sample. Prints the table; --json keeps it."""
    from synque_select.cli._rank import rank_and_print

    return rank_and_print(options)
