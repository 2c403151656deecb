"""MAUVE against the package of the paper's authors, on equal features."""

from __future__ import annotations

import pytest
import torch

from synque_select.functional.mauve import mauve_score
from synque_select.proxies.divergence import MAUVE, MAUVEStar
from tests.functional.test_mauve import part

pytest.importorskip("mauve", reason="mauve-text is not installed")

SEEDS = range(8)
CPU = torch.device("cpu")


def clusters(n: int, shares: torch.Tensor, seed: int) -> torch.Tensor:
    """Draw n points around centers that all sets share, each with its own probability."""
    generator = torch.Generator().manual_seed(99)
    centres = 2 * torch.randn((len(shares), 32), generator=generator)
    generator.manual_seed(seed)
    chosen = torch.multinomial(shares, n, replacement=True, generator=generator)
    return centres[chosen] + torch.randn((n, 32), generator=generator)


def even_and_skewed(n_real: int, n_synthetic: int, skew: float) -> tuple[torch.Tensor, ...]:
    even = torch.ones(12)
    return (
        clusters(n_real, even, seed=1),
        clusters(n_synthetic, torch.exp(-skew * torch.arange(12.0)), seed=2),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.5], ids=["mauve", "mauve_star"])
@pytest.mark.parametrize("skew", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("n_real", "n_synthetic"), [(200, 1000), (500, 500)])
def test_within_the_spread_over_the_seeds_of_mauve_text(
    n_real: int, n_synthetic: int, skew: float, smoothing: float
):
    from mauve import compute_mauve

    real, synthetic = even_and_skewed(n_real, n_synthetic, skew)
    actual = [
        compute_mauve(
            p_features=real.numpy(), q_features=synthetic.numpy(), seed=seed, verbose=False
        )
        for seed in SEEDS
    ]
    field = "mauve_star" if smoothing else "mauve"
    theirs = torch.tensor([float(getattr(result, field)) for result in actual])
    ours = torch.tensor(
        [float(mauve_score(real, synthetic, smoothing=smoothing, seed=s)) for s in SEEDS]
    )
    spread = float(theirs.max() - theirs.min())
    assert abs(float(ours.mean() - theirs.mean())) <= spread
    assert actual[0].num_buckets == max(2, round(min(n_real, n_synthetic) / 10))


@pytest.mark.parametrize("cls", [MAUVE, MAUVEStar])
def test_the_backend_gives_the_values_of_mauve_text(cls: type[MAUVE]):
    from mauve import compute_mauve

    real, synthetic = even_and_skewed(150, 150, 0.2)
    inputs = part("real", real), [part("a", synthetic)]
    scores = cls(n_seeds=3, backend="mauve-text").score(*inputs, seed=0, device=CPU)
    single = [
        getattr(
            compute_mauve(
                p_features=real.numpy(), q_features=synthetic.numpy(), seed=s, verbose=False
            ),
            cls.mauve_text_field,
        )
        for s in SEEDS
    ]
    # the order of the rows decides the library's start, so its spread over seeds is the measure
    assert min(single) - 0.02 <= float(scores.values[0]) <= max(single) + 0.02
