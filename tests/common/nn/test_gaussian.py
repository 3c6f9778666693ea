"""Gaussians in closed form, against torch's and against the sample they were fitted to."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from common.errors import ConfigError
from common.nn.gaussian import Gaussians


def data(n=400):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=g, dtype=torch.float64) @ torch.randn(6, 6, generator=g, dtype=torch.float64)
    y = torch.randint(3, (n,), generator=g)
    return (x + 3 * y[:, None]).view(n, 1, 2, 3), y


def test_the_log_density_is_that_of_the_sample_moments():
    x, _ = data()
    model = Gaussians((1, 2, 3))
    model.fit(x)
    flat = x.flatten(1)
    reference = MultivariateNormal(flat.mean(0), torch.cov(flat.T, correction=0))
    torch.testing.assert_close(model.log_prob(x), reference.log_prob(flat))
    # At its maximum the mean log-likelihood has a closed form of its own.
    closed = -0.5 * (6 + 6 * math.log(2 * math.pi) + torch.logdet(reference.covariance_matrix))
    torch.testing.assert_close(model.log_prob(x).mean(), closed)


def test_classes_are_an_equal_mixture():
    x, y = data()
    model = Gaussians((1, 2, 3), components=3)
    model.fit(x, y)
    each = []
    for k in range(3):
        flat = x[y == k].flatten(1)
        each.append(MultivariateNormal(flat.mean(0), torch.cov(flat.T, correction=0)).log_prob(x.flatten(1)))
    torch.testing.assert_close(model.log_prob(x), torch.stack(each).exp().mean(0).log())


def test_samples_have_the_moments_and_the_temperature_scales_them():
    x, y = data()
    model = Gaussians((1, 2, 3), components=3)
    model.fit(x, y)
    drawn = model.sample(60_000, generator=torch.Generator().manual_seed(1)).flatten(1)
    mean, second = model.mean.mean(0), (model.L @ model.L.mT + model.mean[:, :, None] * model.mean[:, None]).mean(0)
    expected = second - torch.outer(mean, mean)
    scale = expected.diagonal().sqrt()
    assert ((drawn.mean(0) - mean).abs() / scale < 5 / math.sqrt(60_000)).all()
    assert ((torch.cov(drawn.T) - expected).abs() / torch.outer(scale, scale)).max() < 0.05
    cold = model.sample(50, temperature=0.0, generator=torch.Generator().manual_seed(1)).flatten(1)
    assert (cold[:, None] - model.mean).abs().amax(2).amin(1).max() == 0


def test_a_singular_covariance_is_refused():
    with pytest.raises(ConfigError, match="singular"):
        Gaussians((6,)).fit(torch.ones(20, 6))
