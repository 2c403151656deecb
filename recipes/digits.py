"""The demo: which way of rendering digits is worth training on, to read handwritten digits?

The real data are scikit-learn's 1,797 handwritten digits; candidates are generators that render
digits with matplotlib's fonts; the model is a small ResNet. To run it: `synque-select experiment
--config digits`, or `python -m synque_select.recipes.digits`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from torch.utils.data import Dataset

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.errors import DependencyError
from synque_select.experiment import unseen
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._digit_generators import (
    GENERATORS,
    DigitGenerator,
    to_scanner_resolution,
)
from synque_select.recipes._lightning import SGDClassifier, check_sgd_budget
from synque_select.recipes._main import run_recipe
from synque_select.recipes._real_data import SPLIT_SEED
from synque_select.recipes._task import RecipeTask
from synque_select.recipes.options import FitOptions

__all__ = [
    "DigitClassifier",
    "DigitImages",
    "DigitsTask",
    "main",
    "real_digits",
]

N_POOL, N_VALIDATION = 500, 400
_N_REAL_SAMPLE = 100
_N_PER_CANDIDATE = 1000
_FIT = FitOptions(n_distinct=_N_PER_CANDIDATE, max_steps=80, batch_size=128, learning_rate=0.1)


class DigitImages(Dataset[dict[str, Any]]):
    """Images and labels in memory, as records {"image": (24, 24) uint8, "label": int}.

    Args:
        images: Images (n, 24, 24) uint8.
        labels: Labels (n,) int64; None for images without labels.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor | None) -> None:
        self.images = images
        self.labels = None if labels is None else labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = {"image": self.images[index]}
        return record if self.labels is None else record | {"label": self.labels[index]}

    def take(self, positions: Sequence[int] | NDArray[np.int64]) -> DigitImages:
        """Return the examples at these positions."""
        chosen = torch.as_tensor(positions)
        labels = None if self.labels is None else torch.tensor(self.labels)[chosen]
        return DigitImages(self.images[chosen], labels)

    def without_labels(self) -> DigitImages:
        """Return the images without their labels."""
        return DigitImages(self.images, None)


@lru_cache(maxsize=1)
def real_digits() -> DigitImages:
    """Return scikit-learn's 1,797 handwritten digits, enlarged from 8 by 8 to 24 by 24."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8))
    return DigitImages(to_scanner_resolution(grey), torch.from_numpy(bunch.target).long())


class DigitClassifier(SGDClassifier):
    """A ResNet of torchvision with three stages of one basic block each, trained from scratch.

    The usual fourth stage is left out: it would see a single pixel of an image of 24 by 24, and
    nearly doubles the time of a step.

    Args:
        learning_rate: Peak of a one-cycle schedule over the whole fit.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.

    Raises:
        DependencyError: torchvision is missing.
    """

    def __init__(
        self, learning_rate: float = 0.1, momentum: float = 0.9, weight_decay: float = 5e-4
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        try:
            from torchvision.models.resnet import BasicBlock, ResNet
        except ImportError as error:
            raise DependencyError("torchvision", extra="image", purpose="this model") from error
        network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
        network.layer4 = torch.nn.Identity()
        network.fc = torch.nn.Linear(256, 10)
        # 10 % faster on a CPU
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (n, 10) of images (n, 24, 24) uint8."""
        pixels = (images.unsqueeze(1).float() / 255).expand(-1, 3, -1, -1)
        logits: torch.Tensor = self.network(pixels.contiguous(memory_format=torch.channels_last))
        return logits

    def validation_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> None:
        """Log `val_acc`."""
        self._log_accuracy("val_acc", batch)

    def test_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> None:
        """Log `test_acc`."""
        self._log_accuracy("test_acc", batch)

    def _log_accuracy(self, name: str, batch: Mapping[str, torch.Tensor]) -> None:
        correct = (self(batch["image"]).argmax(1) == batch["label"]).float()
        self.log(name, correct.mean(), on_epoch=True, batch_size=len(correct), prog_bar=True)


