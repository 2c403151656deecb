"""The text encoder, which runs a sentence-transformers model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import nn

from synque_select.data.views import View
from synque_select.encoders.backends import (
    check_backend,
    compile_transformer,
    compiled_precision,
    numbers_of,
)
from synque_select.encoders.int8 import lower_to_int8
from synque_select.encoders.model import pick_device
from synque_select.encoders.precision import MIN_COSINE, change_of
from synque_select.encoders.sentence import SentenceEncoder
from synque_select.errors import EncoderError
from synque_select.types.modality import Modality
from synque_select.utils.json_types import JsonObject

__all__ = ["TextEncoder"]

_log = logging.getLogger(__name__)

_WINDOW = 2048  # texts that are sorted by length together
_TOKENS_PER_THREAD = 2048  # more exceeds a core's cache; fewer adds Python overhead per batch
_TOKENS_ON_GPU = 32768


class TextEncoder(SentenceEncoder):
    """A sentence-transformers model that encodes texts.

    To limit padding, texts are sorted by their number of tokens, and a batch is filled up to a
    number of tokens. The next texts are tokenized while the model runs.

    Args:
        model_id: Path of a folder, or model id on the hub; "id@revision" selects a revision.
        revision: Branch, tag or commit on the hub.
        device: Device to compute on; None for a GPU if there is one. OpenVINO and ONNX Runtime
            compute on the CPU, whatever the device.
        precision: "auto", "float32" or "bfloat16"; with OpenVINO also "int8": 8-bit weights and
            activations in as many layers as the embeddings bear. A lower precision that changes the
            embeddings of fixed texts too much is replaced by float32. "auto" is never "int8".
        backend: "torch", "openvino" or "onnx" (ONNX Runtime, float32 only), each of the latter two
            with the extra of this name. The model is converted when it is loaded, and checked
            against torch.

    Raises:
        ConfigError: The backend does not exist, or does not have the precision.
        DependencyError: A package of the backend is missing.
        EncoderError: The model was not found as a folder, in a package or on the hub.

    Source: Reimers and Gurevych 2019, Sentence-BERT, arXiv 1908.10084.
    """

    modality: Modality = "text"
    batch_size: int = 1024
    _budget_parts = 1  # of the tokens of a batch; doubled when a batch did not fit into memory

    def __init__(
        self,
        model_id: str,
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        precision: str = "auto",
        backend: str = "torch",
    ) -> None:
        self.backend = check_backend(backend)
        if self.backend == "torch":
            super().__init__(model_id, revision=revision, device=device, precision=precision)
            return
        if pick_device(device).type != "cpu":
            _log.warning(
                "the encoder %s computes on the CPU, because backend=%r cannot use %s; "
                "backend='torch' can",
                *(model_id, backend, pick_device(device)),
            )
        chosen = compiled_precision(precision, self.backend)
        super().__init__(model_id, revision=revision, device="cpu", precision="float32")
        self.precision = chosen
        # the name from which the encoder can be created again
        self.id += f":backend={backend}" + (
            "" if precision == "auto" else f":precision={precision}"
        )

    def options(self) -> JsonObject:
        """Return the settings that change an embedding."""
        return {**super().options(), **numbers_of(self.backend)}

    def _load_checked(self) -> nn.Module:
        if self.backend == "torch":
            return super()._load_checked()
        model = self._load().eval().requires_grad_(False).float()
        exact = self._probed(model)
        if self.precision == "int8":
            lower_to_int8(
                self._heavy(model), lambda: self._probed(model, _CALIBRATION), 1 - MIN_COSINE
            )
        compile_transformer(
            self._heavy(model),
            lambda: self._probed(model),
            self.backend,
            self.precision,
            self.id,
        )
        change = change_of(exact, self._probed(model))
        if change is None:
            return model
        if self.precision == "float32":
            raise EncoderError(
                f"the encoder {self.id}: embeddings of the converted model {change}, computed by "
                "torch: use backend='torch'"
            )
        _log.warning(
            "encoder %s: using float32, because %s embeddings %s",
            *(self.id, self.precision, change),
        )
        self.precision = "float32"
        return self._load_checked()

    def encode_many(self, views: Sequence[View]) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Encode any number of texts and yield positions with their embeddings."""
        model = self.model
        with ThreadPoolExecutor(1) as pool:
            waiting: tuple[int, Future[dict[str, object]]] | None = None
            window = self._window()
            for start in range(0, len(views), window):
                texts = views[start : start + window]
                ahead = start, pool.submit(self._inputs, model, texts)
                if waiting is not None:
                    yield from self._encode_window(waiting[0], waiting[1].result())
                waiting = ahead
            if waiting is not None:
                yield from self._encode_window(waiting[0], waiting[1].result())

    def _encode_window(
        self, start: int, features: dict[str, object]
    ) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        for rows, batch in _batches(features, self._budget(), self.batch_size):
            with torch.inference_mode():
                embeddings = self._forward(self.model, batch)
            yield [start + row for row in rows], embeddings

    def halve_batch(self) -> bool:
        """Halve the maximum size of a batch, in texts and in tokens."""
        self._budget_parts *= 2
        return super().halve_batch()

    def _window(self) -> int:
        """Return how many texts are tokenized together: fewer once memory ran out."""
        if self._budget_parts == 1:
            return _WINDOW
        return 1 if self.batch_size == 1 else min(_WINDOW, 2 * self.batch_size)

    def _budget(self) -> int:
        on_cpu = self.device.type == "cpu"
        n_tokens = _TOKENS_PER_THREAD * torch.get_num_threads() if on_cpu else _TOKENS_ON_GPU
        return n_tokens // self._budget_parts

    def _probes(self) -> Sequence[View]:
        return _PROBES


