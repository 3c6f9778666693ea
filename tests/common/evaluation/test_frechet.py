"""The Fréchet distance: closed forms, a slow reference, and the ways in which well-known code got it wrong."""

import hashlib

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation import frechet
from common.evaluation.features import Features, raw_pixels
from common.evaluation.frechet import Moments, frechet_distance, frechet_score, moments


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of(mean: Tensor, root: Tensor, n: int = 4000) -> Moments:
    """Moments of n points whose sample mean and covariance are exactly `mean` and root root^T."""
    d = len(mean)
    x = torch.randn(n, d, generator=seeded(1), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return Moments().add(x @ root.T + mean)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


# -- Moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1000], [1] * 40 + [960], [333, 333, 333, 1], [0, 999, 0, 1]])
def test_moments_do_not_depend_on_batches_or_order(sizes: list[int]) -> None:
    x = normal(1000, 7) * torch.logspace(-3, 3, 7, dtype=torch.float64) + 5
    found = Moments()
    for batch in torch.split(x[torch.randperm(1000, generator=seeded())], sizes):
        found.add(batch)
    assert found.n == 1000
    torch.testing.assert_close(found.mean, torch.from_numpy(x.numpy().mean(0)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.covariance, torch.from_numpy(np.cov(x.numpy().T)), rtol=1e-9, atol=1e-12)


def test_moments_of_float32_features_far_from_zero_are_exact() -> None:
    x = (normal(3000, 3) + 4096.0).float()  # sums of squares in float32 lose every digit of such a variance
    found = Moments()
    for batch in torch.split(x, 100):
        found.add(batch)
    torch.testing.assert_close(found.covariance, torch.from_numpy(np.cov(x.double().numpy().T)), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(3), "are \\(B, d\\)"),
        (torch.zeros(3, 4), "of 4 dimensions after features of 2"),
        (torch.tensor([[0.0, float("nan")]]), "not a finite number"),
    ],
)
def test_bad_features_are_refused(features: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Moments().add(torch.zeros(5, 2)).add(features)


# -- The distance -----------------------------------------------------------------------------------------------------


def test_a_set_is_at_no_distance_from_itself_even_where_features_never_fire() -> None:
    x = torch.relu(normal(500, 30) * 1e3 - 1e3)
    x[:, ::3] = 0  # dead features: zero eigenvalues, whose square roots must not add up
    assert frechet_distance(Moments().add(x), Moments().add(x.flip(0))) < 1e-8 * float(x.var(0).sum())


def test_commuting_gaussians_have_a_closed_form() -> None:
    s_a, s_b = torch.tensor([3.0, 1.0, 0.5, 2.0]).double(), torch.tensor([1.0, 4.0, 0.5, 0.0]).double()
    mean = torch.tensor([1.0, -2.0, 0.0, 0.5]).double()
    turn = torch.linalg.qr(normal(4, 4))[0]  # the same eigenvectors in both
    a, b = of(torch.zeros(4).double(), turn * s_a), of(turn @ mean, turn * s_b)
    expected = float(mean.square().sum() + (s_a - s_b).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_gaussians_that_do_not_commute_agree_with_the_matrix_root() -> None:
    a = Moments().add(normal(200, 12) @ normal(12, 12, 1))
    b = Moments().add(normal(300, 12, 2) @ normal(12, 12, 3) + 1)
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy()).real
    expected = float((a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace()) - 2 * root.trace()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_few_samples_look_worse_and_too_few_are_refused() -> None:
    d = 16
    far = Moments().add(normal(100_000, d, 9))
    found = [frechet_distance(Moments().add(normal(n, d)), far) for n in (20, 100, 1000, 10_000)]
    assert found == sorted(found, reverse=True)  # the same distribution all along
    assert found[0] > 20 * found[-1]
    for n in (1, 2, d - 1, d):
        with pytest.raises(DataError, match=f"{n} examples are too few .* in {d} dimensions"):
            frechet_distance(far, Moments().add(normal(n, d)))


def test_features_of_different_networks_do_not_compare() -> None:
    x = normal(50, 3)
    with pytest.raises(DataError, match="lenet-a do not compare with those of lenet-b"):
        frechet_distance(Moments("lenet-a").add(x), Moments("lenet-b").add(x))
    with pytest.raises(DataError, match="3 and of 2 dimensions"):
        frechet_distance(Moments().add(x), Moments().add(x[:, :2]))


# -- The score --------------------------------------------------------------------------------------------------------


SHAPE = (1, 2, 2)


def images(n: int, seed: int, shade: float = 128) -> Tensor:
    x = torch.randn(n, *SHAPE, generator=seeded(seed)) * 30 + shade
    return x.round().clamp(0, 255).to(torch.uint8)


def measured(samples: Tensor, reference: Tensor, features: Features | None = None, **more: object) -> frechet.Score:
    settings = {"split": "test", "generator": seeded(), **more}
    return frechet_score(features or raw_pixels(SHAPE), samples, reference, **settings)  # type: ignore[arg-type]


def test_a_score_says_what_it_depends_on() -> None:
    score = measured(images(400, 0), images(1000, 1), protocol="200 steps", weights="ema")
    assert score.name == "fd[raw-pixels]"
    assert (score.n, score.split, score.kind, score.weights) == (400, "test", "estimate", "ema")
    assert score.protocol == "400 samples against 1,000 images of test, features of raw-pixels; 200 steps"
    assert "fid" not in repr(score).lower()


def test_the_value_is_that_of_all_samples_however_they_are_cut() -> None:
    samples, reference = images(400, 0, 120), images(1000, 1)
    features = raw_pixels(SHAPE)
    expected = frechet_distance(moments(features, samples), moments(features, reference))
    for batch_size in (400, 7):
        frechet._reference.clear()
        assert measured(samples, reference, batch_size=batch_size).value == pytest.approx(expected, rel=1e-9)


def test_the_error_is_how_much_other_samples_would_change_it() -> None:
    reference = images(4000, 1)
    scores = [measured(images(300, seed, 110), reference) for seed in range(2, 42)]
    spread = float(np.std([s.value for s in scores], ddof=1))
    stated = float(np.mean([s.stderr for s in scores]))
    assert 0.75 < stated / spread < 1.35  # forty values tell a spread to one part in nine, a stated one to one in ten


def test_the_error_depends_on_the_generator_and_the_value_does_not() -> None:
    a, b, c = (measured(images(100, 0), images(500, 1), generator=seeded(s)) for s in (0, 0, 1))
    assert a == b
    assert a.value == c.value
    assert a.stderr != c.stderr
    with pytest.raises(ConfigError, match="resamples = 1"):
        measured(images(100, 0), images(500, 1), resamples=1)


class Counting:
    """Raw pixels by another name, counting the images it is shown."""

    def __init__(self, name: str) -> None:
        self.name, self.dims, self.seen = name, 4, 0

    def __call__(self, codes: Tensor) -> Tensor:
        self.seen += len(codes)
        return codes.flatten(1).double()


def test_the_reference_is_kept_by_network_and_content() -> None:
    samples, reference = images(100, 0), images(500, 1)
    a, b = Counting("a"), Counting("b")
    assert measured(samples, reference, a).value == measured(samples, reference.clone(), a).value
    assert a.seen == 700  # the second time only the samples
    measured(samples, reference, b)
    assert b.seen == 600  # another network sees it anew
    changed = reference.clone()
    changed[0, 0, 0, 0] ^= 1
    measured(samples, changed, a)
    assert a.seen == 1300  # and so is another content, by a single bit
    assert len({hashlib.sha256(x.numpy().tobytes()).hexdigest() for x in (reference, changed)}) == 2
