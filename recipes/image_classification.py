"""Which synthetic images are worth training on? A ResNet from scratch, measured on real images.

With folders of your own: one sub-folder a class in each candidate and in the labeled real images
(`image-paper`). Without: six surfaces in photographs that come with scikit-image, and generators
that imitate them (`image-small`). To run it: `synque-select experiment --config image-small`, or
`python -m synque_select.recipes.image_classification`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.sources import load_candidates, load_dataset_file, load_real
from synque_select.data.views import as_view, select
from synque_select.encoders.image import as_rgb
from synque_select.errors import ConfigError, DependencyError
from synque_select.experiment import BaseTask
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._lightning import check_sizes, sgd_one_cycle
from synque_select.recipes._main import run_recipe
from synque_select.recipes._real_data import SPLIT_SEED, Classes, RealDraws, Split, split_labeled
from synque_select.recipes._surfaces import GENERATORS, SIDE, SURFACES, real_tiles
from synque_select.training.datamodule import SynqueDataModule
from synque_select.types import Mixture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageClassifier", "ImageDataModule", "ImageTask", "main"]

_N_POOL, _N_VALIDATION = 240, 136
_N_REAL_SAMPLE = 100
_HELD_OUT = 0.1
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class ImageClassifier(LightningModule):
    """A ResNet of torchvision, trained from scratch; top-1 accuracy and mean reciprocal rank.

    Args:
        n_classes: Classes.
        network: Name of a model of torchvision, such as "resnet50"; "resnet10" is a ResNet with
            one basic block a stage.
        learning_rate: Peak of SGD's rate under a one-cycle schedule with a cosine.
        momentum: Of SGD.
        weight_decay: Of SGD.

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
        """Refuse data of another number of classes."""
        check_sizes(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turn normalised images (n, 3, height, width) into logits (n, n_classes)."""
        logits: torch.Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return logits

    def training_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        loss = torch.nn.functional.cross_entropy(self(batch["image"]), batch["label"])
        self.log("train_loss", loss)
        return loss

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

    def configure_optimizers(self) -> Any:
        """SGD with momentum under a one-cycle schedule."""
        return sgd_one_cycle(self)


def _rank_of_label(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Rank of the true class, (n,) from 1; a class with an equal logit stands before it."""
    of_label = logits.gather(1, labels[:, None])
    return (logits >= of_label).sum(1)


def _torchvision() -> Any:
    try:
        import torchvision
    except ImportError as error:
        raise DependencyError("torchvision", extra="image", purpose="this recipe") from error
    return torchvision


def _network(name: str, n_classes: int) -> torch.nn.Module:
    models = _torchvision().models
    if name == "resnet10":
        network = models.resnet.ResNet(models.resnet.BasicBlock, [1] * 4, num_classes=n_classes)
    else:
        try:
            network = models.get_model(name, weights=None, num_classes=n_classes)
        except ValueError as error:
            raise ConfigError(
                f"network={name!r}: allowed is resnet10 or a model of torchvision, such as resnet50"
            ) from error
    return network  # type: ignore[no-any-return]


class _Mapped(Dataset[Any]):
    """A dataset whose records pass through a function."""

    def __init__(self, dataset: Any, function: Callable[[Any], Any]) -> None:
        self._dataset, self._function = dataset, function

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._function(self._dataset[index])


def _as_rgb(value: Any) -> Image:
    """Show the network what the encoders see: any mode as RGB, transparency on white."""
    return as_rgb(cast("Image", as_view(value, "image")))


class _Transforms:
    """What makes a training image, and a measured one, of a record's image.

    Args:
        side: Pixels of the images that the network sees.
        crop: Least share of the area that a random crop keeps.
    """

    def __init__(self, side: int, crop: float) -> None:
        _torchvision()
        from torchvision.transforms import v2

        end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]
        begin = [_as_rgb, v2.ToImage()]
        sampled = [v2.RandomResizedCrop(side, (crop, 1.0), antialias=True)]
        shown = [v2.Resize(side, antialias=True), v2.CenterCrop(side)]
        self.train = v2.Compose([*begin, *sampled, v2.RandomHorizontalFlip(), *end])
        self.measure = v2.Compose([*begin, *shown, *end])


class _Data(NamedTuple):
    """Everything before a fit: candidates, draws of real samples, labeled real images."""

    candidates: list[Candidate]
    draws: RealDraws
    labeled: Examples
    n_validation: int | None
    message: str


