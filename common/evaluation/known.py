"""Distributions whose distances are known, and repeated measurements of them."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from common.evaluation.likelihood import mean_score
from common.records import Score


def standard_normal(n: int, dims: int, generator: torch.Generator) -> Tensor:
    """n draws of N(0, I): (n, dims) float64."""
    return torch.randn(n, dims, generator=generator, dtype=torch.float64)


def averaged(
    draw: Callable[[torch.Generator], dict[str, float]], repetitions: int, *, seed: int, protocol: str
) -> list[Score]:
    """Scores of independent repetitions: their means, with the standard errors of these.

    Args:
        draw: makes data from a generator, and returns the values of metrics, name -> value in squared units; those of
            kernel distances, whose names begin with "kid" or "mmd", in MMD².
    """
    drawn = [draw(torch.Generator().manual_seed(seed + i)) for i in range(repetitions)]
    how = f"{protocol}, mean of {repetitions} repetitions"
    scores = []
    for name in drawn[0]:
        values = torch.tensor([each[name] for each in drawn], dtype=torch.float64)
        unit = "MMD²" if name.startswith(("kid", "mmd")) else "squared units"
        scores.append(mean_score(values, name, unit=unit, kind="estimate", split="test", protocol=how))
    return scores


def frechet_of_moments(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """The squared Fréchet distance of two distributions by their true means (d,) and covariances (d, d).

    The trace of (C_a C_b)^(1/2) is the sum of the roots of the eigenvalues of L^T C_b L, where C_a = L L^T.

    Raises:
        torch.linalg.LinAlgError: covariance_a is singular.
    """
    root = torch.linalg.cholesky(covariance_a.double())
    overlap = torch.linalg.eigvalsh(root.T @ covariance_b.double() @ root).clamp(min=0).sqrt().sum()
    between = (mean_a - mean_b).double().square().sum()
    return float(between + covariance_a.trace() + covariance_b.trace() - 2 * overlap)


def expected_frechet(dims: int, n: int, m: int) -> float:
    """E of the squared Fréchet distance between n and m draws of one N(mean, I), to first order in 1/n and 1/m.

    The means differ by 2-norm squares of d (1/n + 1/m) in expectation. With sample covariances I + E the rest is
    |E_a - E_b|^2 / 4 to second order in E, and E |E|^2 = (d^2 + d) / (n - 1). Together (d + (d^2 + d) / 4) (1/n + 1/m),
    which is d (d + 5) / 2n for m = n. The next order is smaller by d/n.
    """
    return (dims + (dims**2 + dims) / 4) * (1 / n + 1 / m)


def relu_moments(mean: float, covariance: Tensor, terms: int = 5) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of max(x, 0), x ~ N(mean, covariance) with the same mean everywhere.

    With a = mean / s, max(mean + s z, 0) has the Hermite coefficients c_1 = s Phi(a) and c_k = s phi(a) He_{k-2}(-a),
    and two of them whose z correlate by rho have the covariance sum_k c_k c'_k rho^k / k! (Mehler). The series ends
    after `terms`, which leaves an error of the order of rho^(terms + 1); variances are exact.
    """
    s = covariance.diag().sqrt()
    a, rho = mean / s, covariance / torch.outer(s, s)
    phi, below = torch.exp(-0.5 * a.square()) / math.sqrt(2 * math.pi), torch.special.ndtr(a)
    c = [s * below, *(s * phi * torch.special.hermite_polynomial_he(-a, k) for k in range(terms - 1))]
    found = torch.zeros_like(covariance)
    for k, c_k in enumerate(c, start=1):
        found += torch.outer(c_k, c_k) * rho**k / float(math.factorial(k))
    mu = s * (phi + a * below)
    found.diagonal().copy_(s.square() * ((1 + a.square()) * below + a * phi) - mu.square())
    return mu, found


class RectifiedNormal:
    """max(x, 0) of x ~ N(mean, covariance) with the same mean everywhere (Binkowski et al. 2018 compare such)."""

    def __init__(self, mean: float, covariance: Tensor) -> None:
        self.mean, self.covariance = mean, covariance.double()
        plain = torch.equal(self.covariance, torch.eye(len(covariance), dtype=torch.float64))
        self.root = None if plain else torch.linalg.cholesky(self.covariance)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance, by `relu_moments`."""
        return relu_moments(self.mean, self.covariance)

    def draws(self, n: int, generator: torch.Generator, at_once: int = 5000) -> Iterator[Tensor]:
        """n draws, some at a time: (B, d) float64."""
        for start in range(0, n, at_once):
            z = standard_normal(min(at_once, n - start), len(self.covariance), generator)
            yield (self.mean + (z if self.root is None else z @ self.root.T)).relu()
