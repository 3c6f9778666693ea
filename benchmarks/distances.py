"""What the comparisons of sample distances share: two sets of features, as a network would give them."""

import torch
from torch import Tensor

from benchmarks.measure import Setting

EQUAL = 1e-6
"""What values may differ by, relative to the larger."""

Pair = tuple[Tensor, Tensor]


def two_sets(setting: Setting, n: int = 10_000, dims: int = 2048) -> Pair:
    """n features of samples and n of data, float64, not below zero and correlated as those of Inception are.

    256 directions carry most of the variance, and noise fills the others. The samples are a little off.
    """
    n, dims = setting.size(n, 200), setting.size(dims, 16)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(256, dims, generator=generator) / 16

    def features(shift: float) -> Tensor:
        signal = torch.randn(n, 256, generator=generator) @ directions
        noise = 0.3 * torch.randn(n, dims, generator=generator)
        return torch.relu(signal + noise + shift).double()

    return features(0.02), features(0.0)


def relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(abs(ours), abs(theirs))


def what(pair: Pair) -> str:
    samples, data = pair
    return f"the same features, n = {len(samples):,} against {len(data):,}, d = {samples.shape[1]:,}, float64"
