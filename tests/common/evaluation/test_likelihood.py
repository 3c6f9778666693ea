"""Likelihood estimates against closed forms."""

import math

import pytest
import torch

from common.errors import ConfigError
from common.evaluation.likelihood import importance_log_likelihood, log_mean_exp, mean_score


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_log_mean_exp_is_what_it_says_and_does_not_overflow():
    x = torch.tensor([[0.1, -2.0, 3.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(log_mean_exp(x, 1), x.exp().mean(1).log())
    torch.testing.assert_close(log_mean_exp(x + 5000, 1), x.exp().mean(1).log() + 5000)
    assert log_mean_exp(torch.tensor([-math.inf, 0.0]), 0) == pytest.approx(-math.log(2))


class Counting:
    """Log weights 0, 1, 2, ... in the order they are asked for: the answer is known however they are cut up."""

    def __init__(self, n: int) -> None:
        self.asked = torch.zeros(n, dtype=torch.int64)

    def __call__(self, x: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
        index = x[:, 0].long()
        log_w = (self.asked[index][None] + torch.arange(k)[:, None]).double()
        self.asked[index] += k
        return log_w + x[:, 1]


@pytest.mark.parametrize("samples_at_once", [1, 3, 7, 20, 1000])
def test_exactly_k_samples_are_used_however_they_are_cut(samples_at_once):
    n, k = 11, 20
    x = torch.stack([torch.arange(n), torch.linspace(-800, 800, n)], 1).double()
    weights = Counting(n)
    got = importance_log_likelihood(weights, x, k=k, generator=seeded(), samples_at_once=samples_at_once)
    expected = torch.logsumexp(torch.arange(k).double(), 0) - math.log(k) + x[:, 1]
    torch.testing.assert_close(got, expected)
    assert (weights.asked == k).all()  # k were asked for, k were drawn


def gaussian_log_weights(x: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    """h ~ N(0, 1), x|h ~ N(h, 1), so x ~ N(0, 2); the proposal is N(x/2, 1), wider than the posterior N(x/2, 1/2)."""
    eps = torch.randn((k, len(x)), generator=generator, dtype=torch.float64)
    h = x[:, 0] / 2 + eps
    log_p = -0.5 * h**2 - 0.5 * (x[:, 0] - h) ** 2 - math.log(2 * math.pi)
    return log_p + 0.5 * eps**2 + 0.5 * math.log(2 * math.pi)


def test_estimate_converges_to_the_known_likelihood_from_below():
    x = torch.randn((400, 1), generator=seeded(3), dtype=torch.float64) * math.sqrt(2)
    log_p = -(x[:, 0] ** 2) / 4 - 0.5 * math.log(4 * math.pi)
    gap = {
        k: importance_log_likelihood(gaussian_log_weights, x, k=k, generator=seeded()) - log_p for k in (1, 10, 2000)
    }
    means = {k: g.mean().item() for k, g in gap.items()}
    assert means[1] < means[10] < means[2000] < 0.01
    assert abs(means[2000]) < 0.002
    # the ELBO's gap is KL(q || posterior) = KL(N(0, 1) || N(0, 1/2)) = (2 - 1 - log 2) / 2
    stderr = gap[1].std().item() / 20
    assert means[1] == pytest.approx(-(1 - math.log(2)) / 2, abs=4 * stderr)


@pytest.mark.parametrize("k", [0, -3])
def test_no_samples_are_refused(k):
    with pytest.raises(ConfigError, match="k >= 1"):
        importance_log_likelihood(gaussian_log_weights, torch.zeros(2, 1), k=k, generator=seeded())


def test_empty_split_is_refused():
    with pytest.raises(ConfigError, match="empty"):
        importance_log_likelihood(gaussian_log_weights, torch.zeros(0, 1), k=3, generator=seeded())


def test_mean_score_is_over_examples():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    score = mean_score(values, "nll", unit="nats", kind="exact", split="test", protocol="toy")
    assert (score.value, score.n) == (3.0, 4)
    assert score.stderr == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3) / 2)
    with pytest.raises(ConfigError):
        mean_score(values[:0], "nll", unit="nats", kind="exact", split="test", protocol="toy")
