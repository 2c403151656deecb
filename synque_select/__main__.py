"""`python -m synque_select` is the command `synque-select`."""

from __future__ import annotations

import signal
import sys

from synque_select.utils.interrupts import end_process

__all__ = ["run"]


def run() -> int:
    """Run the command of this process; an interrupt at any time ends it with one line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_process)
    from synque_select.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
