"""Errors of steps whose failure must not cost what other steps have computed."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from synque_select.errors import SynqueError

__all__ = ["DeferredErrors"]

_T = TypeVar("_T")


class DeferredErrors:
    """Context manager that raises the errors of its steps when its body has ended.

    So a result that cannot be saved is still printed, and then the error is raised.

    Raises:
        SynqueError: A step failed. The error is that of the step, or one with all messages if
            several failed.

    Example:
        >>> def save():
        ...     raise SynqueError("cannot write ranking.json: no space left")
        >>> with DeferredErrors() as later:
        ...     later.attempt(save)
        ...     print("pad ranks first")
        Traceback (most recent call last):
        synque_select.errors.SynqueError: cannot write ranking.json: no space left
    """

    def __init__(self) -> None:
        self._errors: list[SynqueError] = []

    def attempt(self, step: Callable[[], _T]) -> _T | None:
        """Return what a step returns; None if it fails, whose error is raised later."""
        try:
            return step()
        except SynqueError as error:
            self._errors.append(error)
        except OSError as error:
            self._errors.append(SynqueError(f"{error.filename}: {error.strerror or error}"))
        return None

    def __enter__(self) -> DeferredErrors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        errors = self._errors
        if isinstance(error, SynqueError):
            errors = [*errors, error]
        elif error is not None:
            return
        if len(errors) > 1:
            messages = dict.fromkeys(map(str, errors))
            raise SynqueError("; ".join(messages)) from errors[0]
        if errors and error is None:
            raise errors[0]
