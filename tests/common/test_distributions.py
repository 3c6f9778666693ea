"""Log-densities against torch.distributions, and where it has no answer, against the limit."""

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from common.distributions import bernoulli_log_prob, normal_kl, normal_log_prob, standard_normal_log_prob


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    return torch.randn(5, 3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)


def normal(mean, log_var):
    return Independent(Normal(mean, (log_var / 2).exp()), 1)


def test_normal(drawn):
    x, parameter = drawn
    log_var = parameter.flip(0) * 3
    torch.testing.assert_close(normal_log_prob(x, parameter, log_var), normal(parameter, log_var).log_prob(x))
    zero = torch.zeros(4, dtype=torch.float64)
    torch.testing.assert_close(standard_normal_log_prob(x), normal(zero, zero).log_prob(x))


def test_normal_kl(drawn):
    mean, log_var = drawn
    zero = torch.zeros_like(mean)
    expected = kl_divergence(normal(mean, log_var.expand_as(mean)), normal(zero, zero))
    torch.testing.assert_close(normal_kl(mean, log_var), expected)


def test_bernoulli(drawn):
    logits, parameter = drawn
    x = (parameter > 0).double()
    torch.testing.assert_close(bernoulli_log_prob(x, logits), Independent(Bernoulli(logits=logits), 1).log_prob(x))


def test_bernoulli_in_the_tails_and_its_gradient():
    logits = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    right = bernoulli_log_prob(torch.tensor([[1.0, 0.0]]), logits)
    wrong = bernoulli_log_prob(torch.tensor([[0.0, 1.0]]), logits)
    assert right.item() == 0.0
    assert wrong.item() == -2000.0
    (gradient,) = torch.autograd.grad(wrong.sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[-1.0, 1.0]]))  # x - sigmoid(l)
