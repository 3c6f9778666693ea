"""A small autoencoder with a Gaussian decoder: a density of images to try estimates of its likelihood on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.distributions import normal_log_prob, standard_normal_log_prob
from common.nn.dense import dense


class GaussianAutoencoder(nn.Module):
    """p(z) = N(0, I), p(x|z) = N(x; f(z), sigma^2 I) with one sigma for all, and a diagonal Gaussian q(z|x).

    f is a sigmoid of tanh layers; sigma is learnt with the rest.

    Args:
        dims: D of x, in [0, 1].
        latents: H of z.
        hidden: units of the decoder's layers; the encoder has two layers of the last number.
    """

    def __init__(self, dims: int, latents: int, hidden: Sequence[int]) -> None:
        super().__init__()
        wide = hidden[-1]
        self.encoder = dense((dims, wide, wide, 2 * latents), nn.Tanh)
        self.decoder = dense((latents, *hidden, dims), nn.Tanh)
        self.log_var = nn.Parameter(torch.tensor(-3.0))  # log sigma^2

    def mean(self, z: Tensor) -> Tensor:
        """f(z), (..., H) -> (..., D)."""
        return torch.sigmoid(self.decoder(z))

    def log_likelihood(self, x_BD: Tensor, z_KBH: Tensor) -> Tensor:
        """log p(x|z), (k, B) nats."""
        return normal_log_prob(x_BD, self.mean(z_KBH), self.log_var.expand(x_BD.shape[-1]))

    def log_weights(self, x_BD: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """log p(x, z) - log q(z|x) of k draws from q: (k, B) nats; their mean is the evidence lower bound."""
        mean, log_var = self.encoder(x_BD).chunk(2, -1)
        eps_KBH = torch.randn((k, *mean.shape), generator=generator, dtype=x_BD.dtype, device=x_BD.device)
        z_KBH = mean + torch.exp(0.5 * log_var) * eps_KBH
        log_q: Tensor = standard_normal_log_prob(eps_KBH) - 0.5 * log_var.sum(-1)
        return standard_normal_log_prob(z_KBH) + self.log_likelihood(x_BD, z_KBH) - log_q

    def simulate(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """x ~ p(x|z), (..., H) -> (..., D)."""
        mean = self.mean(z)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + torch.exp(0.5 * self.log_var) * noise
