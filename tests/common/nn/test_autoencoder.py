"""A Gaussian autoencoder against quadrature over its one latent variable."""

import math

import pytest
import torch
from torch import Tensor

from common.nn.autoencoder import GaussianAutoencoder

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def model() -> GaussianAutoencoder:
    torch.manual_seed(0)
    model = GaussianAutoencoder(dims=3, latents=1, hidden=(4, 5))
    for parameter in model.decoder.parameters():
        torch.nn.init.normal_(parameter)
    return model


def by_quadrature(model: GaussianAutoencoder, x: Tensor) -> float:
    z = torch.linspace(-8, 8, 4001)[:, None]
    mean, variance = model.mean(z), model.log_var.exp()
    log_p = -0.5 * ((x - mean).square() / variance + (2 * math.pi * variance).log()).sum(1)
    return math.log(float((torch.exp(log_p - z[:, 0].square() / 2) / math.sqrt(2 * math.pi)).sum()) * 0.004)


def test_weights_have_the_likelihood_as_their_mean(model):
    x = torch.rand(2, 3)
    with torch.no_grad():
        w = model.log_weights(x, 200_000, torch.Generator().manual_seed(1)).exp()
        for b in range(2):
            error = float(w[:, b].std()) / len(w) ** 0.5
            assert abs(float(w[:, b].mean()) - math.exp(by_quadrature(model, x[b]))) < 5 * error
            assert error < 0.05 * float(w[:, b].mean())


def test_simulated_data_have_the_decoder_s_mean_and_sigma(model):
    z = torch.tensor([[0.7]]).expand(50_000, 1)
    with torch.no_grad():
        x = model.simulate(z, torch.Generator().manual_seed(2))
        sigma = float((0.5 * model.log_var).exp())
        assert ((x.mean(0) - model.mean(z[:1])[0]).abs() < 5 * sigma / 50_000**0.5).all()
        assert (x.std(0) / sigma - 1).abs().max() < 0.02
