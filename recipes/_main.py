"""The command line of `python -m synque_select.recipes.NAME`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["run_recipe"]


def run_recipe(config: str, arguments: Sequence[str] | None = None) -> int:
    """Run the experiment of a packaged config, with the options of `synque-select experiment`.

    Args:
        config: Name of the packaged config.
        arguments: Options after the config; None for those of the process.

    Returns:
        The command's exit status.
    """
    from synque_select.cli.main import main

    given = sys.argv[1:] if arguments is None else arguments
    return main(["experiment", "--config", config, *given])