def _batches(
    features: dict[str, object], budget: int, max_texts: int
) -> Iterator[tuple[list[int], dict[str, object]]]:
    """Split tokenized texts into batches of similar length, without columns of padding."""
    mask = features.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        # bags of words and static embeddings have no padding
        n_rows = _n_rows(features)
        for start in range(0, n_rows, max_texts):
            stop = min(start + max_texts, n_rows)
            yield list(range(start, stop)), _slice(features, start, stop, n_rows)
        return
    n_tokens = mask.sum(dim=1)
    order = torch.argsort(n_tokens, descending=True, stable=True)
    done = 0
    while done < len(order):
        longest = max(1, int(n_tokens[order[done]]))
        rows = order[done : done + min(max_texts, max(1, budget // longest))]
        done += len(rows)
        used = mask[rows].any(dim=0).nonzero().flatten()
        columns = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(None)
        yield rows.tolist(), {k: _cut(v, mask, rows, columns) for k, v in features.items()}


def _slice(features: dict[str, object], start: int, stop: int, n_rows: int) -> dict[str, object]:
    """Return some rows of features without a mask."""
    ids, offsets = features.get("input_ids"), features.get("offsets")
    if isinstance(ids, torch.Tensor) and isinstance(offsets, torch.Tensor):
        # the tokens of all texts in one row, and where each text begins
        first, last = int(offsets[start]), int(offsets[stop]) if stop < n_rows else len(ids)
        return {**features, "input_ids": ids[first:last], "offsets": offsets[start:stop] - first}
    return {
        name: value[start:stop]
        if isinstance(value, torch.Tensor | list) and len(value) == n_rows
        else value
        for name, value in features.items()
    }


def _n_rows(features: dict[str, object]) -> int:
    offsets = features.get("offsets")
    rows = next(iter(features.values())) if offsets is None else offsets
    assert isinstance(rows, Sized)
    return len(rows)


def _cut(value: object, mask: torch.Tensor, rows: torch.Tensor, columns: slice) -> object:
    if not isinstance(value, torch.Tensor) or value.shape[:1] != mask.shape[:1]:
        return value
    return value[rows][:, columns] if value.shape == mask.shape else value[rows]


_PROBES = (
    "a",
    "How many singers do we have?",
    "Shares of the company fell by 4 % after the report.",
    "The quick brown fox jumps over the lazy dog, again and again.",
    "def add(a, b): return a + b",
    "Je voudrais réserver une table pour deux personnes ce soir.",
    "SELECT name FROM stadium WHERE capacity > 5000 ORDER BY name",
    "What a wonderful film! I laughed and cried, and I would see it again tomorrow, although the "
    "ending was a little long and the music too loud for my taste.",
    "!!! ??? ...",
    "12 345.67",
    "Find the cheapest direct flight from Vienna to Lisbon next Friday and book a window seat.",
    "机器学习",
)

# 8-bit layers are chosen on these texts, and checked on the others
_CALIBRATION = (
    "b",
    "Which of the two teams has won more matches since 2010?",
    "The central bank left its interest rate where it was, as most analysts had expected.",
    "import numpy as np",
    "¿Dónde está la biblioteca?",
    "UPDATE orders SET status = 'shipped' WHERE id = 42",
    "I would not buy it again: the battery lasts two hours, and the screen is dim.",
    "*** --- +++",
    "3.14159",
    "Open the settings, choose the second tab and turn off the notifications of all other apps.",
    "東京の天気",
    "thanks",
)
