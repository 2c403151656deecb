"""The worker of `synque_select.probing.worker_process`, run as `python -m … DESCRIPTOR`."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import sys
import threading
import traceback
import types
from typing import BinaryIO

import pytorch_lightning as pl

from synque_select.errors import LightningError
from synque_select.probing.probes import train_probes
from synque_select.probing.worker_process import ProbeWork

__all__ = ["main"]


def main(descriptor: int) -> None:
    """Read the work from stdin, do it, and write the result to the descriptor as JSON."""
    source = sys.stdin.buffer
    with os.fdopen(descriptor, "w") as answer:
        try:
            work = _received(source)
            # stdin ends when the process that waits for the answer ends, however it does
            threading.Thread(target=_exit_at_end_of, args=(source,), daemon=True).start()
            records = train_probes(
                work.fits, work.model_factory, work.store, progress=work.progress
            )
            json.dump({"run_ids": [record.run_id for record in records]}, answer)
        except Exception as error:
            traceback.print_exc()
            json.dump({"error": f"{type(error).__name__}: {error}"}, answer)


def _received(source: BinaryIO) -> ProbeWork:
    head = json.loads(source.readline())
    sys.path[:] = head["sys_path"]
    unpickler = _Unpickler(source)
    unpickler.script = head["script"]
    work: ProbeWork = unpickler.load()
    return work


class _Unpickler(pickle.Unpickler):
    """Imports the training script when the work asks for something of it, and only then."""

    script: str | None = None

    def find_class(self, module: str, name: str) -> object:
        if module in ("__main__", "__mp_main__") and self.script is not None:
            _import_script(self.script)
            self.script = None
        return super().find_class(module, name)


def _import_script(script: str) -> None:
    """Import a script as `multiprocessing` does, so that guarded code does not run."""
    module = types.ModuleType("__mp_main__")
    sys.modules["__mp_main__"] = sys.modules["__main__"] = module
    fit = pl.Trainer.fit
    pl.Trainer.fit = _refuse_fit  # type: ignore[method-assign] # until the script is imported
    try:
        vars(module).update(runpy.run_path(script, run_name="__mp_main__"))
    finally:
        pl.Trainer.fit = fit  # type: ignore[method-assign]


def _refuse_fit(*_: object, **__: object) -> None:
    raise LightningError(
        "the script starts a fit when it is imported: put what it does under "
        "`if __name__ == '__main__':`"
    )


def _exit_at_end_of(source: BinaryIO) -> None:
    # not source.read(): it would hold the lock that the interpreter needs to close stdin on exit
    while os.read(source.fileno(), 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
