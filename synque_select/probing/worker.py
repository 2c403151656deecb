"""The worker of `synque_select.probing.worker_process`, run as `python -m … FD`."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import sys
import threading
import traceback
import types
from typing import Any, BinaryIO

import pytorch_lightning as pl

from synque_select.errors import LightningError
from synque_select.probing.probes import train_probes

__all__ = ["main"]


def main(descriptor: int) -> None:
    """Read work from stdin, do it, and write to the descriptor what came of it."""
    source = sys.stdin.buffer
    with os.fdopen(descriptor, "w") as answer:
        try:
            work = _received(source)
            # the pipe ends when the process that waits for us does
            threading.Thread(target=_end_with, args=(source,), daemon=True).start()
            found: dict[str, Any] = {"run_ids": [record.run_id for record in train_probes(**work)]}
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        json.dump(found, answer)


def _received(source: BinaryIO) -> dict[str, Any]:
    head = json.loads(source.readline())
    sys.path[:] = head["sys_path"]
    unpickler = _Unpickler(source)
    unpickler.script = head["script"]
    work: dict[str, Any] = unpickler.load()
    return work


class _Unpickler(pickle.Unpickler):
    """Imports the script that trains when something of it is asked for, and only then."""

    script: str | None = None

    def find_class(self, module: str, name: str) -> Any:
        if module in ("__main__", "__mp_main__") and self.script is not None:
            _import_script(self.script)
            self.script = None
        return super().find_class(module, name)


def _import_script(script: str) -> None:
    """Import a script as `multiprocessing` does, so that it does not run what is guarded."""
    module = types.ModuleType("__mp_main__")
    sys.modules["__mp_main__"] = sys.modules["__main__"] = module
    fit = pl.Trainer.fit
    pl.Trainer.fit = _refuse  # type: ignore[method-assign]
    try:
        vars(module).update(runpy.run_path(script, run_name="__mp_main__"))
    finally:
        pl.Trainer.fit = fit  # type: ignore[method-assign]


def _refuse(*_: Any, **__: Any) -> None:
    raise LightningError(
        "the script starts a fit when it is imported: put what it does under "
        "`if __name__ == '__main__':`"
    )


def _end_with(source: BinaryIO) -> None:
    # not source.read(): it would hold the lock that the interpreter needs to close stdin at its end
    while os.read(source.fileno(), 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
