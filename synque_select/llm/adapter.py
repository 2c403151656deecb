"""LoRA adapters of peft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError, DataError, DependencyError, LLMError, RecordError
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import read_json_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_adapter", "merge_adapter"]

_CONFIG = "adapter_config.json"


def check_adapter(folder: str) -> int:
    """Return the rank of a LoRA adapter.

    Args:
        folder: Directory that peft saved the adapter to.

    Raises:
        ConfigError: The directory does not contain a LoRA adapter of peft.
    """
    try:
        config = read_json_file(Path(folder) / _CONFIG)
        return JsonFields(config).integer("r")
    except (DataError, RecordError) as error:
        raise ConfigError(
            f"adapter={folder!r} is not a directory with a LoRA adapter of peft: {_CONFIG}: {error}"
        ) from None


def merge_adapter(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """Return a model with an adapter merged into its weights.

    Args:
        model: The model that the adapter was trained on; its weights are changed.
        folder: Directory that peft saved the adapter to.

    Raises:
        DependencyError: The package peft is missing.
        LLMError: The adapter does not fit the model.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise DependencyError("peft", extra="peft", purpose="a LoRA adapter") from error
    try:
        merged: PreTrainedModel = PeftModel.from_pretrained(model, folder).merge_and_unload()
        return merged
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise LLMError(f"the adapter {folder} does not fit the model: {error}") from error
