"""The Fréchet distance faster, and without its bias: the slow way, derivatives, Gaussians whose distance is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation import frechet_bias
from common.evaluation.bank import Bank
from common.evaluation.features import raw_pixels
from common.evaluation.frechet import Moments, frechet_distance, frechet_score
from common.evaluation.frechet_bias import distance, extrapolate, fd_infinity_score, fd_score, fd_scores


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def unit(d: int) -> Moments:
    """The standard normal's moments, exactly: those of 2 d points, on either side of zero along each axis."""
    points = torch.cat([torch.eye(d), -torch.eye(d)]).double()
    return Moments().add(points * math.sqrt((2 * d - 1) / 2))


# -- The distance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "far", "scales", "dead", "equal", "few", "collapsed"])
def test_it_is_the_slower_distance(kind: str) -> None:
    n, d = (31, 30) if kind == "few" else (400, 30)
    x, y = normal(n, d, 1) @ normal(d, d, 2), normal(n, d, 3)
    if kind == "far":
        x += 1e3
    if kind == "scales":
        x, y = x * torch.logspace(-7, 3, d), y * torch.logspace(-7, 3, d)
    if kind == "dead":
        x[:, :7] = 0
        y[:, 5:9] = 0
    if kind == "collapsed":
        x = x[:, :4] @ normal(4, d, 5)
    a, b = Moments().add(x), Moments().add(x if kind == "equal" else y)
    traces = float(a.covariance.trace() + b.covariance.trace())
    for one, other in ((a, b), (b, a)):
        assert distance(one, other) == pytest.approx(frechet_distance(one, other), rel=1e-9, abs=1e-9 * traces)


def test_the_fast_way_is_taken_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(a: Moments, b: Moments) -> float:
        raise AssertionError("the slow way")

    monkeypatch.setattr(frechet_bias, "frechet_distance", slow)
    shifted = Moments().add(normal(50, 5) + 2.0)
    assert distance(shifted, Moments().add(normal(50, 5))) == pytest.approx(20, rel=1e-9)  # 5 dimensions, moved by 2
    with pytest.raises(AssertionError, match="slow"):
        distance(shifted, Moments().add(normal(50, 5) * torch.tensor([1.0, 1, 1, 1, 0])))


def test_what_does_not_compare_is_refused() -> None:
    with pytest.raises(DataError, match="do not compare"):
        distance(Moments("a").add(normal(20, 2)), Moments("b").add(normal(20, 2)))
    with pytest.raises(DataError, match="5 examples are too few"):
        distance(Moments().add(normal(5, 5)), Moments().add(normal(20, 5)))


# -- Its derivative ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", [False, True])
def test_the_influence_of_a_sample_is_the_derivative_by_its_weight(dead: bool) -> None:
    """Against differences of a distance of weighted samples, of which the root is SciPy's."""
    scipy_linalg = pytest.importorskip("scipy.linalg")
    n, d = 300, 4
    x, y = normal(n, d, 1) @ normal(d, d, 2) + 0.5, normal(n, d, 3)
    if dead:
        y[:, 0] = 0
    reference = Moments().add(y)

    def of(weights: Tensor) -> float:
        mean = weights @ x
        c = ((x - mean).T @ (weights[:, None] * (x - mean)) * n / (n - 1)).numpy()
        live = slice(1, None) if dead else slice(None)  # a root of a singular matrix is more than SciPy promises
        c_m = reference.covariance.numpy()
        root = scipy_linalg.sqrtm(c[live, live] @ c_m[live, live])
        return float((mean - reference.mean).square().sum() + np.trace(c) + np.trace(c_m) - 2 * np.trace(root.real))

    value, pull = frechet_bias._Reference.of(reference).influence(x)
    even = torch.full((n,), 1 / n, dtype=torch.float64)
    assert value == pytest.approx(of(even), rel=1e-7)
    assert float(pull.sum()) == pytest.approx(0, abs=1e-9)
    for i in (0, 7, 100):
        step = 1e-5 * (torch.eye(n, dtype=torch.float64)[i] - even)
        slope = (of(even + step) - of(even - step)) / 2e-5
        assert float(pull[i]) == pytest.approx(slope, rel=1e-5, abs=1e-5)


# -- The extrapolation ------------------------------------------------------------------------------------------------


def test_the_line_is_the_weighted_least_squares_line() -> None:
    n = torch.tensor([100.0, 130, 200, 310, 500]).double()
    values = normal(5, 1)[:, 0]
    intercept, slope = (float(part @ values) for part in frechet_bias._fit(n))
    expected = np.polyfit(1 / n.numpy(), values.numpy(), 1, w=n.sqrt().numpy())
    assert (slope, intercept) == pytest.approx(tuple(expected), rel=1e-9)
    straight = 3 + 7 / n
    assert [float(part @ straight) for part in frechet_bias._fit(n)] == pytest.approx([3, 7], rel=1e-9)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.4, 1.5)])
def test_the_known_distance_is_within_the_error(shift: float, scale: float) -> None:
    """Samples of N(shift, scale^2) in 6 dimensions; the distance from N(0, 1) is 6 (shift^2 + (scale - 1)^2)."""
    d, n, repeats = 6, 300, 60
    truth = d * (shift**2 + (scale - 1) ** 2)
    x = normal(repeats * n, d, 5) * scale + shift
    lines = [extrapolate(part, unit(d), generator=seeded(i), subsets=2) for i, part in enumerate(x.split(n))]
    found = torch.tensor([line.intercept for line in lines])
    errors = torch.tensor([line.stderr for line in lines])
    plain = torch.tensor([line.distances[-1] for line in lines])
    off = float(found.mean()) - truth
    assert abs(off) < 3 * float(found.std()) / repeats**0.5
    if not truth:  # elsewhere chance hides the bias
        assert abs(off) < 0.2 * float(plain.mean())
    assert float(((found - truth).abs() < 2 * errors).double().mean()) >= 0.9
    rms = float(errors.square().mean().sqrt())
    if truth:  # variances of the two parts of IF: 4 shift^2 scale^2 and 2 (1 - 1 / scale)^2 scale^4, a dimension
        exact = d * (4 * shift**2 * scale**2 + 2 * (1 - 1 / scale) ** 2 * scale**4) / n
        assert rms == pytest.approx(exact**0.5, rel=0.1)
    assert 0.75 < rms / float(found.std()) < 1.8  # up to the root of 2 too large, and the deviation's own error


