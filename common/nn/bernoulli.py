"""Mixtures of Bernoullis: a distribution of bits that is known exactly, fitted in seconds, and easily sampled."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from common.errors import ConfigError


class BernoulliMixture(nn.Module):
    """p(x) = sum_k pi_k prod_d Bernoulli(x_d; p_kd), for x of D bits. Weights and logits of p are buffers.

    Args:
        log_pi: (K,) log-weights, whose exponentials sum to one.
        logits: (K, D) of p.
    """

    log_pi: Tensor
    logits: Tensor

    def __init__(self, log_pi: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_pi", log_pi)
        self.register_buffer("logits", logits)

    @classmethod
    def random(cls, components: int, dims: int, generator: torch.Generator) -> "BernoulliMixture":
        """Equal weights and means near one half: where expectation-maximisation begins."""
        logits = torch.randn(components, dims, generator=generator) / 10
        return cls(torch.full((components,), -math.log(components)), logits)

    @classmethod
    def around(cls, x_ND: Tensor, flip: float) -> "BernoulliMixture":
        """Equally weighted examples (N, D) of {0, 1}, each of their bits wrong with probability `flip`.

        Raises:
            ConfigError: flip is not between 0 and 1/2.
        """
        if not 0 < flip < 0.5:
            raise ConfigError(f"flip = {flip}: the probability of a wrong bit lies between 0 and 0.5.")
        logits = (2 * x_ND - 1) * math.log((1 - flip) / flip)
        return cls(torch.full((len(x_ND),), -math.log(len(x_ND))), logits)

    def with_noise(self, share: float) -> "BernoulliMixture":
        """(1 - share) p(x) + share 2^-D, the second term being white noise.

        Its log-probability is nowhere below log p(x) + log(1 - share), in any number of dimensions.
        """
        log_pi = torch.cat([self.log_pi + math.log(1 - share), torch.full_like(self.log_pi[:1], math.log(share))])
        return BernoulliMixture(log_pi, torch.cat([self.logits, torch.zeros_like(self.logits[:1])]))

    def log_zero(self) -> Tensor:
        """log pi_k p(0 | k): (K,) nats."""
        return self.log_pi - softplus(self.logits).sum(1)

    def log_prob(self, x_ND: Tensor) -> Tensor:
        """(N,) nats, float64, worked out in the type of x."""
        log_zero, found = self.log_zero(), []
        for x_BD in torch.split(x_ND, 500):
            found.append(torch.logsumexp(log_zero + x_BD @ self.logits.T, 1).double())
        return torch.cat(found)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """(n, D) bits."""
        k_n = torch.multinomial(self.log_pi.exp(), n, replacement=True, generator=generator)
        return torch.bernoulli(self.logits[k_n].sigmoid(), generator=generator)

    @torch.no_grad()
    def maximise(self, x_ND: Tensor) -> None:
        """A step of expectation-maximisation on (N, D) of {0, 1}.

        Half a count of either bit is added to each component's, which keeps logits finite. What never falls is
        therefore log p(x) summed over examples, plus half of log p_kd + log(1 - p_kd) summed over k and d.
        """
        count_K, ones_KD, log_zero = torch.zeros_like(self.log_pi), torch.zeros_like(self.logits), self.log_zero()
        for x_BD in torch.split(x_ND, 5000):
            r_BK = (log_zero + x_BD @ self.logits.T).softmax(
                1
            )  # how much each component is responsible for each example
            count_K, ones_KD = count_K + r_BK.sum(0), ones_KD + r_BK.T @ x_BD
        self.logits = ((ones_KD + 0.5) / (count_K[:, None] + 1)).logit()
        self.log_pi = (count_K / len(x_ND)).log()
