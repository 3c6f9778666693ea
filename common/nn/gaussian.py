"""Gaussians with a full covariance, one for all examples or one for each class, fitted in closed form: the baseline
that every density model has to beat."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from common.errors import ConfigError


class Gaussians(nn.Module):
    """p(x) = 1/K sum_k N(x; mean_k, L_k L_k^T), for x of any shape (B, *shape); K = 1 is a Gaussian.

    In float64: covariances of pixels are badly conditioned. What is fitted are buffers, there is nothing to train.
    """

    def __init__(self, shape: tuple[int, ...], components: int = 1) -> None:
        super().__init__()
        self.shape, D = shape, math.prod(shape)
        self.mean: Tensor
        self.L: Tensor
        self.register_buffer("mean", torch.zeros(components, D, dtype=torch.float64))
        self.register_buffer("L", torch.eye(D, dtype=torch.float64).repeat(components, 1, 1))

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor | None = None) -> None:
        """Maximum likelihood: mean and covariance (divided by n) of the examples x (N, *shape) of each class y (N,).

        Raises:
            ConfigError: there are too few different examples of a class for a density.
        """
        for k in range(len(self.mean)):
            chosen = (x if y is None else x[y == k]).flatten(1).double()
            mean = chosen.mean(0)
            covariance = (chosen - mean).T @ (chosen - mean) / len(chosen)
            L, failed = torch.linalg.cholesky_ex(covariance)
            if int(failed) or not bool(L.isfinite().all()):
                raise ConfigError(
                    f"A covariance of {chosen.shape[1]} dimensions cannot be fitted to {len(chosen)} examples: "
                    "it is singular. Use more examples, or noise on each dimension."
                )
            self.mean[k], self.L[k] = mean, L

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (B, *shape) -> (B,) nats, float64."""
        x = x.flatten(1).double()
        constant = 0.5 * x.shape[1] * math.log(2 * math.pi)
        each = []
        for mean, L in zip(self.mean, self.L, strict=True):
            z = torch.linalg.solve_triangular(L, (x - mean).T, upper=False)
            each.append(-0.5 * z.square().sum(0) - L.diagonal().log().sum() - constant)
        return torch.stack(each).logsumexp(0) - math.log(len(each))

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """n draws (n, *shape), the standard deviations times `temperature`."""
        k = torch.randint(len(self.mean), (n,), generator=generator, device=self.mean.device)
        z = torch.randn(n, self.mean.shape[1], generator=generator, device=self.mean.device, dtype=torch.float64)
        x = self.mean[k]
        for j, L in enumerate(self.L):
            x[k == j] += temperature * z[k == j] @ L.T
        return x.view(n, *self.shape)
