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
from typing import Any, BinaryIO

from synque_select.errors import LightningError
from synque_select.probing.probes import train_probes
from synque_select.probing.worker_process import ProbeWork
from synque_select.training.lightning_compat import LightningPackage, trainer_class_in

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
    unpickler.script, unpickler.package = head["script"], head["package"]
    work: ProbeWork = unpickler.load()
    return work


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


def _exit_at_end_of(source: BinaryIO) -> None:
    # not source.read(): it would hold the lock that the interpreter needs to close stdin on exit
    while os.read(source.fileno(), 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