def test_subsets_run_through_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """n + 1 different sizes and positions tell each subset; of one size, no sample is in two more than another."""
    taken: list[Tensor] = []

    def influence(self: object, x: Tensor) -> tuple[float, Tensor]:
        taken.append(x[:, 0].long())
        return 3.0 + 5.0 / len(x), torch.ones(len(x), dtype=torch.float64)

    monkeypatch.setattr(frechet_bias._Reference, "influence", influence)
    line = extrapolate(torch.arange(120.0).double()[:, None], unit(1), generator=seeded(), sizes=10, subsets=3)
    assert (line.intercept, line.slope) == pytest.approx((3, 5))
    assert line.sizes[0] == 24
    assert line.sizes[-1] == 120
    assert len(set(line.sizes)) == 10
    assert [len(part) for part in taken] == [size for size in line.sizes[:-1] for _ in range(3)] + [120]
    for i in range(0, 27, 3):
        counts = torch.bincount(torch.cat(taken[i : i + 3]), minlength=120)
        assert counts.max() - counts.min() <= 1
        assert all(len(part.unique()) == len(part) for part in taken[i : i + 3])


@pytest.mark.parametrize(("n", "d", "wanted"), [(99, 3, "100"), (199, 50, "200")])
def test_too_few_samples_for_a_line_are_refused(n: int, d: int, wanted: str) -> None:
    with pytest.raises(DataError, match=f"{n} samples are too few to extrapolate .* it takes {wanted}, for 10 sizes"):
        extrapolate(normal(n, d), unit(d), generator=seeded())
    extrapolate(normal(n + 1, d), unit(d), generator=seeded(), subsets=1)


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"sizes": 9}, {"subsets": 0}):
        with pytest.raises(ConfigError, match="a line is fitted to 10 sizes or more"):
            extrapolate(normal(300, 2), unit(2), generator=seeded(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="3 examples are too few"):
        extrapolate(normal(300, 4), Moments().add(normal(3, 4)), generator=seeded())


# -- Scores -----------------------------------------------------------------------------------------------------------


def banks(n: int = 300, m: int = 500, network: str = "raw-pixels") -> tuple[Bank, Bank]:
    return (
        Bank(network, "samples", "test").add(normal(n, 4, 1) + 0.3),
        Bank("raw-pixels", "MNIST test", "test").add(normal(m, 4, 2)),
    )


def test_the_plain_distance_is_that_of_images() -> None:
    codes = torch.randint(0, 256, (500, 1, 2, 2), generator=seeded(), dtype=torch.uint8)
    raw = raw_pixels((1, 2, 2))
    expected = frechet_score(raw, codes[:200], codes[200:], split="test", generator=seeded(), resamples=200)
    a, b = (Bank(raw.name, "images", "test").add(raw(part)) for part in (codes[:200], codes[200:]))
    found = fd_score(a, b, generator=seeded(), resamples=200)
    assert (found.name, found.n, found.unit) == (expected.name, expected.n, expected.unit)
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert found.stderr == pytest.approx(expected.stderr, rel=0.25)  # of other resamples


def test_scores_say_what_decides_them() -> None:
    fd, inf = fd_scores(*banks(), generator=seeded(), protocol="gamma 2.2", weights="ema")
    assert (fd.name, inf.name) == ("fd[raw-pixels]", "fd_infinity[raw-pixels]")
    for score in (fd, inf):
        assert (score.n, score.split, score.weights, score.kind) == (300, "test", "ema", "estimate")
        assert score.stderr is not None
        assert score.protocol.startswith("300 samples against 500 of MNIST test, features of raw-pixels; ")
        assert score.protocol.endswith("; gamma 2.2")
    assert "error by 50 bootstrap resamples" in fd.protocol
    assert "line in 1/n through 10 sizes from 60 to 300, 4 subsets of each" in inf.protocol
    assert 0 < inf.value < fd.value


def test_scores_depend_on_neither_order_nor_batches() -> None:
    samples, reference = banks()
    mixed = [Bank(b.network, b.source, b.split) for b in (samples, reference)]
    for old, new in zip((samples, reference), mixed, strict=True):
        for part in old.x[torch.randperm(old.n, generator=seeded(9))].split(37):
            new.add(part)
    assert fd_scores(*mixed, generator=seeded(3)) == fd_scores(samples, reference, generator=seeded(3))
    assert fd_scores(*mixed, generator=seeded(4)) != fd_scores(samples, reference, generator=seeded(3))


def test_banks_that_do_not_compare_are_refused() -> None:
    for score in (fd_score, fd_infinity_score):
        with pytest.raises(DataError, match=r"fd.*: features of inception .samples. do not compare"):
            score(*banks(network="inception"), generator=seeded())
        with pytest.raises(DataError, match=r"4 examples of samples are too few: it takes at least 5"):
            score(*banks(n=4), generator=seeded())
    with pytest.raises(ConfigError, match="resamples = 1"):
        fd_score(*banks(), generator=seeded(), resamples=1)
