"""Parzen windows against the sum written out, and what they cannot be: better than the truth."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from common.errors import ConfigError, DataError
from common.evaluation import parzen
from common.evaluation.parzen import WIDTHS, parzen_estimate, parzen_log_density

pytestmark = pytest.mark.usefixtures("double")


def draws(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def slow(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    windows = [MultivariateNormal(each, sigma**2 * torch.eye(x.shape[1])).log_prob(x) for each in y]
    return torch.logsumexp(torch.stack(windows), 0) - math.log(len(y))


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_the_density_is_the_mean_of_the_windows(sigma):
    x, y = draws(7, 4, 0), draws(23, 4, 1)
    assert torch.allclose(parzen_log_density(x, y, sigma), slow(x, y, sigma), rtol=1e-10)


def test_samples_taken_in_parts_are_the_same_samples(monkeypatch):
    x, y = draws(5, 3, 0), draws(17, 3, 1)
    whole = parzen._log_densities(x, y, [0.2, 0.7])
    assert torch.allclose(parzen._log_densities(x, y, [0.2, 0.7], chunk=4), whole, rtol=1e-12)


def test_it_integrates_to_one():
    y, grid = draws(9, 1, 0), torch.linspace(-12, 12, 20_001)[:, None]
    assert float(parzen_log_density(grid, y, 0.4).exp().sum()) * 24 / 20_000 == pytest.approx(1, abs=1e-6)


def test_far_from_the_origin_it_is_the_same():
    x, y = draws(6, 5, 0), draws(11, 5, 1)
    assert torch.allclose(parzen_log_density(x + 1e5, y + 1e5, 0.1), parzen_log_density(x, y, 0.1), rtol=1e-6)


def test_the_width_is_the_best_of_those_tried_on_validation_examples():
    x, y, val = draws(200, 3, 0), draws(100, 3, 1), draws(150, 3, 2)
    found, sigma = parzen_estimate(x, y, val)
    means = {width: float(slow(val, y, width).mean()) for width in WIDTHS}
    assert sigma == max(means, key=means.__getitem__)
    assert torch.allclose(found, slow(x, y, sigma))
    assert WIDTHS[0] == pytest.approx(0.1)
    assert WIDTHS[-1] == pytest.approx(1)


def test_no_windows_beat_the_distribution_that_they_were_drawn_from():
    x, y, val = draws(3000, 2, 0), draws(2000, 2, 1), draws(500, 2, 2)
    true = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(x)
    gain = parzen_estimate(x, y, val)[0] - true
    assert -0.2 < float(gain.mean()) < 0


@pytest.mark.parametrize(
    ("x", "y", "sigma", "error", "words"),
    [
        (draws(3, 2, 0), draws(3, 2, 1), 0.0, ConfigError, "positive width"),
        (draws(3, 2, 0), draws(0, 2, 1), 0.1, DataError, "N > 0"),
        (draws(3, 2, 0), draws(3, 4, 1), 0.1, DataError, r"\(3, 4\)"),
        (draws(3, 2, 0), torch.full((2, 2), math.nan), 0.1, DataError, "not a finite number"),
    ],
)
def test_what_cannot_be_is_refused(x, y, sigma, error, words):
    with pytest.raises(error, match=words):
        parzen_log_density(x, y, sigma)


def test_a_width_takes_something_to_choose_by():
    x = draws(3, 2, 0)
    with pytest.raises(ConfigError, match="none"):
        parzen_estimate(x, x, x[:0])
    with pytest.raises(ConfigError, match="none"):
        parzen_estimate(x, x, x, widths=[])
