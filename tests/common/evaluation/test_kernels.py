"""Kernel distances: loops over pairs, distributions whose MMD is known, and errors that are as large as they say."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation import kernels
from common.evaluation.bank import Bank
from common.evaluation.kernels import (
    gaussian,
    kid,
    kid_of_subsets,
    kid_score,
    median_distance,
    mmd_score,
    mmd_squared,
    polynomial,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


# -- The estimate -----------------------------------------------------------------------------------------------------


def _poly(x: list[float], y: list[float]) -> float:
    return (math.fsum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def _gauss(x: list[float], y: list[float]) -> float:
    square = math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    return (math.exp(-square / (2 * 0.7**2)) + math.exp(-square / (2 * 3**2))) / 2


@pytest.mark.parametrize("block", [1, 3, 1024])
@pytest.mark.parametrize(("kernel", "plain"), [(polynomial, _poly), (gaussian((0.7, 3.0)), _gauss)])
def test_it_is_the_mean_over_pairs(
    block: int, kernel: kernels.Kernel, plain: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "BLOCK", block)
    x, y = normal(7, 3, 1), normal(5, 3, 2) + 0.5
    k = plain
    assert callable(k)
    within = [
        math.fsum(k(a, b) for a, b in itertools.permutations(side.tolist(), 2)) / (len(side) * (len(side) - 1))
        for side in (x, y)
    ]
    across = math.fsum(k(a, b) for a in x.tolist() for b in y.tolist()) / 35
    assert mmd_squared(x, y, kernel).value == pytest.approx(within[0] + within[1] - 2 * across, rel=1e-12)


@pytest.mark.parametrize("block", [1, 3, 5])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the value nor its error: those to the right of the diagonal count twice in both."""
    x, y = normal(7, 3, 1), normal(5, 3, 2) + 0.5
    whole = mmd_squared(x, y, polynomial)
    monkeypatch.setattr(kernels, "BLOCK", block)
    cut = mmd_squared(x, y, polynomial)
    assert (cut.value, cut.stderr) == pytest.approx((whole.value, whole.stderr), rel=1e-12)


def test_the_variance_is_the_unbiased_one_of_a_u_statistic() -> None:
    """Against sums over different examples, written as they are defined."""
    n = 6
    h = normal(n, n) + 2 * normal(n, 1, 1)  # rows differ, or zeta_1 is taken for zero
    h = (h + h.T + 1).fill_diagonal_(0)
    pairs = list(itertools.permutations(range(n), 2))
    four = [h[i, j] * h[k, l] for i, j in pairs for k, l in pairs if len({i, j, k, l}) == 4]
    three = [h[i, j] * h[i, k] for i, j, k in itertools.permutations(range(n), 3)]
    two = [h[i, j] ** 2 for i, j in pairs]
    mean_squared, first, second = (float(torch.stack(terms).mean()) for terms in (four, three, two))
    variance = (4 * (n - 2) * (first - mean_squared) + 2 * (second - mean_squared)) / (n * (n - 1))
    assert first > mean_squared
    assert variance > 0
    found = kernels._u_statistic(h.sum(1), float(h.square().sum()))
    assert found.stderr == pytest.approx(variance**0.5, rel=1e-9)


def test_polynomial_distance_of_known_moments() -> None:
    """In one dimension (x y + 1)^3 sees the first three moments: MMD^2 = sum of C(3, k) (difference of E x^k)^2."""
    p, q = torch.tensor([0.3, 0.7]), torch.tensor([0.6, 0.4])
    values = torch.tensor([-1.0, 2.0])
    exact = sum(math.comb(3, k) * float((p - q) @ values**k) ** 2 for k in (1, 2, 3))
    draw = seeded(4)
    x, y = (values[torch.multinomial(w, 1500, True, generator=draw)][:, None].double() for w in (p, q))
    found = mmd_squared(x, y, polynomial)
    other = mmd_squared(y, x, polynomial).stderr
    assert abs(found.value - exact) < 3 * math.hypot(found.stderr, other)
    assert found.stderr < 0.2 * exact


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("name", ["polynomial", "gaussian"])
def test_errors_are_the_spread_over_samples(shift: float, name: str) -> None:
    """New samples, the same reference: the mean variance stated is that of the values, near and far from zero."""
    kernel = polynomial if name == "polynomial" else gaussian((2.0,))
    y, draws = normal(40, 3, 1), normal(600 * 12, 3, 2) + shift
    found = [mmd_squared(x, y, kernel) for x in draws.split(12)]
    values, errors = (torch.tensor([getattr(e, key) for e in found]).double() for key in ("value", "stderr"))
    assert float(errors.square().mean() / values.var()) == pytest.approx(1, abs=0.25)


