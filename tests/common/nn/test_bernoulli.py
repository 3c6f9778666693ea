"""Mixtures of Bernoullis, on bits whose states can be counted."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError
from common.nn.bernoulli import BernoulliMixture

pytestmark = pytest.mark.usefixtures("double")


def states(dims: int) -> Tensor:
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * dims)


def random(components: int = 3, dims: int = 5, seed: int = 0) -> BernoulliMixture:
    """Unequal weights, means far from one half."""
    generator = torch.Generator().manual_seed(seed)
    log_pi = torch.randn(components, generator=generator).log_softmax(0)
    return BernoulliMixture(log_pi, 2 * torch.randn(components, dims, generator=generator))


def slow(model: BernoulliMixture, x: Tensor) -> float:
    total = 0.0
    for log_pi, logits in zip(model.log_pi, model.logits, strict=True):
        p = math.exp(log_pi)
        for bit, logit in zip(x, logits, strict=True):
            on = 1 / (1 + math.exp(-logit))
            p *= on if bit == 1 else 1 - on
        total += p
    return math.log(total)


def test_log_prob_is_the_formula_s_one_factor_at_a_time():
    model = random()
    for x, found in zip(states(5), model.log_prob(states(5)), strict=True):
        assert abs(float(found) - slow(model, x)) < 1e-12


@pytest.mark.parametrize("which", ["plain", "under noise", "around examples"])
def test_probabilities_of_all_states_sum_to_one(which):
    model = BernoulliMixture.around(states(5)[:7], 0.01) if which == "around examples" else random()
    model = model.with_noise(0.99) if which == "under noise" else model
    assert float(model.log_prob(states(5)).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_noise_is_one_more_term_and_costs_at_most_its_share():
    model, x = random(), states(5)
    noisy = model.with_noise(0.99)
    expected = (0.01 * model.log_prob(x).exp() + 0.99 / 32).log()
    assert torch.allclose(noisy.log_prob(x), expected, atol=1e-12)
    assert (noisy.log_prob(x) >= model.log_prob(x) - math.log(100)).all()
    assert len(model.log_pi) == 3  # the model itself is as it was


def test_around_counts_wrong_bits():
    stored, flip = states(4)[[3, 12]], 0.1
    for x, found in zip(states(4), BernoulliMixture.around(stored, flip).log_prob(states(4)), strict=True):
        wrong = (x != stored).sum(1)
        assert math.exp(found) == pytest.approx(float((flip**wrong * (1 - flip) ** (4 - wrong)).mean()))
    for impossible in (0.0, 0.5):
        with pytest.raises(ConfigError, match=r"between 0 and 0\.5"):
            BernoulliMixture.around(stored, impossible)


def test_samples_come_as_often_as_their_probabilities_say():
    model, n = random(dims=3), 40_000
    x = model.sample(n, generator=torch.Generator().manual_seed(1))
    found = torch.bincount((x @ torch.tensor([4.0, 2.0, 1.0])).long(), minlength=8) / n
    p = model.log_prob(states(3)).exp()
    assert ((found - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


def test_maximise_never_makes_the_data_less_likely():
    x = random(seed=5).sample(300, generator=torch.Generator().manual_seed(2))
    model = BernoulliMixture.random(4, 5, torch.Generator().manual_seed(3))

    def objective() -> float:
        p = model.logits.sigmoid()
        return float(model.log_prob(x).sum() + 0.5 * (p.log() + (1 - p).log()).sum())

    values = [objective()]
    for _ in range(25):
        model.maximise(x)
        values.append(objective())
        assert float(model.log_pi.exp().sum()) == pytest.approx(1)
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(values))
    assert values[-1] > values[0] + 10


def test_one_component_is_the_mean_with_a_count_added():
    x = states(4)[[1, 3, 3, 7, 15]]
    model = BernoulliMixture.random(1, 4, torch.Generator().manual_seed(0))
    model.maximise(x)
    assert torch.allclose(model.logits.sigmoid()[0], (x.sum(0) + 0.5) / 6)
