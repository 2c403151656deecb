"""Datasets of the Hugging Face Hub, with config, revision and split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from synque_select.data.images import IMAGE_SUFFIXES
from synque_select.data.readers import reader_key
from synque_select.errors import DataError
from synque_select.utils.wording import one_line

__all__ = ["HubId", "hub_commit", "hub_id", "load_hub"]

_PREFIX = "hub:"
_TIMEOUT_S = 5.0
_NAME = re.compile(
    r"(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.+-]+))?(@(?P<revision>[\w./-]+))?"
    r"(#(?P<split>[^#]+))?"
)


class HubId(NamedTuple):
    """A dataset on the Hub.

    Args:
        id: "owner/name", or "name" of an old dataset.
        config: Name of the config; None for the default.
        revision: Branch, tag or commit; None for the newest.
        split: Split, also with a slice such as "test[:200]"; None if it is chosen afterwards.
        given: The text that named it.
    """

    id: str
    config: str | None
    revision: str | None
    split: str | None
    given: str

    @property
    def source(self) -> str:
        """The full text, for messages."""
        return _PREFIX + self.given.removeprefix(_PREFIX)

    @property
    def name(self) -> str:
        """The name of the dataset, with that of a config."""
        name = self.id.rsplit("/", 1)[-1]
        return name if self.config is None else f"{name}-{self.config}"


def hub_id(text: str) -> HubId | None:
    """Return the Hub dataset that a text names; None if it can only be a path.

    Args:
        text: "hub:OWNER/NAME:CONFIG@REVISION#SPLIT", of which all after NAME may be left out, and
            "hub:" as well where no such path can be meant.

    Raises:
        DataError: What follows "hub:" is not of this form.

    Example:
        >>> hub_id("hub:nyu-mll/glue:mnli@main#train[:200]")[:4]
        ('nyu-mll/glue', 'mnli', 'main', 'train[:200]')
        >>> hub_id("data/a.json") is None
        True
    """
    match = _NAME.fullmatch(text.removeprefix(_PREFIX))
    if text.startswith(_PREFIX):
        if match is None:
            raise DataError(
                f"{one_line(text)}: allowed is hub:OWNER/NAME:CONFIG@REVISION#SPLIT, where all "
                "after NAME may be left out"
            )
        return HubId(match["id"], match["config"], match["revision"], match["split"], text)
    if match is None or "/" not in match["id"]:
        return None
    path = Path(match["id"])
    # "data/missing" beside a folder "data" is a mistyped path: no reason to ask the Hub
    is_path = os.path.lexists(text) or os.path.lexists(path) or path.parent.exists()
    known = path.suffix.lower() in IMAGE_SUFFIXES or reader_key(path) is not None
    if is_path or known:
        return None
    return HubId(match["id"], match["config"], match["revision"], match["split"], text)


def load_hub(name: HubId, *, streaming: bool = False) -> Any:
    """Load a dataset from the Hub, or from the local cache without a network.

    Args:
        name: The dataset.
        streaming: Whether examples are read when they are asked for, instead of a download of all.

    Returns:
        A `datasets.Dataset`, or a `DatasetDict` of its splits; if it is streamed, an
        `IterableDataset` or an `IterableDatasetDict`.

    Raises:
        DataError: It cannot be loaded; the message says what was tried.
    """
    from datasets import load_dataset

    places = [name.id] if name.config is None else [name.id, name.config]
    options: dict[str, Any] = {"revision": name.revision, "split": name.split}
    if streaming:
        options["streaming"] = True
    try:
        with _asked_once(name.id):
            return load_dataset(*places, **{k: v for k, v in options.items() if v is not None})
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        no_file = "" if name.given.startswith(_PREFIX) else "no such file or folder, and "
        raise DataError(
            f"{name.given}: {no_file}the Hub dataset {name.id!r} could not be loaded: {reason}"
        ) from error


def hub_commit(name: HubId) -> str | None:
    """Return the commit that a dataset is read from; None if the Hub cannot be asked."""
    from huggingface_hub import HfApi

    with suppress(Exception):  # what the client raises without a network differs by version
        return HfApi().dataset_info(name.id, revision=name.revision, timeout=_TIMEOUT_S).sha
    return None


@contextmanager
def _asked_once(hub_id: str) -> Iterator[None]:
    """Try to reach the hub once; if it does not answer, only read the local cache.

    Without a network, the client's own retries take half a minute.
    """
    import datasets.config
    import huggingface_hub.constants
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(hub_id, timeout=_TIMEOUT_S)
    except HfHubHTTPError:
        raise
    except Exception:  # what the client raises without a network differs between its versions
        switches: tuple[Any, ...] = (huggingface_hub.constants, datasets.config)
        known = [switch.HF_HUB_OFFLINE for switch in switches]
        try:
            for switch in switches:
                switch.HF_HUB_OFFLINE = True
            yield
        finally:
            for switch, was in zip(switches, known, strict=True):
                switch.HF_HUB_OFFLINE = was
    else:
        yield
