"""Toy densities: they integrate to 1, and sample, log-density and entropy agree with each other."""

import math

import pytest
import torch

from common.data import toy
from common.errors import DataError

NAMES = ["banana", "checkerboard", "grid25", "ring8"]
everyone = pytest.mark.parametrize("name", NAMES)


def test_names():
    assert toy.names() == NAMES
    with pytest.raises(DataError, match="Did you mean 'banana'"):
        toy.density("bananna")


@everyone
def test_integrates_to_1(name):
    """Midpoints of a fine grid, float64; its cells end where the checkerboard's squares do."""
    density = toy.density(name)
    low, high = density.extent
    step = (high - low) / 400
    axis = low + step * (torch.arange(400, dtype=torch.float64) + 0.5)
    total = sum(
        float(density.log_prob(torch.cartesian_prod(part, axis)).exp().sum()) * step**2 for part in axis.split(100)
    )
    assert abs(total - 1) < 2e-6


@everyone
def test_samples_have_the_stated_entropy(name):
    density = toy.density(name)
    x = density.sample(100_000, torch.Generator().manual_seed(0)).double()
    surprise = -density.log_prob(x)
    error = float(surprise.std()) / math.sqrt(len(x))
    assert abs(float(surprise.mean()) - density.entropy) < 5 * error + 1e-9


@everyone
def test_samples_have_the_stated_density(name):
    """Chi-squared of counts in boxes against the boxes' mass, which the density gives."""
    density = toy.density(name)
    low, high = density.extent
    n, boxes, fine = 50_000, 16, 20
    x = density.sample(n, torch.Generator().manual_seed(1)).double()
    index = ((x - low) / (high - low) * boxes).floor().clamp(0, boxes - 1).long()
    counts = torch.bincount(index[:, 0] * boxes + index[:, 1], minlength=boxes**2).double()
    cells = boxes * fine
    step = (high - low) / cells
    axis = low + step * (torch.arange(cells, dtype=torch.float64) + 0.5)
    mass = density.log_prob(torch.cartesian_prod(axis, axis)).exp().view(cells, cells) * step**2
    mass = mass.view(boxes, fine, boxes, fine).sum((1, 3)).flatten()
    expected = n * mass
    often = expected > 5
    statistic = ((counts - expected).square() / expected)[often].sum()
    degrees = int(often.sum())
    assert statistic < degrees + 6 * math.sqrt(2 * degrees)
    assert counts[~often].sum() < expected[~often].sum() + 6 * math.sqrt(expected[~often].sum() + 1)


def test_closed_forms():
    assert toy.checkerboard(square=1.5).entropy == math.log(8 * 1.5**2)
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(2), torch.diag(torch.tensor([4, 0.25])))
    assert toy.banana(width=2, height=0.5).entropy == pytest.approx(float(gaussian.entropy()))


def test_mixture_entropy_where_it_is_known():
    """One component: a Gaussian's. Many in one place: the same. Far apart: plus log K."""
    gaussian = math.log(2 * math.pi * math.e * 0.3**2)
    for centres, extra in [
        ([[1, 2]], 0),
        ([[1, 2]] * 3, 0),
        ([[0, 0], [90, 0], [0, 90]], math.log(3)),
    ]:
        mixture = toy.mixture("m", torch.tensor(centres, dtype=torch.float64), std=0.3)
        assert mixture.entropy == pytest.approx(gaussian + extra, abs=1e-9)


def test_mixture_entropy_where_components_overlap():
    """Against a sum over one fine grid of the whole plane."""
    mixture = toy.ring8(radius=1.0, std=0.4)
    axis = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    log_prob = mixture.log_prob(torch.cartesian_prod(axis, axis))
    assert mixture.entropy == pytest.approx(-float((log_prob.exp() * log_prob).sum()) * 0.01**2, abs=1e-9)


@everyone
def test_types_and_shapes(name):
    density = toy.density(name)
    x = density.sample(5, torch.Generator().manual_seed(0))
    assert x.shape == (5, 2)
    assert x.dtype == torch.float32
    assert torch.equal(x, density.sample(5, torch.Generator().manual_seed(0)))
    for dtype in (torch.float32, torch.float64):
        log_prob = density.log_prob(x.to(dtype))
        assert log_prob.shape == (5,)
        assert log_prob.dtype == dtype
        assert log_prob.isfinite().all()
    assert density.sample(0).shape == (0, 2)
    assert name in repr(density)
    assert "nats" in repr(density)
    with pytest.raises(DataError, match="Expected points"):
        density.log_prob(torch.zeros(2))
    with pytest.raises(DataError, match="-1 samples"):
        density.sample(-1)


def test_checkerboard_is_nothing_on_white():
    density = toy.density("checkerboard")
    black, white = torch.tensor([[-3.0, -3.0], [1, 1]]), torch.tensor([[-1.0, -3.0], [5, 1], [1, 9]])
    assert density.log_prob(black).tolist() == pytest.approx([-math.log(32)] * 2)
    assert density.log_prob(white).tolist() == [-math.inf] * 3
