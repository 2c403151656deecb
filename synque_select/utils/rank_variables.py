"""Environment variables by which launchers tell a process its rank: a worker must not inherit them.

A worker that inherits them takes itself for a rank of the training that started it, and waits for
a process group that it is not a part of.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["without_rank_variables"]

_RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "ROLE_NAME",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_RANK_PREFIXES = ("TORCHELASTIC_", "SLURM_", "OMPI_COMM_", "PMI_", "LSB_")


def without_rank_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment as it would be without a launcher.

    Example:
        >>> without_rank_variables({"LOCAL_RANK": "1", "MASTER_PORT": "1", "HOME": "/h"})
        {'HOME': '/h'}
    """
    return {
        name: value
        for name, value in environment.items()
        if name not in _RANK_VARIABLES and not name.startswith(_RANK_PREFIXES)
    }
