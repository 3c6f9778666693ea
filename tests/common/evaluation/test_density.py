"""Scores of densities whose values are known."""

import math

import pytest
import torch
from torch import nn

from common.data.continuous import Continuous
from common.evaluation.density import density_scores, log_probs

CPU = torch.device("cpu")


class UniformCodes(nn.Module):
    """Uniform on the cube before the logit: its density in logit space, by the logistic distribution's formula."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def log_prob(self, x):
        x = x.double()
        each = nn.functional.logsigmoid(x) + nn.functional.logsigmoid(-x) - math.log(1 - 2 * self.alpha)
        return each.flatten(1).sum(1)


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
def test_the_uniform_model_scores_the_logarithm_of_the_levels(alpha):
    data = Continuous("digits", alpha)
    scores, values = density_scores(UniformCodes(alpha), data, CPU)
    found = {score.name: score for score in scores}
    assert found["bits_per_dim"].value == pytest.approx(math.log2(17), abs=1e-4)
    assert found["bits_per_dim"].stderr < 1e-5
    x, _ = data.split("test")
    torch.testing.assert_close(values["log_density"], UniformCodes(alpha).log_prob(x))
    assert (found["log_density"].n, found["log_density_val"].n) == (300, 200)
    assert f"alpha = {alpha:g}" in found["log_density"].protocol
    scores, _ = density_scores(UniformCodes(alpha), data, CPU, val_examples=70)
    assert [score.n for score in scores] == [300, 300, 70, 70]


class Exact(nn.Module):
    def __init__(self, density, scale) -> None:
        super().__init__()
        self.density, self.scale = density, scale

    def log_prob(self, x):
        return self.density.log_prob(x / self.scale) - 2 * math.log(self.scale)


def test_the_distance_from_the_truth_is_zero_for_the_truth_and_positive_else():
    data = Continuous("ring8")
    for scale, check in ((1.0, lambda kl: abs(kl) < 1e-5), (1.3, lambda kl: kl > 0.5)):
        scores, _ = density_scores(Exact(data.density, scale), data, CPU)
        found = {score.name: score.value for score in scores}
        assert check(found["kl"])
    scores, _ = density_scores(Exact(data.density, 1.0), data, CPU)
    log_density = next(score for score in scores if score.name == "log_density")
    assert abs(log_density.value + data.density.entropy) < 4 * log_density.stderr


def test_many_examples_are_scored_in_evaluation_mode_in_order_and_without_a_graph():
    class Parity(nn.Module):
        def log_prob(self, x):
            assert not self.training
            return x[:, 0] * torch.ones(1, requires_grad=True)

    x = torch.arange(23.0)[:, None]
    values = log_probs(Parity().train(), x, CPU, batch_size=5)
    assert values.tolist() == x[:, 0].tolist()
    assert not values.requires_grad
    assert values.dtype == torch.float64