class ImageTask(BaseTask):
    """Candidates with classes, unannotated real images, a ResNet from scratch; top-1 accuracy.

    With `candidates`, `real` and `labeled` the images are yours: folders with one sub-folder a
    class (the real sample needs none), files with an image column, or `hub:OWNER/NAME`. Labeled
    images that are in a real sample are taken out; a third of the rest is for validation.

    Without them, real are 648 tiles of 32 by 32 pixels of six photographs that come with
    scikit-image; no two share a pixel, but validation and test are tiles of the same six
    photographs. Candidates are ten ways of drawing such surfaces by rules.

    In an experiment every fit has the same steps, so nothing stops early; `ImageDataModule` holds
    out a tenth of the synthetic images for that.

    Args:
        candidates: Folders of your own, or anything else that `load_candidates` takes.
        real: Your unannotated real images; a replicate draws `n_real` of them.
        labeled: Your labeled real images, a folder or a file.
        view: The field that holds the image.
        label: The field that holds the class.
        n_real: Images of a real sample; None for half of your own, or 100 tiles.
        n_distinct: Distinct images that every arm trains on; None for the smallest candidate.
        max_steps: Optimiser steps of a fit.
        batch_size: Images a step.
        network: See `ImageClassifier`.
        learning_rate: Peak of the one-cycle schedule.
        side: Pixels of the images that the network sees.
        crop: Least share of the area that a random crop keeps in training.
        encoder: An image encoder's id: EfficientNet-Lite0, a torchvision or a CLIP model.
        proxies: What scores the candidates; None for the default suite.
        precision: Of the trainer, such as "bf16-mixed"; None for full.
        num_workers: Processes that decode images.
        seed: Of the generators and of the draws of real samples.

    Raises:
        ConfigError: A number is not allowed, or a folder is missing beside the others.
    """

    name = "image_classification"
    metric = "acc"

    def __init__(
        self,
        candidates: str | list[str] | None = None,
        real: str | None = None,
        labeled: str | None = None,
        view: str = "image",
        label: str = "label",
        n_real: int | None = None,
        n_distinct: int | None = None,
        max_steps: int = 60,
        batch_size: int = 64,
        network: str = "resnet10",
        learning_rate: float = 0.1,
        side: int = SIDE,
        crop: float = 0.6,
        encoder: str | None = None,
        proxies: list[ProxySpec] | None = None,
        precision: str | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        counts = {"max_steps": max_steps, "batch_size": batch_size, "side": side}
        for argument, value in counts.items():
            if value < 2:
                raise ConfigError(f"{argument}={value}: allowed is 2 or more")
        if candidates is None and real is None and labeled is None:
            self._data = _surfaces(n_distinct or 600, n_real or _N_REAL_SAMPLE, seed)
            self.false_labels = {"careful_false_labels": "careful"}
        elif candidates is None or real is None or labeled is None:
            raise ConfigError(
                "images of your own need all three of candidates=, real= and labeled=; found "
                f"candidates={candidates!r}, real={real!r}, labeled={labeled!r}"
            )
        else:
            self._data = _own(candidates, real, labeled, view, label, n_real, seed)
        self.classes = Classes(self.candidates)
        self.classes.check(self._data.labeled)
        self.n_distinct = n_distinct or min(map(len, self.candidates))
        self.max_steps, self.batch_size = max_steps, batch_size
        self.encoder, self.proxies = encoder, proxies
        self._network, self._learning_rate, self._precision = network, learning_rate, precision
        self._side, self._crop, self._workers = side, crop, num_workers
        self._transforms = _Transforms(side, crop)

    @property
    def candidates(self) -> list[Candidate]:
        """One candidate a generator."""
        return self._data.candidates

    @cached_property
    def validation(self) -> Examples:
        """Labeled real images that no real sample holds."""
        return self._part("validation", self._split.validation)

    @cached_property
    def test(self) -> Examples:
        """The other labeled real images that no real sample holds."""
        return self._part("test", self._split.test)

    def real_sample(self, replicate: int) -> RealSample:
        """Draw from the pool."""
        return self._data.draws.draw(replicate)

    def model(self, seed: int) -> LightningModule:
        """Make a fresh network."""
        return ImageClassifier(len(self.classes), self._network, self._learning_rate)

    def fingerprint(self) -> Mapping[str, Any]:
        """Return hyper-parameters, and the labels, which are not in the views."""
        return {
            "model": [self._network, self._learning_rate, self._precision],
            "images": [self._side, self._crop],
            "labels": self._labels_sha256,
        }

    def transform(self, record: Any) -> dict[str, Any]:
        """Turn a record into a measured example: {"image": (3, side, side), "label": class}."""
        return self._example(record, self._transforms.measure)

    def augmented(self, record: Any) -> dict[str, Any]:
        """Turn a record into a training example, randomly cropped and flipped."""
        return self._example(record, self._transforms.train)

    def datamodule(
        self, candidates: Sequence[Candidate], mixture: Mixture, *, seed: int
    ) -> SynqueDataModule:
        """Augment what is trained on, and nothing else."""
        return SynqueDataModule(
            list(candidates),
            mixture=mixture,
            train_transform=self.augmented,
            seed=seed,
            batch_size=self.batch_size,
            num_workers=self._workers,
            val=_Mapped(self.validation, self.transform),
            test=_Mapped(self.test, self.transform),
        )

    def trainer_options(self) -> Mapping[str, Any]:
        """Return the precision, where one is given."""
        return {} if self._precision is None else {"precision": self._precision}

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """Say what the real images are, and which of the labeled ones were left out."""
        return (self._data.message, *self._split.messages)

    def _example(self, record: Any, transform: Callable[[Any], Any]) -> dict[str, Any]:
        image = select(record, self.test.selector)
        return {"image": transform(image), "label": self.classes.of(record, self.test.label)}

    def _part(self, name: str, positions: Sequence[int]) -> Examples:
        labeled = self._data.labeled
        part: Subset[Any] = Subset(labeled.dataset, positions)  # type: ignore[arg-type]
        return Examples(name, part, labeled.selector, labeled.label, labeled.source)

    @cached_property
    def _split(self) -> Split:
        data = self._data
        return split_labeled(data.labeled, data.draws.pool, n_validation=data.n_validation)

    @cached_property
    def _labels_sha256(self) -> list[str]:
        parts = (*self.candidates, self.validation, self.test)
        return [self.classes.sha256(examples) for examples in parts]


def _surfaces(n: int, n_real: int, seed: int) -> _Data:
    drawn = [(generator.name, generator.render(n, seed=seed)) for generator in GENERATORS]
    candidates = [Candidate(name, _records(*made), "image", "label") for name, made in drawn]
    tiles, labels = real_tiles()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(tiles))
    pool = RealSample("tiles", [{"image": tiles[i]} for i in order[:_N_POOL]], "image")
    rest = order[_N_POOL:]
    labeled = Examples("tiles", _records(tiles[rest], labels[rest]), "image", "label")
    message = (
        f"real: tiles of {SIDE} by {SIDE} pixels, none of which share a pixel, of "
        f"{len(SURFACES)} photographs ({', '.join(SURFACES)}); validation and test are other tiles "
        "of the same photographs"
    )
    return _Data(candidates, RealDraws(pool, n_real, seed=seed), labeled, _N_VALIDATION, message)


