"""Errors that are raised after the rest is done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from synque_select.errors import ConfigError, RecordError, SynqueError
from synque_select.utils.deferred_errors import DeferredErrors


def fails(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


def work(*steps: Callable[[], object], end: Callable[[], object] = lambda: None) -> None:
    with DeferredErrors() as later:
        for step in steps:
            later.attempt(step)
        end()


def test_one_error_keeps_its_type_and_the_rest_is_done():
    done: list[int] = []
    with pytest.raises(RecordError) as caught:
        work(fails(RecordError("full")), lambda: done.append(3))
    assert str(caught.value) == "full"
    assert done == [3]


def test_several_errors_are_one_with_each_message_once():
    with pytest.raises(SynqueError) as caught:
        work(*(fails(RecordError(message)) for message in ("full", "full", "read-only")))
    assert str(caught.value) == "full; read-only"


def test_an_error_of_the_body_does_not_hide_that_of_a_step():
    with pytest.raises(SynqueError) as caught:
        work(fails(RecordError("full")), end=fails(ConfigError("no such option")))
    assert str(caught.value) == "full; no such option"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_other_errors_and_interrupts_are_raised_as_they_are(kind: type[BaseException]):
    with pytest.raises(kind):
        work(fails(RecordError("full")), end=fails(kind()))
    with pytest.raises(kind):
        work(fails(kind()))
