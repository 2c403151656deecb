"""The command `synque-select export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.cli.options import flat
from synque_select.errors import ConfigError, RecordError, did_you_mean
from synque_select.export.trainers import TARGETS

if TYPE_CHECKING:  # at run time, `--help` must not wait for torch
    from jsonargparse import ArgumentParser, Namespace

    from synque_select.training.draws import Export, RankedMixture
    from synque_select.training.mixture_loader import MixtureDataset

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument("ranking", help="a ranking.json, or the run directory that holds it")
    parser.add_argument(
        "--out",
        required=True,
        help="where to write: a .parquet or .jsonl file, or a folder for datasets.load_from_disk; "
        "with --format, a folder",
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
        "--format",
        help="instead of data, write the config of a trainer that mixes the candidates' files by "
        f"weight, to the folder --out: {', '.join(TARGETS)}",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace existing files, or a saved dataset"
    )
    parser.add_argument("--quiet", action="store_true", help="hide progress bars")


def run(options: Namespace) -> int:
    """Write a ranking's mixture as data for any trainer, or as a trainer's config.

    The examples are those that SynqueDataModule serves in an epoch, in its order, with the weights
    and the label filter of the ranking. The column `synque_origin` has the name of the candidate.
    With --format, the trainer mixes the files of the candidates itself; warnings say what of the
    mixture it cannot do.
    """
    from synque_select.export.writers import Output
    from synque_select.training.draws import export_draws, load_ranked_mixture
    from synque_select.training.mixture_loader import MixtureDataset

    if options.format is not None and options.format not in TARGETS:
        raise ConfigError(f"--format {options.format}: {did_you_mean(options.format, TARGETS)}")
    if options.format is None:
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
    if options.format is not None:
        _write_snippet(options, ranked, dataset)
        return 0
    export = export_draws(dataset, options.out, force=options.force, progress=not options.quiet)
    print(_summary(ranked, export))
    return 0


def _write_snippet(options: Namespace, ranked: RankedMixture, dataset: MixtureDataset) -> None:
    from synque_select.export.trainers import Part, Recipe, snippet
    from synque_select.records.run_folder import make_folder, write_text
    from synque_select.report.table import terminal_width, wrap_text
    from synque_select.utils.wording import printable

    voted = {} if ranked.edits is None else ranked.edits.voted
    parts = [
        Part(
            part.name,
            ranked.mixture.weights[part.name],
            len(part),
            part.source,
            part[0],
            len(voted.get(part.name, ())),
        )
        for part in ranked.candidates
    ]
    recipe = Recipe(
        parts, options.seed, len(dataset), Path(options.out), is_n_given=options.n is not None
    )
    made = snippet(options.format, recipe)
    folder = make_folder(options.out)
    existing = [name for name in made.files if (folder / name).exists()]
    if existing and not options.force:
        raise RecordError(
            f"{folder / existing[0]} exists already: give another folder, or --force to replace it"
        )
    paths = [write_text(folder / name, content) for name, content in made.files.items()]
    for text in made.warnings:
        print(*wrap_text(f"- {printable(text)}", terminal_width()), sep="\n")
    print("wrote " + ", ".join(map(str, paths)))


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
