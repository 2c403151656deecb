"""The worker of `synque_select.probing.worker_process`, run as `python -m … DESCRIPTOR`."""

from __future__ import annotations

import json
import os
import pickle
import queue
import runpy
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, BinaryIO

from synque_select.errors import LightningError, SynqueError
from synque_select.execution.environment import TorchState
from synque_select.training.lightning_compat import LightningPackage, trainer_class_in

__all__ = ["main"]

# the process that sends has ended, maybe in the middle of a value
_GONE = (EOFError, pickle.UnpicklingError)


def main(descriptor: int) -> None:
    """Read the function and its units from stdin, and write each result to the descriptor."""
    source = sys.stdin.buffer
    with os.fdopen(descriptor, "wb") as answers:
        try:
            run = _received(source)
        except _GONE:
            return
        except Exception as error:
            _answer(answers, _failure(error))
            return
        units = _Units(source)
        while (unit := units.next()) is not None:
            try:
                answer = ("result", run(*unit))
            except Exception as error:
                answer = _failure(error)
            _answer(answers, answer)


def _answer(answers: BinaryIO, answer: tuple[str, Any]) -> None:
    # pickled as a whole first: half an answer could not be told from the end of the process
    try:
        content = pickle.dumps(answer)
    except Exception as error:
        content = pickle.dumps(_failure(error))
    answers.write(content)
    answers.flush()


def _failure(error: Exception) -> tuple[str, tuple[str | None, str]]:
    """Return the class and message of an error of this library, and of another its words."""
    if type(error).__init__ is SynqueError.__init__:
        return "error", (type(error).__name__, str(error))
    traceback.print_exc()
    return "error", (None, f"{type(error).__name__}: {error}")


class _Units:
    """The units that arrive on stdin, which ends when the process that sends them ends."""

    def __init__(self, source: BinaryIO) -> None:
        self._source, self._is_busy = source, False
        self._units: queue.SimpleQueue[tuple[Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._receive, daemon=True).start()

    def next(self) -> tuple[Any] | None:
        """Wait for the next unit; None after the last one."""
        self._is_busy = False
        unit = self._units.get()
        self._is_busy = True
        return unit

    def _receive(self) -> None:
        try:
            while True:
                self._units.put((pickle.load(self._source),))
        except _GONE:
            if self._is_busy:  # nobody waits for the result, however the other process ended
                os._exit(1)
            self._units.put(None)


def _received(source: BinaryIO) -> Callable[[Any], Any]:
    line = source.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    sys.path[:] = head["sys_path"]
    TorchState(**head["torch"]).restore()
    unpickler = _Unpickler(source)
    unpickler.script, unpickler.package = head["script"], head["package"]
    run: Callable[[Any], Any] = unpickler.load()
    return run


class _Unpickler(pickle.Unpickler):
    """Imports the training script when the work asks for something of it, and only then."""

    script: str | None = None
    package: LightningPackage = "pytorch_lightning"

    def find_class(self, module: str, name: str) -> object:
        if module in ("__main__", "__mp_main__") and self.script is not None:
            _import_script(self.script, self.package)
            self.script = None
        return super().find_class(module, name)


def _import_script(script: str, package: LightningPackage) -> None:
    """Import a script as `multiprocessing` does, so that guarded code does not run."""
    module = types.ModuleType("__mp_main__")
    sys.modules["__mp_main__"] = sys.modules["__main__"] = module
    trainer: Any = trainer_class_in(package)
    fit = trainer.fit
    trainer.fit = _refuse_fit  # until the script is imported
    try:
        vars(module).update(runpy.run_path(script, run_name="__mp_main__"))
    finally:
        trainer.fit = fit


def _refuse_fit(*_: object, **__: object) -> None:
    raise LightningError(
        "the script starts a fit when it is imported: put what it does under "
        "`if __name__ == '__main__':`"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
