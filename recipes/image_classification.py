"""Which synthetic images are worth training on? A ResNet from scratch, measured on real images.

With images of your own (`image-paper`): directories with one subdirectory per class. Without them
(`image-small`): six surfaces in photographs that come with scikit-image, and generators that
imitate them. To run it: `synque-select experiment --config image-small`, or
`python -m synque_select.recipes.image_classification`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.views import as_view, select
from synque_select.encoders.image import as_rgb
from synque_select.errors import ConfigError, DependencyError
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._lightning import SGDClassifier, check_sgd_budget, check_sizes
from synque_select.recipes._main import run_recipe
from synque_select.recipes._real_data import SPLIT_SEED, RealDraws
from synque_select.recipes._surfaces import GENERATORS, SIDE, SURFACES, real_tiles
from synque_select.recipes._task import ClassifiedTask, RecipeData, own_data
from synque_select.recipes.options import FitOptions, OwnData
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

__all__ = ["ImageClassifier", "ImageData", "ImageTask", "main"]

_N_POOL, _N_VALIDATION = 240, 136
_N_REAL_SAMPLE, _N_PER_CANDIDATE = 100, 600
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class ImageClassifier(SGDClassifier):
    """A ResNet of torchvision, trained from scratch; top-1 accuracy and mean reciprocal rank.

    Args:
        n_classes: Number of classes.
        network: Name of a model of torchvision, such as "resnet50"; "resnet10" is a ResNet with
            one basic block per stage.
        learning_rate: Peak of a one-cycle schedule over the whole fit.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.

    Raises:
        ConfigError: torchvision has no such model.
        DependencyError: torchvision is missing.
    """

    def __init__(
        self,
        n_classes: int,
        network: str = "resnet50",
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = _network(network, n_classes).to(memory_format=torch.channels_last)

    def setup(self, stage: str) -> None:
        """Refuse data with another number of classes."""
        check_sizes(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (n, n_classes) of normalized images (n, 3, height, width)."""
        logits: torch.Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return logits

    def validation_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> None:
        """Log `val_acc`, `val_mrr` and `val_loss`."""
        self._log_figures("val", batch)

    def test_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> None:
        """Log `test_acc`, `test_mrr` and `test_loss`."""
        self._log_figures("test", batch)

    def _log_figures(self, stage: str, batch: Mapping[str, torch.Tensor]) -> None:
        logits, labels = self(batch["image"]).float(), batch["label"]
        rank = _rank_of_label(logits, labels)
        figures = {
            f"{stage}_acc": (rank == 1).float().mean(),
            f"{stage}_mrr": (1 / rank).mean(),
            f"{stage}_loss": torch.nn.functional.cross_entropy(logits, labels),
        }
        self.log_dict(figures, on_step=False, on_epoch=True, batch_size=len(labels))


