"""What `python -m synque_select.recipes.NAME` does."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["run_recipe"]


def run_recipe(config: str, arguments: Sequence[str] | None = None) -> int:
    """Run the experiment of a packaged config, with the options of `synque-select experiment`.

    Args:
        config: Name of the config.
        arguments: Options after it; None for the process' own.

    Returns:
        The command's exit status.
    """
    from synque_select.cli.main import main

    given = sys.argv[1:] if arguments is None else arguments
    return main(["experiment", "--config", config, *given])