class DigitsTask(RecipeTask):
    """Twelve generators of digits, 100 unlabeled real digits, a small ResNet.

    The 1,797 real digits are split once: a pool of 500, whose labels are never read and from which
    each replicate draws its 100, then 400 for validation and the rest for test. Digits of these
    that are also in the pool, by content, are removed.

    Args:
        fit: Budget of a fit; every candidate has `n_distinct` examples, 1,000 if it is None.
        encoder: Id of an image encoder; the default is the usual network, at a size that suits 24
            pixels.
        proxies: The proxies that score the candidates; None for the default suite.
        seed: Random seed of the generators and of the draws of real samples.

    Raises:
        ConfigError: A number is not allowed.
    """

    name = "digits"
    metric = "acc"
    false_labels = {"slanted_false_labels": "slanted"}  # noqa: RUF012 - never written to

    def __init__(
        self,
        fit: FitOptions = _FIT,
        encoder: str = "efficientnet-lite0/96px",
        proxies: list[ProxySpec] | None = None,
        seed: int = 0,
    ) -> None:
        check_sgd_budget(fit)
        n = fit.n_distinct or _N_PER_CANDIDATE
        super().__init__(
            [_candidate(generator, n, seed) for generator in GENERATORS],
            _DigitDraws(real_digits().take(_split()[:N_POOL]).without_labels(), seed),
            fit,
            encoder,
            proxies,
        )

    @cached_property
    def validation(self) -> Examples:
        """400 labeled real digits, without those that are also in the pool."""
        return self._labeled("validation", slice(N_POOL, N_POOL + N_VALIDATION))

    @cached_property
    def test(self) -> Examples:
        """The other labeled real digits, without those that are also in the pool."""
        return self._labeled("test", slice(N_POOL + N_VALIDATION, None))

    def model(self, seed: int) -> LightningModule:
        """Create a fresh classifier."""
        return DigitClassifier(**self.fit.rate)

    def fingerprint(self) -> Mapping[str, object]:
        """Return hyper-parameters, and the labels, which are not in the views."""
        return {
            "model": dict(DigitClassifier(**self.fit.rate).hparams),
            "batch_size": self.batch_size,
            "labels": [_labels_sha256(c) for c in (*self.candidates, self.validation, self.test)],
        }

    def _labeled(self, name: str, part: slice) -> Examples:
        digits = real_digits().take(_split()[part])
        kept = unseen(Examples(name, digits, view="image"), self._draws.pool)
        return Examples(name, digits.take(kept), view="image", label="label")


@dataclass(frozen=True)
class _DigitDraws:
    """Draws of 100 from the pool, of which five in a row share none."""

    images: DigitImages
    seed: int

    @property
    def pool(self) -> RealSample:
        return RealSample("pool", self.images, view="image")

    def draw(self, replicate: int) -> RealSample:
        turn, place = divmod(replicate, N_POOL // _N_REAL_SAMPLE)
        order = np.random.default_rng([self.seed, turn]).permutation(N_POOL)
        positions = order[place * _N_REAL_SAMPLE :][:_N_REAL_SAMPLE]
        return RealSample("handwritten", self.images.take(positions), view="image")


def _candidate(generator: DigitGenerator, n: int, seed: int) -> Candidate:
    images, labels = generator.render(n, seed=seed)
    return Candidate(generator.name, DigitImages(images, labels), view="image", label="label")


def _labels_sha256(examples: Examples) -> str:
    labels = [record["label"] for record in examples]
    return hashlib.sha256(bytes(labels)).hexdigest()[:16]


def _split() -> NDArray[np.int64]:
    return np.random.default_rng(SPLIT_SEED).permutation(len(real_digits()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment, with the options of `synque-select experiment`."""
    return run_recipe("digits", arguments)


if __name__ == "__main__":
    sys.exit(main())
