"""`report.html`: one self-contained page of a run, rebuilt from the files in its directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError
from synque_select.records.run_folder import check_writable, write_text
from synque_select.report.html import page_html
from synque_select.report.run_content import RunContent, load_run
from synque_select.report.sections import sections_of, top_charts
from synque_select.report.summary import summary_of
from synque_select.report.text_forms import report_markdown
from synque_select.types import Findings, Ranking
from synque_select.utils.wording import counted

if TYPE_CHECKING:  # a page from files needs no torch
    import torch

    from synque_select.data.views import View

__all__ = ["check_page_target", "page_of", "ranking_page", "write_report"]


def write_report(run: str | Path) -> Path:
    """Write the page of a run, and return its path.

    The page is made from `ranking.json`, `labels.json`, `gaps.json`, `real_size.json`,
    `result.json`, `study.json`, `weights.json`, `influence.json`, `correlations.json`, `map.json`,
    `examples.json` and `run.json`; it leaves out whatever is missing. It loads nothing from
    anywhere, every text of the data is escaped, and it stays below 2 MB however many candidates
    there are.

    Args:
        run: The run's directory, which gets `report.html`; or the JSON file of a ranking:
            `ranking.json` gets `report.html` beside it, `mine.json` gets `mine.report.html`.

    Raises:
        RecordError: The path does not exist or has nothing to report, or a file is damaged; the
            message names it.
    """
    content = load_run(run)
    assert content.page is not None
    return write_text(content.page, page_of(content))


def check_page_target(path: str | Path) -> Path:
    """Before anything is computed, reject a path to which a page could not be written.

    Args:
        path: A file that ends in `.html`, or a directory, which gets `report.html`.

    Returns:
        The file that would be written.

    Raises:
        ConfigError: The path ends in something other than `.html` and is not a directory.
        RecordError: The directory cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in ("", ".html", ".htm") and not path.is_dir():
        raise ConfigError(f"{path}: a page is written to a directory or to a .html file")
    is_file = path.suffix.lower() in (".html", ".htm") and not path.is_dir()
    target = path if is_file else path / "report.html"
    check_writable(target)
    return target


def ranking_page(
    ranking: Ranking,
    findings: Findings | None = None,
    *,
    name: str | None = None,
    views: Mapping[str, Sequence[View]] | None = None,
    embeddings: tuple[torch.Tensor, Mapping[str, torch.Tensor]] | None = None,
) -> str:
    """Return the page of a ranking as HTML.

    Args:
        ranking: The ranking.
        findings: What scoring found beside the order; None for the ranking's own.
        name: Name that the page has; None for what was ranked.
        views: Candidate to its texts or images, for the examples, and the real sample under
            `name_of_real`; None for no examples.
        embeddings: Embeddings of the real sample, and candidate to its embeddings, for the map and
            for the choice of the examples; None for no map.
    """
    from synque_select.report.examples_and_map import examples_state, map_state, name_of_real

    examples = None
    if views is not None:
        names = [row.name for row in ranking]
        ordered = {n: views[n] for n in (name_of_real(names), *names) if n in views}
        examples = examples_state(ordered, embeddings=embeddings)
    return page_of(
        RunContent(
            name or f"{counted(len(ranking), 'candidate')} against {ranking.real_words}",
            ranking,
            ranking.findings if findings is None else findings,
            map=None if embeddings is None else map_state(*embeddings),
            examples=examples,
            info=ranking.made_by,
        )
    )


def page_of(content: RunContent) -> str:
    """Return the page of a run as HTML.

    Args:
        content: The content of the run.

    Raises:
        RecordError: A part of the run is damaged; the message names its file.
    """
    return page_html(
        summary_of(content),
        charts=top_charts(content),
        sections=sections_of(content),
        markdown=report_markdown(content),
    )
