"""Log-densities of the distributions that many papers share, summed over the last dimension, in nats.

k samples of a batch, (k, B, D), meet a batch, (B, D), without a copy: the normals broadcast, and the Bernoulli's logits
may have leading dimensions that its value has not.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def normal_log_prob(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(x; mean, diag exp(log_var)), (..., D) -> (...)."""
    return -0.5 * (LOG_2PI + log_var + (x - mean).square() * torch.exp(-log_var)).sum(-1)


def standard_normal_log_prob(x: Tensor) -> Tensor:
    """log N(x; 0, I), (..., D) -> (...)."""
    return -0.5 * (LOG_2PI * x.shape[-1] + x.square().sum(-1))


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log Bernoulli(x; sigmoid(logits)), x (B, D) and logits (..., B, D) -> (..., B).

    Written as x.l - softplus(l), which is finite for every logit. For x strictly between 0 and 1 this is the
    cross-entropy (Kingma & Welling's use of grey levels as targets), which is not the log of a normalised density.
    """
    return torch.linalg.vecdot(logits, x) - F.softplus(logits).sum(-1)  # type: ignore[no-any-return]


def normal_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_var)) || N(0, I)), (..., D) -> (...); Kingma & Welling 2014, appendix B."""
    return -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1)
