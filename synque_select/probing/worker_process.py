"""Probes in a separate process, because the one that trains has more than one rank.

Inside an open process group, a Trainer of one device would sync its metrics over the group and
hang. So rank 0 starts `python -m synque_select.probing.worker` without the rank variables and sends
the work through a pipe, pickled as for `ddp_spawn`; only this child reads it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from synque_select.probing.processes import WorkerProcess
from synque_select.records.store import RunStore
from synque_select.training.lightning_compat import package_of
from synque_select.training.short_fit import ModelFactory, ShortFits
from synque_select.utils.rank_variables import without_rank_variables

__all__ = ["ProbeWork", "run_in_worker"]


@dataclass(frozen=True)
class ProbeWork:
    """All probes as one unit: a call of `train_probes` in the worker."""

    fits: ShortFits
    model_factory: ModelFactory
    store: RunStore
    progress: bool

    def __call__(self, unit: None = None) -> list[str]:
        """Train the probes and return the ids of their records."""
        from synque_select.probing.probes import train_probes

        records = train_probes(self.fits, self.model_factory, self.store, progress=self.progress)
        return [record.run_id for record in records]


def run_in_worker(work: ProbeWork) -> list[str]:
    """Run the probes in the worker and return the ids of their records, which are in the store.

    Raises:
        SynqueError: The worker failed, with its error; finished probes stay in the store.
    """
    package = package_of(work.fits.datamodule) or "pytorch_lightning"
    process = WorkerProcess(package, without_rank_variables(os.environ))
    try:
        process.start(work)
        process.send(None)
        run_ids: list[str] = process.result("the probes")
        process.close()
    finally:
        process.kill()
    return run_ids
