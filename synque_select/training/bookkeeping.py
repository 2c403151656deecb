"""Work beside the training: when it fails, training goes on, and a warning says what is lost."""

from __future__ import annotations

from types import TracebackType

from lightning_utilities.core.rank_zero import rank_zero_warn

from synque_select.errors import SynqueError
from synque_select.records.store import RunStore
from synque_select.types import RunKind, RunRecord
from synque_select.utils.memory import is_out_of_memory
from synque_select.utils.wording import one_line

__all__ = ["bookkeeping", "known_records", "reason_of", "store_record"]

_MOST = 1000  # characters of an error in a warning


class bookkeeping:
    """Turn an error in the body into a warning: hours of training must not be lost to it.

    For what callbacks do once training has begun: records, files, figures, loggers. Ctrl-C ends
    the run as always.

    Args:
        what: What is missing if the body fails, and what to do, as the beginning of the warning.
        runs_user_code: Whether the body trains the user's model. Then only errors of this library,
            of files and of memory become warnings; any other is the user's to see.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     with bookkeeping("the figure is missing"):
        ...         raise OSError("no space left on device")
        >>> str(caught[0].message)
        'the figure is missing: OSError: no space left on device'
    """

    def __init__(self, what: str, *, runs_user_code: bool = False) -> None:
        self._what, self._runs_user_code = what, runs_user_code

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        is_own = isinstance(error, SynqueError | OSError) or is_out_of_memory(error)
        if self._runs_user_code and not is_own:
            return False
        rank_zero_warn(f"{self._what}: {reason_of(error)}")
        return True


def reason_of(error: Exception) -> str:
    """Return what a warning says of an error, on one line: its type too, unless it is ours."""
    kind = "" if isinstance(error, SynqueError) else f"{type(error).__name__}: "
    return one_line(f"{kind}{error}", _MOST)


def known_records(store: RunStore, kind: RunKind | None = None) -> list[RunRecord]:
    """Return the run records that can be read; if others cannot, with a warning."""
    records, problem = store.read_or_explain(kind)
    if problem is not None:
        rank_zero_warn(problem)
    return records


def store_record(store: RunStore, record: RunRecord) -> None:
    """Write a run record; if the store cannot take it, keep it in a file, with a warning."""
    problem = store.write_or_keep(record)
    if problem is not None:
        rank_zero_warn(problem)
