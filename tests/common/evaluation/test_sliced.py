"""Sliced Wasserstein: optimal transport found the slow way, closed forms, duality, an error that is right."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation import sliced
from common.evaluation.bank import Bank
from common.evaluation.sliced import directions, sliced_wasserstein, sliced_wasserstein_score, wasserstein


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 6), (3, 7), (12, 4), (1, 5), (6, 1)])
def test_transport_along_a_line_is_the_best_assignment(n: int, m: int, p: int) -> None:
    a, b = normal(n, 3), normal(m, 3, 1) * 2 + 0.5
    a[0] = a[-1]  # a duplicate
    found = wasserstein(a, b, p)
    both = math.lcm(n, m)  # as many equal pieces on both sides, and the best of all pairings
    for column in range(3):
        pieces_a = a[:, column].repeat_interleave(both // n)
        pieces_b = b[:, column].repeat_interleave(both // m)
        cost = (pieces_a[:, None] - pieces_b).abs().pow(p).numpy()
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        assert float(found[column]) == pytest.approx(cost[rows, columns].mean(), rel=1e-12)


def test_many_unequal_numbers_agree_with_scipy() -> None:
    a, b = normal(317, 1), normal(450, 1, 1).exp()
    expected = scipy.stats.wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy())
    assert float(wasserstein(a, b, 1)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("n", "m"), [(8, 8), (6, 9), (5, 7), (40, 3)])
def test_the_potential_solves_the_dual_problem(n: int, m: int, p: int) -> None:
    """Kantorovich: phi, with psi_j = min_i |a_i - b_j|^p - phi_i, reaches the cost of transport, or is not optimal."""
    a, b = normal(n, 1).sort(0).values, (normal(m, 1, 1) * 1.5 + 0.3).sort(0).values
    phi = sliced._potential(a, b, p)[:, 0]
    psi = ((a - b.T).abs().pow(p) - phi[:, None]).min(0).values
    assert float(phi.mean() + psi.mean()) == pytest.approx(float(wasserstein(a, b, p)), rel=1e-12)
    assert float(phi.mean()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (4, 8), (6, 3)])
@pytest.mark.parametrize("p", [1, 2])
def test_the_potential_does_not_know_left_from_right(n: int, m: int, p: int) -> None:
    """Of several that solve the dual problem, where steps meet, it is the one in their middle."""
    a, b = (normal(k, 1, k).sort(0).values for k in (n, m))
    mirrored = sliced._potential(-a.flip(0), -b.flip(0), p).flip(0)
    assert torch.allclose(mirrored, sliced._potential(a, b, p), atol=1e-12)


def test_directions_are_uniform_on_the_sphere() -> None:
    theta = directions(20_000, 3, seeded())
    torch.testing.assert_close(theta.norm(dim=1), torch.ones(20_000).double())
    torch.testing.assert_close(theta.T @ theta / 20_000, torch.eye(3).double() / 3, rtol=0, atol=0.01)
    assert scipy.stats.kstest(theta[:, 0].numpy(), "uniform", (-1, 2)).pvalue > 1e-3  # Archimedes: for d = 3


@pytest.mark.parametrize("p", [1, 2])
def test_a_shift_of_all_is_its_length_along_each_direction(p: int) -> None:
    x, delta = normal(50, 4), torch.tensor([3.0, 0.0, -4.0, 0.0]).double()
    value, _ = sliced_wasserstein(x + delta, x, generator=seeded(), p=p, slices=200)
    expected = (directions(200, 4, seeded()) @ delta).abs().pow(p).mean() ** (1 / p)
    assert value == pytest.approx(float(expected), rel=1e-10)
    many, _ = sliced_wasserstein(x + delta, x, generator=seeded(1), p=2, slices=4000)
    assert many == pytest.approx(5 / 4**0.5, abs=0.08)  # |delta| / sqrt(d), within 4 errors of 4000 directions


def test_gaussians_have_a_closed_form() -> None:
    """Along every direction N(theta . delta, s^2) against N(0, 1): W_2^2 = (theta . delta)^2 + (s - 1)^2."""
    n, d, s = 3000, 5, 1.5
    delta = torch.tensor([1.0, -1.0, 0.0, 0.5, 0.0]).double()
    value, stderr = sliced_wasserstein(normal(n, d) * s + delta, normal(n, d, 1), generator=seeded(), slices=200)
    expected = math.sqrt(float(delta.square().sum()) / d + (s - 1) ** 2)
    assert abs(value - expected) < 4 * math.sqrt(2) * stderr  # the reference varies as well


def test_equal_sets_are_at_no_distance() -> None:
    x = normal(30, 4)
    assert sliced_wasserstein(x, x.flip(0), generator=seeded()) == (0, 0)
    value, _ = sliced_wasserstein(x.repeat(3, 1), x, generator=seeded())
    assert value < 1e-12  # each three times, weighing as much


@pytest.mark.parametrize("p", [1, 2])
def test_the_error_is_how_much_other_samples_and_directions_would_change_it(p: int) -> None:
    reference = normal(150, 4, 999)
    found = torch.tensor(
        [
            sliced_wasserstein(normal(200, 4, s) * 0.8 + 0.3, reference, generator=seeded(s), p=p, slices=30)
            for s in range(120)
        ]
    )
    ratio = float(found[:, 1].square().mean().sqrt() / found[:, 0].std())
    assert 0.82 < ratio < 1.2  # 120 values tell a spread to one part in 15


def test_few_directions_are_a_part_of_the_error() -> None:
    x = normal(1000, 10)
    y = x.clone()
    y[:, 0] += 3
    stated = [sliced_wasserstein(y, x, generator=seeded(), slices=slices)[1] for slices in (10, 300)]
    assert stated[0] > 3 * stated[1]
    values = [sliced_wasserstein(y[:300], x[:300], generator=seeded(s), slices=10)[0] for s in range(60)]
    assert 0.6 < stated[0] / float(np.std(values, ddof=1)) < 1.6


def banked(x: Tensor, source: str = "samples", network: str = "net@1") -> Bank:
    return Bank(network, source, "test").add(x)


def test_a_score_says_what_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = normal(40, 3) + 1, normal(30, 3, 1)
    first, shuffled = (
        sliced_wasserstein_score(banked(each), banked(x, "MNIST test"), generator=seeded(), p=1, slices=50)
        for each in (y, y.flip(0))
    )
    assert first == shuffled
    assert first.name == "sliced_wasserstein[net@1]"
    assert (first.n, first.split, first.unit, first.kind) == (40, "test", "distance", "estimate")
    assert first.protocol == (
        "40 samples against 30 of MNIST test, features of net@1; SW_1 over 50 directions, error by the delta method"
    )
    monkeypatch.setattr(sliced, "ENTRIES", 100)  # one direction at a time
    again = sliced_wasserstein_score(banked(y), banked(x, "MNIST test"), generator=seeded(), p=1, slices=50)
    assert again.value == pytest.approx(first.value, rel=1e-12)
    assert again.stderr == pytest.approx(first.stderr, rel=1e-9)


def test_what_cannot_be_is_refused() -> None:
    x = normal(10, 2)
    with pytest.raises(ConfigError, match="p = 3"):
        sliced_wasserstein(x, x, generator=seeded(), p=3)
    with pytest.raises(ConfigError, match="slices = 1"):
        sliced_wasserstein(x, x, generator=seeded(), slices=1)
    with pytest.raises(DataError, match="net@2"):
        sliced_wasserstein_score(banked(x), banked(x, network="net@2"), generator=seeded())
