"""The command `synque-select export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.cli.options import flat

if TYPE_CHECKING:  # at run time, `--help` must not wait for torch
    from jsonargparse import ArgumentParser, Namespace

    from synque_select.training.draws import Export, RankedMixture

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument("ranking", help="a ranking.json, or the run directory that holds it")
    parser.add_argument(
        "--out",
        required=True,
        help="where to write: a .parquet or .jsonl file, or a folder for datasets.load_from_disk",
    )
    parser.add_argument(
        "--candidates",
        action="extend",
        nargs="+",
        help="files, folders or globs of the candidates (default: from where they were ranked)",
    )
    parser.add_argument("--view", help="field that was ranked, as for rank (default: as ranked)")
    parser.add_argument("--label", help="field of the labels, as for rank (default: as ranked)")
    parser.add_argument(
        "--n",
        type=int,
        help="number of examples (default: the most without repeating one)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed for the order")
    parser.add_argument(
        "--force", action="store_true", help="replace an existing file, or saved dataset"
    )
    parser.add_argument("--quiet", action="store_true", help="hide progress bars")


def run(options: Namespace) -> int:
    """Write a ranking's mixture as data for any trainer.

    The examples are those that SynqueDataModule serves in an epoch, in its order, with the weights
    and the label filter of the ranking. The column `synque_origin` has the name of the candidate.
    """
    from synque_select.export.writers import Output
    from synque_select.training.draws import export_draws, load_ranked_mixture
    from synque_select.training.mixture_loader import MixtureDataset

    Output(Path(options.out), options.force)  # before candidates are read
    ranked = load_ranked_mixture(
        Path(options.ranking),
        None if options.candidates is None else flat(options.candidates),
        view=options.view,
        label=options.label,
    )
    dataset = MixtureDataset(
        ranked.candidates, ranked.mixture, seed=options.seed, epoch_length=options.n
    )
    export = export_draws(dataset, options.out, force=options.force, progress=not options.quiet)
    print(_summary(ranked, export))
    return 0


def _summary(ranked: RankedMixture, export: Export) -> str:
    from synque_select.report.table import Column, Table
    from synque_select.utils.wording import counted, printable

    columns = [
        Column("candidate", is_name=True),
        *map(Column, ("weight", "examples", "written", "most uses")),
    ]
    rows = [
        (
            part.name,
            f"{ranked.mixture.weights[part.name]:.4f}",
            f"{len(part):,}",
            f"{export.drawn[part.name]:,}",
            f"{export.most_repeated[part.name]:,}",
        )
        for part in ranked.candidates
    ]
    title = f"Mixture: {ranked.mixture.source}"
    lines = [str(Table(title, tuple(columns), tuple(rows))), ""]
    record = ranked.ranking.label_filter
    if record is not None and record.is_open:
        lines += [printable(record.sentence), ""]
    return "\n".join([*lines, f"wrote {export.path}: {counted(export.n, 'example')}"])
