"""Running a transformer with OpenVINO or ONNX Runtime in place of torch, on the CPU."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from synque_select.encoders.int8 import GROUP
from synque_select.encoders.precision import Precision, cpu_has_bf16, cpu_has_int8
from synque_select.errors import ConfigError, DependencyError, EncoderError, did_you_mean
from synque_select.utils.json_types import JsonObject

if TYPE_CHECKING:
    import openvino

__all__ = [
    "PRECISIONS",
    "Backend",
    "check_backend",
    "compile_transformer",
    "compiled_precision",
    "installed_precisions",
    "numbers_of",
]

_log = logging.getLogger(__name__)

Backend = Literal["torch", "openvino", "onnx"]
PRECISIONS: Mapping[Backend, tuple[Precision, ...]] = {
    "torch": ("float32", "bfloat16"),
    "openvino": ("float32", "bfloat16", "int8"),
    # its 8-bit matrices share one scale over a batch, so that an embedding depends on its batch
    "onnx": ("float32",),
}
_PACKAGES: Mapping[Backend, tuple[str, ...]] = {
    "torch": (),
    "openvino": ("openvino",),
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
}
_OUTPUT = "last_hidden_state"
_Run = Callable[[Sequence[torch.Tensor]], torch.Tensor]


def check_backend(backend: str) -> Backend:
    """Return the backend if it exists and its packages are installed.

    Raises:
        ConfigError: It is not "torch", "openvino" or "onnx".
        DependencyError: A package is missing.

    Example:
        >>> check_backend("torch")
        'torch'
    """
    for known in _PACKAGES:
        if backend == known:
            missing = _missing(known)
            if missing is not None:
                raise DependencyError(missing, extra=known, purpose=f"backend={known!r}")
            return known
    raise ConfigError(f"backend={backend!r}: {did_you_mean(str(backend), list(_PACKAGES))}")


def compiled_precision(requested: str, backend: Backend) -> Precision:
    """Return the precision to use with a backend other than torch.

    "auto" is bfloat16 where the CPU and the backend support it. "int8" is used on request only, and
    only where the CPU multiplies 8-bit integers.

    Raises:
        ConfigError: The backend does not have this precision.
    """
    allowed = PRECISIONS[backend]
    if requested == "auto":
        return "bfloat16" if "bfloat16" in allowed and cpu_has_bf16() else "float32"
    for precision in allowed:
        if requested == precision == "int8" and not cpu_has_int8():
            _log.warning(
                "using float32, because this CPU has no instructions for precision='int8' "
                "(AVX-512 VNNI, AVX-VNNI, AMX or Arm I8MM)"
            )
            return "float32"
        if requested == precision:
            return precision
    raise ConfigError(
        f"precision={requested!r} with backend={backend!r}: allowed is 'auto' or "
        f"{' or '.join(map(repr, allowed))}"
    )


def installed_precisions() -> dict[Backend, tuple[Precision, ...]]:
    """Return the precisions that this CPU has instructions for, of each installed backend."""
    has = {"float32": True, "bfloat16": cpu_has_bf16(), "int8": cpu_has_int8()}
    return {
        backend: tuple(each for each in precisions if has[each])
        for backend, precisions in PRECISIONS.items()
        if _missing(backend) is None
    }


def _missing(backend: Backend) -> str | None:
    """Return the first package of a backend that is not installed."""
    absent = (name for name in _PACKAGES[backend] if importlib.util.find_spec(name) is None)
    return next(absent, None)


def numbers_of(backend: Backend) -> JsonObject:
    """Return what changes embeddings in their last digits: the backend and its version."""
    if backend == "torch":
        return {}
    return {"backend": backend, "version": importlib.metadata.version(_PACKAGES[backend][0])}


def compile_transformer(
    first: nn.Module, run: Callable[[], object], backend: Backend, precision: Precision, what: str
) -> None:
    """Replace the transformers model within a module by a compiled one, in place.

    Args:
        first: First module of a sentence-transformers model, in eval mode.
        run: Encodes two or more texts of different lengths, by way of the module.
        backend: "openvino" or "onnx".
        precision: A precision of the backend.
        what: The encoder, for messages.

    Raises:
        EncoderError: The module has no transformers model that returns one vector per token, or it
            cannot be converted.
    """
    path, model, inputs, constants = _traced_call(first, run, backend, what)
    names = list(inputs)
    with _quiet():
        try:
            program = torch.export.export(
                _Positional(model, names, constants).eval(),
                tuple(inputs.values()),
                dynamic_shapes=(
                    tuple({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO} for _ in names),
                ),
            )
            compiled = _openvino(program, precision) if backend == "openvino" else _onnx(program)
        except Exception as error:  # a converter fails in as many ways as there are models
            raise EncoderError(
                f"the encoder {what} cannot be converted for backend={backend!r} "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}): "
                "use backend='torch'"
            ) from error
    first.set_submodule(path, _Compiled(model.config, names, compiled))


def _traced_call(
    first: nn.Module, run: Callable[[], object], backend: Backend, what: str
) -> tuple[str, Any, dict[str, torch.Tensor], dict[str, object]]:
    """Return the transformers model, its path, and how it is called: tensors and constants."""
    from transformers import PreTrainedModel

    for path, model in first.named_children():
        if not isinstance(model, PreTrainedModel) or model.config.output_hidden_states:
            continue
        named, output = _recorded_call(model, run)
        tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
        if hasattr(output, _OUTPUT) and all(tensor.ndim == 2 for tensor in tensors.values()):
            constants = {name: value for name, value in named.items() if name not in tensors}
            return path, model, tensors, constants
    raise EncoderError(
        f"the encoder {what} has no transformers model that returns one vector per token, which "
        f"backend={backend!r} needs: use backend='torch'"
    )


def _recorded_call(model: Any, run: Callable[[], object]) -> tuple[dict[str, object], object]:
    """Return the arguments and the output of the first call while something runs."""
    calls: list[tuple[dict[str, object], object]] = []
    forward = model.forward

    def recorded(**named: object) -> object:
        output: object = forward(**named)
        calls.append((named, output))
        return output

    model.forward = recorded  # hooks do not see a call of `forward` itself
    try:
        run()
    finally:
        del model.forward
    return calls[0] if calls else ({}, None)


class _Positional(nn.Module):
    """A transformers model that takes and returns tensors, as export needs it."""

    def __init__(self, model: nn.Module, names: list[str], constants: dict[str, object]) -> None:
        super().__init__()
        self.model, self.names, self.constants = model, names, constants

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        named = dict(zip(self.names, inputs, strict=True))
        output: torch.Tensor = self.model(**named, **self.constants)[_OUTPUT]
        return output


class _Compiled(nn.Module):
    """Stands where the transformers model stood."""

    def __init__(self, config: object, names: list[str], run: _Run) -> None:
        super().__init__()
        self.config, self._names, self._run = config, names, run

    def forward(self, **inputs: Any) -> dict[str, torch.Tensor]:
        return {_OUTPUT: self._run([inputs[name].contiguous() for name in self._names])}


def _openvino(program: torch.export.ExportedProgram, precision: Precision) -> _Run:
    core = _openvino_core()
    import openvino

    compiled = core.compile_model(
        openvino.convert_model(program),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            # the size of the groups in which activations are rounded; 0 leaves them as they are
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if precision == "int8" else 0,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            # pinned threads of several processes would share the same cores
            "ENABLE_CPU_PINNING": False,
        },
    )
    request = compiled.create_infer_request()

    def run(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        # the outputs are copied: the next batch overwrites them
        return torch.from_numpy(request.infer([i.numpy() for i in inputs], share_inputs=True)[0])

    return run


@functools.cache
def _openvino_core() -> openvino.Core:
    """Return the one Core of this process.

    Each Core gives its thread an alternate stack for signals, and when it is freed, the stack from
    before. With two that are not freed in the reverse order, that is a stack that was freed: the
    next signal with a handler (Ctrl-C, the end of a loader's worker) would end the process.
    """
    # OpenVINO reports its use over the network where this package can be imported
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def _onnx(program: torch.export.ExportedProgram) -> _Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(program, (), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        arrays = [i.numpy() for i in inputs]
        return torch.from_numpy(session.run(None, dict(zip(names, arrays, strict=True)))[0])

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the converters say to developers of models."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
