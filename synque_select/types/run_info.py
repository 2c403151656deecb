"""How a run or a ranking was made: the command or the call, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from synque_select.utils.display import Shown
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunInfo"]


@dataclass(frozen=True, repr=False)
class RunInfo(Shown):
    """How a run or a ranking was made; `print` shows the command.

    Args:
        created: UTC time at its end, in ISO format.
        command: The command line, as a shell reads it; or the call, if `language` is "python".
        python: Version of Python.
        configs: Name of a config on the command line to its content.
        folder: Working directory, to which paths in the command are relative; empty if unknown.
        language: What reads the command.

    Example:
        >>> info = RunInfo("2026-01-01T12:00:00+00:00", "python train.py", "3.12.1", folder="/tmp")
        >>> RunInfo.from_fields(JsonFields(info.to_dict())) == info
        True
    """

    created: str
    command: str
    python: str
    configs: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    language: Literal["shell", "python"] = "shell"

    @property
    def headlines(self) -> tuple[str, ...]:
        """The command, and when it ended."""
        where = f", in {self.folder}" if self.folder else ""
        return (self.command, f"Finished {self.created}, Python {self.python}{where}")

    @property
    def notes(self) -> tuple[str, ...]:
        """The names of the configs."""
        return (f"Configs: {', '.join(self.configs)}",) if self.configs else ()

    def __str__(self) -> str:
        """Return the command as it was written, to be copied, and the rest below it."""
        return "\n\n".join([self.command, *self.headlines[1:], *self.notes])

    def to_frame(self) -> pd.DataFrame:
        """Return one row: the fields, and of `configs` the names."""
        import pandas as pd

        return pd.DataFrame([{**vars(self), "configs": ", ".join(self.configs)}])

    def _table(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame()  # the sentences say it

    def to_dict(self) -> dict[str, Json]:
        """Return the values as JSON."""
        return {**vars(self), "configs": dict(self.configs)}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> RunInfo:
        """Read what `to_dict` wrote.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        configs = fields.object("configs")
        return cls(
            created=fields.text("created"),
            command=fields.text("command"),
            python=fields.text("python"),
            configs={name: configs.text(name) for name in configs},
            folder=fields.text("folder", ""),
            language=fields.choice("language", ("shell", "python"))
            if "language" in fields
            else "shell",
        )