def test_gaussian_distance_in_closed_form() -> None:
    """N(0, 1) and N(s, 1): E exp(-(x - y)^2 / 2 w^2) is known, and the mean of estimates from six samples each."""
    w, s, y = 1.5, 1.0, normal(400, 1, 3)
    spread = w**2 + 2
    exact = 2 * (w**2 / spread) ** 0.5 * (1 - math.exp(-(s**2) / (2 * spread)))
    values = torch.tensor([mmd_squared(x, y, gaussian((w,))).value for x in (normal(1200, 1, 4) + s).split(6)])
    reference = mmd_squared(y, normal(400, 1, 5) + s, gaussian((w,))).stderr  # of the reference's part
    assert abs(float(values.mean()) - exact) < 3 * math.hypot(float(values.std()) / 200**0.5, reference)


def test_gaussian_distance_does_not_see_where_both_are() -> None:
    x, y = normal(30, 4, 1), normal(30, 4, 2)
    far = mmd_squared((x + 2.0**27), (y + 2.0**27), gaussian((1.0,))).value  # in steps of 3e-8 there
    assert far == pytest.approx(mmd_squared(x, y, gaussian((1.0,))).value, abs=1e-7)


def test_equal_distributions_are_at_zero_on_average_and_below_it_half_the_time() -> None:
    values = torch.tensor(
        [kid(x, y) for x, y in zip(normal(2000, 2, 1).split(20), normal(2000, 2, 2).split(20), strict=True)]
    )
    assert abs(float(values.mean())) < 3 * float(values.std()) / 10
    assert 0.3 < float((values < 0).double().mean()) < 0.9


# -- Subsets and widths -----------------------------------------------------------------------------------------------