def _records(tiles: Any, labels: Any) -> list[dict[str, Any]]:
    pairs = zip(tiles, labels, strict=True)
    return [{"image": tile, "label": SURFACES[label]} for tile, label in pairs]


def _own(
    candidates: str | list[str],
    real: str,
    labeled: str,
    view: str,
    label: str,
    n_real: int | None,
    seed: int,
) -> _Data:
    loaded = load_candidates(candidates, view=view, label=label)
    pool = load_real(real, view=view)
    known = Examples("labeled", load_dataset_file(labeled), view, label, labeled)
    draws = RealDraws(pool, n_real or len(pool) // 2, seed=seed)
    return _Data(loaded, draws, known, None, f"real: {pool.where} and {known.where}")


class ImageDataModule(SynqueDataModule):
    """The images as a DataModule, for one fit of a LightningCLI config.

    A tenth of each candidate is held out. What was held out of the candidates that are trained on
    is for validation, so early stopping reads no real label; the labeled real images are for test.

    Args:
        candidates: See `ImageTask`, as for the other arguments.
        real: See `ImageTask`.
        labeled: See `ImageTask`.
        view: See `ImageTask`.
        label: See `ImageTask`.
        batch_size: Images a step.
        side: See `ImageTask`.
        crop: See `ImageTask`.
        num_workers: Processes that decode images.
        replicate: Which real sample.
        seed: Of what is held out, of the draws and of the order of the examples.
    """

    def __init__(
        self,
        candidates: str | list[str] | None = None,
        real: str | None = None,
        labeled: str | None = None,
        view: str = "image",
        label: str = "label",
        batch_size: int = 64,
        side: int = SIDE,
        crop: float = 0.6,
        num_workers: int = 0,
        replicate: int = 0,
        seed: int = 0,
    ) -> None:
        task = ImageTask(
            candidates,
            real,
            labeled,
            view,
            label,
            batch_size=batch_size,
            side=side,
            crop=crop,
            seed=seed,
        )
        parts = [_held_out(candidate, seed) for candidate in task.candidates]
        self._held_out = {kept.name: held for kept, held in parts}
        self._task, self._n_workers = task, num_workers
        super().__init__(
            [kept for kept, _ in parts],
            task.real_sample(replicate),
            train_transform=task.augmented,
            seed=seed,
            batch_size=batch_size,
            num_workers=num_workers,
            test=_Mapped(task.test, task.transform),
        )
        self.model_sizes = {"n_classes": len(task.classes)}

    def val_dataloader(self) -> DataLoader[Any]:
        """Serve what was held out of the candidates that are trained on."""
        names = self.mixture.names if self.mixture is not None else self._held_out
        held: ConcatDataset[Any] = ConcatDataset([self._held_out[name] for name in names])
        return DataLoader(
            _Mapped(held, self._task.transform),
            batch_size=self.batch_size,
            num_workers=self._n_workers,
        )


def _held_out(candidate: Candidate, seed: int) -> tuple[Candidate, Subset[Any]]:
    order = np.random.default_rng([seed, len(candidate)]).permutation(len(candidate)).tolist()
    n = max(1, round(_HELD_OUT * len(candidate)))
    dataset: Any = candidate.dataset
    kept: Subset[Any] = Subset(dataset, sorted(order[n:]))
    part = Candidate(candidate.name, kept, candidate.selector, candidate.label, candidate.source)
    return part, Subset(dataset, sorted(order[:n]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment, with the options of `synque-select experiment`."""
    return run_recipe("image-small", arguments)


if __name__ == "__main__":
    sys.exit(main())
