"""LoRA adapters of peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synque_select.errors import ConfigError, DataError, DependencyError, LLMError
from synque_select.utils.json_files import read_json_file

__all__ = ["check_adapter", "merged"]

_CONFIG = "adapter_config.json"


def check_adapter(folder: str) -> int:
    """Return the rank of an adapter.

    Raises:
        ConfigError: The folder holds no LoRA adapter of peft.
    """
    try:
        config: Any = read_json_file(Path(folder) / _CONFIG)
        return int(config["r"])
    except (DataError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"adapter={folder!r} is no folder of a LoRA adapter of peft: {_CONFIG}: {error}"
        ) from None


def merged(model: Any, folder: str) -> Any:
    """Return a model with an adapter merged into its weights.

    Raises:
        DependencyError: The package peft is missing.
        LLMError: The adapter does not fit the model.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise DependencyError("peft", extra="peft", purpose="a LoRA adapter") from error
    try:
        return PeftModel.from_pretrained(model, folder).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise LLMError(f"the adapter {folder} does not fit the model: {error}") from error
