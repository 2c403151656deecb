"""What must be the same in a driver and its workers, so that they compute the same."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from synque_select.errors import ExecutorError
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import JsonObject
from synque_select.utils.rank_variables import without_rank_variables
from synque_select.utils.versions import package_versions, source_hash

__all__ = ["Environment", "TorchState", "become_worker"]


@dataclass(frozen=True)
class Environment:
    """The code and the packages of a process.

    Args:
        packages: Package to version, of those that results depend on.
        code: Hash of the code of this library.
        python: Version of Python, without its last number.
        host: Name of the machine; it may differ.
    """

    packages: Mapping[str, str]
    code: str
    python: str
    host: str

    @classmethod
    def here(cls) -> Environment:
        """Return that of this process."""
        python = ".".join(platform.python_version_tuple()[:2])
        return cls(package_versions(), source_hash(), python, socket.gethostname())

    @classmethod
    def of(cls, fields: JsonFields) -> Environment:
        """Return the one that `to_dict` has written.

        Raises:
            RecordError: A field is missing or of another type.
        """
        packages = fields.object("packages")
        return cls(
            {name: packages.text(name) for name in packages},
            fields.text("code"),
            fields.text("python"),
            fields.text("host"),
        )

    def to_dict(self) -> JsonObject:
        """Return it as plain values."""
        return {
            "packages": dict(self.packages),
            "code": self.code,
            "python": self.python,
            "host": self.host,
        }

    def check_same(self, other: Environment, what: str) -> None:
        """Refuse an environment with other versions than this one.

        Args:
            other: The other environment.
            what: What the other one is, for the message, as in "the worker on node-3".

        Raises:
            ExecutorError: They differ; the message names each difference.
        """
        names = sorted(self.packages.keys() | other.packages.keys())
        absent = "not installed"
        differences = [
            f"{name} {self.packages.get(name, absent)} here, {other.packages.get(name, absent)} "
            "there"
            for name in names
            if self.packages.get(name) != other.packages.get(name)
        ]
        if self.python != other.python:
            differences.insert(0, f"Python {self.python} here, {other.python} there")
        if not differences and self.code != other.code:
            differences.append("the files of synque_select differ, though its versions are equal")
        if differences:
            raise ExecutorError(
                f"{what} would not compute the same as this process: {'; '.join(differences)}. "
                "Install the same versions in both places"
            )


@dataclass(frozen=True)
class TorchState:
    """Settings of torch that change results.

    Args:
        threads: Number of threads: sums are split by threads, so another number can change the last
            bits of a result. None to leave it to torch.
        default_dtype: Name of the default dtype.
        matmul_precision: Precision of float32 matrix products.
        deterministic: Whether deterministic algorithms are used.
        warn_only: Whether an operation without one only warns.
    """

    threads: int | None
    default_dtype: str
    matmul_precision: str
    deterministic: bool
    warn_only: bool

    @classmethod
    def here(cls) -> TorchState:
        """Return that of this process."""
        return cls(
            threads=torch.get_num_threads(),
            default_dtype=str(torch.get_default_dtype()).removeprefix("torch."),
            matmul_precision=torch.get_float32_matmul_precision(),
            deterministic=torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    def restore(self) -> None:
        """Set it in this process."""
        if self.threads is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        torch.set_default_dtype(getattr(torch, self.default_dtype))
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)


def become_worker(state: TorchState | None = None) -> None:
    """Prepare this process to run units: without the rank of a launcher, and set up as the driver.

    Args:
        state: The driver's; None to leave this process as it is.
    """
    kept = without_rank_variables(os.environ)
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if state is not None:
        state.restore()
