"""Neighbours: the fast way says of every comparison what working out each distance by itself would have said."""

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError
from common.evaluation import neighbours
from common.evaluation.neighbours import Points, bound, direct, first_type, frame, gaps, lower_bounds, nearest, radii


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(n: int, seed: int = 0) -> Tensor:
    """Points with few coordinates, so that many distances are equal."""
    return torch.randint(0, 4, (n, 3), generator=torch.Generator().manual_seed(seed)).double()


def with_outlier(x: Tensor, size: float) -> Tensor:
    return torch.cat([x, torch.full((1, x.shape[1]), size, dtype=torch.float64)])


HARD = {
    "plain": (normal(150, 10), normal(200, 10, 1)),
    "one dimension": (normal(150, 1), normal(150, 1, 1)),
    "many dimensions": (normal(40, 3000), normal(50, 3000, 1)),
    "far from the origin": (1e-3 * normal(150, 8) + 1e6, 1e-3 * normal(120, 8, 1) + 1e6),
    "each five times": (normal(30, 5).repeat(5, 1), normal(25, 5).repeat(5, 1)),
    "the same points": (normal(150, 6), normal(150, 6)),
    "a grid": (grid(150), grid(160, 1)),
    "a grid far from the origin": (grid(150) + 2.0**40, grid(160, 1) + 2.0**40),
    "all in one place": (torch.ones(60, 5).double(), torch.ones(70, 5).double()),
    "one side in one place": (torch.ones(60, 5).double(), normal(70, 5)),
    "a small cloud in a wide one": (1 + 1e-9 * normal(60, 5), torch.cat([normal(60, 5, 1), 1 + 1e-9 * normal(40, 5)])),
    "an outlier here": (with_outlier(normal(60, 4), 1e25), normal(60, 4, 1)),
    "an outlier there": (normal(60, 4), with_outlier(normal(60, 4, 1), 1e25)),
    "tiny": (1e-30 * normal(60, 4), 1e-30 * normal(60, 4, 1)),
    "huge": (1e30 * normal(60, 4), 1e30 * normal(60, 4, 1)),
    "zero": (torch.zeros(20, 4).double(), torch.zeros(30, 4).double()),
}
hard = pytest.mark.parametrize("name", HARD)


@pytest.fixture(params=["at once", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows in one block, or a few in each."""
    if request.param == "in pieces":
        monkeypatch.setattr(neighbours, "ENTRIES", 1000)


def slow(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (N, M), each by itself."""
    return torch.stack([(row - y).square().sum(1) for row in x])


@hard
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bounds_hold(name: str, dtype: torch.dtype) -> None:
    x, y = HARD[name]
    a, b = Points(x, *frame(y, x)), Points(y, *frame(y, x))
    lower = lower_bounds(a, torch.arange(a.n), b, dtype).double()
    distance = slow(x, y) * a.scale**2
    i, j = torch.arange(a.n)[:, None], torch.arange(b.n)
    assert (lower <= distance).all()
    assert (distance <= lower + gaps(a, i, b, j, dtype)).all()


def test_the_bounds_say_something() -> None:
    assert bound(2048, torch.float32) < 2e-4
    assert bound(2048, torch.float64) < 2e-12


@hard
def test_the_nearest(name: str, pieces: None) -> None:
    x, y = HARD[name]
    expected = slow(x, y).min(1)
    distance, index = nearest(x, y)
    torch.testing.assert_close(distance, expected.values.sqrt(), rtol=1e-12, atol=0)
    assert index.tolist() == [int((row == row.min()).nonzero()[0]) for row in slow(x, y)]  # the first of equals


@hard
def test_the_kth_nearest_others(name: str, pieces: None) -> None:
    x = HARD[name][1]
    points = Points(x, *frame(x, x))
    others = (slow(x, x) * points.scale**2).fill_diagonal_(torch.inf).sort(1)
    for ks in ((3, 5), (5, 3), (1, x.shape[0] - 1)):
        found = radii(points, ks, listed=8)
        for k in ks:
            assert torch.equal(found.squared[k], others.values[:, k - 1]), k


def test_the_list_of_the_near_is_who_is_near() -> None:
    x = HARD["plain"][1]
    points = Points(x, *frame(x, x))
    others = (slow(x, x) * points.scale**2).fill_diagonal_(torch.inf).sort(1)
    found = radii(points, (2,), listed=9)
    assert torch.equal(found.near, others.indices[:, :9])
    torch.testing.assert_close(found.rough.double(), others.values[:, :9], rtol=1e-4, atol=0)


def test_few_distances_are_worked_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    worked_out = []
    each = neighbours.direct_each
    monkeypatch.setattr(neighbours, "direct_each", lambda a, i, b, j: worked_out.append(len(i)) or each(a, i, b, j))
    x = normal(2000, 64)
    radii(Points(x, *frame(x, x)), (3,))
    nearest(x, normal(2000, 64, 1))
    assert sum(worked_out) < 2.2 * 2000  # of 8 million; 4000 are needed at least
    worked_out.clear()
    nearest(normal(50, 5).repeat(40, 1), normal(50, 5).repeat(40, 1))  # 80,000 pairs are the nearest
    assert sum(worked_out) <= 50


@pytest.mark.parametrize("d", [3, 84, 60_000])
def test_a_distance_does_not_depend_on_its_company(d: int) -> None:
    x, y = normal(6, d), normal(6, d, 1)
    a, b = Points(x, *frame(x, y)), Points(y, *frame(x, y))
    i = torch.arange(6)
    together = direct(a, i, b, i)
    assert torch.equal(together, direct(b, i, a, i))
    assert torch.equal(together, torch.cat([direct(a, i[k : k + 1], b, i[k : k + 1]) for k in range(6)]))
    assert torch.equal(together, torch.cat([direct(a, i[:5], b, i[:5]), direct(a, i[5:], b, i[5:])]))


def test_products_that_are_less_than_float32_are_not_relied_on() -> None:
    assert first_type(2048) == torch.float32
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert first_type(2048) == torch.float64
    finally:
        torch.set_float32_matmul_precision(before)
    assert first_type(3 * 256 * 256) == torch.float64


def test_what_there_is_not_is_refused() -> None:
    x = normal(5, 2)
    with pytest.raises(ConfigError, match="k = 5: 5 points have 1 to 4 neighbours"):
        radii(Points(x, *frame(x, x)), (3, 5))
    with pytest.raises(ConfigError, match="k = 0"):
        radii(Points(x, *frame(x, x)), (0,))
    with pytest.raises(ConfigError, match="no points"):
        nearest(x, x[:0])
