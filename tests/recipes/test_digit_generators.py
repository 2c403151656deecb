"""The generators of the demo: deterministic, balanced, and as their descriptions say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("PIL")

from synque_select.recipes._digit_generators import (
    GENERATORS,
    SIZE,
    DigitGenerator,
    to_scanner_resolution,
)

BY_NAME = {generator.name: generator for generator in GENERATORS}
N = 60


def ink_rows(images: torch.Tensor) -> torch.Tensor:
    return (images.amax(2) > 64).sum(1)


def test_there_are_ten_or_more_generators_with_distinct_names():
    assert len(GENERATORS) >= 10
    assert len(BY_NAME) == len(GENERATORS)


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.name)
def test_images_are_grey_bytes_of_ten_balanced_classes(generator: DigitGenerator):
    clean = replace(generator, false_labels=0.0)
    images, labels = clean.render(N, seed=1)
    assert images.shape == (N, SIZE, SIZE)
    assert images.dtype == torch.uint8
    assert labels.bincount(minlength=10).tolist() == [N // 10] * 10
    assert len(images.flatten(1).unique(dim=0)) == N  # distinct examples are what arms share


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.name)
def test_only_equal_seeds_give_equal_images(generator: DigitGenerator):
    torch.rand(3)  # the global state plays no part
    first, second = generator.render(N, seed=3), generator.render(N, seed=3)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], generator.render(N, seed=4)[0])


def test_rendering_does_not_change_the_global_random_state():
    before = torch.get_rng_state()
    BY_NAME["pen"].render(N, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_false_labels_are_the_stated_share_of_the_same_images():
    false = BY_NAME["slanted_false_labels"]
    assert replace(false, name="slanted", false_labels=0.0) == BY_NAME["slanted"]
    images, labels = false.render(1000, seed=0)
    same_images, true = replace(false, false_labels=0.0).render(1000, seed=0)
    assert torch.equal(images, same_images)
    assert 0.4 < (labels != true).float().mean() < 0.6


def test_framed_digits_fill_the_height_and_loose_ones_do_not():
    assert ink_rows(BY_NAME["pen"].render(N, seed=0)[0]).float().mean() > 0.9 * SIZE
    assert ink_rows(BY_NAME["tiny"].render(N, seed=0)[0]).float().mean() < SIZE / 2


def test_the_worst_generator_is_dark_on_light_and_mirrored():
    wrong = BY_NAME["mirror_negative"]
    assert wrong.mirrored
    assert wrong.render(N, seed=0)[0].float().mean() > 128


def test_a_mirrored_digit_is_a_flipped_digit():
    plain = DigitGenerator("x", ("DejaVuSans.ttf",))
    images, _ = plain.render(N, seed=0)
    mirrored, _ = replace(plain, mirrored=True).render(N, seed=0)
    difference = (images.flip(2).float() - mirrored.float()).abs().mean()
    assert difference < (images.float() - mirrored.float()).abs().mean() / 4


def test_scanner_resolution_takes_images_of_both_sizes():
    small = (torch.arange(64).reshape(1, 8, 8) * 4).to(torch.uint8)
    large = small.repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert torch.equal(to_scanner_resolution(small), to_scanner_resolution(large))