def _rank_of_label(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the rank of the true class, (n,) from 1; ties count against the model."""
    of_label = logits.gather(1, labels[:, None])
    return (logits >= of_label).sum(1)


def _torchvision() -> ModuleType:
    try:
        import torchvision
    except ImportError as error:
        raise DependencyError("torchvision", extra="image", purpose="this recipe") from error
    return cast("ModuleType", torchvision)  # torchvision has no types


def _network(name: str, n_classes: int) -> torch.nn.Module:
    models = _torchvision().models
    network: torch.nn.Module
    if name == "resnet10":
        network = models.resnet.ResNet(models.resnet.BasicBlock, [1] * 4, num_classes=n_classes)
        return network
    try:
        network = models.get_model(name, weights=None, num_classes=n_classes)
    except ValueError as error:
        raise ConfigError(
            f"network={name!r}: allowed is resnet10 or a model of torchvision, such as resnet50"
        ) from error
    return network


def _as_rgb(value: object) -> Image:
    """Show the network what the encoders see: any mode as RGB, transparency on white."""
    return as_rgb(cast("Image", as_view(value, "image")))  # the view of an image is an image


class _Transforms:
    """Makes training images and measured images of a record's image.

    Args:
        side: Side of the images that the network sees, in pixels.
        crop: Smallest share of the area that a random crop keeps.
    """

    def __init__(self, side: int, crop: float) -> None:
        _torchvision()
        from torchvision.transforms import v2

        end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]
        begin = [_as_rgb, v2.ToImage()]
        random = [v2.RandomResizedCrop(side, (crop, 1.0), antialias=True)]
        fixed = [v2.Resize(side, antialias=True), v2.CenterCrop(side)]
        self.train = v2.Compose([*begin, *random, v2.RandomHorizontalFlip(), *end])
        self.measure = v2.Compose([*begin, *fixed, *end])


class _Example(TypedDict):
    image: torch.Tensor
    label: int


@dataclass(frozen=True, kw_only=True)
class ImageData(OwnData):
    """Images of your own: directories with one subdirectory per class, files, or `hub:OWNER/NAME`.

    Args:
        candidates: Directories or files of synthetic images.
        real: Your unlabeled real images; every replicate draws from them.
        labeled: Your labeled real images, for validation and test.
        n_real: Number of images in a real sample; None for half of your own, or 100 tiles.
        view: The field with the image.
        label: The field with the class.
    """

    view: str = "image"
    label: str = "label"


_DATA = ImageData()
_FIT = FitOptions(max_steps=60, batch_size=64, learning_rate=0.1)


class ImageTask(ClassifiedTask):
    """Candidates with classes, unlabeled real images, a ResNet from scratch; top-1 accuracy.

    Labeled images of your own that are in a real sample are removed; a third of the others is for
    validation.

    Without data of your own, the real images are 648 tiles of 32 by 32 pixels of six photographs
    that come with scikit-image. No two tiles share a pixel, but validation and test are tiles of
    the same six photographs. The candidates are ten ways of drawing such surfaces by rules.

    In an experiment every fit takes the same number of steps, so nothing stops early; in a single
    fit, `TaskDataModule(held_out=0.1)` holds out a tenth of the synthetic images for that.

    Args:
        data: Images of your own.
        fit: Budget of a fit; a drawn candidate has `n_distinct` images, 600 if it is None.
        network: Name of the network, see `ImageClassifier`.
        side: Side of the images that the network sees, in pixels.
        crop: Smallest share of the area that a random crop keeps in training.
        num_workers: Number of processes that decode images.
        encoder: Id of an image encoder: EfficientNet-Lite0, a torchvision or a CLIP model.
        proxies: The proxies that score the candidates; None for the default suite.
        seed: Random seed of the generators and of the draws of real samples.

    Raises:
        ConfigError: A value is not allowed.
        DataError: A file cannot be used.
    """

    name = "image_classification"
    metric = "acc"

    def __init__(
        self,
        data: ImageData = _DATA,
        fit: FitOptions = _FIT,
        network: str = "resnet10",
        side: int = SIDE,
        crop: float = 0.6,
        num_workers: int = 0,
        encoder: str | None = None,
        proxies: list[ProxySpec] | None = None,
        seed: int = 0,
    ) -> None:
        check_sgd_budget(fit)
        check_int("side", side, 2)
        paths, n_real = data.paths, data.n_real
        if paths is None:
            loaded = _surfaces(fit.n_distinct or _N_PER_CANDIDATE, n_real or _N_REAL_SAMPLE, seed)
            self.false_labels = {"careful_false_labels": "careful"}
        else:
            loaded = own_data(paths, view=data.view, label=data.label, n_real=n_real, seed=seed)
        super().__init__(loaded, fit, encoder, proxies)
        self.num_workers = num_workers
        self._network, self._side, self._crop = network, side, crop
        self._transforms = _Transforms(side, crop)

    def model(self, seed: int) -> LightningModule:
        """Create a fresh network."""
        return ImageClassifier(len(self.classes), self._network, **self.fit.rate)

    def fingerprint(self) -> Mapping[str, object]:
        """Return hyper-parameters, and the labels, which are not in the views."""
        return {
            "model": [self._network, self.fit.learning_rate, self.fit.precision],
            "images": [self._side, self._crop],
            "labels": self._labels_sha256,
        }

    def transform(self, record: object) -> _Example:
        """Convert a record to a measured example: {"image": (3, side, side), "label": class}."""
        return self._example(record, self._transforms.measure)

    def train_transform(self, record: object) -> _Example:
        """Convert a record to a training example, randomly cropped and flipped."""
        return self._example(record, self._transforms.train)

    def _example(self, record: object, transform: Callable[[object], torch.Tensor]) -> _Example:
        labeled = self._data.labeled
        image = select(record, labeled.selector)
        assert labeled.label is not None  # as Classes has checked
        return {"image": transform(image), "label": self.classes.of(record, labeled.label)}


def _surfaces(n: int, n_real: int, seed: int) -> RecipeData:
    drawn = [(generator.name, generator.render(n, seed=seed)) for generator in GENERATORS]
    candidates = [Candidate(name, _records(*made), "image", "label") for name, made in drawn]
    tiles, labels = real_tiles()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(tiles))
    pool = RealSample("tiles", [{"image": tiles[i]} for i in order[:_N_POOL]], "image")
    rest = order[_N_POOL:]
    labeled = Examples("tiles", _records(tiles[rest], labels[rest]), "image", "label")
    message = (
        f"real: tiles of {SIDE} by {SIDE} pixels, none of which share a pixel, of "
        f"{counted(len(SURFACES), 'photograph')} ({', '.join(SURFACES)}); validation and test are "
        "other tiles of the same photographs"
    )
    return RecipeData(
        candidates,
        RealDraws(pool, n_real, seed=seed),
        labeled,
        n_validation=_N_VALIDATION,
        messages=(message,),
    )


def _records(tiles: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[dict[str, object]]:
    pairs = zip(tiles, labels, strict=True)
    return [{"image": tile, "label": SURFACES[label]} for tile, label in pairs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment, with the options of `synque-select experiment`."""
    return run_recipe("image-small", arguments)


if __name__ == "__main__":
    sys.exit(main())
