"""What is said of known distributions, against integrals written out and against draws."""

import math

import pytest
import torch
from torch import Tensor

from common.evaluation import known
from common.evaluation.frechet import Moments, frechet_distance

pytestmark = pytest.mark.usefixtures("double")


def covariance(d: int, seed: int) -> Tensor:
    a = torch.randn(d, d, generator=torch.Generator().manual_seed(seed))
    return a @ a.T / d + 0.3 * torch.eye(d)


def by_quadrature(mean: float, c: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of max(x, 0) in two dimensions, on a grid of z with x = mean + L z."""
    step = 0.01
    z = torch.arange(-8, 8, step) + step / 2
    grid = torch.cartesian_prod(z, z)
    weight = torch.exp(-0.5 * grid.square().sum(1)) * step**2 / (2 * math.pi)
    x = (mean + grid @ torch.linalg.cholesky(c).T).relu()
    mu = weight @ x
    return mu, (x * weight[:, None]).T @ x - torch.outer(mu, mu)


@pytest.mark.parametrize("mean", [-0.6, 0.0, 1.0])
def test_moments_of_rectified_normals_are_their_integrals(mean):
    c = torch.tensor([[1.7, 0.4], [0.4, 0.6]])
    mu, found = known.relu_moments(mean, c, terms=30)
    expected_mu, expected = by_quadrature(mean, c)
    assert torch.allclose(mu, expected_mu, atol=1e-5)
    assert torch.allclose(found, expected, atol=1e-5)


def test_draws_have_these_moments_however_many_come_at_once():
    of, n = known.RectifiedNormal(0.5, covariance(3, 0)), 200_000
    x = torch.cat(list(of.draws(n, torch.Generator().manual_seed(1), at_once=30_000)))
    mu, c = known.relu_moments(0.5, covariance(3, 0), terms=30)
    assert x.shape == (n, 3)
    assert bool((x >= 0).all())
    assert ((x.mean(0) - mu).abs() < 5 * (c.diag() / n).sqrt()).all()
    assert (torch.cov(x.T) - c).abs().max() < 0.02
    plain = known.RectifiedNormal(1.0, torch.eye(3))
    assert plain.root is None
    z = known.standard_normal(4, 3, torch.Generator().manual_seed(2))
    assert torch.equal(next(plain.draws(4, torch.Generator().manual_seed(2))), (1 + z).relu())


def test_the_distance_of_moments_is_that_of_two_variances_and_of_rotations():
    one = torch.tensor([[4.0]]), torch.tensor([[9.0]])
    assert known.frechet_of_moments(torch.tensor([1.0]), one[0], torch.tensor([3.0]), one[1]) == pytest.approx(4 + 1)
    a, b = covariance(4, 0), covariance(4, 1)
    zero = torch.zeros(4)
    values, _vectors = torch.linalg.eig(a @ b)  # the trace of the root, by the eigenvalues of the product itself
    expected = float(a.trace() + b.trace() - 2 * values.real.sqrt().sum())
    assert known.frechet_of_moments(zero, a, zero, b) == pytest.approx(expected)
    assert known.frechet_of_moments(zero, b, zero, a) == pytest.approx(expected)
    assert known.frechet_of_moments(zero, a, zero, a) == pytest.approx(0, abs=1e-12)


def test_the_expected_distance_of_two_samples_is_what_draws_have():
    d, n, m = 6, 400, 900

    def draw(generator: torch.Generator) -> dict[str, float]:
        a, b = (Moments().add(known.standard_normal(k, d, generator)) for k in (n, m))
        return {"fd": frechet_distance(a, b)}

    (score,) = known.averaged(draw, 300, seed=0, protocol="test")
    assert score.stderr is not None
    assert abs(score.value - known.expected_frechet(d, n, m)) < 4 * score.stderr + d / n * score.value
    assert score.stderr < 0.02 * score.value
    assert known.expected_frechet(64, 2000, 2000) == pytest.approx(64 * 69 / 4000)


def test_averages_are_means_with_their_errors_and_units():
    values = iter([1.0, 2.0, 6.0])
    scores = known.averaged(
        lambda g: {"fd": next(values), "kid[x]": float(g.initial_seed())}, 3, seed=7, protocol="how"
    )
    assert [s.name for s in scores] == ["fd", "kid[x]"]
    assert scores[0].value == pytest.approx(3)
    assert scores[0].stderr == pytest.approx(math.sqrt(7 / 3))
    assert scores[1].value == pytest.approx(8)
    assert scores[1].unit == "MMD²"
    assert scores[0].unit == "squared units"
    assert scores[0].n == 3
    assert scores[0].protocol == "how, mean of 3 repetitions"