def test_subsets_are_seeded_and_average_to_all_pairs() -> None:
    x, y = normal(60, 3, 1), normal(50, 3, 2) + 0.4
    found = kid_of_subsets(x, y, generator=seeded(1), subsets=100, size=20)
    assert torch.equal(found[:3], kid_of_subsets(x, y, generator=seeded(1), subsets=3, size=20))
    assert not torch.equal(found[:3], kid_of_subsets(x, y, generator=seeded(2), subsets=3, size=20))
    assert abs(float(found.mean()) - kid(x, y)) < 3 * float(found.std()) / 10
    whole = kid_of_subsets(x[:50], y, generator=seeded(1), subsets=2, size=50)
    # Without replacement: each is all of it.
    torch.testing.assert_close(whole, torch.full((2,), kid(x[:50], y), dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["features", "far", "large", "equal"])
def test_subsets_are_as_precise_as_all_pairs_in_float64(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-6 of the value, or where it is all but 0, of its error; by float32 products where these will do."""
    monkeypatch.setattr(kernels, "STRIP", 37)  # the last strip is shorter, and has nothing to its right
    mix = normal(20, 64, 3) / 4
    x, y = ((normal(150, 20, seed) @ mix).relu() + 0.1 * normal(150, 64, seed + 5) for seed in (1, 2))
    if kind != "equal":
        x += 0.3
    if kind == "far":
        x, y = x + 100, y + 100
    if kind == "large":
        x, y = 1e5 * x, 1e5 * y
    assert (kernels._Centred.of(x, y) is None) == (kind in ("far", "large"))
    found = kid_of_subsets(x, y, generator=seeded(), subsets=3, size=100)
    draw = seeded()
    for value in found.tolist():
        i, j = (torch.randperm(150, generator=draw)[:100] for _ in "xy")
        exact = mmd_squared(x[i], y[j], polynomial)
        assert value == pytest.approx(exact.value, rel=1e-6, abs=1e-6 * exact.stderr)


def test_the_width_is_the_references_median_distance() -> None:
    y = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]).double()  # distances 5, 1, and the root of 18
    assert median_distance(y) == pytest.approx(18**0.5)
    assert median_distance(normal(1500, 1), most=1500) == pytest.approx(median_distance(normal(1500, 1)), rel=0.1)
    with pytest.raises(DataError, match="median distance, the kernel's width, is 0"):
        median_distance(torch.ones(5, 2).double())


# -- Scores -----------------------------------------------------------------------------------------------------------


def banks(n: int = 60, m: int = 70, network: str = "raw-pixels") -> tuple[Bank, Bank]:
    return (
        Bank(network, "samples", "test").add(normal(n, 3, 1) + 0.5),
        Bank("raw-pixels", "MNIST test", "test").add(normal(m, 3, 2)),
    )


def test_scores_say_what_decides_them() -> None:
    samples, reference = banks()
    whole = kid_score(samples, reference, generator=seeded(), protocol="gamma 2.2", weights="ema")
    parts = kid_score(samples, reference, generator=seeded(), subsets=50, subset_size=20)
    other = mmd_score(samples, reference, generator=seeded())
    for score, name in ((whole, "kid"), (parts, "kid"), (other, "mmd")):
        assert (score.name, score.n, score.unit, score.split) == (f"{name}[raw-pixels]", 60, "MMD²", "test")
        assert score.protocol.startswith("60 samples against 70 of MNIST test, features of raw-pixels; ")
        assert score.stderr is not None
        assert score.stderr > 0
    assert whole.value == kid(samples.x, reference.x)
    assert (whole.weights, whole.protocol.endswith("over samples; gamma 2.2")) == ("ema", True)
    assert "unbiased, all pairs" in whole.protocol
    assert "50 subsets of 20" in parts.protocol
    drawn = kid_of_subsets(samples.x, reference.x, generator=seeded(), subsets=50, size=20)
    assert parts.value == float(drawn.mean())
    assert parts.stderr == pytest.approx(math.hypot(whole.stderr or 0, float(drawn.std()) / 50**0.5))
    median = median_distance(reference.x)
    assert f"0.5, 1, 2 times the reference's median distance {median:.6g}" in other.protocol
    widths = gaussian((median / 2, median, 2 * median))
    assert other.value == pytest.approx(mmd_squared(samples.x, reference.x, widths).value, rel=1e-12)


def test_scores_depend_on_neither_order_nor_batches() -> None:
    samples, reference = banks()
    mixed = [Bank(b.network, b.source, b.split) for b in (samples, reference)]
    for old, new in zip((samples, reference), mixed, strict=True):
        for part in old.x[torch.randperm(old.n, generator=seeded(9))].split(13):
            new.add(part)
    for score in (
        lambda a, b: kid_score(a, b, generator=seeded()),
        lambda a, b: kid_score(a, b, generator=seeded(), subsets=3, subset_size=20),
        lambda a, b: mmd_score(a, b),
    ):
        assert score(*mixed) == score(samples, reference)


def test_what_cannot_be_is_refused() -> None:
    for score in (kid_score, mmd_score):
        with pytest.raises(DataError, match="features of inception"):
            score(*banks(network="inception"), generator=seeded())
        with pytest.raises(DataError, match="3 examples of samples are too few: it takes at least 4"):
            score(*banks(n=3), generator=seeded())
    with pytest.raises(DataError, match="subsets of 1,000 of 60 samples and 70"):
        kid_score(*banks(), generator=seeded(), subsets=100)
    with pytest.raises(ConfigError, match="subsets = 1"):
        kid_score(*banks(), generator=seeded(), subsets=1)
    for scales in ((), (1.0, 0.0)):
        with pytest.raises(ConfigError, match="widths of kernels are above zero"):
            mmd_score(*banks(), scales=scales)
    with pytest.raises(DataError, match="3 samples and 9 of the reference"):
        mmd_squared(normal(3, 2), normal(9, 2), polynomial)
