"""Precision, recall, density and coverage: a slow reference on hard cases, closed forms, errors that are right."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation import neighbours
from common.evaluation.bank import Bank
from common.evaluation.manifold import Manifold, expected_coverage, manifold, manifold_scores
from common.records import Score


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def grid(n: int, seed: int) -> Tensor:
    return torch.randint(0, 4, (n, 3), generator=seeded(seed)).double()


def slow(Y: Tensor, X: Tensor, k_pr: int, k_dc: int) -> Manifold:
    """The definitions, from all distances one by one."""
    XX, YY, XY = ([[float((a - b).square().sum()) for b in y] for a in x] for x, y in ((X, X), (Y, Y), (X, Y)))

    def rims(table: list[list[float]], k: int) -> list[float]:
        return [sorted(row[:i] + row[i + 1 :])[k - 1] for i, row in enumerate(table)]

    X_pr, X_dc, Y_pr = rims(XX, k_pr), rims(XX, k_dc), rims(YY, k_pr)
    N, M = range(len(X)), range(len(Y))
    return Manifold(
        in_data=torch.tensor([any(XY[i][j] <= X_pr[i] for i in N) for j in M]),
        in_samples=torch.tensor([any(XY[i][j] <= Y_pr[j] for j in M) for i in N]),
        held=torch.tensor([sum(XY[i][j] <= X_dc[i] for i in N) for j in M]),
        covered=torch.tensor([any(XY[i][j] <= X_dc[i] for j in M) for i in N]),
        k_pr=k_pr,
        k_dc=k_dc,
    )


HARD = {
    "plain": (normal(60, 4), normal(50, 4, 1)),
    "shifted": (normal(60, 4) + 1, normal(50, 4, 1)),
    "far from the origin": (1e-3 * normal(60, 4) + 1e6, 1e-3 * normal(50, 4, 1) + 1e6),
    "copies of the data": (torch.cat([normal(50, 4, 1)[:30], normal(50, 4, 1)[:30]]), normal(50, 4, 1)),
    "the data": (normal(50, 4, 1), normal(50, 4, 1)),
    "each six times": (normal(10, 4).repeat(6, 1), normal(10, 4, 1).repeat(6, 1)),
    "a grid far from the origin": (grid(60, 0) + 2.0**40, grid(50, 1) + 2.0**40),
    "one place": (torch.ones(60, 4).double(), normal(50, 4, 1)),
    "a small cloud": (1 + 1e-9 * normal(60, 4), torch.cat([normal(30, 4, 1), 1 + 1e-9 * normal(30, 4, 2)])),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("entries", [8_000_000, 300])
@pytest.mark.parametrize(("k_pr", "k_dc"), [(3, 5), (6, 2)])
def test_every_point_is_judged_as_one_by_one(
    name: str, entries: int, k_pr: int, k_dc: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "ENTRIES", entries)
    found, expected = manifold(*HARD[name], k_pr=k_pr, k_dc=k_dc), slow(*HARD[name], k_pr, k_dc)
    for what in ("in_data", "in_samples", "held", "covered"):
        assert getattr(found, what).tolist() == getattr(expected, what).tolist(), what


def test_values_are_the_means_by_hand() -> None:
    X = torch.tensor([[0.0], [1.0], [2.0], [10.0]]).double()  # balls for k = 1: 1, 1, 1, 8
    Y = torch.tensor([[2.5], [3.5], [30.0]]).double()  # balls for k = 1: 1, 1, 26.5
    found = manifold(Y, X, k_pr=1, k_dc=1)
    assert found.precision == pytest.approx(2 / 3)  # 2.5 and 3.5 are inside that of 10
    assert found.recall == pytest.approx(2 / 4)  # 2 is inside that of 2.5, 10 inside that of 30
    assert found.density == pytest.approx(3 / 3)  # 2.5 is also inside that of 2
    assert found.coverage == pytest.approx(2 / 4)  # 2 and 10


def test_the_data_itself_is_all_inside() -> None:
    X = normal(100, 5)
    found = manifold(X, X)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx((5 + 1) / 5)  # each ball holds its k neighbours and, its rim included, itself


def test_an_outlier_fools_precision_and_recall_but_not_density_and_coverage() -> None:
    X, Y = normal(500, 8), normal(500, 8, 1) * 0.1 + 6  # samples far from the data
    X_out, Y_out = X.clone(), Y.clone()
    X_out[0] = 12.0
    Y_out[0] = -12.0
    without, with_ = manifold(Y, X), manifold(Y_out, X_out)
    assert (without.precision, without.recall, without.density, without.coverage) == (0, 0, 0, 0)
    assert min(with_.precision, with_.recall) > 0.99
    assert with_.density < 1 / 5 + 1e-9  # one ball of N, over k
    assert with_.coverage < 2 / 500 + 1e-9


# -- Closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("N", "M", "k"), [(4, 3, 1), (4, 3, 2), (6, 5, 3), (5, 1, 4), (3, 8, 2)])
def test_expected_coverage_counts_arrangements(N: int, M: int, k: int) -> None:
    """Seen from one point, N - 1 others and M samples come in any order: in which is a sample among the first k?

    Samples before the k-th other are in the ball.
    """
    orders = list(combinations(range(N - 1 + M), N - 1))  # the ranks of the others
    covered = sum(others[k - 1] != k - 1 for others in orders)
    assert expected_coverage(N, M, k) == pytest.approx(covered / len(orders), rel=1e-12)


def test_expected_coverage_nears_its_limit() -> None:
    assert expected_coverage(10**9, 10**9, 5) == pytest.approx(1 - 2**-5, rel=1e-8)
    for k in (0, 7):
        with pytest.raises(ConfigError, match=f"k = {k}, 7 points"):
            expected_coverage(7, 100, k)


@pytest.mark.parametrize("d", [1, 5])
def test_samples_of_the_datas_distribution_have_density_one_and_the_expected_coverage(d: int) -> None:
    N, M, k, draws = 40, 60, 2, 100
    found = [manifold(normal(M, d, 2 * s).exp(), normal(N, d, 2 * s + 1).exp(), k_dc=k) for s in range(draws)]
    density = torch.tensor([each.density for each in found])
    coverage = torch.tensor([each.coverage for each in found])
    assert abs(density.mean() - 1) < 4 * density.std() / draws**0.5
    assert abs(coverage.mean() - expected_coverage(N, M, k)) < 4 * coverage.std() / draws**0.5
    assert coverage.std() / draws**0.5 < 0.012  # so that it is a test


# -- Scores -----------------------------------------------------------------------------------------------------------


def banked(x: Tensor, source: str = "samples", network: str = "net@1") -> Bank:
    return Bank(network, source, "test").add(x)


def scored(Y: Tensor, X: Tensor, **more: object) -> list[Score]:
    settings = {"generator": seeded(), **more}
    return manifold_scores(banked(Y), banked(X, "MNIST test"), **settings)  # type: ignore[arg-type]


def test_scores_say_what_they_depend_on() -> None:
    Y, X = HARD["plain"]
    scores = scored(Y, X, protocol="200 steps", weights="ema", halvings=4)
    assert [score.name for score in scores] == [f"{m}[net@1]" for m in ("precision", "recall", "density", "coverage")]
    found = slow(Y, X, 3, 5)
    assert [score.value for score in scores] == pytest.approx(
        [found.precision, found.recall, found.density, found.coverage], rel=1e-12
    )
    for score, k in zip(scores, (3, 3, 5, 5), strict=True):
        assert (score.n, score.split, score.kind, score.weights) == (60, "test", "estimate", "ema")
        assert score.protocol.startswith(f"60 samples against 50 of MNIST test, features of net@1; k = {k}; ")
        assert score.protocol.endswith("200 steps")
        assert (score.stderr or 0) > 0
    assert "4 halvings" in scores[1].protocol


def test_neither_order_nor_batches_matter_and_the_seed_matters_to_errors_alone() -> None:
    Y, X = HARD["plain"]
    turned = torch.randperm(60, generator=seeded())
    first = scored(Y, X)
    assert first == scored(Y[turned], X.flip(0))
    assert first == manifold_scores(
        banked(Y[turned][:7]).add(Y[turned][7:]), banked(X, "MNIST test"), generator=seeded()
    )
    other = scored(Y, X, generator=seeded(1))
    assert [score.value for score in other] == [score.value for score in first]
    assert other[3].stderr != first[3].stderr


@pytest.mark.parametrize("kind", ["same", "shifted", "half missing"])
def test_errors_are_how_much_other_samples_would_change_it(kind: str) -> None:
    N, M, d, draws = 200, 160, 3, 45
    X = normal(N, d, 999)

    def samples(seed: int) -> Tensor:
        Y = normal(M, d, seed)
        if kind == "half missing":
            Y[:, 0] = Y[:, 0].abs()
        return Y + (0.8 if kind == "shifted" else 0)

    values = torch.tensor(
        [[m.precision, m.recall, m.density, m.coverage] for m in (manifold(samples(s), X) for s in range(draws))]
    )
    stated = torch.tensor([[s.stderr or 0 for s in scored(samples(s), X, halvings=25)] for s in range(100, 108)])
    ratio = stated.mean(0) / values.std(0)  # 45 values tell a spread to one part in nine
    assert ((ratio > 0.7) & (ratio < 1.4)).all(), ratio


def test_what_does_not_compare_is_refused() -> None:
    X = normal(30, 3)
    with pytest.raises(DataError, match="net@2"):
        manifold_scores(banked(X, network="net@2"), banked(X), generator=seeded())
    with pytest.raises(DataError, match="11 examples of samples are too few: it takes at least 12"):
        scored(X[:11], X)
    with pytest.raises(DataError, match="at least 42"):
        scored(X, X, k_pr=20)
    with pytest.raises(ConfigError, match="k = 0"):
        scored(X, X, k_dc=0)
    with pytest.raises(ConfigError, match="halvings = 1"):
        scored(X, X, halvings=1)
