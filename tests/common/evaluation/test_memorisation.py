"""Memorisation: a test that cries wolf as often as it says, and finds copies that were planted."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation.bank import Bank
from common.evaluation.memorisation import (
    copies,
    copies_score,
    copying,
    copying_score,
    copying_scores,
    least,
    nearest,
    rank,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def banked(x: Tensor, source: str, split: str = "test", network: str = "net@1") -> Bank:
    return Bank(network, source, split).add(x)


def scored(samples: Tensor, train: Tensor, heldout: Tensor, **more: object) -> tuple[float, float]:
    z, share = copying_scores(
        banked(samples, "samples"),
        banked(train, "MNIST train", "train"),
        banked(heldout, "MNIST test"),
        **more,  # type: ignore[arg-type]
    )
    return z.value, share.value


# -- The statistics of two sets of distances --------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (10, 90), (1, 30)])
def test_z_is_that_of_the_mann_whitney_test(n: int, m: int, ties: bool) -> None:
    a, b = normal(n, 1)[:, 0], normal(m, 1, 1)[:, 0] + 0.4
    if ties:
        a, b = (2 * a).round(), (2 * b).round()
    expected = scipy.stats.mannwhitneyu(
        a.numpy(), b.numpy(), alternative="less", method="asymptotic", use_continuity=False
    )
    assert scipy.stats.norm.cdf(copying(a, b)) == pytest.approx(expected.pvalue, rel=1e-9)
    assert copying(a, b) == pytest.approx(-copying(b, a), rel=1e-9)


def test_equal_distances_say_nothing() -> None:
    assert copying(torch.zeros(5).double(), torch.zeros(7).double()) == 0


def test_all_nearer_is_as_far_below_zero_as_there_is() -> None:
    n, m = 30, 50
    z = copying(torch.arange(n).double(), torch.arange(n, n + m).double())
    assert z == pytest.approx(-(n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5, rel=1e-12)


@pytest.mark.parametrize(("m", "share", "j"), [(99, 0.01, 1), (98, 0.01, 0), (198, 0.01, 1), (199, 0.01, 2)])
def test_the_rim_is_a_smallest_distance_of_held_out_examples(m: int, share: float, j: int) -> None:
    assert rank(m, share) == j
    heldout = torch.arange(1, m + 1).double()[torch.randperm(m, generator=seeded())]
    if j == 0:
        with pytest.raises(DataError, match=f"{m} held-out examples .* takes 99 or more"):
            copies(heldout, heldout, share)
    else:
        assert copies(torch.tensor([j - 0.5, j, j + 0.5]).double(), heldout, share).tolist() == [True, False, False]


def test_how_many_held_out_examples_a_share_takes() -> None:
    for share in (0.01, 0.05, 0.1, 0.07, 0.29, 0.5, 1 / 3):
        assert rank(least(share), share) == 1
        assert rank(least(share) - 1, share) == 0
        for m in (50, 99, 199, 1000):  # no more than the share promises
            assert rank(m, share) / (m + 1) <= share + 1e-9


# -- Samples, training and held-out examples --------------------------------------------------------------------------


def test_without_copying_z_is_normal_and_the_share_is_as_stated() -> None:
    n, m, share = 80, 60, 0.1
    train = normal(70, 3, 999).exp()  # one training set, as it is
    found = [scored(normal(n, 3, 2 * s).exp(), train, normal(m, 3, 2 * s + 1).exp(), share=share) for s in range(150)]
    z, copied = np.array(found).T
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * 150)
    assert abs(copied.mean() - rank(m, share) / (m + 1)) < 4 * copied.std() / np.sqrt(150)
    assert copied.std() / np.sqrt(150) < 0.005


def test_one_copy_in_ten_is_found() -> None:
    n = 1000
    train, heldout, samples = normal(n, 5, 1), normal(n, 5, 2), normal(n, 5, 3)
    samples[: n // 10] = train[: n // 10] + 1e-3 * normal(n // 10, 5, 4)
    z, copied = scored(samples, train, heldout)
    assert z < -2.5  # a tenth of the pairs: 0.05 sqrt(12 n^2 / (2 n + 1)) = 3.9 errors below the mean
    assert 0.1 <= copied < 0.13
    samples[n // 2 :] += 5  # half of the samples bad: the first score is misled, the second is not
    z, copied = scored(samples, train, heldout)
    assert z > 3
    assert copied >= 0.1


def test_the_training_set_itself_is_all_copies() -> None:
    train, heldout = normal(300, 4, 1), normal(200, 4, 2)
    z, copied = scored(train.flip(0), train, heldout)
    assert copied == 1
    assert z == pytest.approx(-(300 * 200 / 2) / _spread(300, 200, ties=300), rel=1e-9)


def _spread(n: int, m: int, ties: int) -> float:
    """Standard deviation of U with that many equal distances in one place."""
    total = n + m
    return float((n * m / 12 * (total + 1 - (ties**3 - ties) / (total * (total - 1)))) ** 0.5)


def test_held_out_examples_that_are_in_the_training_set_are_no_yardstick() -> None:
    """With duplicates between the splits nothing is nearer than the held-out examples, and the score says so."""
    train = normal(100, 3, 1)
    assert scored(train, train, train.flip(0)) == (0, 0)


def test_bad_samples_are_no_copies() -> None:
    z, copied = scored(normal(100, 3) + 10, normal(100, 3, 1), normal(100, 3, 2))
    assert z > 5
    assert copied == 0


def test_the_nearest_are_named_in_the_order_in_which_they_were_given() -> None:
    train = normal(50, 4)
    order = torch.randperm(50, generator=seeded(1))
    distance, index = nearest(train[order] + 1e-6, train)
    assert index.tolist() == order.tolist()
    torch.testing.assert_close(distance, torch.full((50,), 2e-6).double(), rtol=1e-6, atol=0)


def test_scores_say_what_they_depend_on() -> None:
    samples = banked(normal(120, 3, 1), "samples")
    train, heldout = banked(normal(90, 3, 2), "MNIST train", "train"), banked(normal(100, 3, 3), "MNIST test")
    z, share = copying_scores(samples, train, heldout, protocol="200 steps", weights="ema", generator=seeded())
    assert copying_score(samples, train, heldout, protocol="200 steps", weights="ema") == z
    assert copies_score(samples, train, heldout, protocol="200 steps", weights="ema") == share
    assert (z.name, share.name) == ("copying[net@1]", "copies[net@1]")
    assert (z.unit, z.stderr, z.n, z.split, z.weights) == ("standard errors", 1, 120, "test", "ema")
    assert share.stderr == pytest.approx((share.value * (1 - share.value) / 120) ** 0.5)
    who = "120 samples and 100 of MNIST test, nearest of 90 of MNIST train, features of net@1; "
    assert z.protocol == who + "z of the Mann-Whitney test, N(0, 1) without copying; 200 steps"
    assert share.protocol.startswith(who + "nearer than all but 0.01 of the held-out; 0.0099 without copying; ")


def test_what_does_not_compare_is_refused() -> None:
    x = normal(100, 3)
    samples, train, heldout = banked(x, "samples"), banked(x, "MNIST train", "train"), banked(x, "MNIST test")
    with pytest.raises(DataError, match="both of the split 'test'"):
        copying_scores(samples, banked(x, "MNIST"), heldout)
    with pytest.raises(DataError, match=r"net@2 \(MNIST train\)"):
        copying_scores(samples, banked(x, "MNIST train", "train", "net@2"), heldout)
    with pytest.raises(DataError, match="2 dimensions"):
        copying_scores(banked(x[:, :2], "samples"), train, heldout)
    with pytest.raises(DataError, match="MNIST train is empty"):
        copying_scores(samples, Bank("net@1", "MNIST train", "train"), heldout)
    with pytest.raises(DataError, match="98 examples of MNIST test are too few: it takes at least 99"):
        copying_scores(samples, train, banked(x[:98], "MNIST test"))
    with pytest.raises(ConfigError, match="share = 0"):
        copying_scores(samples, train, heldout, share=0)
    assert train.split == "train"  # and is left as it was
