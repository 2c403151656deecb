"""Execute the notebooks of the docs, and keep their outputs in them."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook with new outputs; an error in a cell is raised.

    Args:
        path: The notebook.
        folder: Working directory of its cells.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            # progress bars that are done
            cell.outputs = [each for each in cell.outputs if not _is_progress(each)]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _is_progress(output: nbformat.NotebookNode) -> bool:
    # a bar that ended in less than two seconds leaves an empty text
    if output.output_type != "display_data" or [*output.data] != ["text/plain"]:
        return False
    text = output.data["text/plain"]
    return not text or "|" in text


def main() -> None:
    """Execute all notebooks."""
    for path in NOTEBOOKS:
        nbformat.write(executed(path, path.parent), path)


if __name__ == "__main__":
    main()
